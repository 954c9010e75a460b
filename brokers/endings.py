"""How calls end, and what is kept of them afterwards.

Every call of our clients ends with one final answer and stays known until its deadline + grace, so that whoever asks
again gets the same answer. A plain request ends with a reply or in silence, and leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from brokers import answers
from brokers.records import DONE, HELD, QUEUED, Call, HandOver
from brokers.state import BrokerState
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import DeliveryKind

__all__ = ["Endings"]

_OK: Final = Status.OK
_OVERLOADED: Final = Status.OVERLOADED
_WITH_BODY: Final = frozenset({Status.OK, Status.HANDLER_ERROR})
_NOTHING: Final[Frames] = []
"""In place of the bodies of all calls that have ended; never filled."""
_OPEN_TO_NEWS: Final = frozenset({Status.EXPIRED, Status.CANCELLED, Status.WORKER_LOST})
"""Endings about which a late report of a worker can still say more."""


class Endings:
    """Ends calls, answers them, and keeps their records."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def finish(
        self, call: Call, status: Status, outcome: Outcome, body: Frames | None = None, *, by: HandOver | None = None
    ) -> None:
        """End a call that is in no queue, and answer it.

        Args:
            call: The call; its state is not DONE.
            status: How it ends.
            outcome: What is known of the work.
            body: Of a reply or handler error.
            by: The hand-over whose report ends it; it is released already.
        """
        state = self._state
        if call.ours and not call.quiet:
            retry_after_s = state.retry_after_s() if status is _OVERLOADED else 0.0
            self.answer(call, status, outcome, body or answers.NO_BODY, retry_after_s=retry_after_s)
        elif call.ours:
            state.counters.one_way_ended += 1
        elif status is _OK:
            state.outbox.append(answers.plain_reply(call, body or answers.NO_BODY, True))
        else:
            state.counters.unanswered += 1
        held, call.held = call.held, None
        call.state = DONE
        call.status = status
        call.outcome = outcome
        call.body = _NOTHING
        state.held_bytes -= call.weight
        if held is not None and held is not by:
            self.overdue(held)
        if call.others:
            self._stop(call.others)
            call.others = None
        if call.ours:
            self._remember(call, body)
        else:
            state.wheel.drop(call)
            if call.streamed:
                self._end_stream(call)

    def answer(self, call: Call, status: Status, outcome: Outcome, body: Frames, *, retry_after_s: float = 0.0) -> None:
        """Tell the newest attempt of a call of ours."""
        self._state.outbox.append(
            answers.about_call(call, self._state.life, status, outcome, body, retry_after_s=retry_after_s)
        )

    def _remember(self, call: Call, body: Frames | None) -> None:
        state = self._state
        if call.status in _WITH_BODY and not call.streamed:
            call.reply = body
        if call.status is _OVERLOADED:
            self._forget_refused(call)
            return
        for forgotten in state.calls.finish(call):
            state.wheel.drop(forgotten)
        if call.bucket < 0:
            state.wheel.set(call, call.deadline + state.config.grace_s)
        state.counters.replies_evicted = state.calls.evicted
        state.counters.calls_forgotten = state.calls.forgotten

    def _forget_refused(self, call: Call) -> None:
        """A call that we gave up without a run may be asked for again, but only by attempts that know of this."""
        state = self._state
        state.wheel.drop(call)
        state.calls.drop(call)
        self.fence(call.call_id, call.attempt, call.deadline)

    def fence(self, call_id: bytes, attempt: int, deadline: float) -> None:
        """Promise that no attempt up to this one will run."""
        state = self._state
        fence, forgotten = state.calls.fence(call_id, attempt, state.now)
        state.wheel.set(fence, max(deadline, state.now) + state.config.grace_s)
        if forgotten is not None:
            state.wheel.drop(forgotten)
        state.counters.fenced += 1
        state.counters.calls_forgotten = state.calls.forgotten

    def news(self, call: Call, status: Status, outcome: Outcome, body: Frames | None) -> None:
        """A worker reported the end of a call that had ended otherwise: whoever asks again gets the better answer."""
        known = self._state.calls.calls.get(call.call_id) is call
        if call.ours and known and call.status in _OPEN_TO_NEWS:
            call.status = status
            call.outcome = outcome
            call.reply = body
            self._state.calls.cache(call)

    def proven_unrun(self, call: Call) -> None:
        """One more hand-over of a call that has ended is proven not to have begun."""
        if call.status in _OPEN_TO_NEWS and call.outcome is Outcome.UNKNOWN:
            call.outcome = call.proven_outcome()

    def replay(self, call: Call) -> None:
        """Answer a finished call once more, from its record."""
        self._state.counters.replayed += 1
        if call.status not in _WITH_BODY:
            self.answer(call, call.status, call.outcome, answers.NO_BODY)
        elif call.reply is None:
            self.answer(call, Status.REPLY_EVICTED, call.outcome, answers.NO_BODY)
        else:
            self.answer(call, call.status, call.outcome, call.reply)

    def expire(self, call: Call) -> None:
        """The deadline of a call has passed; it is in no queue."""
        state = self._state
        status, outcome = Status.EXPIRED, call.proven_outcome()
        if call.state is QUEUED and outcome is Outcome.NOT_EXECUTED and state.services.unknown(call.service):
            status = Status.NO_SERVICE
            state.counters.no_service += 1
        state.counters.expired += 1
        self.finish(call, status, outcome)

    def due(self, call: Call) -> None:
        """The deadline of a call, or the end of its memory."""
        state = self._state
        if call.state is QUEUED:
            state.dequeue(call)
            self.expire(call)
            state.services.settle(call.service)
        elif call.state is HELD:
            self.expire(call)
        elif state.now < call.deadline + state.config.grace_s:
            state.wheel.set(call, call.deadline + state.config.grace_s)
        else:
            state.calls.drop(call)

    def overdue(self, hand_over: HandOver) -> None:
        """The call ended without this hand-over. Its slot stays taken until the worker reports, or for a time."""
        state = self._state
        worker = hand_over.worker
        if hand_over.limbo:
            state.limbo.pop(hand_over.token, None)
            hand_over.limbo = False
            state.late.add(hand_over)
            state.wheel.drop(hand_over)
        elif not worker.ours:
            state.wheel.set(hand_over, max(hand_over.call.deadline, state.now) + state.config.grace_s)
        else:
            hand_over.stopped = True
            state.control(worker, DeliveryKind.CANCEL, hand_over.token)
            if state.config.overdue_slot_s is None:
                state.wheel.drop(hand_over)
            else:
                state.wheel.set(hand_over, state.now + state.config.overdue_slot_s)

    def _stop(self, others: Iterable[HandOver]) -> None:
        """Tell our workers that still have a copy that nobody waits for it."""
        state = self._state
        for hand_over in others:
            worker = hand_over.worker
            if hand_over.token in worker.in_hand:
                self.overdue(hand_over)
            elif worker.ours and not hand_over.recalled and state.workers.get(worker.peer) is worker:
                hand_over.stopped = True
                state.control(worker, DeliveryKind.CANCEL, hand_over.token)

    # --- streams of plain clients ---

    def begin_stream(self, call: Call) -> None:
        """A partial reply to a plain client was sent."""
        self._state.streams.setdefault(call.answer_to, {})[call] = None

    def _end_stream(self, call: Call) -> None:
        streams = self._state.streams.get(call.answer_to)
        if streams is not None:
            streams.pop(call, None)
            if not streams:
                del self._state.streams[call.answer_to]
