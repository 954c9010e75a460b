"""Brokers and workers in threads of the test's own process: they serve, and nothing of them is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from reliable import AsyncClient, AsyncWorker, Client, Outcome, RequestError, Worker, WorkerConfig
from reliable.testing import (
    QUICK_CLIENT,
    LeftRunning,
    as_worker,
    close_async_client,
    eventually,
    running_broker,
    running_worker,
)
from tests.support.loopback import LoopThread
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")


def add(a: int, b: int) -> int:
    """A plain handler."""
    return a + b


async def add_later(a: int, b: int) -> int:
    """A coroutine handler."""
    await asyncio.sleep(0)
    return a + b


@pytest.mark.parametrize(
    ("offered", "service"),
    [(add, "add"), (add_later, "add_later"), ({"plus": add}, "plus")],
    ids=["plain", "co", "map"],
)
def test_functions_are_served_under_their_names(offered: Any, service: str) -> None:
    """A test of a caller needs a service in one line."""
    with running_broker() as broker, running_worker(offered, broker), Client(broker.endpoint) as client:
        assert client.call(service, 2, 3) == 5


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_worker_of_the_user_registers_here_and_is_given_back_as_it_was(
    kind: Callable[..., Worker | AsyncWorker],
) -> None:
    """It is a global of a module: the next test, and production, must find it unchanged."""
    worker = kind("tcp://production:5555")
    worker.service("add")(add)
    for _ in range(2):
        with running_broker() as broker, running_worker(worker, broker) as running:
            assert running.registered == 1
            with Client(broker.endpoint) as client:
                assert client.call("add", 2, 3) == 5
        assert worker.brokers == ["tcp://production:5555"]
        assert not running.running


def test_worker_waits_for_all_of_its_brokers() -> None:
    """A call through the second one must not find nobody."""
    with running_broker() as one, running_broker() as other, running_worker(add, one, other) as worker:
        assert worker.registered == 2


def test_broker_starts_again_at_the_same_address_as_another_life() -> None:
    """What callers see when a broker is deployed anew."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        end.wait(10)
        return "done"

    with (
        running_broker() as broker,
        running_worker(hold, broker, idempotent=False) as worker,
        Client(broker.endpoint, config=QUICK_CLIENT) as client,
    ):
        endpoint, life = broker.endpoint, broker.life
        pending = client.submit("hold")
        assert begun.wait(10)
        broker.restart()
        assert (broker.endpoint, broker.life != life, broker.running) == (endpoint, True, True)
        with pytest.raises(RequestError) as caught:
            pending.result()
        assert caught.value.outcome is Outcome.UNKNOWN
        end.set()
        eventually(lambda: worker.registered == 1)
        assert client.call("hold") == "done"


def test_stopped_broker_stays_away_and_may_be_stopped_again() -> None:
    """The test says when it comes back."""
    with running_broker() as broker:
        broker.stop()
        broker.stop()
        assert not broker.running
        broker.start()
        broker.start()
        assert broker.snapshot().workers == ()


def test_address_that_is_taken_is_an_error_at_once() -> None:
    """Nobody may test against somebody else's broker."""
    with running_broker() as broker, pytest.raises(OSError, match="in use"), running_broker(broker.endpoint):
        pass


def test_worker_that_finds_no_broker_fails_in_time_and_ends() -> None:
    """The text names where it wanted to register."""
    endpoint = free_endpoint()
    wanted = pytest.raises(AssertionError, match=f"not within 0.3 s: .* registers with {endpoint}")
    with wanted, running_worker(add, endpoint, ready_timeout=0.3):
        pass


def test_worker_that_cannot_run_fails_with_its_own_error() -> None:
    """Not with a time limit ten seconds later."""
    wanted = pytest.raises(ValueError, match="no service")
    with running_broker() as broker, wanted, running_worker(Worker(), broker):
        pass


def test_handler_that_outlives_its_test_is_an_error() -> None:
    """It would go on into the next test, with its effects."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        end.wait(20)

    with running_broker() as broker, Client(broker.endpoint) as client:
        wanted = pytest.raises(LeftRunning, match=r"^a handler was still running 0\.05 s after the worker of hold was")
        with wanted, running_worker(hold, broker, drain=0.05):
            pending = client.submit("hold")
            assert begun.wait(10)
        end.set()
        pending.cancel()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: as_worker(Worker(), idempotent=True), "give either a worker or functions"),
        (lambda: as_worker(lambda: 1), "has no name to be served under"),
        (lambda: as_worker(cast(Any, 7)), "has no name to be served under"),
        (lambda: as_worker(add, add), "two functions are named 'add'"),
    ],
    ids=["options", "lambda", "number", "twice"],
)
def test_what_cannot_be_served_is_refused_with_a_way_out(call: Callable[[], object], error: str) -> None:
    """The text is all that the user has."""
    with pytest.raises((TypeError, ValueError), match=error):
        call()


def test_functions_get_the_settings_that_are_given() -> None:
    """Quick ones are only the default."""
    config = WorkerConfig(drain_timeout_s=7.0)
    made = as_worker(add, config=config, concurrency=2)
    assert (made.concurrency, made._setup.config.drain_timeout_s) == (2, 7.0)


def test_async_client_is_closed_wherever_its_loop_is() -> None:
    """Not used, its loop gone, its loop at rest, its loop in another thread: the end of a test meets them all."""
    with running_broker() as broker, running_worker(add, broker):
        unused = AsyncClient(broker.endpoint)
        gone = AsyncClient(broker.endpoint)
        assert asyncio.run(_call(gone)) == 5
        resting, loop = AsyncClient(broker.endpoint), asyncio.new_event_loop()
        assert loop.run_until_complete(_call(resting)) == 5
        away, thread = AsyncClient(broker.endpoint), LoopThread()
        assert thread.run(_call(away)) == 5
        for client in (unused, gone, resting, away):
            close_async_client(client)
            close_async_client(client)
            assert "closed" in repr(client)
        loop.close()
        thread.close()


async def _call(client: AsyncClient) -> object:
    return await client.call("add", 2, 3)
