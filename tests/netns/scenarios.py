"""What happens inside the network namespace: a broker and its worker on one host, a client on another, cut apart.

Run as ``python -m tests.netns.scenarios NAME``; the last line is the result as JSON. The judging is done outside.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator

import attrs

from chaos.netns import Network, host
from reliable import Client
from tests.support.ends import End, call
from tests.support.served import Executions, broker_at, worker_at

CLIENT, BROKER = host(1), host(2)
PORT = 5555
# As seen from the client, with its own address in front.
ADDRESS = f"tcp://{CLIENT}:0;{BROKER}:{PORT}"


@attrs.define
class Result:
    """All ends in order, by what they are about, and the kernel's count of packets that vanished."""

    ends: dict[str, list[End]] = attrs.Factory(dict)
    executions: dict[str, int] = attrs.Factory(dict)
    dropped: int = 0


@contextlib.contextmanager
def _served() -> Iterator[tuple[Network, Executions]]:
    network, executions = Network(), Executions()
    endpoint = f"tcp://{BROKER}:{PORT}"
    with broker_at(endpoint), worker_at(f"tcp://{BROKER}:0;{BROKER}:{PORT}", executions):
        yield network, executions


def partition() -> Result:
    """Cut both ways under an open connection, then healed."""
    result = Result()
    with _served() as (network, executions), Client(ADDRESS) as client:
        result.ends["before"] = [call(client, "echo", "before", 10)]
        with network.partition(CLIENT, BROKER):
            result.ends["echo"] = [call(client, "echo", "cut", 2)]
            result.ends["once"] = [call(client, "once", "cut once", 2)]
        result.ends["after"] = [call(client, "once", f"after {n}", 10) for n in range(5)]
        result.executions = {word: executions.of(word) for word in ("before", "cut", "cut once", "after 0", "after 4")}
        result.dropped = network.dropped()
    return result


def unreachable() -> Result:
    """A client that never had a connection."""
    result = Result()
    with _served() as (network, executions), Client(ADDRESS) as client:
        with network.partition(CLIENT, BROKER):
            result.ends["cut"] = [call(client, "once", "cut", 2)]
        result.ends["after"] = [call(client, "once", "after", 10)]
        result.executions = {word: executions.of(word) for word in ("cut", "after")}
        result.dropped = network.dropped()
    return result


def replies_lost() -> Result:
    """Requests arrive, replies vanish: the work is done and the caller cannot know."""
    result = Result()
    with _served() as (network, executions), Client(ADDRESS) as client:
        result.ends["before"] = [call(client, "echo", "before", 10)]
        with network.one_way(BROKER, CLIENT):
            result.ends["once"] = [call(client, "once", "once", 2)]
        result.ends["after"] = [call(client, "echo", "after", 10)]
        result.executions = {word: executions.of(word) for word in ("once", "after")}
        result.dropped = network.dropped()
    return result


def healed_in_time() -> Result:
    """The cut is shorter than the caller's patience."""
    result = Result()
    with _served() as (network, executions), Client(ADDRESS) as client:
        result.ends["before"] = [call(client, "echo", "before", 10)]
        with network.partition(CLIENT, BROKER):
            result.ends["cut"] = [call(client, "echo", "cut", 1)]
        result.ends["again"] = [call(client, "echo", "again", 10)]
        result.executions = {"again": executions.of("again")}
        result.dropped = network.dropped()
    return result


def loss() -> Result:
    """Three packets of ten vanish, each way."""
    result = Result()
    with (
        _served() as (network, executions),
        Client(ADDRESS) as client,
        network.loss(CLIENT, BROKER, 0.3),
    ):
        result.ends["lossy"] = [call(client, "echo", f"echo {n}", 15) for n in range(8)]
        result.ends["lossy once"] = [call(client, "once", f"once {n}", 15) for n in range(4)]
        result.executions = {f"once {n}": executions.of(f"once {n}") for n in range(4)}
        result.dropped = network.dropped()
    return result


SCENARIOS: dict[str, Callable[[], Result]] = {
    "partition": partition,
    "unreachable": unreachable,
    "replies_lost": replies_lost,
    "healed_in_time": healed_in_time,
    "loss": loss,
}


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(SCENARIOS[sys.argv[1]]())))
