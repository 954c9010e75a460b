"""``chaos.ports``: ports that no client can be given by accident."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from chaos.ports import PORTS_VARIABLE, free_port, share_of_ports


def test_port_is_free_and_below_the_ephemeral_range() -> None:
    """A reconnecting client can meet itself on an ephemeral port and keep the server from coming back."""
    port = free_port()
    assert 1024 < port < 32_768
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_port_in_use_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens there already would get what is meant for the server of the test."""
    with ExitStack() as stack:
        taken = 0
        while taken % 2 == 0:
            server = stack.enter_context(socket.socket())
            server.bind(("127.0.0.1", 0))
            taken = server.getsockname()[1]
        monkeypatch.setenv(PORTS_VARIABLE, f"{taken}-{taken + 1}")
        with pytest.raises(OSError, match=f"no free port between {taken} and {taken + 1} on"):
            free_port()


def test_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers of one test must not get the same port, though neither listens yet."""
    monkeypatch.setenv(PORTS_VARIABLE, "19001-19060")
    given = [free_port() for _ in range(20)]
    assert len(set(given)) == 20


def test_processes_with_shares_of_their_own_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is down has no hold on its port: another process must not be told the same."""
    given = []
    for number in range(3):
        monkeypatch.setenv(PORTS_VARIABLE, share_of_ports(number, 3))
        given.append({free_port() for _ in range(50)})
    assert max(given[0]) < min(given[1])
    assert max(given[1]) < min(given[2])
    assert all(1024 < port < 32_768 and port % 2 for port in set.union(*given))


@pytest.mark.parametrize("text", ["21000", "21000-", "a-b", "21000-20000", "0-5", "60000-70000", "1-2-3"])
def test_what_is_no_range_is_said(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody set it to keep two runs apart; to go on without would bring them together."""
    monkeypatch.setenv(PORTS_VARIABLE, text)
    with pytest.raises(ValueError, match=f"RELIABLE_PORTS is no range .*'{text}'"):
        free_port()
