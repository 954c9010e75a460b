"""What all brokers do alike about their sockets, whichever protocol they serve."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Final

import pytest

from brokers import MajordomoBroker, ParanoidQueue, SimpleQueue
from brokers.serving import Server
from reliable.errors import ClosedError
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")

_ANY: Final = "tcp://127.0.0.1:0"
_END_S_MAX: Final = 5.0

KINDS: Final[list[Callable[[str], Server]]] = [
    lambda url: MajordomoBroker([url]),
    lambda url: ParanoidQueue([_ANY], [url]),
    lambda url: SimpleQueue([_ANY], [url]),
]


@pytest.fixture(params=KINDS, ids=["majordomo", "paranoid", "simple"])
def kind(request: pytest.FixtureRequest) -> Callable[[str], Server]:
    """Makes a broker of one kind that listens for workers at an address."""
    made: Callable[[str], Server] = request.param
    return made


def test_whoever_cannot_bind_gives_everything_back_and_is_over(kind: Callable[[str], Server]) -> None:
    """A service manager tries again in the same process: what the failed one held must not be in its way."""
    url = free_endpoint()
    with kind(url) as holder:
        holder.bind()
        failed = kind(url)
        with pytest.raises(OSError, match=url) as caught:
            failed.bind()
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(ClosedError, match="is closed"):
            failed.bind()
    with kind(url) as again:
        again.bind()


def test_binding_twice_is_binding_once(kind: Callable[[str], Server]) -> None:
    """``run`` binds what was not bound before, and callers who want to know the port bind first."""
    with kind(_ANY) as server:
        server.bind()
        before = repr(server)
        server.bind()
        assert repr(server) == before


def test_stop_ends_run_and_gives_the_address_back(kind: Callable[[str], Server]) -> None:
    """A broker that is told to stop from a signal handler must leave an address that its successor can bind."""
    url = free_endpoint()
    server = kind(url)
    server.bind()
    thread = threading.Thread(target=server.run)
    thread.start()
    server.stop()
    thread.join(_END_S_MAX)
    assert not thread.is_alive()
    with pytest.raises(ClosedError, match="is closed"):
        server.run()
    with kind(url) as successor:
        successor.bind()
