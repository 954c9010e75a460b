"""The Majordomo broker as a process runs it: one ROUTER, one thread, one loop."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Final

import zmq

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.snapshot import BrokerSnapshot
from reliable.config import TransportConfig
from reliable.errors import ClosedError
from reliable.transport import (
    Waker,
    ipc_is_served,
    open_router,
    read_message,
    seed_routing_ids,
    send_message,
    terminate,
    watch_endings,
)
from reliable.types import Frames
from reliable.wire.extension import LIFE_BYTES, NO_LIFE

__all__ = ["EVIDENCE_MESSAGES_MAX", "STALL_MESSAGES_MAX", "STALL_READ_S_MAX", "MajordomoBroker", "bind_router"]

_log = logging.getLogger("reliable.broker")

_BATCH_MESSAGES_MAX: Final = 200
_BATCH_S_MAX: Final = 0.005
EVIDENCE_MESSAGES_MAX: Final = 5_000
"""Read at most, before a peer that cannot be reached counts as gone: what it sent before its end may be among them."""
STALL_MESSAGES_MAX: Final = 100_000
STALL_READ_S_MAX: Final = 0.2
"""For reading what came during a stall. ZeroMQ takes one message from each peer in turn, so that everybody is heard
long before that; without an end a broker under load would read for ever, answer nothing, and stall by that."""
_LOOKS_MAX: Final = 20
_BACKLOG: Final = 4_096
"""Connections that wait to be accepted; the system may allow fewer. With libzmq's 100, of a thousand workers that come
at once many are dropped and try again a second later."""
_FRAME_BYTES_EXTRA: Final = 64 * 1024
"""What the frames around a body may have; the engine judges the body itself and can say so, libzmq just hangs up."""


def _new_life() -> bytes:
    while (life := os.urandom(LIFE_BYTES)) == NO_LIFE:
        pass
    return life


class MajordomoBroker:
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
        self.config = config or BrokerConfig()
        self._binds = list(binds)
        self._transport = transport or TransportConfig()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._endings: zmq.Socket[bytes] | None = None
        self._engine: MajordomoEngine | None = None
        self._waker = Waker()
        self._stopping = False
        self._closed = False
        self.life = _new_life()
        """8 bytes that name this run; clients and workers tell a restart by them."""
        self.endpoints: list[str] = []
        """What is bound, ports filled in; empty before ``bind``."""

    # --- from outside -----------------------------------------------------------------------------

    def bind(self) -> None:
        """Open the socket and listen. A second time does nothing.

        Raises:
            OSError: An address is in use (``errno.EADDRINUSE``), not ours, or cannot be read; the text names it.
            ClosedError: The broker was closed.
        """
        if self._closed:
            raise ClosedError("the broker is closed")
        if self._socket is not None:
            return
        seed_routing_ids()
        self._context = zmq.Context()
        size = self.config.message_bytes_max + _FRAME_BYTES_EXTRA
        self._socket = open_router(self._context, self._transport, message_bytes_max=size)
        try:
            for address in self._binds:
                self.endpoints.append(bind_router(self._socket, address))
        except OSError:
            self._release()
            raise
        self._endings = watch_endings(self._socket)
        self._engine = MajordomoEngine(self.config, life=self.life, now=time.monotonic())

    def run(self) -> None:
        """Serve until ``stop``; binds first if that was not done. Then tells clients and workers, and closes.

        Raises:
            OSError: As ``bind``.
            ClosedError: The broker was closed.
        """
        self.bind()
        assert self._socket is not None and self._endings is not None and self._engine is not None
        try:
            loop = _Loop(self._socket, self._endings, self._engine, self._waker, self.config)
            loop.run(self._is_stopping)
        finally:
            # Bound sockets send what they hold before they close, but not for long to peers that do not read.
            self._release(linger_s=self._transport.linger_s)

    def _is_stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        """Ask ``run`` to end. From any thread or signal handler; returns at once."""
        self._stopping = True
        self._waker.wake()

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

    def close(self) -> None:
        """Give everything back. While ``run`` goes on in another thread call ``stop`` instead, and join that thread."""
        self._release()

    def _release(self, linger_s: float = 0.0) -> None:
        if self._closed:
            return
        self._closed = True
        if self._endings is not None and self._socket is not None:
            self._socket.disable_monitor()
            self._endings.close(linger=0)
        if self._socket is not None:
            self._socket.close(linger=round(linger_s * 1000))
        if self._context is not None:
            terminate(self._context)
        self._waker.close()

    def __enter__(self) -> MajordomoBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MajordomoBroker {' '.join(self.endpoints or self._binds)}>"


def bind_router(socket: zmq.Socket[bytes], address: str) -> str:
    """Bind; the address as bound. libzmq's errors come without the address and as a class of their own."""
    if address.startswith("ipc://") and ipc_is_served(address.removeprefix("ipc://")):
        # libzmq would remove the file and take the clients away from whoever listens there.
        raise OSError(errno.EADDRINUSE, f"{address}: the address is in use")
    if "[" in address or address.startswith("tcp://*"):
        socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        number = error.errno or 0
        reason = {
            errno.EADDRINUSE: "the address is in use",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
            errno.ENODEV: "this machine does not have that address",
            errno.EINVAL: "that is not an address: write tcp://host:port or ipc://path",
            errno.EPROTONOSUPPORT: "that is not an address: write tcp://host:port or ipc://path",
            errno.EACCES: "not allowed",
        }.get(number, str(error))
        raise OSError(number, f"{address}: {reason}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


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
        self._woke = time.monotonic()

    def run(self, is_stopping: Callable[[], bool]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker.fileno(), selectors.EVENT_READ)
            selector.register(int(self._socket.FD), selectors.EVENT_READ)
            selector.register(int(self._endings.FD), selectors.EVENT_READ)
            while not is_stopping():
                self._wait(selector)
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
                if key.fd == self._waker.fileno():
                    self._waker.clear()
            self._woke = time.monotonic()
            late_s = max(late_s, self._woke - now - wait_s)
        else:
            self._woke = now
        if late_s > self._stall_s:
            self._make_good(late_s)

    def _read_endings(self) -> None:
        """Hear of connections that ended, instead of finding out by the next heartbeat."""
        ended = False
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
        for _ in range(messages_max):
            message = read_message(self._socket)
            if message is None:
                self._empty = True
                return
            now = time.monotonic()
            receive(message, now)
            if now > until:
                break
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
