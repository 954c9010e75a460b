"""Hostile peers say what they are meant to say: the handshake is real, and what comes after it is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from chaos.running.strangers import LENGTHS, Strangers

_WAIT_S = 3.0
_SIZE_MAX = 1024


@pytest.fixture
def port() -> Iterator[int]:
    """Of a socket that takes frames of 1 KiB at most."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, _SIZE_MAX)
        yield socket.bind_to_random_port("tcp://127.0.0.1")


def test_every_length_and_every_rubbish_costs_its_connection(port: int) -> None:
    """One that is borne would be a hole in the scenario, or in what it torments."""
    strangers = Strangers("127.0.0.1", port, 3 * len(LENGTHS))
    assert (len(strangers.loud), len(strangers.mute)) == (2 * len(LENGTHS), len(LENGTHS))
    assert strangers.sent_away(_WAIT_S) == len(strangers.loud)
    strangers.close()


def test_length_is_refused_only_because_of_what_it_announces(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that fails would be refused just so, and no frame would ever be looked at."""
    monkeypatch.setattr("chaos.running.strangers.LENGTHS", (_SIZE_MAX,))
    strangers = Strangers("127.0.0.1", port, 1)
    assert strangers.sent_away(0.5) == 0
    strangers.close()
