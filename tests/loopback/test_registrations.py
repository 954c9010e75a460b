"""Very many workers that come all at once, and come back all at once when their broker was restarted.

``RELIABLE_LONG=1`` has a thousand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import pytest
import zmq

from brokers import BrokerConfig
from reliable import Client
from reliable.config import TransportConfig
from tests.support.farm import Farm, FarmFigures, FarmSettings, raise_limits, service_of
from tests.support.fleet import sized
from tests.support.loopback import BrokerThread, Stage, eventually

_WORKERS: Final = sized(100, 1_000)
_FARMS: Final = 4
_REGISTER_S_MAX: Final = 2.0
_RECOVER_S_MAX: Final = 5.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(sized(60, 180))]


@pytest.fixture
def farms(endpoint: str) -> Iterator[list[Farm]]:
    """All workers, made and not started, in four processes."""
    raise_limits()
    share = _WORKERS // _FARMS
    with ExitStack() as processes:
        made = [Farm(FarmSettings(endpoint, index * share, share, held=True)) for index in range(_FARMS)]
        for farm in made:
            processes.callback(farm.close)
        for farm in made:
            farm.wait_held()
        yield made


def _all_serve(broker: BrokerThread) -> float:
    """Call each one by its own name; how long that took."""
    began = time.monotonic()
    with Client(broker.endpoint, timeout=20.0) as client, ThreadPoolExecutor(16) as pool:
        replies = pool.map(lambda number: client.request(service_of(number), b""), range(_WORKERS))
        assert list(replies) == [[b"%d" % number] for number in range(_WORKERS)]
    return time.monotonic() - began


def _figures_when_registered(farm: Farm) -> FarmFigures:
    eventually(lambda: farm.figures().registered == farm.settings.engines, "all come back", 30.0)
    return farm.figures()


def _spread_s(figures: list[FarmFigures]) -> float:
    return max(each.ready_at[1] for each in figures) - min(each.ready_at[0] for each in figures)


def test_a_crowd_of_workers_registers_at_once_and_comes_back_after_a_restart(
    stage: Stage, farms: list[Farm], endpoint: str
) -> None:
    """A broker that is replaced meets all its workers in the same second, and none may be turned away."""
    broker = stage.broker(endpoint, BrokerConfig(), TransportConfig())
    for farm in farms:
        farm.begin()
    first = [farm.wait_ready() for farm in farms]
    assert sum(each.registered for each in first) == _WORKERS
    served_s = _all_serve(broker)
    stage.stop(broker)
    restarted = time.monotonic()
    broker = stage.broker(endpoint, BrokerConfig(), TransportConfig())
    again = [_figures_when_registered(farm) for farm in farms]
    recovered_s = max(each.ready_at[1] for each in again) - restarted
    assert sum(each.registrations for each in again) == 2 * _WORKERS, "nobody had to try twice"
    served_again_s = _all_serve(broker)
    print(
        f"{_WORKERS} workers registered within {_spread_s(first):.2f} s of one another, and again within "
        f"{recovered_s:.2f} s of a restart; a call to each took {served_s:.2f} s and {served_again_s:.2f} s"
    )
    assert _spread_s(first) < _REGISTER_S_MAX
    assert recovered_s < _RECOVER_S_MAX
    eventually(lambda: broker.broker.snapshot().counters["replies"] == _WORKERS, "each was asked once")


def test_a_broker_lets_a_crowd_wait_to_be_accepted(stage: Stage) -> None:
    """With libzmq's hundred the others are dropped by the kernel, and try again a second later."""
    socket = stage.broker().broker._socket
    assert socket is not None and int(socket.get(zmq.BACKLOG)) >= 1_000
