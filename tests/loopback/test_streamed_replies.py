"""Handlers that are generators, in both shells: parts, ends, and what happens when nobody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator

import attrs
import pytest

from reliable import Outcome, WorkerFailed, current_request
from reliable.payload import MSGPACK
from tests.support.loopback import QUICK_WORKER, ShellKind, Stage, eventually
from tests.support.parts_reader import Told, ask


def _values(told: Told) -> list[object]:
    return [MSGPACK.decode(frame) for (frame,) in told.parts]


def test_each_yield_is_a_part_and_the_return_value_the_end(stage: Stage, shell: ShellKind) -> None:
    """In order, encoded one by one; with nothing returned the end says nothing."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("count")
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    @worker.service("sum")
    def total(to: int) -> Generator[int, None, int]:
        yield from range(to)
        return sum(range(to))

    @worker.service("async-count")
    async def later(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    shell.run(worker)
    for service in ("count", "async-count"):
        told = ask(broker.endpoint, service, 300)
        assert _values(told) == list(range(300)), service
        assert told.reply == [b""]
    told = ask(broker.endpoint, "sum", 4)
    assert (_values(told), told.reply) == ([0, 1, 2, 3], [MSGPACK.encode(6)])
    assert ask(broker.endpoint, "count", 0).reply == [b""]


def test_raw_generators_send_frames(stage: Stage, shell: ShellKind) -> None:
    """A part may have several frames, like a reply."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("raw", raw=True)
    def raw(frame: bytes) -> Iterator[bytes | list[bytes]]:
        yield frame
        yield [frame, b"2"]

    shell.run(worker)
    assert ask(broker.endpoint, "raw", body=[b"x"]).parts == [[b"x"], [b"x", b"2"]]


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_generator_that_fails_ends_the_stream_with_its_error(stage: Stage, shell: ShellKind, kind: str) -> None:
    """The parts before it are with the reader; the end says that there should have been more."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    def half() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    async def half_later() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    worker.service("half")(half if kind == "function" else half_later)
    shell.run(worker)
    told = ask(broker.endpoint, "half")
    assert _values(told) == [1]
    assert isinstance(told.error, WorkerFailed)
    assert (told.error.remote_type, told.error.remote_message) == ("ValueError", "no more")
    assert told.error.outcome is Outcome.EXECUTED


def test_a_part_that_cannot_be_encoded_ends_the_stream_and_the_generator(stage: Stage, shell: ShellKind) -> None:
    """It would be left half way otherwise, with whatever it holds open."""
    broker = stage.broker()
    closed = threading.Event()
    worker = shell.worker(broker.endpoint)

    @worker.service("odd")
    def odd() -> Iterator[object]:
        try:
            yield 1
            yield object()
            yield 2
        finally:
            closed.set()

    shell.run(worker)
    told = ask(broker.endpoint, "odd")
    assert _values(told) == [1]
    assert isinstance(told.error, WorkerFailed)
    assert told.error.remote_type == "PayloadError"
    assert closed.wait(5)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_generator_is_closed_when_nobody_waits_any_more(stage: Stage, shell: ShellKind, kind: str, how: str) -> None:
    """At its next yield, by GeneratorExit, and its slot is free for the next request."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
                current_request().wait_cancelled(0.01)
        except GeneratorExit:
            closed.set()
            raise

    async def endless_later() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        except GeneratorExit:
            closed.set()
            raise

    worker.service("endless")(endless if kind == "function" else endless_later)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    if how == "cancelled":
        told = ask(broker.endpoint, "endless", cancel_when=lambda told: len(told.parts) > 3)
    else:
        told = ask(broker.endpoint, "endless", timeout=0.4)
    assert told.error.outcome is Outcome.UNKNOWN
    assert closed.wait(5)
    assert ask(broker.endpoint, "echo", body=[b"next"]).reply == [b"next"]
    eventually(lambda: not any(view.in_hand for view in broker.broker.snapshot().workers), "every slot is free")


def test_a_generator_does_not_outrun_the_loop(stage: Stage, shell: ShellKind) -> None:
    """A loop that stands still holds it up after so many parts; no memory fills meanwhile."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, config=attrs.evolve(QUICK_WORKER, stream_parts_ahead_max=10))
    made = [0]

    @worker.service("eager")
    def eager() -> Iterator[int]:
        for number in range(1000):
            made[0] += 1
            yield number

    shell.run(worker)
    run = worker._run
    assert run is not None
    original = run.engine.handle
    ahead: list[int] = []

    def slow(event: object, now: float) -> None:
        if type(event).__name__ == "JobPartial" and not ahead:
            time.sleep(0.3)
            ahead.append(made[0])
        original(event, now)  # type: ignore[arg-type]

    run.engine.handle = slow  # type: ignore[method-assign]
    told = ask(broker.endpoint, "eager")
    assert len(told.parts) == 1000
    assert 2 <= ahead[0] <= 12


def test_progress_reaches_a_caller_that_wants_it_and_no_other(stage: Stage, shell: ShellKind) -> None:
    """News of the handler are not part of the reply."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("steps")
    def steps() -> str:
        for number in range(3):
            current_request().progress(b"%d" % number)
        return "done"

    shell.run(worker)
    told = ask(broker.endpoint, "steps", wants_progress=True)
    assert (told.progress, told.parts, told.reply) == ([[b"0"], [b"1"], [b"2"]], [], [MSGPACK.encode("done")])
    assert ask(broker.endpoint, "steps").progress == []
