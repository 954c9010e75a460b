"""``drain``: ask a worker to end and wait until it has, from wherever that is known."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reliable import AsyncWorker, Worker, WorkerLost
from tests.support.loopback import RunningWorker, ShellKind, Stage, eventually, worker_process


def _drain(shell: ShellKind, worker: Worker | AsyncWorker, timeout: float | None = None) -> bool:
    """From a thread that is not the worker's."""
    if isinstance(worker, AsyncWorker):
        assert shell.loop is not None
        return shell.loop.run(worker.drain(timeout))
    return worker.drain(timeout)


class _Held:
    """A worker with a handler that runs until it is released."""

    def __init__(self, stage: Stage, shell: ShellKind, **options: Any) -> None:
        self.broker = stage.broker()
        self.release, self.entered = threading.Event(), threading.Event()
        self.worker = shell.worker(self.broker.endpoint, **options)
        self.worker.service("held", raw=True)(self._held)
        self.running: RunningWorker = shell.run(self.worker)
        self.client = shell.client(self.broker.endpoint, timeout=5.0)

    def _held(self, frame: bytes) -> bytes:
        self.entered.set()
        self.release.wait(10)
        return frame


def test_a_drain_waits_for_what_runs_and_says_that_all_is_done(stage: Stage, shell: ShellKind) -> None:
    """Whoever replaces a worker must know when it may go on, and that nothing was left behind."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(2) as pool:
        reply = pool.submit(held.client.request, "held", b"x")
        assert held.entered.wait(5)
        drained = pool.submit(_drain, shell, held.worker)
        eventually(lambda: [view.credit for view in held.broker.broker.snapshot().workers] == [0], "it drains")
        assert not drained.done()
        held.release.set()
        assert drained.result(5) is True
        assert reply.result(5) == [b"x"]
    assert held.running.stop() == 0
    assert held.broker.broker.snapshot().counters["worker_lost"] == 0


def test_a_drain_that_comes_to_its_end_says_that_something_was_left(stage: Stage, shell: ShellKind) -> None:
    """A caller that takes it for clean would delete files that a handler still writes."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(held.client.request, "held", b"x")
        assert held.entered.wait(5)
        began = time.monotonic()
        assert _drain(shell, held.worker, 0.2) is False
        assert time.monotonic() - began < 1.5
        assert reply.exception(5) is not None
        held.release.set()
    assert held.running.stop() == 1


def test_of_two_drains_the_earlier_end_counts_and_both_hear_the_same(stage: Stage, shell: ShellKind) -> None:
    """A service manager that loses its patience must not have to wait for the first, patient one."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(2) as pool:
        reply = pool.submit(held.client.request, "held", b"x")
        assert held.entered.wait(5)
        patient = pool.submit(_drain, shell, held.worker, 60.0)
        eventually(lambda: [view.credit for view in held.broker.broker.snapshot().workers] == [0], "it drains")
        began = time.monotonic()
        assert _drain(shell, held.worker, 0.2) is False
        assert patient.result(5) is False
        assert time.monotonic() - began < 1.5
        held.release.set()
        assert reply.exception(5) is not None


def test_a_worker_runs_again_after_a_drain(stage: Stage, shell: ShellKind) -> None:
    """When drain returns, run has given everything back, and the next one does not end at once."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    for number in range(2):
        running = shell.run(worker)
        assert shell.client(broker.endpoint).request("echo", b"%d" % number) == [b"%d" % number]
        assert _drain(shell, worker) is True
        eventually(lambda run=running: run.ended, "run returns")  # type: ignore[misc]


def test_a_worker_that_does_not_run_is_drained_at_once_and_stays_so(shell: ShellKind, endpoint: str) -> None:
    """Between construction and run nothing can be left; but the wish must not get lost."""
    worker = shell.worker(endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    assert _drain(shell, worker) is True
    running = shell.run(worker, ready=False)
    eventually(lambda: running.ended, "the worker ends")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_drain_without_an_end_is_refused(shell: ShellKind, endpoint: str, seconds: float) -> None:
    """It would wait for ever."""
    worker = shell.worker(endpoint)
    with pytest.raises(ValueError, match="zero or more seconds"):
        _drain(shell, worker, seconds)


def test_a_loop_cannot_wait_for_its_own_end(stage: Stage) -> None:
    """An inline handler that drains its worker would wait for itself; it is told so, and the worker goes on."""
    broker = stage.broker()
    shell = ShellKind("sync")
    worker = shell.worker(broker.endpoint)
    told: list[str] = []

    @worker.service("end", executor="inline")
    def end() -> None:
        try:
            worker.drain()
        except RuntimeError as error:
            told.append(str(error))

    running = shell.run(worker)
    shell.client(broker.endpoint).call("end")
    assert told == ["the worker's own loop cannot wait for its end: call stop there"]
    assert not running.ended
    shell.close()


def test_a_drain_that_is_given_up_leaves_the_others_alone(stage: Stage) -> None:
    """A cancelled waiter must not take the news away from the next one."""
    shell = ShellKind("asyncio")
    held = _Held(stage, shell)
    worker, loop = held.worker, shell.loop
    assert isinstance(worker, AsyncWorker) and loop is not None

    async def both() -> bool:
        given_up = asyncio.create_task(worker.drain(5.0))
        other = asyncio.create_task(worker.drain(5.0))
        await asyncio.sleep(0)
        given_up.cancel()
        held.release.set()
        return await other

    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(held.client.request, "held", b"x")
        assert held.entered.wait(5)
        assert loop.run(both()) is True
        assert reply.result(5) == [b"x"]
    shell.close()


_DRAINS_ITSELF = """
import sys, threading, time
from reliable import Worker
worker = Worker(sys.argv[1])
@worker.service("hold", raw=True)
def hold(frame):
    threading.Thread(target=worker.drain, daemon=True).start()
    time.sleep(30)
def ready():
    assert worker.wait_ready(10)
    print("ready", flush=True)
threading.Thread(target=ready).start()
sys.exit(worker.run())
"""


def test_a_signal_in_a_drain_that_the_program_began_ends_it_at_once(stage: Stage) -> None:
    """Whoever asked first, the signal says that patience is over."""
    broker = stage.broker()
    shell = ShellKind("sync")
    client = shell.client(broker.endpoint, timeout=5.0)
    with worker_process(_DRAINS_ITSELF, broker.endpoint) as child, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "hold", b"")
        eventually(lambda: [view.credit for view in broker.broker.snapshot().workers] == [0], "it drains")
        child.send_signal(signal.SIGTERM)
        assert child.wait(3.0) == 1
        assert isinstance(reply.exception(8), WorkerLost)
    shell.close()
