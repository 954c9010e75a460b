"""The Majordomo broker as a sans-I/O engine: 7/MDP, 18/MDP and 8/MMI on one ROUTER, and our extension beside them.

Theory
------
Frames come in by ``receive``, frames go out by ``outbox``; time comes in as ``now``. Messages are told apart by
position (``reliable.wire.mdp``). A routing id is one of:

* *client*: sent a request. Its MDP version is fixed by that; worker commands from it are dropped.
* *greeted*: said hello (``mmi.reliable``) and nothing else yet. Questions to ``mmi.`` never fix a role.
* *worker*: sent READY. Its version is fixed by that. It is *idle*, *busy*, or (only ours) *stuck*.
* *told*: got DISCONNECT. Ignored for one heartbeat timeout, but for a READY, which begins a new session.
* *unknown*: none of these; also a foreign worker that was silent for too long.

What a worker command does (7/MDP and 18/MDP ask for DISCONNECT where a command is valid and not expected):

    command               unknown            idle                  busy                         told
    READY                 register           gone, DISCONNECT      gone, DISCONNECT             register
    READY of mmi.*        DISCONNECT         gone, DISCONNECT      gone, DISCONNECT             DISCONNECT
    reply, token held     -                  -                     forward, free the slot       ignore
    reply, token taken    -                  count as late         count as late                ignore
    reply, other token    DISCONNECT         gone, DISCONNECT      gone, DISCONNECT             ignore
    HEARTBEAT             DISCONNECT         refresh               refresh, not its request     ignore
    DISCONNECT            nothing            gone                  gone                         ignore
    REQUEST               DISCONNECT         gone, DISCONNECT      gone, DISCONNECT             ignore
    malformed             drop               gone, DISCONNECT      gone, DISCONNECT             ignore
    silent too long       -                  foreign: forget       foreign: if it used to beat  end of the tombstone
                                             ours: stuck           ours: stuck
    send: unreachable     -                  gone                  gone                         -
    send: pipe is full    -                  held back until heard, its request to another worker

A worker command in the other version than its sender's READY counts as malformed. *Gone* means: whatever it held is
given to others, put into limbo, or ended, by the rules at the head of ``brokers.delivery``.

A request is *queued*, *held* (by a worker, or in limbo), or *done*. Requests of our clients have records that outlive
them (``brokers.records``); their rules are in ``brokers.clients``. Every request has a deadline: ours name one, plain
ones get ``plain_request_expiry_s``. Where MDP has no word for an end without a reply, plain clients hear nothing.

Partial replies of an 0.2 worker go to our clients and to 0.2 clients as they come. Plain 0.1 clients cannot take parts;
theirs are collected, with a limit, and put in front of the final one.

All memory is bounded by ``BrokerConfig``; what a bound drops is counted, and refused aloud where there is a word.

Parts: ``state`` (tables), ``clients`` and ``management`` (what clients send), ``workers`` and ``replies`` (what
workers send), ``delivery`` (hand-overs), ``endings`` (answers), ``leaving`` (the drain). Left out: the libmdp dialect
``"" | MDPC02``, a second socket for workers, hedged attempts (one is joined like any repetition), durable requests.
"""

from __future__ import annotations

from brokers.clients import ClientDesk
from brokers.config import BrokerConfig
from brokers.delivery import Dispatcher
from brokers.endings import Endings
from brokers.leaving import Leaving
from brokers.management import Management
from brokers.peers import BeatTimer, LeaveTimer, ProbeTimer, WatchTimer, Worker
from brokers.records import Call, Fence, HandOver
from brokers.replies import ReplyDesk
from brokers.snapshot import BrokerSnapshot, take_snapshot
from brokers.state import BrokerState
from brokers.workers import WorkerDesk
from reliable.errors import RemoteProtocolError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import LIFE_BYTES, NO_LIFE, AnswerFrame, is_extension
from reliable.wire.mdp import (
    ClientReply,
    ClientRequest,
    WorkerCommand,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    decode_at_broker,
    decode_at_client,
)
from reliable.wire.mmi import RESERVED_PREFIX

__all__ = ["MajordomoEngine"]


class MajordomoEngine:
    """One Majordomo broker, without its socket.

    Args:
        config: Settings.
        life: 8 bytes that name this run of the broker; never the same twice, not all zero.
        now: A reading of the monotonic clock that all later calls use.

    Attributes:
        outbox: Full ROUTER messages to be sent in order, with MANDATORY and without blocking. What cannot be sent goes
            back by ``unsent`` before the next one is tried.
        counters: What happened so far.

    Raises:
        ValueError: The life is not 8 bytes, or all zero.
    """

    def __init__(self, config: BrokerConfig, *, life: bytes, now: float) -> None:
        if len(life) != LIFE_BYTES or life == NO_LIFE:
            raise ValueError("a broker's life is 8 bytes, not all zero")
        self.config = config
        self.life = life
        self._state = state = BrokerState(config, life, now)
        self.outbox = state.outbox
        self.counters = state.counters
        endings = Endings(state)
        self._endings = endings
        self._dispatcher = Dispatcher(state, endings)
        self._management = Management(state, self.snapshot)
        self._clients = ClientDesk(state, endings, self._dispatcher)
        self._workers = WorkerDesk(state, self._dispatcher)
        self._replies = ReplyDesk(state, endings, self._dispatcher)
        self._leaving = Leaving(state, endings, self._workers)

    # --- input ---

    def receive(self, frames: Frames, now: float) -> None:
        """Take in one message as the ROUTER gave it, routing id first. Never raises for what a peer sent."""
        state = self._state
        state.now = now
        if not frames:
            return
        peer = frames[0]
        worker = state.workers.get(peer)
        if worker is not None and self._is_result(worker, frames):
            return
        try:
            command = decode_at_broker(frames, 1)
        except RemoteProtocolError:
            self._malformed(peer, worker)
            return
        if command is None:
            return
        if isinstance(command, ClientRequest):
            self._request(peer, worker, command)
        elif worker is not None:
            self._of_worker(worker, command)
        else:
            self._of_stranger(peer, command)

    def _is_result(self, worker: Worker, frames: Frames) -> bool:
        """The reply to a request that the worker holds and that is waited for: nearly every message of a worker is one.

        It passes the very checks that ``_of_worker`` makes, but nothing is built to find that out.

        Returns:
            Whether it was one and is dealt with. If not, nothing was done.
        """
        at = worker.result_at
        if frames[1:at] != worker.result_opening or len(frames) < at + 3 or frames[at + 1]:
            return False
        hand_over = self._replies.waited_for(worker, frames[at])
        if hand_over is None:
            return False
        revived = self._workers.heard(worker)
        self._replies.result(worker, hand_over, frames[at + 2 :])
        if revived:
            self._serve_if(revived, worker)
        return True

    def _malformed(self, peer: bytes, worker: Worker | None) -> None:
        """7/MDP: drop it, and take the peer for invalid."""
        state = self._state
        if worker is not None:
            state.counters.dropped_invalid += 1
            self._workers.disconnect(worker)
        elif state.tombstones.has(peer, state.now):
            state.counters.dropped_told += 1
        else:
            state.counters.dropped_invalid += 1

    def _request(self, peer: bytes, worker: Worker | None, request: ClientRequest) -> None:
        state = self._state
        if request.service.startswith(RESERVED_PREFIX):
            if worker is not None:
                self._serve_if(self._workers.heard(worker), worker)
            self._management.receive(peer, request)
        elif worker is not None:
            # A worker that speaks as a client has changed its role.
            self._malformed(peer, worker)
        elif state.tombstones.has(peer, state.now):
            state.counters.dropped_told += 1
        else:
            self._clients.receive(peer, request)

    def _of_worker(self, worker: Worker, command: WorkerCommand) -> None:
        """A command of a registered worker: the columns idle and busy of the table."""
        revived = self._workers.heard(worker)
        if command.version is not worker.version:
            self._malformed(worker.peer, worker)
        elif isinstance(command, WorkerReply):
            if not self._replies.receive(worker, command):
                self._workers.disconnect(worker)
            else:
                self._serve_if(revived, worker)
        elif isinstance(command, WorkerHeartbeat):
            self._workers.heartbeat(worker)
            self._serve_if(revived, worker)
        elif isinstance(command, WorkerDisconnect):
            self._workers.gone(worker)
        else:
            self._workers.disconnect(worker)

    def _serve_if(self, revived: bool, worker: Worker) -> None:
        if revived:
            self._dispatcher.serve(worker)

    def _of_stranger(self, peer: bytes, command: WorkerCommand) -> None:
        """A command of a peer that is no registered worker: the columns unknown and told."""
        state = self._state
        client = state.peers.get(peer)
        if client is not None and client.version is not None:
            # A client that speaks as a worker has changed its role.
            state.counters.dropped_invalid += 1
        elif isinstance(command, WorkerReady):
            try:
                registered = self._workers.register(peer, command, client)
            except RemoteProtocolError:
                self._malformed(peer, None)
                return
            if not registered:
                state.tell_to_go(peer, command.version)
        elif state.tombstones.has(peer, state.now):
            state.counters.dropped_told += 1
        elif not isinstance(command, WorkerDisconnect):
            state.tell_to_go(peer, command.version)

    # --- output that failed ---

    def unsent(self, message: Frames, unreachable: bool, now: float) -> None:
        """A message from the outbox was not sent; call it before the next one is tried.

        Args:
            message: The very message.
            unreachable: True for EHOSTUNREACH, after everything readable was fed to ``receive``; False for EAGAIN,
                which says nothing about the peer but that its pipe is full.
            now: The present moment.
        """
        state = self._state
        state.now = now
        peer = message[0]
        if unreachable:
            state.counters.unreachable += 1
        else:
            state.counters.blocked += 1
        worker = state.workers.get(peer)
        hand_over = self._dispatcher.find(message)
        if worker is not None:
            worker.held_back = True
            worker.reshelve()
        if hand_over is not None:
            self._dispatcher.undo(hand_over)
        if worker is None:
            self._undelivered(peer, message)
            if unreachable:
                state.peers.lost(peer)
        elif unreachable and state.workers.get(peer) is worker:
            self._workers.gone(worker)
            state.peers.lost(peer)

    def _undelivered(self, peer: bytes, message: Frames) -> None:
        """A client missed an answer. Final ones stay in the record; a missing part spoils the stream."""
        state = self._state
        try:
            reply = decode_at_client(message[1:])
            answer = AnswerFrame.decode(reply.stack[-1]) if reply.stack and is_extension(reply.stack[-1]) else None
        except RemoteProtocolError:
            return
        state.counters.undeliverable_replies += 1
        if answer is not None:
            call = state.calls.calls.get(answer.call_id)
            if answer.status is Status.PARTIAL and call is not None:
                call.broken_stream = True
        elif isinstance(reply, ClientReply) and not reply.final:
            for stream in state.streams.get(peer, ()):
                stream.broken_stream = True

    def connection_ended(self, now: float) -> None:
        """Some peer hung up; ZeroMQ does not say which. Workers are probed soon, so that none is missed for long."""
        self._state.now = now
        self._workers.want_probe()

    # --- time ---

    def timers(self, now: float) -> None:
        """Carry out everything that is due; afterwards ``next_deadline()`` is later than ``now`` or None."""
        state = self._state
        state.now = now
        for entry in state.wheel.due(now):
            if isinstance(entry, Call):
                self._endings.due(entry)
            elif isinstance(entry, HandOver):
                self._workers.hand_over_due(entry)
            elif isinstance(entry, BeatTimer):
                self._workers.beat_due(entry.worker)
            elif isinstance(entry, WatchTimer):
                self._workers.watch_due(entry.worker)
            elif isinstance(entry, ProbeTimer):
                self._workers.probe()
            elif isinstance(entry, Fence):
                state.calls.drop_fence(entry)
            elif isinstance(entry, LeaveTimer):
                self._leaving.due()

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest."""
        return self._state.wheel.next_deadline()

    def stalled(self, gap_s: float, now: float) -> None:
        """This process stood still for ``gap_s``: nobody's silence during it counts. Call after reading everything."""
        self._state.now = now
        self._state.counters.stalls += 1
        self._workers.stalled(gap_s)

    # --- the end ---

    def drain(self, until: float, now: float) -> None:
        """Take nothing new, end what waits as OVERLOADED, and let workers finish what they hold.

        Args:
            until: When to ``stop`` at the latest; asked more than once, the earliest counts.
            now: The present moment.
        """
        self._state.now = now
        self._leaving.begin(until)

    def drained(self, now: float) -> bool:
        """After ``drain``: whether it is time to ``stop``. Before: False."""
        return self._leaving.over(now)

    def stop(self, now: float) -> None:
        """End every call with an answer, send DISCONNECT to every worker, refuse what comes after.

        Queued calls and those that may be repeated end as OVERLOADED, which sends their clients to the next broker; the
        others in workers' hands as WORKER_LOST, UNKNOWN.
        """
        self._state.now = now
        self._leaving.finish()

    def snapshot(self, now: float | None = None) -> BrokerSnapshot:
        """A frozen view; ages are reckoned at ``now``, by default the moment of the last event."""
        return take_snapshot(self._state, self._state.now if now is None else now)
