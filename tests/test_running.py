"""The parts of a streamed reply: how far a generator may run ahead, and what ends its wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from reliable.handling import Handler, ServiceOptions, Services
from reliable.payload import MSGPACK, encode_call
from reliable.protocol.events import JobError, JobPartial, StartJob
from reliable.request import Request
from reliable.running import NOBODY_WAITS, PartWindow, run_coroutine, run_function
from reliable.types import Frames

_BOUND_S = 5.0


def _job(deadline: float | None = None) -> StartJob:
    return StartJob(job=1, service=b"s", body=encode_call(MSGPACK, [], {}), deadline=deadline)


def _handler(function: Callable[..., object]) -> Handler:
    return Services().add("s", function, ServiceOptions())


class _Bench:
    """A window of two, and what came through it."""

    def __init__(self, deadline: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.job = _job(deadline)
        self.request = Request(self.job, lambda _: None, clock)
        self.posted: list[Frames] = []
        self.arrived = threading.Semaphore(0)
        self.window = PartWindow(1, self.request, self._post, 2)

    def _post(self, part: JobPartial) -> None:
        self.posted.append(part.body)
        self.arrived.release()

    def wait_posted(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=_BOUND_S)


def _in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


def test_a_generator_waits_for_the_loop_and_goes_on_part_by_part() -> None:
    """However much it has to say, so much and no more is in memory."""
    bench = _Bench()
    made: list[int] = []

    def many() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    thread, results = _in_thread(lambda: run_function(_handler(many), MSGPACK, bench.job, bench.request, bench.window))
    bench.wait_posted(2)
    assert not bench.arrived.acquire(timeout=0.05)
    assert made == [0, 1, 2]
    for _ in range(3):
        bench.window.taken()
        bench.wait_posted(1)
    thread.join(_BOUND_S)
    assert results == [[b""]]
    assert bench.posted == [[MSGPACK.encode(number)] for number in range(5)]


@pytest.mark.parametrize("how", ["cancelled", "overdue"])
def test_the_wait_of_a_generator_ends_when_nobody_waits(how: str) -> None:
    """At once when it is told, and some time behind its deadline when nobody is there to tell it."""
    now = [100.0]
    bench = _Bench(deadline=101.0, clock=lambda: now[0])
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    thread, results = _in_thread(
        lambda: run_function(_handler(endless), MSGPACK, bench.job, bench.request, bench.window)
    )
    bench.wait_posted(2)
    if how == "cancelled":
        bench.request.cancel()
    else:
        now[0] = 102.0
    bench.window.wake()
    assert closed.wait(_BOUND_S)
    thread.join(_BOUND_S)
    assert results == [NOBODY_WAITS]


def test_a_deadline_that_has_just_passed_does_not_end_a_stream_by_itself() -> None:
    """Clocks differ by milliseconds: the broker says when it is over, and tells the caller why."""
    now = [101.5]
    bench = _Bench(deadline=101.0, clock=lambda: now[0])
    assert bench.window.send([b"1"])
    now[0] = 102.5
    assert not bench.window.send([b"2"])


async def test_a_task_waits_without_holding_up_its_loop() -> None:
    """And is woken from another thread, where the worker's loop may be."""
    bench = _Bench()

    async def many() -> AsyncIterator[int]:
        for number in range(4):
            yield number

    task = asyncio.create_task(run_coroutine(_handler(many), MSGPACK, bench.job, bench.request, bench.window))
    await asyncio.to_thread(bench.wait_posted, 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bench.posted) == 2
    for _ in range(2):
        await asyncio.to_thread(bench.window.taken)
    assert await asyncio.wait_for(task, _BOUND_S) == [b""]
    assert len(bench.posted) == 4


async def test_a_task_that_is_cancelled_while_it_waits_closes_its_generator() -> None:
    """Otherwise its finally would run when the garbage is collected, if ever."""
    bench = _Bench()
    closed: list[bool] = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    task = asyncio.create_task(run_coroutine(_handler(endless), MSGPACK, bench.job, bench.request, bench.window))
    await asyncio.to_thread(bench.wait_posted, 2)
    task.cancel()
    result = await asyncio.wait_for(task, _BOUND_S)
    assert isinstance(result, JobError)
    assert result.type_name == "CancelledError"
    assert closed == [True]


def test_a_generator_that_does_not_want_to_end_is_an_error_and_no_hang() -> None:
    """One that yields on GeneratorExit."""
    bench = _Bench()
    bench.request.cancel()

    def stubborn() -> Iterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2

    result = run_function(_handler(stubborn), MSGPACK, bench.job, bench.request, bench.window)
    assert isinstance(result, JobError)
    assert result.type_name == "RuntimeError"


def test_a_function_that_returns_a_generator_streams_too() -> None:
    """A decorator may hide what it is; the value cannot."""
    bench = _Bench()
    result = run_function(_handler(lambda: (n for n in (1, 2))), MSGPACK, bench.job, bench.request, bench.window)
    assert (bench.posted, result) == ([[MSGPACK.encode(1)], [MSGPACK.encode(2)]], [b""])


def test_without_a_window_a_stream_is_refused_and_its_generator_not_entered() -> None:
    """Inline there is nobody who could send the parts meanwhile."""
    entered: list[bool] = []

    def handler() -> Iterator[int]:
        entered.append(True)
        yield 1

    bench = _Bench()
    result = run_function(_handler(handler), MSGPACK, bench.job, bench.request)
    assert isinstance(result, JobError)
    assert "inline" in result.message
    assert entered == []
