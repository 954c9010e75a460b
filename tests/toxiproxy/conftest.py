"""A real Toxiproxy per test run, and plain TCP servers to put behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.toxi import ToxiproxyServer, toxiproxy_binary
from tests.support.injection_report import injected


@pytest.fixture(scope="session")
def toxiproxy_program() -> Path:
    """The server program, found or built once per run."""
    return injected(toxiproxy_binary)


@pytest.fixture(scope="session")
def toxiproxy(toxiproxy_program: Path) -> Iterator[ToxiproxyServer]:
    """One server for all tests: they use proxies of their own."""
    with ToxiproxyServer(binary=toxiproxy_program) as server:
        yield server


class EchoServer:
    """Answers each piece of data with the same; every connection has its thread and its bounds."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def _spawn(self, target: object, *args: socket.socket) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.1)
        with connection:
            while not self._closing.is_set():
                try:
                    data = connection.recv(65_536)
                    if not data:
                        return
                    connection.sendall(data)
                except TimeoutError:
                    continue
                except OSError:
                    return

    def close(self) -> None:
        """Stop all threads."""
        self._closing.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """Something behind the proxy."""
    server = EchoServer()
    yield server
    server.close()
