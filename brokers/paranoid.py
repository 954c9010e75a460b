"""The Paranoid Pirate queue (6/PPP) as a sans-I/O engine: REQ clients in front, PPP workers behind.

Theory
------
A worker is *unknown*, *idle* or *busy*. Only READY makes one known, only READY and the reply to what it holds make one
idle; idle workers are used in the order in which they became idle (least recently used), and nothing else moves them.

    message              unknown           idle                      busy
    READY ``01``         idle              heard                     heard, idle; its request to another worker
    HEARTBEAT ``02``     drop              heard                     heard
    reply, its token     -                 -                         heard, idle; to the client
    reply, any other     drop              heard, drop               heard, drop
    malformed            drop              forget                    forget; its request to another worker
    silent too long      -                 forget                    forget; its request to another worker
    send: unreachable    -                 forget                    forget; its request to another worker
    request too old      -                 -                         forget; its request is dropped

*Forget* means: it is sent nothing any more, not even heartbeats (PPP-13). A live worker notices that within its own
liveness, begins anew and says READY again, so that even a wrong verdict heals. What PPP cannot say stays silence.

Every worker gets HEARTBEAT each interval, busy or not, whatever else happens. When some connection ended all get one
at once: the send to the one that is gone fails, which tells whose it was long before its silence does.

A request is *queued* or *held* by one worker, and has a deadline from its receipt. A request whose worker was lost
goes back to its old place in the queue, ``redeliveries_max`` times: PPP asks for workers that may run it twice.

The address stack that a worker sees is not the client's own but one frame, the *token* of the hand-over: it names this
life of the queue and a number. A worker copies it unread (PPP-5), so a reply to another request, or to a request of a
former life whose routing ids belong to others by now, can never reach a client. It also suits workers that expect
exactly one address, where a client with REQ_CORRELATE or a proxy in front has several. The client's own stack is kept
here and restored in the reply.

Left out: services, priorities, and a word for "no", none of which 6/PPP has.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from typing import Final

import attrs

from brokers.queueing import (
    Outgoing,
    QueueConfig,
    QueueCounters,
    QueueSnapshot,
    QueueWorkerView,
    Side,
    message_size,
)
from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire.ppp import (
    PppHeartbeat,
    PppReady,
    PppReply,
    PppRequest,
    decode_at_queue,
    split_envelope,
)

__all__ = ["LIFE_BYTES", "ParanoidEngine"]

LIFE_BYTES: Final = 8
_NUMBER_BYTES: Final = 8
_HEARTBEAT_FRAMES: Final = 2
"""With the routing id."""
_PROBES: Final = 2
"""Looks after an ended connection: the first may come before libzmq itself has taken the end in, and find nothing."""
_PROBE_AGAIN_S: Final = 0.05
_PROBE_S_PER_WORKER: Final = 100e-6
"""Pause between two looks after ended connections, per worker: a crowd that comes and goes must not cost all time."""


@attrs.define(eq=False)
class _Request:
    number: int
    """In order of arrival."""
    stack: Frames
    """The client's routing id, and what it put in front of the delimiter."""
    body: Frames
    size: int
    deadline: float
    losses: int = 0
    """Workers lost while they held it."""
    token: bytes = b""
    """Of its latest hand-over."""
    given_out: bool = False
    """Whether that was taken from the outbox."""
    holder: _Worker | None = None


@attrs.define(eq=False)
class _Worker:
    peer: bytes
    heard: float
    request: _Request | None = None


class ParanoidEngine:
    """One Paranoid Pirate queue, without its sockets.

    Args:
        config: Settings.
        life: 8 bytes that name this run of the queue; never the same twice.

    Attributes:
        counters: What happened so far.

    Raises:
        ValueError: The life is not 8 bytes.
    """

    def __init__(self, config: QueueConfig, *, life: bytes) -> None:
        if len(life) != LIFE_BYTES:
            raise ValueError("a queue's life is 8 bytes")
        self.config = config
        self._outbox: deque[Outgoing] = deque()
        self.counters = QueueCounters()
        self._life = life
        self._numbers = 0
        self._hand_overs = 0
        self._requests: OrderedDict[int, _Request] = OrderedDict()
        """All that are open, in order of arrival and so of their deadlines."""
        self._queue: list[tuple[int, _Request]] = []
        """A heap of those that wait: one that comes back gets its old place."""
        self._bytes = 0
        self._workers: OrderedDict[bytes, _Worker] = OrderedDict()
        """In the order in which they were last heard."""
        self._idle: OrderedDict[bytes, _Worker] = OrderedDict()
        """In the order in which they became idle."""
        self._beat_at: float | None = None
        self._probe_at: float | None = None
        self._probed_at = float("-inf")
        self._probes_left = 0
        self._stopped = False

    # --- clients ----------------------------------------------------------------------------------

    @property
    def wants_requests(self) -> bool:
        """Always: a queue that lets requests expire has to know of them."""
        return True

    def receive_frontend(self, frames: Frames, now: float) -> None:
        """Take in one message of a client, routing id first. Never raises for what a peer sent."""
        if self._stopped or frames[1:] == [b""]:
            # The empty message of PROBE_ROUTER asks for nothing.
            return
        try:
            stack, body = split_envelope(frames[1:])
        except RemoteProtocolError:
            self.counters.dropped_invalid += 1
            return
        size = message_size(frames)
        self._drop_expired(now)
        if size > self.config.message_bytes_max:
            self.counters.dropped_too_large += 1
        elif len(self._queue) >= self.config.queue_max or self._bytes + size > self.config.queue_bytes_max:
            self.counters.dropped_full += 1
        else:
            self._accept([frames[0], *stack], body, size, now)

    def _accept(self, stack: Frames, body: Frames, size: int, now: float) -> None:
        self._numbers += 1
        number = self._numbers
        request = _Request(number, stack, body, size, now + self.config.expiry_s)
        self._requests[number] = request
        self._bytes += size
        self.counters.requests += 1
        heapq.heappush(self._queue, (number, request))
        self._dispatch(now)

    # --- workers ----------------------------------------------------------------------------------

    def receive_backend(self, frames: Frames, now: float) -> None:
        """Take in one message of a worker, routing id first. Never raises for what a peer sent."""
        if self._stopped or not frames:
            return
        peer = frames[0]
        worker = self._workers.get(peer)
        try:
            command = decode_at_queue(frames[1:])
        except RemoteProtocolError:
            self.counters.dropped_invalid += 1
            if worker is not None:
                self._forget(worker)
                self._dispatch(now)
            return
        if worker is not None:
            worker.heard = now
            self._workers.move_to_end(peer)
        if isinstance(command, PppReady):
            self._ready(peer, worker, now)
        elif isinstance(command, PppReply):
            self._reply(worker, command, now)
        elif isinstance(command, PppHeartbeat) and worker is None:
            self.counters.dropped_unknown += 1

    def _ready(self, peer: bytes, worker: _Worker | None, now: float) -> None:
        if worker is None:
            if len(self._workers) >= self.config.workers_max:
                self.counters.workers_refused += 1
                return
            worker = self._workers[peer] = _Worker(peer, now)
            self.counters.workers_registered += 1
            if self._beat_at is None:
                self._beat_at = now + self.config.heartbeat.interval_s
        elif worker.request is not None:
            self.counters.workers_restarted += 1
            self._take_back(worker)
        elif peer in self._idle:
            # Saying it twice moves nobody in the order.
            return
        self._idle[peer] = worker
        self._dispatch(now)

    def _reply(self, worker: _Worker | None, reply: PppReply, now: float) -> None:
        request = worker.request if worker is not None else None
        if worker is None or request is None or reply.stack != [request.token]:
            self.counters.late_replies += 1
            return
        worker.request = None
        self._idle[worker.peer] = worker
        self._close(request)
        message = [*request.stack, b"", *reply.body]
        if message_size(message) > self.config.message_bytes_max:
            self.counters.dropped_too_large += 1
        else:
            self.counters.replied += 1
            self._outbox.append((Side.FRONTEND, message))
        self._dispatch(now)

    def _forget(self, worker: _Worker) -> None:
        del self._workers[worker.peer]
        self._idle.pop(worker.peer, None)
        self.counters.workers_gone += 1
        if not self._workers:
            self._beat_at = None
        if worker.request is not None:
            self._take_back(worker)

    def _take_back(self, worker: _Worker) -> None:
        """What a lost worker held goes to its old place in the queue, or has cost workers enough."""
        request = worker.request
        assert request is not None
        worker.request = request.holder = None
        if not request.given_out:
            heapq.heappush(self._queue, (request.number, request))
            return
        request.losses += 1
        if request.losses > self.config.redeliveries_max:
            self.counters.abandoned += 1
            self._close(request)
        else:
            heapq.heappush(self._queue, (request.number, request))

    def _close(self, request: _Request) -> None:
        request.holder = None
        self._bytes -= request.size
        del self._requests[request.number]

    # --- hand-overs -------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        self._drop_expired(now)
        while self._queue and self._idle:
            _, request = heapq.heappop(self._queue)
            peer, worker = self._idle.popitem(last=False)
            worker.request, request.holder = request, worker
            self._hand_overs += 1
            request.token = self._life + self._hand_overs.to_bytes(_NUMBER_BYTES, "big")
            request.given_out = False
            self._outbox.append((Side.BACKEND, [peer, *PppRequest([request.token], request.body).encode()]))

    def take(self) -> Outgoing | None:
        """The next message to send, with MANDATORY and without blocking; None if there is none.

        What was meant for a worker that is forgotten by now is left out (PPP-13).
        """
        while self._outbox:
            side, message = self._outbox.popleft()
            if side is Side.FRONTEND:
                return side, message
            worker = self._workers.get(message[0])
            if worker is None:
                continue
            if len(message) > _HEARTBEAT_FRAMES:
                request = worker.request
                if request is None or request.token != message[1]:
                    continue
                request.given_out = True
                self.counters.dispatched += 1
                self.counters.redelivered += request.losses > 0
            return side, message
        return None

    def unsent(self, side: Side, message: Frames, unreachable: bool, now: float) -> None:
        """A message was not sent; call it before the next one is taken.

        Args:
            side: Where it should have gone.
            message: The very message.
            unreachable: True for EHOSTUNREACH, after everything readable was fed in; False for EAGAIN. Either way the
                peer is not there to read: a worker has at most one request and some heartbeats before it.
            now: The present moment.
        """
        if side is Side.FRONTEND:
            self.counters.undeliverable += 1
            return
        worker = self._workers.get(message[0])
        if worker is None:
            return
        request = worker.request
        if request is not None and message[1] == request.token:
            # The worker never had it, so this was no hand-over.
            self.counters.dispatched -= 1
            self.counters.redelivered -= request.losses > 0
            request.given_out = False
        self.counters.workers_unreachable += 1
        self._forget(worker)
        self._dispatch(now)

    # --- time -------------------------------------------------------------------------------------

    def connection_ended(self, now: float) -> None:
        """Some worker's connection ended. All are sent a heartbeat soon: the one that is gone cannot be reached."""
        if self._workers:
            self._probes_left = _PROBES
            soon = max(now, self._probed_at + _PROBE_S_PER_WORKER * len(self._workers))
            self._probe_at = soon if self._probe_at is None else min(self._probe_at, soon)

    def timers(self, now: float) -> None:
        """Carry out everything that is due; afterwards ``next_deadline()`` is later than ``now`` or None."""
        while self._workers:
            worker = next(iter(self._workers.values()))
            if worker.heard + self.config.heartbeat.timeout_s > now:
                break
            self.counters.workers_expired += 1
            self._forget(worker)
        self._dispatch(now)
        if self._beat_at is not None and self._beat_at <= now:
            interval_s = self.config.heartbeat.interval_s
            self._beat_at += interval_s
            if self._beat_at <= now:
                self._beat_at = now + interval_s
            self._beat()
        if self._probe_at is not None and self._probe_at <= now:
            self._probed_at = now
            self._probes_left -= 1
            pause_s = max(_PROBE_AGAIN_S, _PROBE_S_PER_WORKER * len(self._workers))
            self._probe_at = now + pause_s if self._probes_left else None
            self._beat()

    def _beat(self) -> None:
        for peer in self._workers:
            self._outbox.append((Side.BACKEND, [peer, *PppHeartbeat().encode()]))
        self.counters.heartbeats_sent += len(self._workers)

    def _drop_expired(self, now: float) -> None:
        while self._requests:
            request = next(iter(self._requests.values()))
            if request.deadline > now:
                return
            worker = request.holder
            if worker is None:
                # The oldest request of all is the oldest that waits.
                heapq.heappop(self._queue)
                self.counters.expired += 1
            else:
                # It may be at work, or wait for a message that it could read: PPP cannot ask. READY will tell.
                worker.request = None
                self.counters.overdue += 1
                self._forget(worker)
            self._close(request)

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest."""
        due = [at for at in (self._beat_at, self._probe_at) if at is not None]
        if self._workers:
            due.append(next(iter(self._workers.values())).heard + self.config.heartbeat.timeout_s)
        if self._requests:
            due.append(next(iter(self._requests.values())).deadline)
        return min(due, default=None)

    def stalled(self, gap_s: float, now: float) -> None:
        """This process stood still for ``gap_s``: nobody's silence during it counts. Call after reading everything."""
        self.counters.stalls += 1
        for worker in self._workers.values():
            worker.heard = min(worker.heard + max(gap_s, 0.0), now)

    # --- the end ----------------------------------------------------------------------------------

    def stop(self, now: float) -> None:
        """Take nothing any more. 6/PPP has no word for it: clients and workers notice by their own patience."""
        self._stopped = True
        self.counters.unanswered += len(self._requests)
        self._requests.clear()
        self._queue.clear()
        self._bytes = 0
        self._workers.clear()
        self._idle.clear()
        self._beat_at = self._probe_at = None

    def snapshot(self, now: float) -> QueueSnapshot:
        """A frozen view at ``now``."""
        busy = [worker for worker in self._workers.values() if worker.request is not None]
        workers = tuple(
            QueueWorkerView(peer=worker.peer.hex(), busy=worker.request is not None, silent_s=now - worker.heard)
            for worker in (*self._idle.values(), *busy)
        )
        return QueueSnapshot(
            queued=len(self._queue),
            held=len(busy),
            bytes=self._bytes,
            workers=workers,
            counters=attrs.evolve(self.counters),
        )
