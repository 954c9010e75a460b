"""Workers that are killed, frozen, and thawed: how soon the broker knows, and what becomes of what they held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

import pytest

from reliable import Frames, Outcome, WorkerLost
from tests.support.fleet import Fleet, Service, sized
from tests.support.loopback import QUICK_TRANSPORT, AnyClient, BrokerThread, ShellKind, Stage, eventually

_KILL_S_MAX: Final = 0.2
_FREEZE_S_MAX: Final = QUICK_TRANSPORT.heartbeat_timeout_s + QUICK_TRANSPORT.heartbeat_interval_s
_SLACK_S: Final = 0.2
_KILLS: Final = sized(3, 100)
_FREEZES: Final = sized(2, 20)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(sized(60, 600))]
_ONCE, _AGAIN = Service("once", idempotent=False), Service("again", idempotent=True)


class _Control:
    """A timer that begins now. What happens to the test's process happens to it, too."""

    def __init__(self, limit_s: float) -> None:
        self._over = threading.Event()
        self._timer = threading.Timer(limit_s, self._over.set)
        self._timer.start()

    def in_time(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it; it must come before the timer ends."""
        while not condition():
            assert not self._over.is_set() or condition(), f"not in time: {what}"
            time.sleep(0.001)
        self._timer.cancel()
        self._timer.join()


def _workers(broker: BrokerThread) -> int:
    return len(broker.broker.snapshot().workers)


def _count(broker: BrokerThread, name: str) -> int:
    return broker.broker.snapshot().counters[name]


def _late(broker: BrokerThread, count: int) -> bool:
    return _count(broker, "late_replies") == count


def _hold(client: AnyClient, pool: ThreadPoolExecutor, fleet: Fleet, service: str, name: str) -> Future[Frames]:
    """A call that is in the hands of a worker when this returns; whoever gets it next answers at once."""
    call = pool.submit(client.request, service, b"first", name.encode(), b"20", timeout=20.0)
    eventually(lambda: fleet.runs()[name] == 1, "the handler runs")
    return call


def _spread(values: list[float]) -> str:
    ordered = sorted(values)
    return (
        f"{ordered[len(ordered) // 2] * 1000:.1f} ms (median), {ordered[-1] * 1000:.1f} ms (longest of {len(ordered)})"
    )


def test_a_killed_worker_is_gone_at_once_and_its_requests_are_dealt_with(
    stage: Stage, fleet: Fleet, shell: ShellKind
) -> None:
    """The kernel says so: no heartbeat has to be missed. What may be repeated is, and the rest is answered for."""
    broker = stage.broker()
    gone, answered = [], []
    client = shell.client(broker.endpoint)
    victim = fleet.start(broker.endpoint, _ONCE, _AGAIN, shell=shell.name, concurrency=2)
    with ThreadPoolExecutor(2) as pool:
        for number in range(_KILLS):
            once = _hold(client, pool, fleet, "once", f"once-{number}")
            again = _hold(client, pool, fleet, "again", f"again-{number}")
            other = fleet.start(broker.endpoint, _ONCE, _AGAIN, shell=shell.name, concurrency=2)
            killed = victim.kill()
            # On a busy machine a process that was killed may have to wait for a processor to die on.
            victim.wait()
            control = _Control(_KILL_S_MAX)
            control.in_time(lambda: _workers(broker) == 1, "the broker knows")
            gone.append(time.monotonic() - killed)
            assert int(again.result(2.0)[1]) == other.pid
            answered.append(time.monotonic() - killed)
            error = once.exception(2.0)
            assert isinstance(error, WorkerLost) and error.outcome is Outcome.UNKNOWN, error
            victim = other
    runs = fleet.runs()
    assert all(runs[f"once-{number}"] == 1 and runs[f"again-{number}"] == 2 for number in range(_KILLS))
    print(f"SIGKILL: gone after {_spread(gone)}; answered elsewhere after {_spread(answered)}")


def test_a_frozen_worker_is_gone_in_time_and_may_come_back(stage: Stage, fleet: Fleet, shell: ShellKind) -> None:
    """No process, no connection ends: libzmq's heartbeats find out. Thawed, it has a reply that nobody waits for, and
    that must reach nobody; then it is a worker as any other."""
    broker = stage.broker()
    gone: list[float] = []
    client = shell.client(broker.endpoint)
    frozen = fleet.start(broker.endpoint, _ONCE, _AGAIN, shell=shell.name, concurrency=2)
    with ThreadPoolExecutor(2) as pool:
        for number in range(_FREEZES):
            once = pool.submit(client.request, "once", b"sleep", f"once-{number}".encode(), b"0.4", timeout=20.0)
            eventually(lambda n=number: fleet.runs()[f"once-{n}"] == 1, "the handler runs")  # type: ignore[misc]
            late, workers = _count(broker, "late_replies"), _count(broker, "workers_registered")
            at = frozen.freeze()
            control = _Control(_FREEZE_S_MAX + _SLACK_S)
            control.in_time(lambda: _workers(broker) == 0, "the broker knows")
            gone.append(time.monotonic() - at)
            error = once.exception(2.0)
            assert isinstance(error, WorkerLost) and error.outcome is Outcome.UNKNOWN, error
            frozen.go_on()
            eventually(lambda: _workers(broker) == 1, "it registers anew")
            assert _count(broker, "workers_registered") == workers + 1
            # The reply to the call that ended long ago must not answer one of these.
            for echo in range(10):
                name = f"echo-{number}-{echo}".encode()
                assert client.request("once", b"echo", name, timeout=5.0)[0] == name
            put_aside = partial(_late, broker, late + 1)
            eventually(put_aside, "its stale reply came")
    runs = fleet.runs()
    assert set(runs.values()) == {1}
    assert _count(broker, "undeliverable_replies") == 0
    assert _count(broker, "disconnects_sent") == 0, "it was not punished"
    print(f"SIGSTOP: gone after {_spread(gone)}; allowed are {_FREEZE_S_MAX:.1f} s")
