"""A client engine of a plain dialect on a desk: events in by hand, effects out as lines that a test can compare."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reliable.config import ClientConfig, Dialect
from reliable.engine.plain import PlainEngine
from reliable.engine.plain_freelance import FreelanceEngine
from reliable.errors import RequestError
from reliable.protocol.events import (
    CallFinished,
    CallProgress,
    ClientEffect,
    CloseLink,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    Submit,
)
from reliable.types import Frames
from tests.support.engine_desk import EngineDesk, call_id, name_of

__all__ = ["PlainDesk", "ccf", "shown"]

_CALL_ID_BYTES = 16


def ccf(name: str, attempt: int = 1) -> bytes:
    """The control frame of a call's attempt in freelance."""
    return call_id(name) + attempt.to_bytes(4)


def shown(frames: Frames) -> str:
    """Frames as one word: ``-`` is an empty frame, ``c#2`` the control frame of attempt 2 of call c,
    ``<01>`` a frame that cannot be printed."""
    return "|".join(_word(frame) for frame in frames)


def _word(frame: bytes) -> str:
    if len(frame) == _CALL_ID_BYTES + 4:
        return f"{name_of(frame[:_CALL_ID_BYTES])}#{int.from_bytes(frame[_CALL_ID_BYTES:])}"
    text = frame.decode("latin-1")
    return (text if text.isprintable() else f"<{frame.hex()}>") or "-"


def describe(effect: ClientEffect) -> str:
    """One effect as one line."""
    match effect:
        case OpenLink():
            return f"open {effect.link} {effect.address}"
        case CloseLink():
            return f"close {effect.link}" + (" linger" if effect.linger else "")
        case Send():
            return f"send {effect.link} {shown(effect.frames)}"
        case CallFinished():
            name = name_of(effect.call_id)
            if isinstance(effect.result, RequestError):
                assert effect.result.outcome is effect.outcome, "the error says something else than the effect"
                return f"end {name} {type(effect.result).__name__} {effect.outcome.name}"
            return f"end {name} {shown(effect.result)}"
        case CallProgress():
            return f"{'partial' if effect.partial else 'progress'} {name_of(effect.call_id)} {shown(effect.body)}"


class PlainDesk(EngineDesk[PlainEngine | FreelanceEngine]):
    """The client of servers and brokers that know nothing of ours."""

    def __init__(
        self,
        *servers: str,
        dialect: str | Dialect = Dialect.REQ,
        config: ClientConfig | None = None,
        u: float = 0.5,
        observer: list[object] | None = None,
        correlate: bool = False,
    ) -> None:
        config = attrs.evolve(config or ClientConfig(), dialect=dialect, correlate=correlate)
        kind: type[PlainEngine | FreelanceEngine] = (
            FreelanceEngine if config.dialect is Dialect.FREELANCE else PlainEngine
        )
        engine = kind(
            servers or ("a",),
            config,
            client_id=b"client-instance!",
            jitter=lambda: u,
            observer=observer.append if observer is not None else None,
        )
        super().__init__(engine, describe)

    def submit(
        self,
        name: str = "c",
        *,
        timeout: float | None = 30.0,
        idempotent: bool | None = None,
        body: Sequence[bytes] | None = None,
        service: bytes = b"echo",
        one_way: bool = False,
    ) -> None:
        """The user calls; the body is the name unless something else is said."""
        self.feed(
            Submit(
                call_id=call_id(name),
                service=service,
                body=[name.encode()] if body is None else list(body),
                deadline=None if timeout is None else self.now + timeout,
                idempotent=idempotent,
                one_way=one_way,
            )
        )

    def open(self, *links: int) -> None:
        """Links open."""
        for link in links:
            self.feed(LinkOpened(link))

    def receive(self, link: int, *frames: bytes) -> None:
        """A message comes."""
        self.feed(Received(link, list(frames)))
