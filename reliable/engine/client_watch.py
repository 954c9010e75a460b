"""What a client engine tells its observer: one observation per decision, made only if somebody listens."""

from __future__ import annotations

from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BreakerChanged,
    CallEnded,
    RetryScheduled,
)
from reliable.errors import RequestError
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import Answered, Asked, CallEvent, CallState, Waiting
from reliable.protocol.call_facts import Call
from reliable.types import Observer
from reliable.wire.extension import CallKind

__all__ = ["ClientWatch"]


class ClientWatch:
    """The observer, or nobody.

    Args:
        observer: Gets the observations.
    """

    def __init__(self, observer: Observer | None) -> None:
        self.observer = observer

    def saw(self, observation: object) -> None:
        """Something happened that is not worth a method."""
        if self.observer is not None:
            self.observer(observation)

    def stepped(self, call: Call, old: CallState, new: CallState, event: CallEvent, now: float) -> None:
        """The machine of a call took a step."""
        if self.observer is None:
            return
        past = new.past
        if isinstance(old, Asked) and isinstance(new, Waiting):
            status = event.answer.status if isinstance(event, Answered) else None
            reason = past.story[-1][1] if past.story else ""
            self.observer(AttemptEnded(call.call_id, old.past.attempts, old.address, status, past.outcome, reason))
            if now < new.not_before < float("inf"):
                self.observer(RetryScheduled(call.call_id, past.attempts + 1, new.not_before - now))
        if isinstance(new, Asked) and past.attempts != old.past.attempts:
            attach = new.kind is CallKind.ATTACH
            self.observer(AttemptStarted(call.call_id, past.attempts, new.address, attach))

    def ended(self, call: Call, ended: Ended, now: float) -> None:
        """A call is over."""
        if self.observer is not None:
            name = type(ended.result).__name__ if isinstance(ended.result, RequestError) else ""
            elapsed_s = now - call.started
            self.observer(CallEnded(call.call_id, call.service, ended.outcome, name, ended.past.attempts, elapsed_s))

    def breaker(self, address: str, old: str, new: str) -> None:
        """The breaker of a broker is in another state."""
        if self.observer is not None:
            self.observer(BreakerChanged(address, old, new))
