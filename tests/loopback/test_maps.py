"""One service for many items, with both shells: bounded, lazy, in order or as they come, and closed in the middle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from reliable import (
    AsyncClient,
    Client,
    ClosedError,
    Outcome,
    PayloadError,
    RequestAbandoned,
    RequestError,
    ServiceNotFound,
    WorkerFailed,
    current_request,
)
from tests.support.callers import Caller
from tests.support.loopback import QUICK_CLIENT, BrokerThread, ShellKind, Stage, eventually


class _Serving:
    """A broker with a worker that doubles numbers, fails for some, and holds what it is told to hold."""

    def __init__(self, stage: Stage, shell: ShellKind) -> None:
        self.broker: BrokerThread = stage.broker()
        self.release = threading.Event()
        self.entered = 0
        self.cancelled: list[bool] = []
        worker = shell.worker(self.broker.endpoint, concurrency=8)

        @worker.service("double", idempotent=True)
        def double(number: int) -> int:
            return number * 2

        @worker.service("fail")
        def fail(number: int) -> int:
            if number % 5 == 3:
                raise ValueError(f"not {number}")
            return number

        @worker.service("nap")
        def nap(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        @worker.service("hold")
        def hold(number: int) -> int:
            if number == 0:
                return 0
            self.entered += 1
            request = current_request()
            while not (self.release.is_set() or request.cancelled):
                time.sleep(0.005)
            self.cancelled.append(request.cancelled)
            return number

        shell.run(worker)


@pytest.fixture
def serving(stage: Stage, shell: ShellKind) -> Iterator[_Serving]:
    made = _Serving(stage, shell)
    yield made
    made.release.set()


def test_results_come_in_order_or_as_they_come(serving: _Serving, shell: ShellKind) -> None:
    """By choice; each exactly once either way, and none for nothing."""
    client = Caller.of(shell, serving.broker.endpoint)
    assert list(client.map("double", range(300))) == list(range(0, 600, 2))
    assert sorted(client.map("double", range(300), ordered=False, in_flight=7)) == list(range(0, 600, 2))
    naps = [0.3, 0.0, 0.0]
    assert list(client.map("nap", naps)) == naps
    assert list(client.map("nap", naps, ordered=False))[-1] == 0.3
    assert list(client.map("double", [])) == []
    assert client.open_calls == 0


def test_items_are_taken_no_faster_than_calls_may_be_open(serving: _Serving, shell: ShellKind) -> None:
    """A source without end, or one larger than the memory, is a source like any other."""
    client = Caller.of(shell, serving.broker.endpoint)
    taken: list[int] = []

    def source() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    for ordered in (True, False):
        taken.clear()
        results = client.map("double", source(), in_flight=3, ordered=ordered)
        assert taken == []
        read = [next(results) for _ in range(10)]
        assert len(set(read)) == 10
        assert 10 <= len(taken) <= 10 + 2 * 3
        results.close()
        assert list(results) == []


def test_one_slow_item_does_not_make_a_heap_of_the_others(serving: _Serving, shell: ShellKind) -> None:
    """In order, results behind it wait; they too are bounded."""
    client = Caller.of(shell, serving.broker.endpoint)
    taken: list[float] = []

    def source() -> Iterator[float]:
        for number in range(1_000):
            taken.append(0.4 if number == 0 else 0.0)
            yield taken[-1]

    results = client.map("nap", source(), in_flight=4)
    assert next(results) == 0.4
    assert len(taken) <= 2 * 4 + 2
    results.close()


def test_progress_is_counted(serving: _Serving, shell: ShellKind) -> None:
    """With the total if it can be known; a function that throws ends nothing."""
    client = Caller.of(shell, serving.broker.endpoint)
    seen: list[tuple[int, int | None]] = []

    def note(done: int, total: int | None) -> None:
        seen.append((done, total))
        raise ValueError("a mistake of the user's")

    assert list(client.map("double", [1, 2, 3], on_progress=note)) == [2, 4, 6]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    assert list(client.map("double", iter([1, 2]), on_progress=note)) == [2, 4]
    assert seen == [(1, None), (2, None)]


def test_the_first_error_ends_all(serving: _Serving, shell: ShellKind) -> None:
    """And what is still open is cancelled: nobody will look at it."""
    client = Caller.of(shell, serving.broker.endpoint)
    results = client.map("fail", range(10), in_flight=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(WorkerFailed, match="not 3"):
        next(results)
    assert list(results) == []
    eventually(lambda: client.open_calls == 0, "the rest is cancelled")


def test_errors_can_be_results(serving: _Serving, shell: ShellKind) -> None:
    """For those who want to know of each item how it went."""
    client = Caller.of(shell, serving.broker.endpoint)
    results = list(client.map("fail", range(10), return_errors=True))
    assert [number for number, one in enumerate(results) if isinstance(one, RequestError)] == [3, 8]
    assert results[3].outcome is Outcome.EXECUTED
    assert results[4] == 4


@pytest.mark.parametrize("end", ["close", "drop", "source"])
def test_ending_in_the_middle_cancels_what_is_open(serving: _Serving, shell: ShellKind, end: str) -> None:
    """At the workers too; whether it is closed, dropped, or the source of the items fails."""
    client = Caller.of(shell, serving.broker.endpoint)
    fail = threading.Event()

    def source() -> Iterator[int]:
        yield from range(4)
        if fail.is_set():
            raise LookupError("no more items")
        yield from range(4, 100)

    results = client.map("hold", source(), in_flight=4 if end != "source" else 3)
    assert next(results) == 0
    eventually(lambda: serving.entered >= 2, "others are open")
    if end == "close":
        results.close()
    elif end == "drop":
        results.drop()
    else:
        fail.set()
        serving.release.set()
        with pytest.raises(LookupError, match="no more items"):
            list(results)
    assert list(results if end != "drop" else ()) == []
    eventually(lambda: client.open_calls == 0, "none is left")
    eventually(lambda: len(serving.cancelled) == serving.entered, "no handler goes on")
    assert all(serving.cancelled) or end == "source"


def test_closing_the_client_ends_a_map(serving: _Serving, shell: ShellKind) -> None:
    """Within a second, for whoever reads it."""
    client = Caller.of(shell, serving.broker.endpoint)
    results = client.map("hold", range(100))
    assert next(results) == 0
    began = time.monotonic()
    client.close()
    with pytest.raises((RequestAbandoned, ClosedError)):
        next(results)
    assert time.monotonic() - began < 1.0


def test_options_are_those_of_each_call(serving: _Serving, shell: ShellKind) -> None:
    """Of the view, and given here; what cannot work is refused before anything is taken."""
    client = Caller.of(shell, serving.broker.endpoint)
    with pytest.raises(ServiceNotFound):
        list(client.options(fail_fast=True).map("nobody", [1]))
    with pytest.raises(ServiceNotFound):
        list(client.map("nobody", [1], fail_fast=True))
    with pytest.raises(PayloadError):
        list(client.map("double", [1, object()]))
    with pytest.raises(ValueError, match="in_flight"):
        client.map("double", [1], in_flight=0)
    with pytest.raises(ValueError, match="printable"):
        client.map("two words", [1])
    assert client.open_calls == 0


def test_dropping_the_results_of_the_blocking_client_is_enough(stage: Stage) -> None:
    """A generator that is left by break is dropped, and nobody says close."""
    shell = ShellKind("sync")
    serving = _Serving(stage, shell)
    with Client(serving.broker.endpoint, config=QUICK_CLIENT) as client:
        for result in client.map("hold", range(100), in_flight=4):
            assert result == 0
            break
        eventually(lambda: (snapshot := client.snapshot()) is not None and snapshot.calls == 0, "all is cancelled")
    serving.release.set()
    shell.close()


def test_items_may_come_asynchronously(stage: Stage) -> None:
    """A slow source holds up neither the results that are there, nor its own end."""
    loops = ShellKind("asyncio")
    serving = _Serving(stage, loops)
    left = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
            await asyncio.sleep(60)
        finally:
            left.set()

    async def use() -> None:
        async with AsyncClient(serving.broker.endpoint, config=QUICK_CLIENT) as client:

            async def quick() -> AsyncIterator[int]:
                for number in range(50):
                    await asyncio.sleep(0)
                    yield number

            assert [one async for one in client.map("double", quick())] == list(range(0, 100, 2))
            async with client.map("double", slow()) as results:
                assert [await anext(results), await anext(results)] == [2, 4]
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(results), 0.05)
            await asyncio.wait_for(left.wait(), 5)

            async def failing() -> AsyncIterator[int]:
                yield 1
                raise LookupError("no more items")

            with pytest.raises(LookupError):
                async for _ in client.map("double", failing()):
                    pass

    asyncio.run(asyncio.wait_for(use(), 20))
    loops.close()
