"""What workers say about requests: replies, parts of replies, and the reports of our own workers.

A reply counts only under a token that this very worker holds, or held and lost to a timeout. For a foreign worker the
token is the whole address and only RESULT and PARTIAL exist; for ours the address also says what is reported, and the
command of MDP that carries it does not matter.
"""

from __future__ import annotations

from typing import Final

from brokers import answers
from brokers.delivery import Dispatcher
from brokers.endings import Endings
from brokers.peers import Worker
from brokers.records import FRAME_BYTES, Call, CallState, HandOver, size_of, weight
from brokers.state import BrokerState
from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import (
    CONTROL_TOKEN,
    RESULT_BYTES,
    TOKEN_BYTES,
    CallFlag,
    DeliveryKind,
    GiveBackReason,
    Report,
    ReportKind,
)
from reliable.wire.mdp import Version, WorkerReply

__all__ = ["ReplyDesk"]

_WANTS_PROGRESS: Final = int(CallFlag.WANTS_PROGRESS)
_OK: Final = Status.OK
_EXECUTED: Final = Outcome.EXECUTED
_NO_REPLY: Final = {int(status): status for status in (Status.TOO_LARGE, Status.REPLY_EVICTED)}
"""Details of an ERROR that is not the handler's: it ran well, and the worker has no reply to give."""


class ReplyDesk:
    """Takes in what registered workers reply."""

    def __init__(self, state: BrokerState, endings: Endings, dispatcher: Dispatcher) -> None:
        self._state = state
        self._endings = endings
        self._dispatcher = dispatcher

    def waited_for(self, worker: Worker, address: bytes) -> HandOver | None:
        """What a final reply to this address ends, if it is a plain result. None: that is for ``receive`` to judge."""
        if worker.ours:
            if address[TOKEN_BYTES:] != RESULT_BYTES:
                return None
            address = address[:TOKEN_BYTES]
        hand_over = worker.in_hand.get(address)
        return hand_over if hand_over is not None and hand_over.call.held is hand_over else None

    def result(self, worker: Worker, hand_over: HandOver, body: Frames) -> None:
        """The result that ``waited_for`` found."""
        self._dispatcher.release(hand_over)
        self._end(hand_over.call, hand_over, _OK, _EXECUTED, body)
        self._dispatcher.serve(worker)

    def receive(self, worker: Worker, command: WorkerReply) -> bool:
        """A reply of a registered worker.

        Returns:
            False if the worker may not say that: the state table then has it disconnected.
        """
        if worker.ours:
            try:
                report = Report.decode(command.address)
            except RemoteProtocolError:
                self._state.counters.dropped_invalid += 1
                return False
        else:
            report = Report(command.address, ReportKind.RESULT if command.final else ReportKind.PARTIAL)
        hand_over = worker.in_hand.get(report.token)
        if hand_over is None:
            if worker.ours and report.token == CONTROL_TOKEN and report.kind is ReportKind.CREDIT:
                self._credit(worker, report.detail)
                return True
            hand_over = self._state.late.get(report.token, worker)
            if hand_over is None:
                if report.kind.final and report.token in worker.closed_tokens:
                    worker.closed_tokens.discard(report.token)
                    self._state.counters.repeated_reports += 1
                    return True
                return False
        if report.kind.final:
            self._final(worker, hand_over, report, command.body)
        elif report.kind is not ReportKind.CREDIT:
            self._news(hand_over, report.kind, command.body)
        return True

    def _credit(self, worker: Worker, credit: int) -> None:
        """A worker says how much it takes from now on; 0 while it drains."""
        state = self._state
        worker.credit = min(credit, state.config.credit_max)
        state.control(worker, DeliveryKind.CREDIT_ACK, CONTROL_TOKEN)
        self._dispatcher.serve(worker)

    # --- final reports ---

    def _final(self, worker: Worker, hand_over: HandOver, report: Report, body: Frames) -> None:
        call = hand_over.call
        self._dispatcher.release(hand_over)
        if report.kind is ReportKind.GIVE_BACK:
            self._given_back(worker, hand_over, report.detail)
        else:
            status, outcome = Status.OK, Outcome.EXECUTED
            if report.kind is ReportKind.ERROR:
                status = _NO_REPLY.get(report.detail, Status.HANDLER_ERROR)
                if status is not Status.HANDLER_ERROR:
                    body = body[1:] or answers.NO_BODY
                if report.detail == Status.WORKER_LOST:
                    outcome = Outcome.UNKNOWN
                elif not report.executed:
                    # One that says so after it said "started" has proven nothing, but it claims no run either.
                    call.unproven -= not hand_over.started
                    outcome = call.proven_outcome()
            if hand_over.current:
                self._end(call, hand_over, status, outcome, body)
            else:
                self._late(call, hand_over, status, outcome, body)
        self._dispatcher.serve(worker)

    def _end(self, call: Call, hand_over: HandOver, status: Status, outcome: Outcome, body: Frames) -> None:
        """A reply ends a call, which is in no queue."""
        state = self._state
        state.counters.replies += 1
        if status is not _OK and status is Status.HANDLER_ERROR:
            state.counters.handler_errors += 1
        if call.collected:
            body = call.collected + body
        if call.broken_stream:
            status, body = Status.REPLY_EVICTED, answers.NO_BODY
        elif call.peer.hello is not None and call.peer.too_large(size_of(body)):
            state.counters.too_large += 1
            status, body = Status.TOO_LARGE, answers.NO_BODY
        self._endings.finish(call, status, outcome, body, by=hand_over)

    def _late(self, call: Call, hand_over: HandOver, status: Status, outcome: Outcome, body: Frames) -> None:
        """The reply of a hand-over that was given up. It still answers a call that waits for another one."""
        state = self._state
        state.counters.late_replies += 1
        if hand_over.partials:
            # Its parts were forwarded to nobody, or the call goes on with the parts of another: no whole reply.
            return
        if status is not _OK and call.state is not CallState.DONE and call.idempotent and call.may_repeat():
            # It may have ended only because it was told that the call is another worker's now, whose end will count.
            return
        if call.state is CallState.DONE:
            self._endings.news(call, status, outcome, body)
        elif not call.streamed:
            if call.state is CallState.QUEUED:
                state.dequeue(call)
                self._end(call, hand_over, status, outcome, body)
                state.services.settle(call.service)
            else:
                self._drop_collected(call)
                self._end(call, hand_over, status, outcome, body)

    @staticmethod
    def _drop_collected(call: Call) -> None:
        """Parts that were collected from another worker do not belong to this reply."""
        call.collected = None
        call.broken_stream = False

    def _given_back(self, worker: Worker, hand_over: HandOver, detail: int) -> None:
        """A worker of ours did not start it. One that says so after it said "started" has proven nothing."""
        state = self._state
        call = hand_over.call
        state.counters.given_back += 1
        if detail == GiveBackReason.DRAINING:
            worker.credit = 0
        elif detail == GiveBackReason.NO_SUCH_SERVICE:
            self._dispatcher.withdraw(worker, call.service.name)
        elif detail not in (GiveBackReason.EXPIRED, GiveBackReason.CANCELLED):
            worker.held_back = True
        if hand_over.started:
            if hand_over.current:
                self._dispatcher.abandon(hand_over)
        elif detail == GiveBackReason.EXPIRED and hand_over.current:
            call.unproven -= 1
            call.held = None
            self._endings.expire(call)
        else:
            self._dispatcher.undo(hand_over, delivered=True)

    # --- reports on the way ---

    def _news(self, hand_over: HandOver, kind: ReportKind, body: Frames) -> None:
        """Started, progress, or a part of the reply: it runs."""
        call = hand_over.call
        if not hand_over.started:
            hand_over.started = True
            if hand_over.current:
                self._state.wheel.drop(hand_over)
        if call.quiet:
            return
        if kind is ReportKind.PARTIAL:
            hand_over.partials += 1
            if hand_over.current and not call.broken_stream:
                self._partial(call, body)
        elif hand_over.current and call.ours and call.flags & _WANTS_PROGRESS:
            status = Status.PROGRESS if kind is ReportKind.PROGRESS else Status.STARTED
            self._endings.answer(call, status, Outcome.UNKNOWN, body)

    def _partial(self, call: Call, body: Frames) -> None:
        """Forward a part; MDP 0.1 has no word for it, so for its plain clients the parts are gathered up to a limit."""
        state = self._state
        size = weight(body) + FRAME_BYTES
        if call.peer.too_large(size):
            call.broken_stream = True
        elif call.ours:
            call.streamed = True
            state.counters.partials += 1
            self._endings.answer(call, Status.PARTIAL, Outcome.UNKNOWN, body)
        elif call.version is Version.MDP02:
            call.streamed = True
            state.counters.partials += 1
            state.outbox.append(answers.plain_reply(call, body, False))
            self._endings.begin_stream(call)
        elif call.collected_bytes + size > state.config.collected_bytes_max:
            call.broken_stream = True
            call.collected = None
        else:
            call.collected_bytes += size
            if call.collected is None:
                call.collected = []
            call.collected += body
