"""The Simple Pirate queue of the ZeroMQ Guide as a sans-I/O engine: the first step, for teaching.

Workers are REQ sockets: READY is ``"" | 01``, a request ``"" | cid | "" | body…``, the reply the same back. A worker is
used in the order in which it became ready, and clients are read only while one is ready, so that all others wait in
the socket. That is all: no heartbeats, no deadlines. What follows from it, and what 6/PPP adds, is this list:

* a worker that died idle is found by the send that fails (ROUTER_MANDATORY); its request goes to the next one;
* a worker that dies with a request takes it along, and only its client's timeout tells;
* a restarted queue knows no workers, and these do not say READY again: restart them, too.

What is kept all the same: a reply is taken only from the worker that holds that client's request, nobody is registered
by a message that is not exactly READY, and every table is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque

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
from reliable.wire.ppp import READY, split_envelope

__all__ = ["SimpleEngine"]


class SimpleEngine:
    """One Simple Pirate queue, without its sockets.

    Args:
        config: Settings; of them it uses ``workers_max`` and ``message_bytes_max``.

    Attributes:
        counters: What happened so far.
    """

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self._outbox: deque[Outgoing] = deque()
        self.counters = QueueCounters()
        self._ready: OrderedDict[bytes, None] = OrderedDict()
        self._busy: OrderedDict[bytes, Frames] = OrderedDict()
        """Worker → the stack that its reply must carry, the client's routing id first."""
        self._waiting: deque[Frames] = deque()
        """Requests that were read for a worker that turned out to be gone; at most one per worker that was ready."""
        self._stopped = False

    @property
    def wants_requests(self) -> bool:
        """Whether a worker is ready (SP-1): until then requests stay in the socket."""
        return bool(self._ready) and not self._stopped

    def receive_frontend(self, frames: Frames, now: float) -> None:
        """Take in one message of a client, routing id first. Never raises for what a peer sent."""
        if self._stopped or frames[1:] == [b""]:
            # The empty message of PROBE_ROUTER asks for nothing.
            return
        try:
            split_envelope(frames[1:])
        except RemoteProtocolError:
            self.counters.dropped_invalid += 1
            return
        if message_size(frames) > self.config.message_bytes_max:
            self.counters.dropped_too_large += 1
            return
        self.counters.requests += 1
        self._waiting.append(frames)
        self._dispatch()

    def receive_backend(self, frames: Frames, now: float) -> None:
        """Take in one message of a worker, routing id first. Never raises for what a peer sent."""
        if self._stopped or not frames or frames[1:] == [b""]:
            return
        peer = frames[0]
        if frames[1:] == [b"", READY]:
            self._register(peer)
        else:
            self._reply(peer, frames)
        self._dispatch()

    def _register(self, peer: bytes) -> None:
        if peer in self._ready:
            return
        if self._busy.pop(peer, None) is not None:
            # It began anew; what it held is gone with its former life.
            self.counters.workers_restarted += 1
            self.counters.abandoned += 1
        else:
            self.counters.workers_registered += 1
            if len(self._ready) + len(self._busy) >= self.config.workers_max:
                # Nobody tells when a worker dies, so whoever was silent for longest has to go.
                self.counters.workers_refused += 1
                self._forget(next(iter(self._busy or self._ready)))
        self._ready[peer] = None

    def _reply(self, peer: bytes, frames: Frames) -> None:
        stack = self._busy.get(peer)
        if stack is None:
            self.counters.late_replies += 1
            return
        envelope = frames[2:]
        if frames[1] or envelope[: len(stack) + 1] != [*stack, b""] or len(envelope) < len(stack) + 2:
            # A REQ socket has said its say, and it was not the reply: nothing more can be expected of it.
            self.counters.dropped_invalid += 1
            self._forget(peer)
            return
        del self._busy[peer]
        self._ready[peer] = None
        if message_size(envelope) > self.config.message_bytes_max:
            self.counters.dropped_too_large += 1
            return
        self.counters.replied += 1
        self._outbox.append((Side.FRONTEND, envelope))

    def _forget(self, peer: bytes) -> None:
        self.counters.workers_gone += 1
        self._ready.pop(peer, None)
        if self._busy.pop(peer, None) is not None:
            self.counters.abandoned += 1

    def _dispatch(self) -> None:
        while self._ready and self._waiting:
            request = self._waiting.popleft()
            peer, _ = self._ready.popitem(last=False)
            self._busy[peer] = request[: request.index(b"")]
            self.counters.dispatched += 1
            self._outbox.append((Side.BACKEND, [peer, b"", *request]))

    def take(self) -> Outgoing | None:
        """The next message to send, or None; not what was meant for a worker that began anew meanwhile."""
        while self._outbox:
            side, message = self._outbox.popleft()
            stack = self._busy.get(message[0], [])
            if side is Side.FRONTEND or (stack and message[2 : len(stack) + 3] == [*stack, b""]):
                return side, message
        return None

    def unsent(self, side: Side, message: Frames, unreachable: bool, now: float) -> None:
        """A message was not sent; call it before the next one is taken."""
        if side is Side.FRONTEND:
            self.counters.undeliverable += 1
            return
        peer = message[0]
        if self._busy.pop(peer, None) is not None:
            self.counters.workers_gone += 1
            self.counters.workers_unreachable += 1
            self.counters.dispatched -= 1
            self._waiting.appendleft(message[2:])
            self._dispatch()

    def connection_ended(self, now: float) -> None:
        """Nothing can be learnt from it: anything sent to a REQ worker would be a request."""

    def timers(self, now: float) -> None:
        """There are none."""

    def next_deadline(self) -> float | None:
        """There is none."""
        return None

    def stalled(self, gap_s: float, now: float) -> None:
        """This process stood still; nobody is judged by silence anyway."""
        self.counters.stalls += 1

    def stop(self, now: float) -> None:
        """Take nothing any more."""
        self._stopped = True
        self.counters.unanswered += len(self._waiting) + len(self._busy)
        self._waiting.clear()
        self._busy.clear()
        self._ready.clear()

    def snapshot(self, now: float) -> QueueSnapshot:
        """A frozen view at ``now``."""
        workers = tuple(
            QueueWorkerView(peer=peer.hex(), busy=busy, silent_s=0.0)
            for peers, busy in ((self._ready, False), (self._busy, True))
            for peer in peers
        )
        return QueueSnapshot(
            queued=len(self._waiting),
            held=len(self._busy),
            bytes=sum(map(message_size, self._waiting)),
            workers=workers,
            counters=attrs.evolve(self.counters),
        )
