"""Mistakes in the Majordomo broker, and in how its shell uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from brokers import clients
from brokers.clients import ClientDesk
from brokers.delivery import Dispatcher
from brokers.endings import Endings
from brokers.leaving import Leaving
from brokers.majordomo import MajordomoEngine
from brokers.peers import Tombstones, Worker
from brokers.records import Call, CallState, CallTable, HandOver, LateTokens
from brokers.replies import ReplyDesk
from brokers.services import Service
from brokers.state import BrokerState
from brokers.wheel import Timed, Wheel
from brokers.workers import WorkerDesk
from chaos.planted.values import Change
from chaos.sim.actors import BrokerActor
from chaos.sim.network import ServerSocket
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag, DeliveryKind, Report, ReportKind
from reliable.wire.mdp import WorkerReply

__all__ = [
    "any_reply_counts",
    "broker_trusts_deadlines_for_an_hour",
    "busy_never_expire",
    "cancel_kept",
    "credit_kept",
    "ended_calls_still_counted",
    "every_end_not_executed",
    "expiry_stops_early",
    "give_back_counts_as_lost",
    "hedges_of_vetoed_services",
    "late_reply_refused",
    "leaves_with_work_in_hand",
    "lost_counts_as_executed",
    "no_answer_to_the_new_address",
    "no_dispatch_deadline",
    "no_fence",
    "no_heartbeats",
    "no_horizon",
    "no_limbo",
    "no_queue_bound",
    "no_tombstones",
    "one_message_per_wake_up",
    "one_way_answered_twice",
    "own_stall_blamed_on_others",
    "record_forgotten_with_its_client",
    "requeue_at_the_back",
    "revived_workers_get_nothing",
    "streams_begin_anew",
    "wrong_reply_replayed",
]


def one_message_per_wake_up() -> list[Change]:
    """The shell takes one message each time it is woken, and goes to sleep although more are there."""
    whole = BrokerActor._read

    def _read(self: BrokerActor, engine: MajordomoEngine, socket: ServerSocket, now: float) -> None:
        rest = list(socket.inbox)[1:]
        while len(socket.inbox) > 1:
            socket.inbox.pop()
        whole(self, engine, socket, now)
        socket.inbox.extend(rest)

    return [Change(BrokerActor, "_read", _read)]


def own_stall_blamed_on_others() -> list[Change]:
    """After a stall the timers run first, and the silence that the broker itself caused counts against the workers."""

    def turn(self: BrokerActor) -> None:
        engine, socket = self.engine, self._socket
        if not self.running or engine is None or socket is None:
            return
        now = self.now()
        self.stood_still_s = None
        engine.timers(now)
        self._read(engine, socket, now)
        self._flush(engine, socket, now)
        engine.timers(now)
        self._flush(engine, socket, now)
        self.rest(engine, now)

    return [Change(BrokerActor, "turn", turn)]


def busy_never_expire() -> list[Change]:
    """Who has something in hand is never judged by its silence."""
    judge = WorkerDesk.watch_due

    def watch_due(self: WorkerDesk, worker: Worker) -> None:
        if worker.in_hand:
            self._state.wheel.set(worker.watch, self._state.now + 1.0)
        else:
            judge(self, worker)

    return [Change(WorkerDesk, "watch_due", watch_due)]


def expiry_stops_early() -> list[Change]:
    """Of the deadlines that are due at once only the first is carried out; the others are never looked at again."""
    whole = Wheel.due

    def due(self: Wheel, now: float) -> Iterator[Timed]:
        for entry in whole(self, now):
            yield entry
            return

    return [Change(Wheel, "due", due)]


def any_reply_counts() -> list[Change]:
    """A reply is taken for the one that is waited for, whatever token it carries."""
    checked = ReplyDesk.receive

    def receive(self: ReplyDesk, worker: Worker, command: WorkerReply) -> bool:
        if worker.ours and worker.in_hand:
            report = Report.decode(command.address)
            if report.kind is ReportKind.RESULT and report.token not in worker.in_hand:
                self._final(worker, next(iter(worker.in_hand.values())), report, command.body)
                return True
        return checked(self, worker, command)

    return [Change(ReplyDesk, "receive", receive)]


def late_reply_refused() -> list[Change]:
    """The reply of a worker that was given up is an offence."""

    def get(_self: LateTokens, _token: bytes, _worker: Worker) -> HandOver | None:
        return None

    return [Change(LateTokens, "get", get)]


def credit_kept() -> list[Change]:
    """The slot of a request that was answered is not free again."""

    def release(self: Dispatcher, hand_over: HandOver) -> None:
        self._state.wheel.drop(hand_over)

    return [Change(Dispatcher, "release", release)]


def give_back_counts_as_lost() -> list[Change]:
    """What a worker gives back unstarted is treated as if it might have run."""

    def _given_back(self: ReplyDesk, _worker: Worker, hand_over: HandOver, _detail: int) -> None:
        if hand_over.current:
            self._dispatcher.abandon(hand_over)

    return [Change(ReplyDesk, "_given_back", _given_back)]


def requeue_at_the_back() -> list[Change]:
    """What comes back from a lost worker waits behind everybody."""

    def requeue(self: Dispatcher, call: Call) -> None:
        call.collected = None
        self._state.enqueue(call)
        self._serve_service(call.service)

    return [Change(Dispatcher, "requeue", requeue)]


def no_dispatch_deadline() -> list[Change]:
    """A worker that lives and never starts a request may keep it."""

    def _not_started(self: WorkerDesk, hand_over: HandOver) -> None:
        self._state.wheel.set(hand_over, self._state.now + 60.0)

    return [Change(WorkerDesk, "_not_started", _not_started)]


def no_limbo() -> list[Change]:
    """A worker whose link broke is dead at once."""

    def lost(self: Dispatcher, hand_over: HandOver) -> None:
        self._state.wheel.drop(hand_over)
        if hand_over.current:
            self.abandon(hand_over)
        else:
            self._state.late.add(hand_over)

    return [Change(Dispatcher, "lost", lost)]


def lost_counts_as_executed() -> list[Change]:
    """A call whose worker was lost is said to have been executed."""

    def _end_lost(self: Dispatcher, call: Call) -> None:
        self._endings.finish(call, Status.WORKER_LOST, Outcome.EXECUTED)

    return [Change(Dispatcher, "_end_lost", _end_lost)]


def streams_begin_anew() -> list[Change]:
    """A call is repeated although a part of its reply was passed on."""

    def _repeatable(self: Dispatcher, call: Call) -> bool:
        return call.idempotent and call.may_repeat() and not self._state.stopped

    return [Change(Dispatcher, "_repeatable", _repeatable)]


def hedges_of_vetoed_services() -> list[Change]:
    """The caller's word that work may run twice goes before the service's that it must not."""
    checked = Dispatcher._may_run

    def _may_run(self: Dispatcher, call: Call, worker: Worker) -> bool:
        call.flags &= ~int(CallFlag.HEDGE)
        return checked(self, call, worker)

    return [Change(Dispatcher, "_may_run", _may_run)]


def no_tombstones() -> list[Change]:
    """Nobody remembers whom it told to go."""

    def add(_self: Tombstones, _peer: bytes, _now: float) -> None:
        """Nothing is kept."""

    return [Change(Tombstones, "add", add)]


def no_fence() -> list[Change]:
    """The promise that a call will not run is not kept when its first copy comes after all."""

    def fenced(_self: CallTable, _call_id: bytes, _attempt: int) -> bool:
        return False

    return [Change(CallTable, "fenced", fenced)]


def no_horizon() -> list[Change]:
    """What was forgotten is taken for new."""

    def _forget(self: CallTable, _first_seen: float) -> None:
        self.forgotten += 1

    return [Change(CallTable, "_forget", _forget)]


def cancel_kept() -> list[Change]:
    """The broker ends a call and does not tell the worker."""
    told = BrokerState.control

    def control(self: BrokerState, worker: Worker, kind: DeliveryKind, token: bytes) -> None:
        if kind is not DeliveryKind.CANCEL:
            told(self, worker, kind, token)

    return [Change(BrokerState, "control", control)]


def record_forgotten_with_its_client() -> list[Change]:
    """When an answer cannot be delivered, the broker forgets the call with the client."""
    kept = MajordomoEngine._undelivered

    def _undelivered(self: MajordomoEngine, peer: bytes, message: Frames) -> None:
        kept(self, peer, message)
        table = self._state.calls
        for call in [call for call in table.calls.values() if call.answer_to == peer and call.state is CallState.DONE]:
            self._state.wheel.drop(call)
            table.drop(call)

    return [Change(MajordomoEngine, "_undelivered", _undelivered)]


def wrong_reply_replayed() -> list[Change]:
    """Who asks again gets the newest reply, whosever that is."""
    right = Endings.replay

    def replay(self: Endings, call: Call) -> None:
        newest = next((other for other in reversed(self._state.calls.calls.values()) if other.reply), None)
        if newest is not None and call.status is Status.OK:
            self.answer(call, call.status, call.outcome, newest.reply or [b""])
        else:
            right(self, call)

    return [Change(Endings, "replay", replay)]


def one_way_answered_twice() -> list[Change]:
    """A client that wants no reply gets one after the acceptance."""
    submit = ClientDesk._submit_new

    def _submit_new(self: ClientDesk, ask: clients._Ask, prior: bool) -> None:
        submit(self, ask, prior)
        call = self._state.calls.calls.get(ask.frame.call_id)
        if call is not None:
            call.quiet = False

    return [Change(ClientDesk, "_submit_new", _submit_new)]


def no_answer_to_the_new_address() -> list[Change]:
    """A call that is asked about over a new link is still answered on the old one."""

    def _retarget(_self: ClientDesk, ask: clients._Ask, call: Call) -> None:
        call.attempt = max(call.attempt, ask.frame.attempt)

    return [Change(ClientDesk, "_retarget", _retarget)]


def no_queue_bound() -> list[Change]:
    """A queue takes whatever comes."""
    bounded = ClientDesk._room

    def _room(self: ClientDesk, name: bytes, client_key: bytes, size: int) -> tuple[Service | None, Worker | None]:
        service, worker = bounded(self, name, client_key, size)
        if service is None and not self._state.stopped:
            return self._state.services.ask(name), None
        return service, worker

    return [Change(ClientDesk, "_room", _room)]


def broker_trusts_deadlines_for_an_hour() -> list[Change]:
    """Expired requests are kept, and handed out."""
    fill = clients._Ask.__init__

    def patient(self: clients._Ask, *arguments: Any) -> None:
        fill(self, *arguments)
        self.deadline += 3600.0

    return [Change(clients._Ask, "__init__", patient)]


def ended_calls_still_counted() -> list[Change]:
    """The bytes of a call that has ended still count against the bound on all bodies."""
    ends = Endings.finish

    def finish(self: Endings, call: Call, *arguments: Any, **named: Any) -> None:
        ends(self, call, *arguments, **named)
        self._state.held_bytes += call.weight

    return [Change(Endings, "finish", finish)]


def every_end_not_executed() -> list[Change]:
    """Every refusal claims that nothing ran."""

    def proven_outcome(_self: Call) -> Outcome:
        return Outcome.NOT_EXECUTED

    return [Change(Call, "proven_outcome", proven_outcome)]


def revived_workers_get_nothing() -> list[Change]:
    """A worker that can take work again is put on its shelf, and nobody looks who waits."""

    def _serve_if(_self: MajordomoEngine, revived: bool, worker: Worker) -> None:
        if revived:
            worker.reshelve()

    return [Change(MajordomoEngine, "_serve_if", _serve_if)]


def no_heartbeats() -> list[Change]:
    """The broker says nothing by itself, and so does not find out who is gone."""

    def heartbeat(self: BrokerState, worker: Worker) -> None:
        worker.last_sent = self.now

    return [Change(BrokerState, "heartbeat", heartbeat)]


def leaves_with_work_in_hand() -> list[Change]:
    """A drain is over as soon as it has begun."""

    def over(self: Leaving, _now: float) -> bool:
        return self._state.stopped

    return [Change(Leaving, "over", over)]
