"""What the desks of all client engines have: a clock that is moved by hand, events in, effects out as short lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reliable.engine.base import Engine
from reliable.errors import RequestError
from reliable.protocol.events import (
    CallFinished,
    CancelCall,
    ClientEffect,
    ClientEvent,
    LinkClosed,
    LinkEnd,
    Send,
    Unsent,
)

__all__ = ["EngineDesk", "call_id", "name_of"]

EngineT = TypeVar("EngineT", bound=Engine[ClientEvent, ClientEffect])


def call_id(name: str) -> bytes:
    """16 bytes that a trace can show."""
    return name.encode().ljust(16, b".")


def name_of(call_id: bytes) -> str:
    """The name behind such an id."""
    return call_id.rstrip(b".").decode()


class EngineDesk(Generic[EngineT]):
    """The engine, the time, and the effects that came out and were not looked at yet.

    Args:
        engine: Which one.
        describe: One effect as one line.
    """

    def __init__(self, engine: EngineT, describe: Callable[[ClientEffect], str]) -> None:
        self.now = 100.0
        self.engine = engine
        self.ended: dict[str, CallFinished] = {}
        self.frames: list[Send] = []
        """Everything that was sent."""
        self._describe = describe
        self._lines: list[str] = []

    def feed(self, *events: ClientEvent) -> None:
        """Events that a shell reads in one go: handle each, then timers, then effects."""
        for event in events:
            self.engine.handle(event, self.now)
        self.engine.timers(self.now)
        self._collect()

    def trace(self) -> list[str]:
        """The effects since the last look."""
        lines, self._lines = self._lines, []
        return lines

    def close(self, link: int, end: LinkEnd = LinkEnd.LOST) -> None:
        """The link breaks or never comes up."""
        self.feed(LinkClosed(link, end))

    def unsent(self, link: int, name: str = "c", attempt: int = 1) -> None:
        """The socket did not take an attempt."""
        self.feed(Unsent(link, (call_id(name), attempt)))

    def cancel(self, name: str = "c") -> None:
        """The user gives up."""
        self.feed(CancelCall(call_id(name)))

    def sleep(self, seconds: float) -> None:
        """Time goes on; timers ring when they are due, not before."""
        until = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= until:
            assert due > self.now, "a timer is due that timers() left"
            self.now = due
            self.engine.timers(self.now)
            self._collect()
        self.now = until
        self.engine.timers(self.now)
        self._collect()

    def error(self, name: str = "c") -> RequestError:
        """How a call failed."""
        result = self.ended[name].result
        assert isinstance(result, RequestError)
        return result

    def _collect(self) -> None:
        for effect in self.engine.effects():
            if isinstance(effect, CallFinished):
                name = name_of(effect.call_id)
                assert name not in self.ended, "a call ended twice"
                self.ended[name] = effect
            if isinstance(effect, Send):
                self.frames.append(effect)
            self._lines.append(self._describe(effect))
        due = self.engine.next_deadline()
        assert due is None or due > self.now, "timers() left something due"
