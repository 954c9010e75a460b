"""One call on its way, as both shells keep it: parts and news that nobody has read yet, and how it ended."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import attrs

from reliable.calling import OnProgress, unwrap
from reliable.errors import DeadlineExceeded, Outcome, PayloadError, QueueFull, RequestError
from reliable.payload import Codec, decode_reply
from reliable.protocol.events import CallFinished, CallProgress, Submit
from reliable.types import Frames

__all__ = ["NO_PART", "Nothing", "OpenCall", "carry_out_safely"]

_log = logging.getLogger("reliable.client")
_EMPTY: Frames = [b""]


class Nothing:
    """No value: told apart from every value that a handler may send."""


NO_PART = Nothing()


def carry_out_safely(what: str, function: Callable[..., object], *args: object) -> None:
    """Call a function of the user's; what it throws is logged, since the loop it is called from must go on."""
    try:
        function(*args)
    except Exception:
        _log.exception("%s failed", what)


@attrs.define(eq=False)
class OpenCall:
    """One call from its submission until its end was read.

    Only its pump writes to it, by ``take``; whoever waits for the call reads.
    """

    submit: Submit
    wake: Callable[[], None]
    """Called after each change, where the pump works: it must only tell somebody to look."""
    on_progress: OnProgress | None = None
    parts_max: int = 0
    """Parts to hold for a reader; 0 if nobody reads any."""
    parts: deque[Frames] = attrs.field(factory=deque)
    parts_seen: int = 0
    news: deque[Frames] = attrs.field(factory=deque)
    finished: CallFinished | None = None
    overrun: bool = False
    """It must be cancelled: its reader does not keep up."""

    @property
    def service(self) -> str:
        """The name of the service, for people."""
        return self.submit.service.decode("ascii", "backslashreplace")

    def take(self, effect: CallFinished | CallProgress) -> None:
        """Note what the engine says."""
        if isinstance(effect, CallProgress):
            if not effect.partial:
                if self.on_progress is None:
                    return
                self.news.append(effect.body)
            elif not self._take_part(effect.body):
                return
        elif self.finished is None:
            self.finished = self._overrun(effect) if self.overrun else effect
        self.wake()

    def _take_part(self, body: Frames) -> bool:
        self.parts_seen += 1
        if not self.parts_max or self.overrun:
            return False
        if len(self.parts) >= self.parts_max:
            self.overrun = True
            return False
        self.parts.append(body)
        return True

    def _overrun(self, effect: CallFinished) -> CallFinished:
        error = QueueFull(
            f"the reader of the stream is {self.parts_max} parts behind (Limits.stream_parts_max): it was cancelled",
            outcome=Outcome.UNKNOWN,
            service=self.service,
            call_id=self.submit.call_id,
        )
        if isinstance(effect.result, RequestError):
            error.attempts, error.elapsed_s = effect.result.attempts, effect.result.elapsed_s
            error.story, error.brokers = effect.result.story, effect.result.brokers
        return CallFinished(effect.call_id, error, Outcome.UNKNOWN)

    def expire(self) -> None:
        """End it without the engine, which should have done so by its deadline."""
        call_id = self.submit.call_id
        error = DeadlineExceeded("no end was heard of the call by its deadline", call_id=call_id)
        self.take(CallFinished(call_id, error, Outcome.UNKNOWN))

    def tell(self) -> None:
        """Give the news to the user's function; called without any lock."""
        while self.news and self.on_progress is not None:
            carry_out_safely("on_progress", self.on_progress, self.news.popleft())

    # --- the end ----------------------------------------------------------------------------------

    def frames(self) -> Frames:
        """The reply of a call that is over.

        Raises:
            RequestError: It has none.
        """
        assert self.finished is not None
        return unwrap(self.finished)

    def value(self, codec: Codec) -> object:
        """The same, decoded.

        Raises:
            PayloadError: It cannot be.
        """
        body = self.frames()
        if self.parts_seen and body == _EMPTY:
            raise PayloadError(
                f"the service answered in {self.parts_seen} parts, which stream() reads and call() does not"
            )
        return decode_reply(codec, body)

    # --- a stream ---------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether ``next_part`` can be called."""
        return bool(self.parts) or self.finished is not None

    def next_part(self, codec: Codec) -> object:
        """The next part of a stream, its last value, or ``NO_PART`` at its end. Not to be called again after the end.

        Raises:
            RequestError: The call failed, after all parts that had come.
            PayloadError: A part cannot be decoded.
        """
        if self.parts:
            return decode_reply(codec, self.parts.popleft())
        body = self.frames()
        if body != _EMPTY:
            return decode_reply(codec, body)
        if self.parts_seen:
            return NO_PART
        try:
            return decode_reply(codec, body)
        except PayloadError:
            # Nothing that this codec writes is empty: a stream without a single part.
            return NO_PART
