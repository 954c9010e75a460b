"""A caller that sees everything a broker says about one call: parts, progress, and the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import attrs

from reliable.config import ClientConfig
from reliable.driver import Driver
from reliable.engine.client import ClientEngine
from reliable.errors import RequestError
from reliable.payload import MSGPACK, encode_call
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    Submit,
)
from reliable.sync.waiting import SelectorWait
from reliable.transport import LinkTable
from reliable.types import Frames
from tests.support.loopback import QUICK_CLIENT

__all__ = ["Told", "ask"]

_TURN_S_MAX = 0.2


@attrs.define
class Told:
    """What came about one call."""

    parts: list[Frames] = attrs.Factory(list)
    progress: list[Frames] = attrs.Factory(list)
    finished: CallFinished | None = None
    elapsed_s: float = 0.0

    @property
    def reply(self) -> Frames:
        """The body of the final answer."""
        assert self.finished is not None
        assert isinstance(self.finished.result, list), self.finished
        return self.finished.result

    @property
    def error(self) -> RequestError:
        """How it failed."""
        assert self.finished is not None
        assert isinstance(self.finished.result, RequestError), self.finished
        return self.finished.result


def ask(
    endpoint: str,
    service: str,
    *args: object,
    body: Frames | None = None,
    timeout: float = 8.0,
    wants_progress: bool = False,
    idempotent: bool | None = None,
    config: ClientConfig = QUICK_CLIENT,
    cancel_when: Callable[[Told], bool] = lambda _: False,
) -> Told:
    """Make one call and wait for its end.

    Args:
        args: Of a typed handler; ``body`` instead are frames.
        cancel_when: Asked after each turn; the call is cancelled when it says so.
    """
    told = Told()

    def perform(effect: ClientEffect) -> None:
        if isinstance(effect, CallProgress):
            (told.parts if effect.partial else told.progress).append(effect.body)
        elif isinstance(effect, CallFinished):
            told.finished = effect

    engine = ClientEngine([endpoint], config, client_id=os.urandom(16), jitter=lambda: 0.5)
    wait = SelectorWait()
    links = LinkTable(config.transport, wait, wait.wake, message_bytes_max=config.limits.message_bytes_max)
    driver: Driver[ClientEvent, ClientEffect] = Driver(engine, links, perform, time.monotonic)
    call_id, began = os.urandom(16), time.monotonic()
    submit = Submit(
        call_id=call_id,
        service=service.encode(),
        body=encode_call(MSGPACK, args, {}) if body is None else body,
        deadline=began + timeout,
        idempotent=idempotent,
        wants_progress=wants_progress,
    )
    try:
        driver.handle(submit)
        while told.finished is None:
            assert time.monotonic() < began + timeout + 2.0, "the call does not end"
            wait_s = driver.wait_s()
            for callback in wait.wait(_TURN_S_MAX if wait_s is None else min(wait_s, _TURN_S_MAX)):
                callback()
            driver.turn()
            if told.finished is None and cancel_when(told):
                driver.handle(CancelCall(call_id))
        told.elapsed_s = time.monotonic() - began
        # Not the abandoned links' business any more: what was said last may still leave.
        driver.handle(AbandonAll())
    finally:
        links.shutdown()
        wait.close()
    return told
