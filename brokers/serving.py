"""What the shells of all brokers share: they bind, run in one thread, are stopped from any, and give all back."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import Final, Self

import zmq

from reliable.config import TransportConfig
from reliable.errors import ClosedError
from reliable.transport import (
    Waker,
    ipc_is_served,
    open_router,
    seed_routing_ids,
    terminate,
    watch_endings,
)

__all__ = ["EVIDENCE_MESSAGES_MAX", "STALL_MESSAGES_MAX", "STALL_READ_S_MAX", "Server", "bind_router"]

EVIDENCE_MESSAGES_MAX: Final = 5_000
"""Read at most, before a peer that cannot be reached counts as gone: what it sent before its end may be among them."""
STALL_MESSAGES_MAX: Final = 100_000
STALL_READ_S_MAX: Final = 0.2
"""For reading what came during a stall. ZeroMQ takes one message from each peer in turn, so that everybody is heard
long before that; without an end a broker under load would read for ever, answer nothing, and stall by that."""
_BACKLOG: Final = 4_096
"""Connections that wait to be accepted; the system may allow fewer. With libzmq's 100, of a thousand workers that come
at once many are dropped and try again a second later."""


class Server(ABC):
    """ROUTERs that are opened together, the one among them whose lost connections are watched, and what ends them.

    Args:
        transport: Heartbeats and time limits of the connections.
    """

    _what = "broker"
    """For texts."""

    def __init__(self, transport: TransportConfig | None) -> None:
        self._transport = transport or TransportConfig()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._routers: list[zmq.Socket[bytes]] = []
        self._watched: zmq.Socket[bytes] | None = None
        self._endings: zmq.Socket[bytes] | None = None
        self._waker = Waker()
        self._bound = False
        self._stopping = False
        self._closed = False

    # --- what each kind is ------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> zmq.Socket[bytes]:
        """Open and bind every socket, by ``_open_router``.

        Returns:
            The one that workers are connected to.

        Raises:
            OSError: As ``bind``.
        """

    @abstractmethod
    def _start(self) -> None:
        """Everything is bound: make the engine."""

    @abstractmethod
    def _serve(self) -> None:
        """Run the loop until ``_is_stopping`` says so."""

    # --- from outside -----------------------------------------------------------------------------

    def bind(self) -> None:
        """Open the sockets and listen. A second time does nothing.

        Raises:
            OSError: An address is in use (``errno.EADDRINUSE``), not ours, or cannot be read; the text names it.
            ClosedError: It was closed.
        """
        if self._closed:
            raise ClosedError(f"the {self._what} is closed")
        if self._bound:
            return
        seed_routing_ids()
        self._context = zmq.Context()
        try:
            watched = self._open()
        except OSError:
            self._release()
            raise
        self._watched, self._endings = watched, watch_endings(watched)
        self._start()
        self._bound = True

    def run(self) -> None:
        """Serve until ``stop``; binds first if that was not done. Then tells clients and workers what there is to
        tell, and closes.

        Raises:
            OSError: As ``bind``.
            ClosedError: It was closed.
        """
        self.bind()
        try:
            self._serve()
        finally:
            # Bound sockets send what they hold before they close, but not for long to peers that do not read.
            self._release(linger_s=self._linger_s())

    def stop(self) -> None:
        """Ask ``run`` to end. From any thread or signal handler; returns at once."""
        self._stopping = True
        self._waker.wake()

    def close(self) -> None:
        """Give everything back. While ``run`` goes on in another thread call ``stop`` instead, and join that thread."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for each kind ----------------------------------------------------------------------------

    def _open_router(self, message_bytes_max: int) -> zmq.Socket[bytes]:
        """A ROUTER that ``_release`` closes."""
        assert self._context is not None
        socket = open_router(self._context, self._transport, message_bytes_max=message_bytes_max)
        self._routers.append(socket)
        return socket

    def _linger_s(self) -> float:
        """How long what is not sent yet may take at the end."""
        return self._transport.linger_s

    def _is_stopping(self) -> bool:
        return self._stopping

    def _release(self, linger_s: float = 0.0) -> None:
        if self._closed:
            return
        self._closed = True
        if self._endings is not None and self._watched is not None:
            self._watched.disable_monitor()
            self._endings.close(linger=0)
        for socket in self._routers:
            socket.close(linger=round(linger_s * 1000))
        if self._context is not None:
            terminate(self._context)
        self._waker.close()


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
