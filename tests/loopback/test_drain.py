"""Workers that are replaced under load, as at each deployment: SIGTERM, and nothing is lost or done twice."""

from __future__ import annotations

import time
from typing import Final

import pytest

from brokers import BrokerConfig
from reliable import ClientConfig
from reliable.config import TransportConfig
from tests.support.fleet import Fleet, Service, sized
from tests.support.fleet_load import Load, judge
from tests.support.loopback import ShellKind, Stage, eventually

_ROUNDS: Final = sized(5, 50)
_CALLERS: Final = 8
# The heartbeats that users get: a machine that is late by a second is not what is tested here.
_CONFIG: Final = ClientConfig(timeout_s=20.0)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(sized(60, 600))]
_ONCE: Final = Service("once", idempotent=False)


def test_workers_are_replaced_under_load_and_no_caller_notices(stage: Stage, fleet: Fleet, shell: ShellKind) -> None:
    """Each drains with requests in its hands and more on their way: all are answered, by it or by the next."""
    broker = stage.broker(config=BrokerConfig(), transport=TransportConfig())
    client = shell.client(broker.endpoint, config=_CONFIG)
    load = Load(client, "once", (b"sleep", b"0.01"))
    drains: list[float] = []
    worker = fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=4)
    with load.running(_CALLERS):
        for _ in range(_ROUNDS):
            following = fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=4)
            done = len(load.ends)
            eventually(lambda d=done: len(load.ends) > d + 20, "calls go on")  # type: ignore[misc]
            began = time.monotonic()
            worker.terminate()
            assert worker.wait() == 0
            drains.append(time.monotonic() - began)
            worker = following
        load.stop()
    counts = judge(load, fleet, once=True)
    print(f"{_ROUNDS} drains, the longest {max(drains):.2f} s: {counts}")
    assert counts["ok"] == counts["calls"]
    assert broker.broker.snapshot().counters["worker_lost"] == 0


def test_the_only_worker_is_replaced_under_load(stage: Stage, fleet: Fleet, shell: ShellKind) -> None:
    """Between the two there is none at all; what it gave back waits for the next."""
    broker = stage.broker(config=BrokerConfig(), transport=TransportConfig())
    client = shell.client(broker.endpoint, config=_CONFIG)
    load = Load(client, "once", (b"sleep", b"0.01"))
    worker = fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=2)
    with load.running(_CALLERS):
        for _ in range(sized(2, 20)):
            done = len(load.ends)
            eventually(lambda d=done: len(load.ends) > d + 20, "calls go on")  # type: ignore[misc]
            worker.terminate()
            assert worker.wait() == 0
            worker = fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=2)
        load.stop()
    counts = judge(load, fleet, once=True)
    assert counts["ok"] == counts["calls"]


def test_a_second_signal_stops_now_and_the_callers_hear_of_it(stage: Stage, fleet: Fleet, shell: ShellKind) -> None:
    """What runs is lost and said to be unknown; what was not begun goes to the next worker."""
    broker = stage.broker(config=BrokerConfig(), transport=TransportConfig())
    client = shell.client(broker.endpoint, config=_CONFIG)
    worker = fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=2)
    lost = Load(client, "once", (b"sleep", b"30"), total=2, prefix="lost")
    waiting = Load(client, "once", (b"echo", b""), total=2, prefix="waiting")
    with lost.running(2):
        eventually(lambda: len(fleet.runs()) == 2, "both slots are taken")
        with waiting.running(2):
            eventually(lambda: broker.broker.snapshot().usage["queued"] == 2, "two more wait")
            worker.terminate()
            eventually(lambda: [view.credit for view in broker.broker.snapshot().workers] == [0], "it drains")
            worker.terminate()
            began = time.monotonic()
            assert worker.wait() == 2, "two handlers were left"
            assert time.monotonic() - began < 2.0
            fleet.start(broker.endpoint, _ONCE, shell=shell.name, quick=False, concurrency=2)
    assert judge(lost, fleet, once=True) == {"calls": 2, "run more than once": 0, "WorkerLost UNKNOWN": 2}
    assert judge(waiting, fleet, once=True) == {"calls": 2, "run more than once": 0, "ok": 2}
