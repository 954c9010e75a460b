"""The pirate queues as a process runs them: two ROUTERs, one thread, one loop."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import zmq

from brokers.paranoid import LIFE_BYTES, ParanoidEngine
from brokers.queueing import QueueConfig, QueueCounters, QueueEngine, QueueSnapshot, Side
from brokers.serving import EVIDENCE_MESSAGES_MAX, STALL_MESSAGES_MAX, STALL_READ_S_MAX, Server, bind_router
from brokers.simple import SimpleEngine
from reliable.config import TransportConfig
from reliable.errors import ClosedError
from reliable.messages import read_message, send_message
from reliable.transport import Waker
from reliable.types import Frames

__all__ = ["ParanoidQueue", "PirateQueue", "SimpleQueue"]

_log = logging.getLogger("reliable.queue")

_BATCH_MESSAGES_MAX: Final = 200
_BATCH_S_MAX: Final = 0.005
_SOCKET_MESSAGES_MAX: Final = 1_000
"""Per client, where requests wait in the socket: more of them wait at the client."""
_IDLE_S: Final = 1.0
"""Longest wait, so that a loop without deadlines still notices that it was stalled."""
_REPORT_S: Final = 1.0
"""At most one line about drops in so long."""
_REPORTED: Final = {
    "dropped_full": "the queue is full",
    "dropped_too_large": "larger than allowed",
    "expired": "waited too long",
    "overdue": "held too long by a worker",
    "abandoned": "lost with a worker",
    "undeliverable": "the client of the reply is gone",
    "dropped_invalid": "malformed",
    "workers_refused": "too many workers",
}


class PirateQueue(Server):
    """Clients in front, workers behind; see ``ParanoidQueue`` and ``SimpleQueue``.

        with ParanoidQueue(["tcp://127.0.0.1:5555"], ["tcp://127.0.0.1:5556"]) as queue:
            queue.run()   # until queue.stop()

    Args:
        frontends: Addresses for clients, like ``tcp://127.0.0.1:5555`` or ``ipc:///run/q``; port 0 takes a free one.
        backends: Addresses for workers.
        config: Settings.
        transport: Heartbeats and time limits of the connections.

    Raises:
        ValueError: No address on one of the sides.
    """

    _what = "queue"
    clients_wait_in_the_socket: ClassVar[bool] = False
    """Whether the front socket is left unread at times, and so has to have a bound of its own."""

    def __init__(
        self,
        frontends: Sequence[str],
        backends: Sequence[str],
        config: QueueConfig | None = None,
        transport: TransportConfig | None = None,
    ) -> None:
        for binds in (frontends, backends):
            if isinstance(binds, str) or not binds:
                raise ValueError("give a list with at least one address to bind, like ['tcp://127.0.0.1:5555']")
        super().__init__(transport)
        self.config = config or QueueConfig()
        self._binds = {Side.FRONTEND: list(frontends), Side.BACKEND: list(backends)}
        self._sockets: dict[Side, zmq.Socket[bytes]] = {}
        self._engine: QueueEngine | None = None
        self.frontends: list[str] = []
        """What is bound for clients, ports filled in; empty before ``bind``."""
        self.backends: list[str] = []
        """The same for workers."""

    @abstractmethod
    def _new_engine(self) -> QueueEngine:
        """Of which kind the queue is."""

    def _open(self) -> zmq.Socket[bytes]:
        for side, bound in ((Side.FRONTEND, self.frontends), (Side.BACKEND, self.backends)):
            socket = self._sockets[side] = self._open_router(self.config.message_bytes_max)
            if side is Side.FRONTEND and self.clients_wait_in_the_socket:
                socket.setsockopt(zmq.RCVHWM, _SOCKET_MESSAGES_MAX)
            for address in self._binds[side]:
                bound.append(bind_router(socket, address))
        return self._sockets[Side.BACKEND]

    def _start(self) -> None:
        self._engine = self._new_engine()

    def _serve(self) -> None:
        assert self._endings is not None and self._engine is not None
        _Loop(self._sockets, self._endings, self._engine, self._waker, self.config).run(self._is_stopping)

    def snapshot(self) -> QueueSnapshot:
        """What the queue holds. Only between runs, or from the thread that runs it.

        Raises:
            ClosedError: It is not bound.
        """
        if self._engine is None:
            raise ClosedError("the queue is not bound")
        return self._engine.snapshot(time.monotonic())

    @property
    def counters(self) -> QueueCounters:
        """What happened so far; readable from any thread.

        Raises:
            ClosedError: It is not bound.
        """
        if self._engine is None:
            raise ClosedError("the queue is not bound")
        return self._engine.counters

    def __repr__(self) -> str:
        fronts = self.frontends or self._binds[Side.FRONTEND]
        backs = self.backends or self._binds[Side.BACKEND]
        return f"<{type(self).__name__} {' '.join(fronts)} | {' '.join(backs)}>"


class ParanoidQueue(PirateQueue):
    """The Paranoid Pirate queue (6/PPP); ``brokers.paranoid`` has its rules."""

    def _new_engine(self) -> QueueEngine:
        return ParanoidEngine(self.config, life=os.urandom(LIFE_BYTES))


class SimpleQueue(PirateQueue):
    """The Simple Pirate queue of the ZeroMQ Guide; ``brokers.simple`` has its rules, and what it cannot do."""

    clients_wait_in_the_socket = True

    def _new_engine(self) -> QueueEngine:
        return SimpleEngine(self.config)


class _Loop:
    """Wait, read a bounded batch of each side, send what the engine wants sent, run timers; again."""

    def __init__(
        self,
        sockets: dict[Side, zmq.Socket[bytes]],
        endings: zmq.Socket[bytes],
        engine: QueueEngine,
        waker: Waker,
        config: QueueConfig,
    ) -> None:
        self._sockets = sockets
        self._endings = endings
        self._engine = engine
        self._waker = waker
        self._interval_s = config.heartbeat.interval_s
        self._receive = {Side.FRONTEND: engine.receive_frontend, Side.BACKEND: engine.receive_backend}
        self._unread = {Side.FRONTEND: True, Side.BACKEND: True}
        """Which sockets were touched since they were read empty: a touch may consume the edge of the descriptor."""
        self._watched = False
        """Whether the front socket's descriptor is waited on: one that is left unread stays readable."""
        self._woke = time.monotonic()
        self._reported_at = self._woke
        self._reported: dict[str, int] = dict.fromkeys(_REPORTED, 0)

    def run(self, is_stopping: Callable[[], bool]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker.fileno(), selectors.EVENT_READ)
            selector.register(int(self._sockets[Side.BACKEND].FD), selectors.EVENT_READ)
            selector.register(int(self._endings.FD), selectors.EVENT_READ)
            while not is_stopping():
                self._wait(selector)
                self._read_endings()
                # Replies first: they free workers for what the clients want.
                for side in (Side.BACKEND, Side.FRONTEND):
                    self._read(side, _BATCH_MESSAGES_MAX, time.monotonic() + _BATCH_S_MAX)
                    self._flush()
                self._run_timers()
                self._report()
        self._engine.stop(time.monotonic())
        self._flush()

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Wait until something arrives or is due. What takes longer than an interval beyond that was our own stall."""
        now = time.monotonic()
        late_s = now - self._woke
        wanted = self._engine.wants_requests
        if wanted != self._watched:
            front = int(self._sockets[Side.FRONTEND].FD)
            if wanted:
                selector.register(front, selectors.EVENT_READ)
            else:
                selector.unregister(front)
            self._watched = wanted
        if self._unread[Side.BACKEND] or (wanted and self._unread[Side.FRONTEND]):
            self._woke = now
        else:
            due = self._engine.next_deadline()
            wait_s = _IDLE_S if due is None else min(max(due - now, 0.0), _IDLE_S)
            for key, _ in selector.select(wait_s):
                if key.fd == self._waker.fileno():
                    self._waker.clear()
            # Which one it was does not matter: looking at a socket that has nothing costs a microsecond.
            self._unread = dict.fromkeys(self._unread, True)
            self._woke = time.monotonic()
            late_s = max(late_s, self._woke - now - wait_s)
        if late_s > self._interval_s:
            self._make_good(late_s)

    def _make_good(self, late_s: float) -> None:
        """Nobody was silent while we did not listen: hear everybody, then let deadlines of liveness slip."""
        began = time.monotonic()
        self._read(Side.BACKEND, STALL_MESSAGES_MAX, began + STALL_READ_S_MAX)
        _log.warning("late by %.1f s: that delay is mine, no worker is judged by it", late_s)
        # The time that this reading took is no stall to be found next time round.
        self._woke = time.monotonic()
        self._engine.stalled(late_s + self._woke - began, self._woke)

    def _read_endings(self) -> None:
        """Hear of workers' connections that ended, instead of finding out by the next heartbeat."""
        ended = False
        while read_message(self._endings) is not None:
            ended = True
        if ended:
            self._engine.connection_ended(time.monotonic())

    def _read(self, side: Side, messages_max: int, until: float) -> None:
        socket, receive = self._sockets[side], self._receive[side]
        for _ in range(messages_max):
            if side is Side.FRONTEND and not self._engine.wants_requests:
                return
            message = read_message(socket)
            if message is None:
                self._unread[side] = False
                return
            now = time.monotonic()
            receive(message, now)
            if now > until:
                break
        self._unread[side] = True

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = self._engine.next_deadline()
        if due is not None and due <= now:
            self._engine.timers(now)
            self._flush()

    def _flush(self) -> None:
        """Send everything that the engine wants sent; what follows from a send that failed, too."""
        while (outgoing := self._engine.take()) is not None:
            side, message = outgoing
            self._unread[side] = True
            try:
                send_message(self._sockets[side], message)
            except zmq.Again:
                self._retry(side, message)
            except zmq.ZMQError as error:
                self._unsent(side, message, error)

    def _retry(self, side: Side, message: Frames) -> None:
        """A full pipe may belong to a peer that is gone, which libzmq only notices while receiving."""
        if side is Side.BACKEND:
            self._read(side, 1, float("inf"))
        else:
            # Not read here: what clients ask may have to stay in the socket.
            self._sockets[side].get(zmq.EVENTS)
        try:
            send_message(self._sockets[side], message)
        except zmq.ZMQError as error:
            self._unsent(side, message, error)

    def _unsent(self, side: Side, message: Frames, error: zmq.ZMQError) -> None:
        unreachable = error.errno == errno.EHOSTUNREACH
        if not unreachable and error.errno != errno.EAGAIN:
            raise error
        if side is Side.BACKEND and unreachable:
            # Replies that were sent before the worker's end may still be unread: they count before the verdict.
            self._read(side, EVIDENCE_MESSAGES_MAX, float("inf"))
        self._engine.unsent(side, message, unreachable, time.monotonic())

    def _report(self) -> None:
        """Say what was dropped: nobody else is told."""
        now = time.monotonic()
        if now - self._reported_at < _REPORT_S:
            return
        counts = {name: getattr(self._engine.counters, name) for name in _REPORTED}
        if counts == self._reported:
            return
        news = [
            f"{counts[name] - before} ({_REPORTED[name]})"
            for name, before in self._reported.items()
            if counts[name] > before
        ]
        self._reported, self._reported_at = counts, now
        _log.warning("dropped: %s", ", ".join(news))
