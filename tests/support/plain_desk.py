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
    CancelCall,
    ClientEffect,
    ClientEvent,
    CloseLink,
    LinkClosed,
    LinkEnd,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    Submit,
    Unsent,
)
from reliable.types import Frames

__all__ = ["PlainDesk", "ccf", "name_id", "shown"]

_CALL_ID_BYTES = 16


def name_id(name: str) -> bytes:
    """A call id that a trace can show."""
    return name.encode().ljust(_CALL_ID_BYTES, b".")


def ccf(name: str, attempt: int = 1) -> bytes:
    """The control frame of a call's attempt in freelance."""
    return name_id(name) + attempt.to_bytes(4)


def shown(frames: Frames) -> str:
    """Frames as one word: ``-`` is an empty frame, ``c#2`` the control frame of attempt 2 of call c,
    ``<01>`` a frame that cannot be printed."""
    return "|".join(_word(frame) for frame in frames)


def _word(frame: bytes) -> str:
    if len(frame) == _CALL_ID_BYTES + 4:
        return f"{_name(frame[:_CALL_ID_BYTES])}#{int.from_bytes(frame[_CALL_ID_BYTES:])}"
    text = frame.decode("latin-1")
    return (text if text.isprintable() else f"<{frame.hex()}>") or "-"


def _name(call_id: bytes) -> str:
    return call_id.rstrip(b".").decode()


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
            name = _name(effect.call_id)
            if isinstance(effect.result, RequestError):
                assert effect.result.outcome is effect.outcome, "the error says something else than the effect"
                return f"end {name} {type(effect.result).__name__} {effect.outcome.name}"
            return f"end {name} {shown(effect.result)}"
        case CallProgress():
            return f"{'partial' if effect.partial else 'progress'} {_name(effect.call_id)} {shown(effect.body)}"


class PlainDesk:
    """The engine, the time, and the effects that came out and were not looked at yet."""

    def __init__(
        self,
        *servers: str,
        dialect: str | Dialect = Dialect.REQ,
        config: ClientConfig | None = None,
        u: float = 0.5,
        observer: list[object] | None = None,
        correlate: bool = False,
    ) -> None:
        self.now = 100.0
        config = attrs.evolve(config or ClientConfig(), dialect=dialect, correlate=correlate)
        kind: type[PlainEngine | FreelanceEngine] = (
            FreelanceEngine if config.dialect is Dialect.FREELANCE else PlainEngine
        )
        self.engine = kind(
            servers or ("a",),
            config,
            client_id=b"client-instance!",
            jitter=lambda: u,
            observer=observer.append if observer is not None else None,
        )
        self.ended: dict[str, CallFinished] = {}
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
                call_id=name_id(name),
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

    def close(self, link: int, end: LinkEnd = LinkEnd.LOST) -> None:
        """The link breaks or never comes up."""
        self.feed(LinkClosed(link, end))

    def receive(self, link: int, *frames: bytes) -> None:
        """A message comes."""
        self.feed(Received(link, list(frames)))

    def unsent(self, link: int, name: str = "c", attempt: int = 1) -> None:
        """The socket did not take an attempt."""
        self.feed(Unsent(link, (name_id(name), attempt)))

    def cancel(self, name: str = "c") -> None:
        """The user gives up."""
        self.feed(CancelCall(name_id(name)))

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
                name = _name(effect.call_id)
                assert name not in self.ended, "a call ended twice"
                self.ended[name] = effect
            self._lines.append(describe(effect))
        due = self.engine.next_deadline()
        assert due is None or due > self.now, "timers() left something due"
