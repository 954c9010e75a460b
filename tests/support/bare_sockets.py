"""Sockets of pyzmq itself, for tests of what libzmq does and of how messages are moved."""

from __future__ import annotations

import zmq

__all__ = ["Sockets"]


class Sockets:
    """Sockets of one test, all closed at its end.

    Args:
        options: What every one of them is given, by the names that pyzmq has for it.
    """

    def __init__(self, **options: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._options = options
        self._made: list[zmq.Socket[bytes]] = []

    def new(self, kind: int, **options: int | bytes) -> zmq.Socket[bytes]:
        """One with further options."""
        socket = self._context.socket(kind)
        self._made.append(socket)
        for name, value in (self._options | options).items():
            setattr(socket, name, value)
        return socket

    def pair(
        self, bound: int = zmq.DEALER, connected: int = zmq.DEALER, *, both: bool = False, **options: int
    ) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """One that listens, with the options, and one that is connected to it; ``both``: with the same options."""
        server, client = self.new(bound, **options), self.new(connected, **(options if both else {}))
        port = server.bind_to_random_port("tcp://127.0.0.1")
        client.connect(f"tcp://127.0.0.1:{port}")
        return server, client

    def close(self) -> None:
        """Close all."""
        for socket in self._made:
            socket.close(linger=0)
        self._context.term()
