"""Brokers that are stopped while they are needed: nothing is lost, nothing runs twice, nobody is left guessing.

``RELIABLE_LONG=1`` restarts each of two brokers 25 times.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import attrs
import pytest

from brokers import BrokerConfig, MajordomoBroker
from reliable import Client, ClientConfig, RequestError, Worker, WorkerLost
from reliable.config import WorkerConfig
from reliable.errors import Outcome
from reliable.status import ExitCode
from tests.support.commands import Running, running
from tests.support.fleet import sized
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, QUICK_WORKER, ShellKind, Stage, eventually
from tests.support.ports import free_endpoint

_ROUNDS = sized(1, 25)
_CALLERS = 8
# The patience that users have: a machine that is late by a second is not what is tested here.
_CLIENT = ClientConfig(timeout_s=20.0, reconnect=QUICK_CLIENT.reconnect)
_WORKER = WorkerConfig(reconnect=QUICK_WORKER.reconnect)
_PATIENT = attrs.evolve(QUICK_BROKER, drain_s=10.0)


class _Load:
    """Callers that never stop calling, and what became of each call.

    Half of them declare their calls not idempotent, the others say nothing, which means the same here.
    """

    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints = endpoints
        self._numbers = itertools.count()
        self.over = False
        self.ok: list[int] = []
        self.failed: dict[int, RequestError] = {}

    def call(self, seat: int) -> None:
        """One caller, with a client of its own; half of them prefer the second broker."""
        endpoints = self._endpoints if seat % 2 else self._endpoints[::-1]
        with Client(*endpoints, config=_CLIENT) as client:
            caller = client.options(idempotent=False) if seat % 4 < 2 else client
            while not self.over:
                number = next(self._numbers)
                try:
                    assert caller.call("pay", number) == number
                    self.ok.append(number)
                except RequestError as error:
                    self.failed[number] = error


@contextmanager
def _paying_workers(endpoints: list[str], count: int) -> Iterator[list[int]]:
    """Workers whose handler takes a moment; gives the list of what was paid, which grows."""
    paid: list[int] = []

    def pay(number: int) -> int:
        time.sleep(0.01)
        paid.append(number)
        return number

    with ExitStack() as stack:
        for _ in range(count):
            worker = Worker(*endpoints, concurrency=4, config=_WORKER)
            worker.service("pay")(pay)
            thread = threading.Thread(target=worker.run)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(worker.stop, 1.0)
            assert worker.wait_ready(10)
        yield paid


@contextmanager
def _broker(endpoint: str) -> Iterator[Running]:
    with running("broker", "--bind", endpoint, "--stop-on-eof") as broker:
        assert "listening" in broker.line()
        yield broker


@pytest.mark.slow
@pytest.mark.timeout(sized(90, 900))
def test_a_rolling_restart_under_load_loses_nothing_and_runs_nothing_twice() -> None:
    """Two brokers, restarted in turn under calls that may not repeat: each call ends well, and ran exactly once."""
    endpoints = [free_endpoint(), free_endpoint()]
    load = _Load(endpoints)
    with ExitStack() as stack:
        brokers = [stack.enter_context(_broker(endpoint)) for endpoint in endpoints]
        paid = stack.enter_context(_paying_workers(endpoints, 2))
        pool = stack.enter_context(ThreadPoolExecutor(_CALLERS))
        stack.callback(setattr, load, "over", True)
        callers = [pool.submit(load.call, seat) for seat in range(_CALLERS)]
        for turn in range(2 * _ROUNDS):
            made = len(load.ok)
            _wait_for_calls(load, callers, made + 50)
            assert brokers[turn % 2].stop() == ExitCode.OK
            brokers[turn % 2] = stack.enter_context(_broker(endpoints[turn % 2]))
            eventually(lambda turn=turn: _has_workers(endpoints[turn % 2], 2), "workers return", 20.0)  # type: ignore[misc]
        load.over = True
        for caller in callers:
            caller.result(20)
        eventually(lambda: len(paid) >= len(load.ok), "all is counted")
    print(f"{2 * _ROUNDS} restarts: {len(load.ok)} calls, {len(load.failed)} failed, {len(paid)} runs")
    assert {number: str(error) for number, error in load.failed.items()} == {}
    assert len(load.ok) > 100 * _ROUNDS
    assert {number: runs for number, runs in Counter(paid).items() if runs > 1} == {}
    assert set(paid) == set(load.ok)


def _wait_for_calls(load: _Load, callers: list[Future[None]], count: int) -> None:
    """Until so many are ok, or something went wrong."""
    eventually(
        lambda: len(load.ok) > count or bool(load.failed) or any(caller.done() for caller in callers),
        "the load goes on",
        20.0,
    )
    for caller in callers:
        if caller.done():
            caller.result()


def _has_workers(endpoint: str, count: int) -> bool:
    with Client(endpoint, config=QUICK_CLIENT) as client:
        return len(json.loads(client.request("mmi.reliable.status", b"")[1])["workers"]) >= count


class _Held:
    """A broker that drains, and a worker whose handler runs until it is released."""

    def __init__(self, stage: Stage, shell: ShellKind, config: BrokerConfig = _PATIENT) -> None:
        self.broker = stage.broker(config=config)
        self.release, self.entered = threading.Event(), threading.Event()
        self.worker = shell.worker(self.broker.endpoint)
        self.worker.service("held", raw=True)(self._held)
        shell.run(self.worker)
        self.client = shell.client(self.broker.endpoint, timeout=8.0)

    def _held(self, frame: bytes) -> bytes:
        self.entered.set()
        self.release.wait(10)
        return frame

    def stop(self, drain_s: float | None = None) -> None:
        self.broker.broker.stop(drain_s)

    @property
    def draining(self) -> bool:
        return self.broker.broker.snapshot().draining


def test_a_stopped_broker_waits_for_the_reply_of_a_call_that_may_not_repeat(stage: Stage, shell: ShellKind) -> None:
    """The reason for all of this; without the wait it ends as WorkerLost, UNKNOWN."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(held.client.request, "held", b"x", idempotent=False)
        assert held.entered.wait(5)
        held.stop()
        eventually(lambda: held.draining, "it drains")
        held.release.set()
        assert reply.result(5) == [b"x"]
    stage.stop(held.broker)


def test_a_second_stop_ends_the_wait(stage: Stage, shell: ShellKind) -> None:
    """Whoever says so twice means now; the caller is told at once that it may have run."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(held.client.request, "held", b"x", idempotent=False)
        assert held.entered.wait(5)
        held.stop()
        eventually(lambda: held.draining, "it drains")
        assert not reply.done()
        began = time.monotonic()
        held.stop(0.0)
        error = reply.exception(5)
        assert isinstance(error, WorkerLost) and error.outcome is Outcome.UNKNOWN
        assert time.monotonic() - began < 1.0
        held.release.set()
    stage.stop(held.broker)


def test_the_wait_has_an_end(stage: Stage, shell: ShellKind) -> None:
    """A handler that hangs must not keep the broker."""
    held = _Held(stage, shell, attrs.evolve(_PATIENT, drain_s=0.5))
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(held.client.request, "held", b"x", idempotent=False)
        assert held.entered.wait(5)
        began = time.monotonic()
        held.stop()
        assert isinstance(reply.exception(5), WorkerLost)
        assert 0.4 < time.monotonic() - began < 2.0
        held.release.set()
    stage.stop(held.broker)


def test_with_one_broker_alone_calls_wait_for_its_next_life(stage: Stage, shell: ShellKind) -> None:
    """A restart of the only broker is a pause for its clients, not a shower of errors."""
    held = _Held(stage, shell)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(held.client.request, "held", b"1", idempotent=False)
        assert held.entered.wait(5)
        held.stop()
        eventually(lambda: held.draining, "it drains")
        second = pool.submit(held.client.request, "held", b"2", idempotent=False)
        time.sleep(0.3)  # Long enough to be refused over and over, if it were.
        assert not second.done()
        held.release.set()
        assert first.result(5) == [b"1"]
        stage.stop(held.broker)
        stage.broker(held.broker.endpoint, config=_PATIENT)
        assert second.result(8) == [b"2"]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_drain_without_an_end_is_refused(endpoint: str, seconds: float) -> None:
    """It would wait for ever."""
    with MajordomoBroker([endpoint]) as broker, pytest.raises(ValueError, match="zero or more seconds"):
        broker.stop(seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_drains_at_the_first_signal_and_goes_at_the_second(number: signal.Signals) -> None:
    """Also with ``--drain-timeout`` an hour away; both ways the exit code is 0, and status shows what it waits for."""
    endpoint = free_endpoint()
    entered, release = threading.Event(), threading.Event()

    def handler(frame: bytes) -> bytes:
        entered.set()
        release.wait(10)
        return frame

    with ExitStack() as stack:
        broker = stack.enter_context(running("broker", "--bind", endpoint, "--drain-timeout", "3600"))
        broker.line()
        worker = Worker(endpoint, config=QUICK_WORKER)
        worker.service("held", raw=True)(handler)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        pool.submit(worker.run)
        stack.callback(worker.stop, 0.0)
        client = stack.enter_context(Client(endpoint, config=QUICK_CLIENT))
        reply = pool.submit(client.request, "held", b"x", idempotent=False)
        assert entered.wait(10)
        stack.callback(release.set)
        broker.process.send_signal(number)
        eventually(lambda: _is_draining(endpoint), "status shows it")
        assert broker.process.poll() is None
        assert broker.stop(number) == ExitCode.OK
        assert isinstance(reply.exception(10), RequestError)


def _is_draining(endpoint: str) -> bool:
    with Client(endpoint, config=QUICK_CLIENT) as client:
        return bool(json.loads(client.request("mmi.reliable.status", b"")[1])["draining"])
