"""A handler that holds the interpreter lock: the worker's loop is silent, its process lives, and the broker can tell.

``RELIABLE_LONG=1`` holds it for ten seconds with the heartbeats that users get.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from brokers import BrokerConfig
from reliable import Client, DeadlineExceeded, Frames, Outcome
from reliable.cli.status import STATUS_SERVICE, parse_status
from reliable.cli.status_table import render
from reliable.handling import ExecutorName
from tests.support.fleet import LONG, Fleet, Service, WorkerProcess, sized
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, AnyClient, BrokerThread, ShellKind, Stage, eventually

_CONFIG: Final = sized(QUICK_BROKER, BrokerConfig())
_BEAT: Final = _CONFIG.heartbeat
_STUCK_S: Final = _BEAT.timeout_s + 2 * _BEAT.interval_s
_HOLD_S: Final = sized(2.5, 10.0)
_LATE_S: Final = 2.0
"""What a busy machine may be late by, where nothing is timed."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(sized(60, 180))]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For calls that are waited for later."""
    with ThreadPoolExecutor(8) as made:
        yield made


def _services(executor: ExecutorName | None = None) -> tuple[Service, ...]:
    return Service("once", idempotent=False, executor=executor), Service("again", idempotent=True, executor=executor)


def _states(broker: BrokerThread) -> list[str]:
    return [view.state for view in broker.broker.snapshot().workers]


def _count(broker: BrokerThread, name: str) -> int:
    return broker.broker.snapshot().counters[name]


def _pid(reply: Frames) -> int:
    return int(reply[1])


class _Holding:
    """A worker in which a call holds the lock until it is let go, and what else the worker has in its hands."""

    def __init__(
        self, broker: BrokerThread, fleet: Fleet, client: AnyClient, pool: ThreadPoolExecutor, folder: Path
    ) -> None:
        self.broker = broker
        self._pipe = folder / "pipe"
        os.mkfifo(self._pipe)
        self.worker: WorkerProcess = fleet.start(broker.endpoint, *_services(), concurrency=4, quick=not LONG)
        path = str(self._pipe).encode()
        self.held: Future[Frames] = pool.submit(client.request, "once", b"pipe", b"held", path, timeout=120.0)
        eventually(lambda: fleet.runs()["held"] == 1, "the handler holds the lock")
        self.began = time.monotonic()
        self.idempotent = pool.submit(client.request, "again", b"echo", b"moved", timeout=120.0)
        self.impatient = pool.submit(client.request, "once", b"echo", b"impatient", timeout=_STUCK_S + 0.7)
        eventually(lambda: broker.broker.snapshot().workers[0].in_hand == 3, "all three are in its hands")

    def wait_stuck(self) -> float:
        """Until the broker shows it; seconds since the lock was taken."""
        eventually(lambda: "stuck" in _states(self.broker), "it is shown stuck", _STUCK_S + 5.0)
        return time.monotonic() - self.began

    def let_go(self, after_s: float = 0.0) -> Frames:
        """End the C call, not before it has lasted so long; what its caller gets."""
        time.sleep(max(0.0, self.began + after_s - time.monotonic()))
        self._pipe.write_bytes(b".")
        return self.held.result(20.0)


def test_a_held_interpreter_lock_is_stuck_and_never_gone(
    stage: Stage, fleet: Fleet, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """New calls go elsewhere with no delay; what may be repeated moves there; the late reply is still a reply."""
    broker = stage.broker(config=_CONFIG)
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        holding = _Holding(broker, fleet, client, pool, tmp_path)
        other = fleet.start(broker.endpoint, *_services(), quick=not LONG)
        before = [_timed_echo(client, f"before-{number}") for number in range(20)]
        stuck_s = holding.wait_stuck()
        assert _pid(holding.idempotent.result(_LATE_S)) == other.pid, "what may be repeated has moved"
        moved_s = time.monotonic() - holding.began
        after = [_timed_echo(client, f"after-{number}") for number in range(20)]
        assert {pid for pid, _ in after} == {other.pid}
        table = render(broker.endpoint, parse_status(client.request(STATUS_SERVICE, b"")))
        assert "  stuck  " in table, table
        reply = holding.let_go(after_s=_HOLD_S)
        assert _pid(reply) == holding.worker.pid, "its own late reply"
        eventually(lambda: _states(broker) == ["idle", "idle"], "it is well again")
    median, median_before = sorted(s for _, s in after)[10], sorted(s for _, s in before)[10]
    print(
        f"held {float(reply[2]):.2f} s, shown stuck after {stuck_s:.3f} s, repeated elsewhere after {moved_s:.3f} s; "
        f"calls: median {median_before * 1000:.1f} ms before, {median * 1000:.1f} ms while stuck, "
        f"longest {max(s for _, s in after) * 1000:.1f} ms"
    )
    assert median < 2 * median_before + 0.02
    assert max(s for _, s in after) < _BEAT.timeout_s, "nobody waited for the stuck one"
    assert (_count(broker, "workers_gone"), _count(broker, "workers_stuck")) == (0, 1)
    runs = fleet.runs()
    assert runs["held"] == 1 and runs["moved"] in (1, 2)


def test_the_power_of_a_big_integer_is_stuck_too(stage: Stage, fleet: Fleet, pool: ThreadPoolExecutor) -> None:
    """Pure Python, one operation: the interpreter cannot stop in the midst of it."""
    broker = stage.broker(config=_CONFIG)
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        fleet.start(broker.endpoint, *_services(), quick=not LONG)
        # So that the measuring is done and the power is all that there is.
        client.request("once", b"power", b"measuring", b"0.1", timeout=20.0)
        held = pool.submit(client.request, "once", b"power", b"held", b"%.1f" % _HOLD_S, timeout=120.0)
        eventually(lambda: fleet.runs()["held"] == 1, "the handler holds the lock")
        began = time.monotonic()
        eventually(lambda: "stuck" in _states(broker), "it is shown stuck", _STUCK_S + 5.0)
        stuck_s = time.monotonic() - began
        reply = held.result(120.0)
        eventually(lambda: _states(broker) == ["idle"], "it is well again")
    print(f"held {float(reply[2]):.2f} s, shown stuck after {stuck_s:.3f} s")
    assert (_count(broker, "workers_gone"), _count(broker, "workers_stuck")) == (0, 1)


def _timed_echo(client: AnyClient, name: str) -> tuple[int, float]:
    began = time.monotonic()
    reply = client.request("once", b"echo", name.encode(), timeout=10.0)
    return _pid(reply), time.monotonic() - began


def test_a_caller_that_cannot_wait_is_told_that_its_worker_is_stuck(
    stage: Stage, shell: ShellKind, fleet: Fleet, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """The call may not be repeated, so it ends by its deadline; the error says where it was."""
    broker = stage.broker(config=_CONFIG)
    client = shell.client(broker.endpoint)
    holding = _Holding(broker, fleet, client, pool, tmp_path)
    error = holding.impatient.exception(_STUCK_S + 0.7 + 5.0)
    assert isinstance(error, DeadlineExceeded), error
    assert error.last_state == "stuck", error
    assert error.outcome is Outcome.UNKNOWN
    assert not holding.held.done()
    assert _count(broker, "workers_gone") == 0
    assert holding.let_go()[0] == b"held"
    assert holding.idempotent.result(20.0)[0] == b"moved"
    eventually(lambda: _states(broker) == ["idle"], "it is well again")


@pytest.mark.parametrize("how", [b"lock", b"power"], ids=["a call into C", "a power of a big integer"])
def test_in_a_process_of_its_own_the_same_handler_is_just_work(
    stage: Stage, fleet: Fleet, pool: ThreadPoolExecutor, how: bytes
) -> None:
    """The worker's loop has an interpreter for itself, so its heartbeats go on."""
    broker = stage.broker(config=_CONFIG)
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        worker = fleet.start(broker.endpoint, *_services("process"), concurrency=2, quick=not LONG)
        client.request("once", b"echo", b"the first process is up", timeout=20.0)
        if how == b"power":
            client.request("once", how, b"measuring", b"0.1", timeout=20.0)
        hold_s = _STUCK_S + 0.8
        held = pool.submit(client.request, "once", how, b"held", b"%.1f" % hold_s, timeout=60.0)
        seen: set[str] = set()
        while not held.done():
            seen.update(_states(broker))
            time.sleep(0.02)
        assert _pid(held.result()) != worker.pid
    assert "working" in seen and seen <= {"idle", "working"}
    assert (_count(broker, "workers_gone"), _count(broker, "workers_stuck")) == (0, 0)
