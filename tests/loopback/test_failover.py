"""Brokers that die and come back, under clients and workers that go on."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reliable import BrokerLost, Outcome, RequestError
from tests.support.loopback import ShellKind, Stage, eventually
from tests.support.ports import free_endpoint


def test_calls_go_on_at_the_second_broker_when_the_first_is_stopped(stage: Stage, shell: ShellKind) -> None:
    """The worker is registered with both, so nothing has to be found again."""
    first, second = stage.broker(), stage.broker()
    worker = shell.worker(first.endpoint, second.endpoint, concurrency=2)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    shell.run(worker).wait_registered(2)
    client = shell.client(first.endpoint, second.endpoint)
    assert client.request("echo", b"1") == [b"1"]
    assert first.broker.snapshot().counters["replies"] == 1
    stage.stop(first)
    began = time.monotonic()
    assert client.request("echo", b"2") == [b"2"]
    assert time.monotonic() - began < 1.0
    assert second.broker.snapshot().counters["replies"] == 1


@pytest.mark.slow
def test_no_idempotent_call_fails_while_brokers_are_stopped_in_turns(stage: Stage, shell: ShellKind) -> None:
    """The promise of two brokers, under load: each call comes back with its own reply."""
    endpoints = [free_endpoint(), free_endpoint()]
    brokers = [stage.broker(endpoint) for endpoint in endpoints]
    worker = shell.worker(*endpoints, concurrency=4)
    worker.service("echo", raw=True)(lambda frame: frame)
    running = shell.run(worker)
    running.wait_registered(2)
    clients = [shell.client(*order) for order in (endpoints, endpoints[::-1])]
    stop_at = time.monotonic() + 2.5

    def ask(client_number: int, first: int) -> int:
        done = 0
        for number in itertools.count(first):
            if time.monotonic() > stop_at:
                return done
            body = [b"%d" % number]
            assert clients[client_number].request("echo", *body, idempotent=True) == body
            done += 1
        return done

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask, thread % 2, 10_000 * thread) for thread in range(6)]
        for victim in (0, 1):
            time.sleep(0.4)  # Load, while both serve.
            stage.stop(brokers[victim])
            time.sleep(0.4)  # Load, while one serves.
            brokers[victim] = stage.broker(endpoints[victim])
            running.wait_registered(2)
        assert sum(future.result(20) for future in asking) > 50


@pytest.mark.parametrize("gap_s", [0.0, 0.5])
def test_a_restarted_broker_is_found_again_by_worker_and_client(stage: Stage, shell: ShellKind, gap_s: float) -> None:
    """Whether it is back at once, before anybody noticed, or after everybody saw it refuse."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    shell.run(worker)
    client = shell.client(broker.endpoint)
    assert client.request("echo", b"1") == [b"1"]
    stage.stop(broker)
    time.sleep(gap_s)
    stage.broker(broker.endpoint)
    began = time.monotonic()
    assert client.request("echo", b"2") == [b"2"]
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("first", ["client", "worker"])
def test_whoever_comes_first_finds_the_restarted_broker(stage: Stage, shell: ShellKind, first: str) -> None:
    """A client that asks before the worker is back waits for it; the other order is the easy one."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    running = shell.run(worker)
    client = shell.client(broker.endpoint)
    assert client.request("echo", b"1") == [b"1"]
    if first == "client":
        assert running.stop() == 0
    stage.stop(broker)
    again = stage.broker(broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        if first == "client":
            reply = pool.submit(client.request, "echo", b"2")
            eventually(lambda: again.broker.snapshot().counters["requests"] == 1, "the client is back")
            shell.run(worker)
        else:
            running.wait_registered(1)
            eventually(lambda: again.broker.snapshot().workers != (), "the worker is back")
            reply = pool.submit(client.request, "echo", b"2")
        assert reply.result(5) == [b"2"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_services_own_word_lets_a_call_go_on_when_its_broker_is_stopped(
    stage: Stage, shell: ShellKind, comes_back: bool
) -> None:
    """The caller said nothing, and need not: whoever wrote the handler knows best whether it may run twice."""
    runs: list[float] = []
    first, second = stage.broker(), stage.broker()
    worker = shell.worker(first.endpoint, second.endpoint, concurrency=2)

    @worker.service("look", idempotent=True)
    def look() -> str:
        runs.append(time.monotonic())
        time.sleep(0.5)
        return "seen"

    shell.run(worker).wait_registered(2)
    client = shell.client(first.endpoint, second.endpoint)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.call, "look")
        eventually(lambda: len(runs) == 1, "the handler runs")
        stage.stop(first)
        if comes_back:
            stage.broker(first.endpoint)
        assert reply.result(10) == "seen"


def test_a_call_that_must_not_repeat_ends_unknown_when_its_broker_is_stopped(stage: Stage, shell: ShellKind) -> None:
    """Its only record died with the broker; nobody can say whether it ran, and nobody may run it again."""
    runs: list[float] = []
    first, second = stage.broker(), stage.broker()
    worker = shell.worker(first.endpoint, second.endpoint, concurrency=2)

    @worker.service("pay", idempotent=False)
    def pay() -> None:
        runs.append(time.monotonic())
        time.sleep(0.5)

    shell.run(worker).wait_registered(2)
    client = shell.client(first.endpoint, second.endpoint)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.call, "pay")
        eventually(lambda: len(runs) == 1, "the handler runs")
        stage.stop(first)
        stage.broker(first.endpoint)
        error = reply.exception(10)
    assert isinstance(error, RequestError)
    assert error.outcome is Outcome.UNKNOWN
    assert isinstance(error, BrokerLost) or type(error).__name__ == "WorkerLost", repr(error)
    time.sleep(0.6)  # Long enough for a second run to begin, had anybody asked for it.
    assert len(runs) == 1
