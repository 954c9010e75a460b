"""Simulated worlds with a user's own handlers: virtual time passes, faults hit, and broken promises are found."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chaos.sim.faults import Kill
from reliable import (
    DeadlineExceeded,
    Outcome,
    RequestRefused,
    ServiceNotFound,
    Worker,
    WorkerFailed,
    WorkerLost,
    current_request,
)
from reliable.handling import offer
from reliable.testing import Simulation, SimulationFailed


def add(a: int, b: int) -> int:
    """A plain handler."""
    return a + b


def _world(handler: Any = add, *, seed: int = 7, **options: Any) -> Simulation:
    world = Simulation(seed)
    world.worker("w1", handler, **options)
    world.run(1)
    return world


def test_call_gives_what_the_handler_returned_after_its_virtual_time() -> None:
    """An hour of it costs nothing."""
    world, began = _world(takes=3600.0), time.monotonic()
    call = world.client().options(timeout=4000).submit("add", 2, b=3)
    assert (call.ended, call.outcome) == (False, None)
    assert call.result() == 5
    assert 3600 < world.now_s < 3603
    assert time.monotonic() - began < 30
    assert (call.outcome, call.error, call.runs, world.runs("add")) == (Outcome.EXECUTED, None, 1, 1)
    world.check()


def test_worker_of_the_user_is_served_with_its_own_declarations() -> None:
    """What it says of being idempotent is what is to be tested."""
    worker, done = Worker(concurrency=2), []

    @worker.service("read", idempotent=True)
    def read() -> str:
        done.append("read")
        return "read"

    @worker.service("write", idempotent=False)
    def write() -> None:
        done.append("write")

    world = _world(worker, takes={"read": 1.0, "write": 1.0})
    client = world.client()
    reading, writing = client.submit("read"), client.options(idempotent=True).submit("write")
    world.faults(Kill(0.5, "w1", 1.0))
    assert reading.result() == "read"
    with pytest.raises(WorkerLost):
        writing.result()
    assert (reading.runs, writing.runs, writing.outcome) == (2, 1, Outcome.UNKNOWN)
    assert sorted(done) == ["read", "read", "write"]
    world.check()


def test_error_of_a_handler_is_the_error_of_the_call() -> None:
    """With its type and text, as in production."""

    def divide(a: int, b: int) -> float:
        return a / b

    world = _world(divide)
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: division by zero"):
        world.client().call("divide", 1, 0)
    world.check()


def test_arguments_that_do_not_fit_are_refused_before_the_handler_is_entered() -> None:
    """That is no broken promise, and no run."""
    world = _world()
    call = world.client().submit("add", 1, 2, 3)
    with pytest.raises(WorkerFailed):
        call.result()
    assert (call.outcome, call.runs, world.runs("add")) == (Outcome.NOT_EXECUTED, 0, 0)
    world.check()


def test_handler_sees_its_request_in_virtual_time() -> None:
    """A handler that looks at its deadline must see that of the simulation."""
    seen = []

    def look() -> None:
        seen.append(current_request().remaining_s)

    world = _world(look)
    world.client().options(timeout=5).call("look")
    (remaining,) = seen
    assert remaining is not None and 4.5 < remaining <= 5.0


def test_raw_handler_gives_several_frames_back() -> None:
    """They travel as they are."""
    worker = Worker()
    worker.register(_Raw(), "raw")
    world = _world(worker)
    assert world.problems() == []
    call = world.client().submit("raw.twice", b"x")
    world.run(2)
    assert call.history.ending is not None and call.outcome is Outcome.EXECUTED


class _Raw:
    @offer(raw=True)
    def twice(self, frame: bytes) -> list[bytes]:
        """Two frames from one."""
        return [frame, frame]


def test_call_that_never_returns_ends_by_its_deadline() -> None:
    """``takes=None`` is a handler that hangs."""
    world = _world(takes=None)
    call = world.client().options(timeout=3).submit("add", 2, 3)
    with pytest.raises(DeadlineExceeded) as caught:
        call.result()
    assert caught.value.outcome is Outcome.UNKNOWN
    assert call.error is caught.value and caught.value.story
    assert world.now_s == pytest.approx(4, abs=0.2)
    world.check()


def test_same_seed_shows_the_same_again() -> None:
    """Or a failure could not be looked at twice."""
    hashes = []
    for seed in (3, 3, 4):
        world = _world(seed=seed)
        world.random_faults(10)
        client = world.client()
        for number in range(10):
            world.at(number * 0.3, functools.partial(client.submit, "add", number, 1))
        world.run(5)
        world.check()
        hashes.append(world.world.trace.hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_broken_promise_is_told_with_seed_and_trace() -> None:
    """Both are needed to begin looking."""
    world = _world(idempotent=False, seed=1234)
    call = world.client().submit("add", 2, 3)
    assert call.result() == 5
    world.world.history.executions *= 2
    with pytest.raises(
        SimulationFailed, match=r"the simulation of seed 1234 broke \d promises:\n  - at_most_once"
    ) as told:
        world.check()
    assert told.value.seed == 1234
    assert any(line.startswith("at_most_once: call call-1 of client to add") for line in told.value.problems)
    assert "client call-1 ends ok, EXECUTED" in str(told.value)


def test_call_that_is_not_answered_after_healing_is_told() -> None:
    """Safe and silent for ever would be easy."""
    world = _world(takes={"add": None})
    world.heal()
    world.client().options(timeout=2).submit("add", 2, 3)
    with pytest.raises(
        SimulationFailed, match="unanswered: call-1, made after everything was healed, ended with Deadline"
    ):
        world.check()


def test_healing_ends_whatever_was_done() -> None:
    """Killed, frozen and cut off, all by hand; the next call is answered."""
    world = Simulation(5, brokers=2)
    for name in ("w1", "w2"):
        world.worker(name, add)
    client = world.client(name="c1")
    world.run(1)
    world.kill("b1")
    world.kill("w1")
    world.freeze("w2")
    world.cut("c1", "b2", silent=True)
    world.faults(Kill(20.0, "b2", 5.0))
    world.heal()
    assert world.now_s >= 26
    for broker in world.brokers:
        snapshot = world.world.snapshot(broker)
        assert snapshot is not None and len(snapshot.workers) == 2
    assert client.call("add", 2, 3) == 5
    world.kill("w1")
    world.start("w1")
    world.freeze("b1")
    world.thaw("b1")
    world.check()


def test_call_of_a_killed_client_has_no_end_and_is_no_problem() -> None:
    """Nobody is there to be told."""
    world = _world(takes=1.0)
    client = world.client()
    before = client.submit("add", 2, 3)
    world.at(0.5, lambda: world.kill(client.name))
    with pytest.raises(AssertionError, match="has no end, as its client was killed"):
        before.result()
    after = client.submit("add", 2, 3)
    with pytest.raises(AssertionError, match="has no end, as its client was killed"):
        after.result()
    world.check()


def test_nobody_to_serve_it_is_an_error_of_production() -> None:
    """The same class, so that a caller's code can be tested for it."""
    world = _world()
    with pytest.raises(ServiceNotFound) as caught:
        world.client().options(fail_fast=True, timeout=2).call("subtract", 2, 3)
    assert isinstance(caught.value, RequestRefused)


def test_time_cannot_pass_within_itself() -> None:
    """A handler that waits for its own world would wait for ever."""
    world = _world()
    client = world.client()
    world.at(0.1, lambda: client.call("add", 2, 3))
    with pytest.raises(RuntimeError, match=r"use submit\(\)"):
        world.run(1)


async def _coroutine() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("handler", [_coroutine, _generator])
def test_handlers_that_are_not_plain_are_refused(handler: Any) -> None:
    """They would run on real time."""
    with pytest.raises(TypeError, match="a simulation runs plain functions"):
        Simulation(1).worker("w1", {"it": handler})


def test_time_limit_that_is_none_is_refused() -> None:
    """A call without an end has no place in a world that must come to one."""
    with pytest.raises(ValueError, match="timeout"):
        _world().client().options(timeout=0)


def test_nothing_is_started_by_a_world() -> None:
    """It is one thread, and no socket."""
    before = threading.active_count()
    _world().client().call("add", 2, 3)
    assert threading.active_count() == before
