"""A TCP forwarder on loopback that loses what it is told to lose: the end of what one side said before a cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator

from tests.support.ports import free_endpoint

__all__ = ["LosingProxy", "losing_proxy"]

_READ_BYTES = 65536
_END_S = 10.0


class LosingProxy:
    """Forwards every connection to one server.

    Args:
        server: ``tcp://host:port``.
    """

    def __init__(self, server: str) -> None:
        self.endpoint = free_endpoint()
        self.swallow = False
        """While set, what comes from clients is read and goes nowhere."""
        self.swallowed_bytes = 0
        self._server = _address(server)
        self._listener = socket.create_server(_address(self.endpoint))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, tuple[socket.socket, bool]] = {}
        self._lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="losing proxy")
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server, 1.0)
        except OSError:
            client.close()
            return
        for one, other, is_client in ((client, server, True), (server, client, False)):
            self._other[one] = (other, is_client)
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        if source not in self._other:
            return
        target, from_client = self._other[source]
        try:
            data = source.recv(_READ_BYTES)
            if data and from_client and self.swallow:
                self.swallowed_bytes += len(data)
            elif data:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source)

    def _drop(self, one: socket.socket) -> None:
        other, _ = self._other[one]
        for end in (one, other):
            self._selector.unregister(end)
            del self._other[end]
            end.close()

    def cut(self) -> None:
        """End every connection, at both ends; new ones are taken again."""
        with self._lock:
            while self._other:
                self._drop(next(iter(self._other)))

    def close(self) -> None:
        """End it."""
        self._over = True
        self._thread.join(_END_S)
        self.cut()
        self._listener.close()
        self._selector.close()


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def losing_proxy(server: str) -> Iterator[LosingProxy]:
    """One that is closed at the end."""
    proxy = LosingProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
