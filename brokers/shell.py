"""The Majordomo broker as a process runs it: one ROUTER, one thread, one loop."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import zmq

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.serving import EVIDENCE_MESSAGES_MAX, STALL_MESSAGES_MAX, STALL_READ_S_MAX, Server, bind_router
from brokers.snapshot import BrokerSnapshot
from reliable.config import TransportConfig
from reliable.errors import ClosedError
from reliable.messages import read_message, read_messages, send_message
from reliable.transport import Waker
from reliable.types import Frames
from reliable.wire.extension import LIFE_BYTES, NO_LIFE

__all__ = ["MajordomoBroker"]

_log = logging.getLogger("reliable.broker")

_BATCH_MESSAGES_MAX: Final = 200
_BATCH_S_MAX: Final = 0.005
_AT_ONCE_MAX: Final = 16
"""Messages taken from the socket under one reading of the clock, and handled before the time is looked at again."""
_LOOKS_MAX: Final = 20
_FRAME_BYTES_EXTRA: Final = 64 * 1024
"""What the frames around a body may have; the engine judges the body itself and can say so, libzmq just hangs up."""


def _new_life() -> bytes:
    while (life := os.urandom(LIFE_BYTES)) == NO_LIFE:
        pass
    return life


class MajordomoBroker(Server):
    """A broker for clients and workers of MDP 0.1, MDP 0.2 and this library, on one socket.

        with MajordomoBroker(["tcp://127.0.0.1:5555"]) as broker:
            broker.run()   # until broker.stop()

    Args:
        binds: Addresses to listen on, like ``tcp://127.0.0.1:5555`` or ``ipc:///run/broker``; port 0 takes a free one.
            There is no authentication: bind to addresses that only those can reach who may call and serve.
        config: Settings.
        transport: Heartbeats and time limits of the connections.

    Raises:
        ValueError: No address.
    """

    def __init__(
        self, binds: Sequence[str], config: BrokerConfig | None = None, transport: TransportConfig | None = None
    ) -> None:
        if isinstance(binds, str) or not binds:
            raise ValueError("give a list with at least one address to bind, like ['tcp://127.0.0.1:5555']")
        super().__init__(transport)
        self.config = config or BrokerConfig()
        self._binds = list(binds)
        self._socket: zmq.Socket[bytes] | None = None
        self._engine: MajordomoEngine | None = None
        self._asked: deque[float] = deque()
        """Seconds to drain, of each wish to stop that the engine has not heard of."""
        self._leave_by = math.inf
        self.life = _new_life()
        """8 bytes that name this run; clients and workers tell a restart by them."""
        self.endpoints: list[str] = []
        """What is bound, ports filled in; empty before ``bind``."""

    def _open(self) -> zmq.Socket[bytes]:
        socket = self._socket = self._open_router(self.config.message_bytes_max + _FRAME_BYTES_EXTRA)
        for address in self._binds:
            self.endpoints.append(bind_router(socket, address))
        return socket

    def _start(self) -> None:
        self._engine = MajordomoEngine(self.config, life=self.life, now=time.monotonic())

    def _serve(self) -> None:
        assert self._socket is not None and self._endings is not None and self._engine is not None
        _Loop(self._socket, self._endings, self._engine, self._waker, self.config).run(self._is_stopping)

    def stop(self, drain_s: float | None = None) -> None:
        """Ask ``run`` to end: refuse new calls, wait for what workers hold, say goodbye. From any thread or signal
        handler; returns at once. Asked more than once, the earliest end counts.

        Args:
            drain_s: Seconds that workers get for what they hold; 0 is now. None: ``BrokerConfig.drain_s``.

        Raises:
            ValueError: A negative number of seconds, or no number.
        """
        seconds = self.config.drain_s if drain_s is None else drain_s
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a broker drains for zero or more seconds, not for {drain_s!r}")
        self._asked.append(seconds)
        super().stop()

    def _is_stopping(self) -> bool:
        """Whether it is time to go; passes on to the engine what was asked for meanwhile."""
        if not self._stopping or self._engine is None:
            return False
        now = time.monotonic()
        while self._asked:
            self._leave_by = min(self._leave_by, now + self._asked.popleft())
            self._engine.drain(self._leave_by, now)
        return self._engine.drained(now)

    def _linger_s(self) -> float:
        """The last replies that were waited for may be large; what is left of the drain is theirs."""
        left_s = self._leave_by - time.monotonic()
        return max(super()._linger_s(), min(left_s, self._transport.heartbeat_timeout_s) if left_s < math.inf else 0.0)

    def snapshot(self) -> BrokerSnapshot:
        """What the broker holds; approximate when taken from another thread than the one that runs.

        Raises:
            ClosedError: It is not bound.
            RuntimeError: It changed too fast to be looked at from another thread.
        """
        if self._engine is None:
            raise ClosedError("the broker is not bound")
        for _ in range(_LOOKS_MAX):
            # A table that grows while it is read raises; the loop must not be slowed down by a lock for this.
            with contextlib.suppress(RuntimeError):
                return self._engine.snapshot(time.monotonic())
        return self._engine.snapshot(time.monotonic())

    def __repr__(self) -> str:
        return f"<MajordomoBroker {' '.join(self.endpoints or self._binds)}>"


class _Loop:
    """Wait, read a bounded batch, send what the engine wants sent, run timers; again."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        endings: zmq.Socket[bytes],
        engine: MajordomoEngine,
        waker: Waker,
        config: BrokerConfig,
    ) -> None:
        self._socket = socket
        self._endings = endings
        self._engine = engine
        self._waker = waker
        self._interval_s = config.heartbeat.interval_s
        self._stall_s = min(self._interval_s, config.limbo_s / 2)
        """What we are late by before anybody is judged otherwise for it: less than any time that a peer is given."""
        self._empty = True
        """Whether the socket was read empty after it was last touched; only then is it right to wait."""
        self._ended = True
        """Whether connections may have ended since that was last looked at. Its descriptor tells: unlike the ROUTER's,
        nothing but reading consumes its edge."""
        self._woke = time.monotonic()

    def run(self, is_stopping: Callable[[], bool]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker.fileno(), selectors.EVENT_READ, self._waker.clear)
            selector.register(int(self._socket.FD), selectors.EVENT_READ)
            selector.register(int(self._endings.FD), selectors.EVENT_READ, self._endings_are_news)
            while not is_stopping():
                # What a drain begins with.
                self._flush()
                self._wait(selector)
                if self._ended:
                    self._read_endings()
                self._read_batch()
                self._flush()
                if not self._empty:
                    # Sending may have consumed the edge of the descriptor, so look once more.
                    self._read_batch()
                    self._flush()
                self._run_timers()
        self._engine.stop(time.monotonic())
        self._flush()

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Wait until something arrives or is due. What takes much longer than that was our own stall."""
        now = time.monotonic()
        late_s = now - self._woke
        if self._empty:
            due = self._engine.next_deadline()
            wait_s = self._interval_s if due is None else min(max(due - now, 0.0), self._interval_s)
            for key, _ in selector.select(wait_s):
                if key.data is not None:
                    key.data()
            self._woke = time.monotonic()
            late_s = max(late_s, self._woke - now - wait_s)
        else:
            self._woke = now
            # Nobody has looked at the descriptors.
            self._ended = True
        if late_s > self._stall_s:
            self._make_good(late_s)

    def _endings_are_news(self) -> None:
        self._ended = True

    def _read_endings(self) -> None:
        """Hear of connections that ended, instead of finding out by the next heartbeat."""
        self._ended = ended = False
        while read_message(self._endings) is not None:
            ended = True
        if ended:
            self._engine.connection_ended(time.monotonic())

    def _make_good(self, late_s: float) -> None:
        """Nobody was silent while we did not listen: hear everybody, then let deadlines of liveness slip."""
        began = time.monotonic()
        self._read(STALL_MESSAGES_MAX, began + STALL_READ_S_MAX)
        level = logging.WARNING if late_s > self._interval_s else logging.INFO
        _log.log(level, "late by %.1f s: that delay is mine, no peer is judged by it", late_s)
        self._woke = time.monotonic()
        self._engine.stalled(late_s + self._woke - began, self._woke)

    def _read_batch(self) -> None:
        self._read(_BATCH_MESSAGES_MAX, time.monotonic() + _BATCH_S_MAX)

    def _read(self, messages_max: int, until: float) -> None:
        receive = self._engine.receive
        now = -math.inf
        while messages_max > 0 and now <= until:
            limit = min(messages_max, _AT_ONCE_MAX)
            messages = read_messages(self._socket, limit)
            now = time.monotonic()
            for message in messages:
                receive(message, now)
            if len(messages) < limit:
                self._empty = True
                return
            messages_max -= limit
        self._empty = False

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = self._engine.next_deadline()
        if due is not None and due <= now:
            self._engine.timers(now)
            self._flush()

    def _flush(self) -> None:
        """Send everything that the engine wants sent; what follows from a send that failed, too."""
        outbox = self._engine.outbox
        while outbox:
            self._empty = False
            message = outbox.popleft()
            try:
                send_message(self._socket, message)
            except zmq.Again:
                self._retry(message)
            except zmq.ZMQError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise
                # Replies that were sent before the peer's end may still be unread: they count before the verdict.
                self._read(EVIDENCE_MESSAGES_MAX, float("inf"))
                self._engine.unsent(message, True, time.monotonic())

    def _retry(self, message: Frames) -> None:
        """A full pipe may belong to a peer that is gone, which libzmq only notices while receiving."""
        received = read_message(self._socket)
        if received is not None:
            self._engine.receive(received, time.monotonic())
        try:
            send_message(self._socket, message)
        except zmq.ZMQError as error:
            unreachable = error.errno == errno.EHOSTUNREACH
            if unreachable:
                self._read(EVIDENCE_MESSAGES_MAX, float("inf"))
            self._engine.unsent(message, unreachable, time.monotonic())
