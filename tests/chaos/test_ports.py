"""``chaos.ports``: ports that no client can be given by accident."""

from __future__ import annotations

import socket

from chaos.ports import free_port


def test_port_is_free_and_below_the_ephemeral_range() -> None:
    """A reconnecting client can meet itself on an ephemeral port and keep the server from coming back."""
    port = free_port()
    assert 1024 < port < 32_768
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_port_in_use_is_not_given() -> None:
    """Two servers of one test must not get the same port."""
    with socket.socket() as server:
        taken = free_port()
        server.bind(("127.0.0.1", taken))
        server.listen()
        assert taken not in {free_port() for _ in range(300)}
