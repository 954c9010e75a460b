"""Replies and requests that are large for the link that they take: a typed error at worst, and nobody lost for good.

Heartbeats of ZMTP cannot overtake a message on its way. So a message must pass within ``heartbeat_timeout_s``; what
takes longer cuts its link, again and again if it were repeated for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from brokers import BrokerConfig
from chaos.toxi import ToxiproxyServer
from chaos.toxi.proxy import ToxiProxy
from chaos.toxi.toxics import Bandwidth, Direction
from reliable import Client, Outcome, RequestError, WorkerLost
from reliable.config import TransportConfig
from tests.support.fleet import Fleet, Service, WorkerProcess, fleet_in
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, QUICK_TRANSPORT, BrokerThread, Stage, eventually
from tests.support.parts_reader import ask

pytestmark = [pytest.mark.toxiproxy, pytest.mark.slow]

_SLOW: Final = Bandwidth(bytes_per_s=400_000)
_LIVENESS_S: Final = 0.6
_TRANSPORT: Final = attrs.evolve(QUICK_TRANSPORT, heartbeat_interval_s=0.2, heartbeat_timeout_s=_LIVENESS_S)
_FITS: Final = b"%d" % (_SLOW.bytes_per_s * _LIVENESS_S * 0.7)
_TOO_MUCH: Final = b"%d" % (_SLOW.bytes_per_s * 1.7)
"""Too much also for the other side of the link, which waits for a second."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Brokers."""
    made = Stage()
    yield made
    made.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes."""
    with fleet_in(tmp_path) as made:
        yield made


@attrs.frozen
class _Far:
    """A worker behind a slow link."""

    broker: BrokerThread
    fleet: Fleet
    proxy: ToxiProxy

    def worker(self, *, quick: bool = True) -> WorkerProcess:
        services = Service("once", idempotent=False), Service("again", idempotent=True), Service("stream")
        return self.fleet.start(self.proxy.endpoint, *services, concurrency=2, quick=quick)

    def counts(self, *names: str) -> list[int]:
        counters = self.broker.broker.snapshot().counters
        return [counters[name] for name in names]


@pytest.fixture
def far(toxiproxy: ToxiproxyServer, stage: Stage, fleet: Fleet) -> Iterator[_Far]:
    """Its broker takes a connection for dead after six tenths of a second."""
    broker = stage.broker(transport=_TRANSPORT)
    with ToxiProxy(toxiproxy, broker.endpoint.removeprefix("tcp://"), name="worker") as proxy:
        yield _Far(broker, fleet, proxy)


def test_a_reply_that_passes_within_the_liveness_time_arrives(far: _Far) -> None:
    """A slow link is not a dead one, and its worker is not gone."""
    far.worker()
    with Client(far.broker.endpoint, config=QUICK_CLIENT) as client, far.proxy.suffering(_SLOW, Direction.TO_SERVER):
        reply = client.request("once", b"size", b"fits", _FITS, timeout=10.0)
    assert len(reply[-1]) == int(_FITS)
    assert far.counts("workers_gone", "redelivered") == [0, 0]


def test_a_longer_liveness_time_lets_a_larger_reply_through(
    toxiproxy: ToxiproxyServer, stage: Stage, fleet: Fleet
) -> None:
    """The remedy that the manual gives: three seconds, as users have them, at both ends of the link."""
    broker = stage.broker(config=BrokerConfig(), transport=TransportConfig())
    with ToxiProxy(toxiproxy, broker.endpoint.removeprefix("tcp://"), name="patient") as proxy:
        far = _Far(broker, fleet, proxy)
        far.worker(quick=False)
        with Client(broker.endpoint, config=QUICK_CLIENT) as client, proxy.suffering(_SLOW, Direction.TO_SERVER):
            reply = client.request("once", b"size", b"patient", _TOO_MUCH, timeout=10.0)
        assert len(reply[-1]) == int(_TOO_MUCH)
        assert far.counts("workers_gone", "redelivered") == [0, 0]


def test_a_reply_in_parts_may_take_as_long_as_it_likes(far: _Far) -> None:
    """The other remedy: between two parts there is room for a heartbeat, and each part is a sign of life."""
    far.worker()
    with far.proxy.suffering(_SLOW, Direction.TO_SERVER):
        told = ask(far.broker.endpoint, "stream", body=[b"parts", b"40", b"20000"], timeout=20.0)
    sizes = [len(frame) for part in [*told.parts, told.reply] for frame in part]
    assert sum(sizes) == 40 * 20_000
    assert told.elapsed_s > 2 * _LIVENESS_S, "it was quicker than the link allows"
    assert far.counts("workers_gone", "workers_stuck") == [0, 0]


@pytest.mark.parametrize("service", ["once", "again"])
def test_a_reply_that_cannot_pass_ends_its_call_and_is_not_sent_for_ever(far: _Far, service: str) -> None:
    """The link is cut under it each time. The call ends with a typed error, having run once, and the worker goes on."""
    far.worker()
    with Client(far.broker.endpoint, config=QUICK_CLIENT) as client:
        with far.proxy.suffering(_SLOW, Direction.TO_SERVER):
            began = time.monotonic()
            with pytest.raises(WorkerLost) as caught:
                client.request(service, b"size", b"never", _TOO_MUCH, timeout=20.0)
            took_s = time.monotonic() - began
            assert caught.value.outcome is Outcome.UNKNOWN
            eventually(lambda: len(far.broker.broker.snapshot().workers) == 1, "the worker is back")
            dispatched, lost = far.counts("dispatched", "worker_lost")
            assert dispatched <= QUICK_BROKER.delivery_cap
            assert lost == 1
            assert client.request("once", b"echo", b"small", timeout=10.0)[0] == b"small"
        assert client.request("once", b"size", b"fast", _TOO_MUCH, timeout=10.0)[0] == b"fast"
    print(f"{service}: ended after {took_s:.1f} s and {dispatched} deliveries")
    assert set(far.fleet.runs().values()) == {1}, "what was delivered again was answered from memory"


@pytest.mark.parametrize("where", ["to the broker", "to the worker"])
def test_a_request_that_cannot_pass_ends_by_its_deadline(far: _Far, where: str) -> None:
    """It arrives nowhere, so it runs nowhere, on whichever link it is stuck."""
    to_worker = where == "to the worker"
    far.worker()
    client_at = far.broker.endpoint if to_worker else far.proxy.endpoint
    direction = Direction.TO_CLIENT if to_worker else Direction.TO_SERVER
    with Client(client_at, config=QUICK_CLIENT) as client:
        assert client.request("once", b"echo", b"before", timeout=10.0)[0] == b"before"
        with far.proxy.suffering(_SLOW, direction):
            began = time.monotonic()
            with pytest.raises(RequestError) as caught:
                client.request("once", b"echo", b"never", bytes(int(_TOO_MUCH)), timeout=4.0)
            assert time.monotonic() - began < 4.5
            assert caught.value.outcome is not Outcome.EXECUTED
        assert client.request("once", b"echo", b"after", timeout=10.0)[0] == b"after"
    assert far.fleet.runs()["never"] == 0
    print(f"{where}: {caught.value!r}")
