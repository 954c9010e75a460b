"""Handing requests to workers, taking them back, and ending them: the rules of "who may repeat what" at the broker.

A hand-over that is over without a reply ends in one of four ways:

* *undone*: the message never left, or the worker gave it back unstarted. Proven not run; next worker.
* *lost*: the worker is gone. It may have run. Repeated if that is safe and the delivery cap allows it; else one of our
  workers has ``limbo_s`` to come back with it on a new connection; else the call ends as WORKER_LOST, UNKNOWN.
* *retired*: the worker is there but does not move (delivery timeout, stuck). Treated like lost, but without limbo, and
  its late reply still counts. The slot is free after a delivery timeout, and stays taken while the worker is stuck.
* *overdue*: the call ended first (deadline, cancellation, a reply from elsewhere). The slot stays taken until the
  worker reports, since it may be running; our workers are told to stop.

Nothing is repeated after a partial reply was forwarded (18/MDP cannot say that a stream begins anew).
"""

from __future__ import annotations

import math
from typing import Final

from brokers.endings import Endings
from brokers.peers import Worker
from brokers.records import DONE, HELD, QUEUED, Call, HandOver
from brokers.services import Service
from brokers.state import BrokerState
from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import MAGIC, TOKEN_BYTES, CallFlag, Delivery, DeliveryKind, pack_delivery
from reliable.wire.mdp import WorkerRequest, decode_at_worker

__all__ = ["Dispatcher"]

_HEDGE: Final = int(CallFlag.HEDGE)
_REPEAT: Final = int(CallFlag.REPEAT)
_IDEMPOTENT: Final = int(CallFlag.IDEMPOTENT)
_FOR_BROKER: Final = (CallFlag.IDEMPOTENT | CallFlag.NOT_IDEMPOTENT | CallFlag.FAIL_FAST).value
_RUN: Final = int(DeliveryKind.RUN)


class Dispatcher:
    """Decides which worker gets which request, and what becomes of requests whose worker fails."""

    def __init__(self, state: BrokerState, endings: Endings) -> None:
        self._state = state
        self._endings = endings

    # --- towards a worker ---

    def offer(self, call: Call, worker: Worker) -> None:
        """A new request, to a worker that is free."""
        self._hand_over(call, worker)
        worker.reshelve()

    def serve(self, worker: Worker) -> None:
        """Let a worker that may have become free stand where it belongs, and give it what waits for it."""
        state = self._state
        # What waits comes first: a worker that stood on its shelf for it would be taken off at once.
        while (shelf := worker.right_shelf()) >= 0 and state.queued and not state.stopped:
            service = _next_service(worker)
            if service is None:
                break
            self._hand_over(state.pop(service), worker)
        if shelf != worker.shelf or worker.rooms is not None:
            worker.reshelve()

    def _serve_service(self, service: Service) -> None:
        state = self._state
        while service.queue.length and not state.stopped:
            worker = service.pick()
            if worker is None:
                return
            self._hand_over(state.pop(service), worker)
            worker.reshelve()

    def _hand_over(self, call: Call, worker: Worker) -> None:
        """Give ``call``, which is in no queue, to ``worker``, which has a free slot; or end it if it must not run.

        The worker is to be put on its shelf afterwards.
        """
        state = self._state
        if not self._may_run(call, worker):
            return
        call.unproven += 1
        call.deliveries += 1
        token = address = state.next_token()
        if not call.call_id:
            call.call_id = token
        hand_over = HandOver(token, call, worker, state.now)
        call.state = HELD
        call.held = hand_over
        worker.in_hand[token] = hand_over
        if worker.ours:
            address = _run(call, hand_over)
            state.wheel.set(hand_over, state.now + state.config.delivery_timeout_s)
        state.to_worker(worker, address, call.body)
        state.counters.dispatched += 1
        if call.unproven > 1:
            state.counters.redelivered += 1

    def _may_run(self, call: Call, worker: Worker) -> bool:
        """The last check before a request leaves; ends the call if the answer is no."""
        state = self._state
        if call.deadline <= state.now:
            self._endings.expire(call)
            return False
        call.idempotent = call.may_repeat()
        if call.flags & _HEDGE and not call.idempotent:
            # The caller said that the work may run twice, and the service says that it may not: the first one counts.
            state.counters.cancelled += 1
            self._endings.finish(call, Status.CANCELLED, call.proven_outcome())
            return False
        if not call.idempotent and (call.unproven or call.prior or call.flags & _REPEAT):
            if call.unproven:
                self._end_lost(call)
            else:
                state.counters.unknown_calls += 1
                self._endings.finish(call, Status.UNKNOWN_CALL, Outcome.UNKNOWN)
            return False
        if 0 < worker.max_message_bytes < call.size:
            state.counters.too_large += 1
            self._endings.finish(call, Status.TOO_LARGE, call.proven_outcome())
            return False
        if call.deliveries >= state.config.hand_overs_max:
            state.counters.overloaded += 1
            self._endings.finish(call, Status.OVERLOADED, call.proven_outcome())
            return False
        if call.peer.gone and not call.ours:
            self._endings.finish(call, Status.CANCELLED, call.proven_outcome())
            return False
        return True

    # --- back from a worker ---

    def undo(self, hand_over: HandOver, *, delivered: bool = False) -> None:
        """The hand-over is proven not to have begun: take back what it counted, and give the request to another worker.

        ``delivered``: it did reach the worker, who gave it back.
        """
        call = hand_over.call
        call.unproven -= 1
        if not delivered:
            call.deliveries -= 1
        current = hand_over.current
        self._let_go(hand_over)
        if call.state is DONE:
            self._endings.proven_unrun(call)
        elif current:
            call.held = None
            self.requeue(call)

    def _let_go(self, hand_over: HandOver) -> None:
        """Take a hand-over out of every table; the worker is not given other work yet."""
        state = self._state
        state.wheel.drop(hand_over)
        state.limbo.pop(hand_over.token, None)
        state.late.pop(hand_over.token)
        hand_over.limbo = False
        hand_over.worker.in_hand.pop(hand_over.token, None)
        others = hand_over.call.others
        if others is not None and hand_over in others:
            others.remove(hand_over)

    def release(self, hand_over: HandOver) -> None:
        """The worker reported a final result: its slot is free."""
        if hand_over.worker.in_hand.pop(hand_over.token, None) is None or hand_over.call.others:
            self._let_go(hand_over)
        elif hand_over.bucket >= 0:
            self._state.wheel.drop(hand_over)

    def requeue(self, call: Call) -> None:
        """Let a request that came back wait in front of the others, or give it to whom is free."""
        state = self._state
        if state.stopped:
            self._endings.finish(call, Status.OVERLOADED, call.proven_outcome())
            return
        call.urgent = True
        call.collected = None
        call.collected_bytes = 0
        call.broken_stream = False
        service = state.services.ask(call.service.name, must=True)
        assert service is not None
        call.service = service
        state.enqueue(call)
        self._serve_service(service)

    def lost(self, hand_over: HandOver) -> None:
        """The worker is gone, and the hand-over is no longer in its hands."""
        state = self._state
        call = hand_over.call
        state.wheel.drop(hand_over)
        if not hand_over.current:
            state.late.add(hand_over)
        elif hand_over.worker.ours and not (self._repeatable(call) or call.streamed or state.left):
            hand_over.limbo = True
            state.limbo[hand_over.token] = hand_over
            state.wheel.set(hand_over, state.now + state.config.limbo_s)
            state.counters.limbo_entered += 1
        else:
            self.abandon(hand_over)

    def _repeatable(self, call: Call) -> bool:
        return call.idempotent and call.may_repeat() and not call.streamed

    def abandon(self, hand_over: HandOver) -> None:
        """Wait for this reply no longer: repeat the request if that is safe, else end it."""
        call = hand_over.call
        call.held = None
        if hand_over.token not in hand_over.worker.in_hand:
            self._state.late.add(hand_over)
        if not self._repeatable(call):
            self._end_lost(call)
        elif self._state.stopped:
            # A broker that leaves is no worker that died of the request: it goes on at the next broker.
            self._endings.finish(call, Status.OVERLOADED, Outcome.UNKNOWN)
        elif call.unproven >= self._state.config.delivery_cap:
            self._state.counters.quarantined += 1
            self._end_lost(call)
        else:
            self.requeue(call)

    def _end_lost(self, call: Call) -> None:
        self._state.counters.worker_lost += 1
        self._endings.finish(call, Status.WORKER_LOST, Outcome.UNKNOWN)

    def retire(self, hand_over: HandOver) -> None:
        """Take a request from a worker that is there but does not move; its slot is free, its late reply welcome."""
        self._state.wheel.drop(hand_over)
        hand_over.worker.in_hand.pop(hand_over.token, None)
        if hand_over.current:
            self._set_aside(hand_over)
        else:
            self._state.late.add(hand_over)

    def _set_aside(self, hand_over: HandOver) -> None:
        call = hand_over.call
        if call.others is None:
            call.others = []
        call.others.append(hand_over)
        self.abandon(hand_over)

    def recall(self, hand_over: HandOver) -> None:
        """One of our workers is well and has not started this in time: it never got it, or has it in its own queue.

        It is asked to drop it. What may be repeated goes elsewhere at once. For the rest, a GIVE_BACK within
        ``limbo_s`` is the proof that lets another worker have it; without one the call is lost.
        """
        state = self._state
        if not hand_over.recalled:
            hand_over.recalled = hand_over.stopped = True
            state.control(hand_over.worker, DeliveryKind.CANCEL, hand_over.token)
            if not self._repeatable(hand_over.call):
                state.wheel.set(hand_over, state.now + state.config.limbo_s)
                return
        self.retire(hand_over)

    def retire_from_stuck(self, worker: Worker) -> None:
        """What is safe to run twice goes elsewhere; the rest is kept, for the worker's process lives.

        The slots stay taken: when its loop goes on, the worker still has what it was given.
        """
        state = self._state
        for hand_over in list(worker.in_hand.values()):
            call = hand_over.call
            if hand_over.current and self._repeatable(call) and call.unproven < state.config.delivery_cap:
                state.wheel.drop(hand_over)
                if state.config.overdue_slot_s is not None:
                    state.wheel.set(hand_over, state.now + state.config.overdue_slot_s)
                self._set_aside(hand_over)

    def take_back(self, hand_over: HandOver, worker: Worker) -> None:
        """A worker came back on a new connection, with this in its hands.

        It has no delivery timeout any more, for the worker itself says that it has it.
        """
        state = self._state
        call = hand_over.call
        if hand_over.limbo:
            state.counters.limbo_recovered += 1
        self._let_go(hand_over)
        hand_over.worker = worker
        hand_over.at = state.now
        hand_over.recalled = False
        worker.in_hand[hand_over.token] = hand_over
        if call.state is QUEUED and not (hand_over.stopped and self._repeatable(call)):
            state.dequeue(call)
            state.services.settle(call.service)
            call.state = HELD
            call.held = hand_over
        if not hand_over.current:
            self._endings.overdue(hand_over)

    def withdraw(self, worker: Worker, name: bytes) -> None:
        """A worker does not offer a service after all."""
        service = self._state.services.get(name)
        if service is not None and service in worker.services:
            worker.leave(service)
            self._state.services.settle(service)

    def purge_outbox(self, peer: bytes) -> None:
        """A peer gets nothing more: undo the requests to it that have not left yet."""
        state = self._state
        kept: list[Frames] = []
        dropped: list[Frames] = []
        for message in state.outbox:
            (dropped if message[0] == peer else kept).append(message)
        if not dropped:
            return
        state.outbox.clear()
        state.outbox.extend(kept)
        for message in dropped:
            hand_over = self.find(message)
            if hand_over is not None:
                self.undo(hand_over)

    def find(self, message: Frames) -> HandOver | None:
        """The hand-over that a message from our outbox would have made, if it is a request that still matters."""
        state = self._state
        try:
            command = decode_at_worker(message[1:])
        except RemoteProtocolError:
            return None
        worker = state.workers.get(message[0])
        if not isinstance(command, WorkerRequest):
            return None
        token = command.address[:TOKEN_BYTES]
        if len(command.address) > TOKEN_BYTES and not _is_run(command.address):
            return None
        if worker is not None and token in worker.in_hand:
            return worker.in_hand[token]
        return state.limbo.get(token) or state.late.find(token)


def _next_service(worker: Worker) -> Service | None:
    services = worker.services
    if len(services) == 1 and worker.rooms is None:
        return services[0] if services[0].queue.length else None
    for step in range(len(services)):
        index = (worker.turn + step) % len(services)
        if services[index].queue.length and worker.has_room(services[index]):
            worker.turn = index + 1
            return services[index]
    return None


def _run(call: Call, hand_over: HandOver) -> bytes:
    """The ``Delivery`` that lets one of our workers run the call, in bytes; the object would be looked at by nobody."""
    flags = call.flags & ~_FOR_BROKER
    fixed = pack_delivery(
        hand_over.token,
        MAGIC,
        _RUN,
        flags | _IDEMPOTENT if call.idempotent else flags,
        call.attempt,
        call.deliveries if call.deliveries < 0xFFFF else 0xFFFF,
        call.call_id,
        call.instance,
        math.ceil((call.deadline - hand_over.worker.greeted_at) * 1000),
        call.digest,
        len(call.trace),
    )
    return fixed + call.trace + call.service.name


def _is_run(address: bytes) -> bool:
    try:
        return Delivery.decode(address).kind is DeliveryKind.RUN
    except RemoteProtocolError:
        return False
