"""What clients ask: plain requests, calls of our clients, and questions after calls.

A call of ours meets, in this order: another life (WRONG_LIFE), its own record (join, replay, conflict), a fence, the
horizon, its deadline, and the limits. Only what passes all of them is run; each refusal says what is proven.
"""

from __future__ import annotations

from typing import Final

from brokers import answers
from brokers.delivery import Dispatcher
from brokers.endings import Endings
from brokers.peers import ClientPeer, Worker, peer_key
from brokers.records import DONE, QUEUED, Call, size_of
from brokers.services import Service
from brokers.state import BrokerState
from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import MAGIC, NO_LIFE, CallFlag, CallFrame, CallKind, Place
from reliable.wire.mdp import ClientRequest

__all__ = ["ClientDesk"]

_NO_ADDRESSES: Final[Frames] = []
"""Of all calls that came without a proxy; never filled."""
_SUBMIT: Final = CallKind.SUBMIT
_HEDGE: Final = int(CallFlag.HEDGE)
_ONE_WAY: Final = int(CallFlag.ONE_WAY)
_FAIL_FAST: Final = int(CallFlag.FAIL_FAST)
_REPEAT: Final = int(CallFlag.REPEAT)
_NOT_IDEMPOTENT: Final = int(CallFlag.NOT_IDEMPOTENT)
_IDEMPOTENT: Final = int(CallFlag.IDEMPOTENT)
_FAR_MS: Final = 1 << 53
"""Deadlines beyond it, some 285,000 years, are brought down to it, so that they fit into every frame again."""


class _Ask:
    """One call frame with what is needed to answer it."""

    __slots__ = ("client", "deadline", "first_sent", "flags", "frame", "instance", "peer", "request")

    def __init__(
        self, peer: bytes, client: ClientPeer, instance: bytes, request: ClientRequest, frame: CallFrame
    ) -> None:
        self.peer = peer
        self.instance = instance
        """By its hello. Each call frame could name another one, and so escape the limits per client."""
        self.client = client
        self.request = request
        self.frame = frame
        self.flags = int(frame.flags)
        """As a plain integer, which is many times cheaper to test."""
        deadline_ms = frame.deadline_ms
        self.deadline = client.greeted_at + (deadline_ms if deadline_ms < _FAR_MS else _FAR_MS) / 1000
        self.first_sent = client.greeted_at + frame.first_sent_ms / 1000


class ClientDesk:
    """Takes in what clients send."""

    def __init__(self, state: BrokerState, endings: Endings, dispatcher: Dispatcher) -> None:
        self._state = state
        self._endings = endings
        self._dispatcher = dispatcher

    def receive(self, peer: bytes, request: ClientRequest) -> None:
        """A valid request of MDP, not of a registered worker."""
        stack = request.stack
        state = self._state
        if not stack or stack[-1][:4] != MAGIC:
            # By routing id alone: in front of a plain request stands whatever REQ_CORRELATE or a proxy put there.
            client = state.peers.get(peer) or state.peers.make(peer)
            if client.version is request.version or self._same_version(client, request):
                self._plain(peer, client, request)
            else:
                state.counters.dropped_invalid += 1
            return
        known = state.peers.get(peer if len(stack) == 1 else peer_key(peer, stack[:-1]))
        if (
            known is None
            or known.hello is None
            or not (known.version is request.version or self._same_version(known, request))
        ):
            # Without a hello there is nothing to reckon the deadline from; and no answer could be understood.
            state.counters.dropped_invalid += 1
            return
        try:
            frame = CallFrame.decode(stack[-1])
        except RemoteProtocolError:
            state.counters.dropped_invalid += 1
            return
        self._call(_Ask(peer, known, known.hello.instance, request, frame))

    def _same_version(self, client: ClientPeer, request: ClientRequest) -> bool:
        """The first request fixes the version of a peer; whoever changes it later is not answered in either."""
        if client.version is None:
            client.version = request.version
        return client.version is request.version

    def _plain(self, peer: bytes, client: ClientPeer, request: ClientRequest) -> None:
        state = self._state
        size = size_of(request.body)
        if size > state.config.message_bytes_max:
            state.counters.too_large += 1
            state.counters.unanswered += 1
            return
        service, worker = self._room(request.service, peer, size)
        if service is None:
            state.counters.overloaded += 1
            state.counters.unanswered += 1
            return
        if not client.routing_id:
            client.routing_id = peer
        # By position: names for so many would cost more than the rest of it.
        call = Call(
            b"",
            False,
            service,
            request.body,
            size,
            client,
            client.routing_id,
            request.stack or _NO_ADDRESSES,
            request.version,
            client.routing_id,
            state.now + state.config.plain_request_expiry_s,
            state.now,
        )
        self._admit(call, worker)

    def _admit(self, call: Call, worker: Worker | None) -> None:
        state = self._state
        state.counters.requests += 1
        state.held_bytes += call.weight
        state.wheel.set(call, call.deadline)
        if worker is None:
            state.enqueue(call)
        else:
            self._dispatcher.offer(call, worker)

    def _room(self, name: bytes, client_key: bytes, size: int) -> tuple[Service | None, Worker | None]:
        """The service, and a worker that is free for it; no service if a limit is reached."""
        state = self._state
        config = state.config
        if state.stopped:
            state.heard_new_at = state.now
            return None, None
        if state.held_bytes + size > config.held_bytes_max:
            return None, None
        service = state.services.ask(name)
        if service is None:
            return None, None
        queue_length = service.queue.length
        if not queue_length:
            worker = service.pick()
            if worker is not None:
                return service, worker
        length_max = config.queued_per_service_max
        if not service.offers and state.services.unknown(service):
            length_max = min(length_max, config.queued_per_unknown_service_max)
        if (
            queue_length >= length_max
            or state.queued >= config.queued_max
            or state.queued_by_client.get(client_key, 0) >= config.queued_per_client_max
        ):
            state.services.settle(service)
            return None, None
        return service, None

    # --- calls of our clients ---

    def _call(self, ask: _Ask) -> None:
        frame = ask.frame
        state = self._state
        if frame.life != NO_LIFE and frame.life != state.life:
            state.counters.wrong_life += 1
            self._refuse(ask, Status.WRONG_LIFE)
            return
        call = state.calls.calls.get(frame.call_id)
        if call is not None:
            self._known(ask, call)
        elif frame.kind is _SUBMIT:
            self._submit(ask)
        else:
            self._ask_in_vain(ask)

    def _refuse(
        self, ask: _Ask, status: Status, outcome: Outcome = Outcome.NOT_EXECUTED, *, retry_after_s: float = 0.0
    ) -> None:
        state = self._state
        state.outbox.append(
            answers.refusal(ask.peer, ask.request, ask.frame, state.life, status, outcome, retry_after_s=retry_after_s)
        )

    def _unknown(self, ask: _Ask, outcome: Outcome) -> None:
        self._state.counters.unknown_calls += 1
        self._refuse(ask, Status.UNKNOWN_CALL, outcome)

    def _submit(self, ask: _Ask) -> None:
        """A call without a record."""
        state = self._state
        frame = ask.frame
        if state.calls.fenced(frame.call_id, frame.attempt):
            state.counters.fence_hits += 1
            self._unknown(ask, Outcome.NOT_EXECUTED)
            return
        prior = ask.first_sent < state.calls.horizon
        service = state.services.get(ask.request.service)
        if (prior or ask.flags & _REPEAT) and not _may_repeat(ask.flags, service):
            self._unknown(ask, Outcome.UNKNOWN)
        elif ask.deadline <= state.now:
            state.counters.expired += 1
            self._refuse(ask, Status.EXPIRED, self._unseen(ask))
        elif ask.flags & _FAIL_FAST and (service is None or not service.has_live_worker()):
            state.counters.no_service += 1
            self._refuse(ask, Status.NO_SERVICE)
        else:
            self._submit_new(ask, prior)

    def _unseen(self, ask: _Ask) -> Outcome:
        """What is proven of a call that has no record.

        Records live until deadline + grace; half of the grace is left for deadlines that were reckoned from another
        hello. A first attempt that was never seen has no earlier one to have run.
        """
        forgotten = ask.first_sent < self._state.calls.horizon or (
            ask.deadline + self._state.config.grace_s / 2 <= self._state.now
            and not (ask.frame.kind is CallKind.SUBMIT and ask.frame.attempt <= 1)
        )
        return Outcome.UNKNOWN if forgotten else Outcome.NOT_EXECUTED

    def _submit_new(self, ask: _Ask, prior: bool) -> None:
        state = self._state
        request, frame = ask.request, ask.frame
        size = size_of(request.body)
        if size > state.config.message_bytes_max:
            state.counters.too_large += 1
            self._refuse(ask, Status.TOO_LARGE)
            return
        service, worker = self._room(request.service, ask.instance, size)
        if service is None:
            state.counters.overloaded += 1
            self._refuse(ask, Status.OVERLOADED, retry_after_s=state.retry_after_s())
            return
        if worker is not None and ask.flags & _HEDGE:
            worker = service.pick_beside(frame.client, frame.digest) or worker
        if not ask.client.routing_id:
            ask.client.routing_id = ask.peer
        call = Call(
            frame.call_id,
            True,
            service,
            request.body,
            size,
            ask.client,
            ask.client.routing_id,
            request.stack[:-1] if len(request.stack) > 1 else _NO_ADDRESSES,
            request.version,
            ask.instance,
            ask.deadline,
            state.now,
            frame.attempt,
            ask.flags,
            frame.digest,
            # Mostly the same; then one of them is kept, not one for each call.
            ask.instance if frame.client == ask.instance else frame.client,
            frame.trace,
            prior,
        )
        call.idempotent = call.may_repeat()
        state.calls.calls[call.call_id] = call
        self._admit(call, worker)
        one_way = bool(ask.flags & _ONE_WAY) and call.state is not DONE
        if one_way or (call.state is QUEUED and not service.has_live_worker()):
            self._endings.answer(call, Status.ACCEPTED, call.proven_outcome(), answers.NO_BODY)
            call.quiet = one_way

    def _ask_in_vain(self, ask: _Ask) -> None:
        """ATTACH or CANCEL of a call without a record: from now on it will not run, and that can be said."""
        frame = ask.frame
        self._endings.fence(frame.call_id, frame.attempt, ask.deadline)
        outcome = self._unseen(ask)
        if frame.kind is CallKind.CANCEL:
            self._refuse(ask, Status.CANCELLED, outcome)
        else:
            self._unknown(ask, outcome)

    # --- calls that have a record ---

    def _known(self, ask: _Ask, call: Call) -> None:
        state = self._state
        frame = ask.frame
        if frame.kind is CallKind.SUBMIT and (frame.digest != call.digest or ask.request.service != call.service.name):
            state.counters.id_conflicts += 1
            self._refuse(ask, Status.ID_CONFLICT)
        elif call.state is DONE:
            self._retarget(ask, call)
            self._endings.replay(call)
        elif frame.kind is CallKind.CANCEL:
            self._retarget(ask, call)
            self._cancel(call)
        elif frame.attempt < call.attempt:
            state.counters.stale_attempts += 1
        else:
            self._retarget(ask, call)
            self._join(ask, call)

    def _retarget(self, ask: _Ask, call: Call) -> None:
        """Whoever asked last is answered."""
        if call.streamed and ask.peer != call.answer_to:
            call.broken_stream = True
        call.peer = ask.client
        call.answer_to = ask.peer
        call.stack = ask.request.stack[:-1]
        call.version = ask.request.version
        call.attempt = max(call.attempt, ask.frame.attempt)

    def _join(self, ask: _Ask, call: Call) -> None:
        if ask.frame.kind is CallKind.ATTACH:
            self._state.counters.attached += 1
        else:
            self._state.counters.joined += 1
        status = Status.ACCEPTED if call.place() in (Place.QUEUED, Place.QUEUED_NO_WORKER) else Status.STARTED
        self._endings.answer(call, status, call.proven_outcome(), answers.NO_BODY)

    def _cancel(self, call: Call) -> None:
        state = self._state
        state.counters.cancelled += 1
        queued = call.state is QUEUED
        if queued:
            state.dequeue(call)
        self._endings.finish(call, Status.CANCELLED, call.proven_outcome())
        if queued:
            state.services.settle(call.service)


def _may_repeat(flags: int, service: Service | None) -> bool:
    """Whether a call that may have run before is accepted: on a clear yes of the caller or of the service.

    While nobody offers the service nobody could say so yet, which is the rule right after a restart: then it waits, and
    the hand-over looks again.
    """
    declared = None if service is None else service.idempotent
    if declared is False or flags & _NOT_IDEMPOTENT:
        return False
    return bool(flags & _IDEMPOTENT) or declared is True or service is None or not service.offers
