"""Replies in parts, read by both shells: in order, bounded, and cancelled by whoever reads no more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
import zmq

from reliable import (
    MSGPACK,
    RAW,
    AsyncClient,
    Client,
    ClosedError,
    DeadlineExceeded,
    Limits,
    Outcome,
    PayloadError,
    QueueFull,
    RequestAbandoned,
    WorkerFailed,
    current_request,
)
from tests.support.callers import Caller
from tests.support.loopback import QUICK_CLIENT, BrokerThread, ShellKind, Stage, eventually


class _Counting:
    """A worker whose service ``count`` gives numbers, as far as it is let, and notes how it ended."""

    def __init__(self, stage: Stage, shell: ShellKind) -> None:
        self.broker: BrokerThread = stage.broker()
        self.go_on = threading.Semaphore(0)
        self.ended: list[bool] = []
        worker = shell.worker(self.broker.endpoint, concurrency=4)

        @worker.service("count")
        def count(numbers: int, step: bool = False) -> Iterator[int]:
            try:
                for number in range(numbers):
                    if step:
                        self.go_on.acquire(timeout=10)
                    yield number
            finally:
                self.ended.append(current_request().cancelled)

        @worker.service("fail")
        def fail(after: int) -> Iterator[int]:
            yield from range(after)
            raise ValueError("no more")

        @worker.service("plain")
        def plain() -> str:
            return "one"

        @worker.service("last")
        def last() -> Generator[int, None, str]:
            yield 1
            return "end"

        shell.run(worker)

    def was_told(self) -> bool:
        """Whether the one handler that ran has seen that it was cancelled; lets it go on to look."""
        self.go_on.release()
        return self.ended == [True]


@pytest.fixture
def counting(stage: Stage, shell: ShellKind) -> Iterator[_Counting]:
    made = _Counting(stage, shell)
    yield made
    made.go_on.release(1_000)


def test_parts_come_in_order_and_end(counting: _Counting, shell: ShellKind) -> None:
    """The plain case, many parts and none at all; the client can be used for other calls meanwhile."""
    client = Caller.of(shell, counting.broker.endpoint)
    assert list(client.stream("count", 500)) == list(range(500))
    assert list(client.stream("count", 0)) == []
    stream = client.stream("count", 2)
    assert next(stream) == 0
    assert client.call("plain") == "one"
    assert list(stream) == [1]
    assert list(stream) == []
    assert client.open_calls == 0


def test_a_part_is_there_before_the_next_one_is_made(counting: _Counting, shell: ShellKind) -> None:
    """What streams are for: the reader does not wait for the end."""
    client = Caller.of(shell, counting.broker.endpoint)
    stream = client.stream("count", 3, step=True)
    for number in range(3):
        counting.go_on.release()
        assert next(stream) == number
    assert list(stream) == []


def test_a_reply_that_is_no_stream_is_its_only_part(counting: _Counting, shell: ShellKind) -> None:
    """A reader need not know how the handler is written; nor does a value that a generator returns get lost."""
    client = Caller.of(shell, counting.broker.endpoint)
    assert list(client.stream("plain")) == ["one"]
    assert list(client.stream("last")) == [1, "end"]


def test_call_says_what_to_use_for_parts(counting: _Counting, shell: ShellKind) -> None:
    """An error about an empty frame would send its reader looking for a fault of the codec."""
    with pytest.raises(PayloadError, match=r"in 3 parts, which stream\(\) reads"):
        Caller.of(shell, counting.broker.endpoint).call("count", 3)


def test_raw_parts_are_bytes(stage: Stage, shell: ShellKind) -> None:
    """The codec is an option of each call; an empty part is a part."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("raw", raw=True)
    def raw(frame: bytes) -> Iterator[bytes]:
        yield from (frame, b"", frame)

    shell.run(worker)
    assert list(Caller.of(shell, broker.endpoint).options(codec=RAW).stream("raw", b"x")) == [b"x", b"", b"x"]


def test_parts_of_a_plain_worker_are_parts(stage: Stage, shell: ShellKind) -> None:
    """PARTIAL and FINAL of 18/MDP, from a worker that knows nothing of us; its last frame counts unless it is empty."""
    broker = stage.broker()
    client = Caller.of(shell, broker.endpoint).options(codec=RAW)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as worker, ThreadPoolExecutor(1) as pool:
        worker.linger = 0
        worker.connect(broker.endpoint)
        worker.send_multipart([b"MDPW02", b"\x01", b"up"])
        eventually(lambda: broker.broker.snapshot().workers != (), "the worker is registered")
        for final, expected in ((b"", [b"a", b"b"]), (b"c", [b"a", b"b", b"c"])):
            read = pool.submit(lambda: list(client.stream("up", b"x")))
            frames: list[bytes] = []
            while frames[1:2] != [b"\x02"]:
                assert worker.poll(5_000), "no request came"
                frames = worker.recv_multipart()
            address = frames[2]
            for command, part in ((b"\x03", b"a"), (b"\x03", b"b"), (b"\x04", final)):
                worker.send_multipart([b"MDPW02", command, address, b"", part])
            assert read.result(5) == expected


def test_an_error_of_the_handler_comes_behind_its_parts(counting: _Counting, shell: ShellKind) -> None:
    """What was sent is valid; the reader gets it first, and then hears why there is no more."""
    stream = Caller.of(shell, counting.broker.endpoint).stream("fail", 2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(WorkerFailed, match="no more"):
        next(stream)
    assert list(stream) == []


def test_closing_early_cancels_the_handler(counting: _Counting, shell: ShellKind) -> None:
    """A reader that has seen enough must not leave a worker at work for nobody."""
    client = Caller.of(shell, counting.broker.endpoint)
    stream = client.stream("count", 1_000_000, step=True)
    counting.go_on.release()
    assert next(stream) == 0
    stream.close()
    eventually(counting.was_told, "the handler was told")
    assert client.open_calls == 0
    assert list(stream) == []
    stream.close()


def test_dropping_a_stream_cancels_it_too(counting: _Counting, shell: ShellKind) -> None:
    """``break`` out of a loop is how most readers stop."""
    client = Caller.of(shell, counting.broker.endpoint)
    stream = client.stream("count", 1_000_000, step=True)
    counting.go_on.release()
    assert next(stream) == 0
    stream.drop()
    eventually(lambda: client.open_calls == 0, "the call is cancelled")
    eventually(counting.was_told, "the handler was told")


def test_one_deadline_bounds_the_whole_stream(counting: _Counting, shell: ShellKind) -> None:
    """Not each part: a reader must know when it will be done."""
    stream = Caller.of(shell, counting.broker.endpoint, timeout=1.5).stream("count", 3, step=True)
    counting.go_on.release()
    assert next(stream) == 0
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        next(stream)
    assert time.monotonic() - began < 2.0
    assert caught.value.outcome is Outcome.UNKNOWN


def test_a_reader_that_does_not_keep_up_is_told(counting: _Counting, shell: ShellKind) -> None:
    """Parts are held up to a limit; then the call is cancelled, and nothing that was held is lost."""
    config = attrs.evolve(QUICK_CLIENT, limits=Limits(stream_parts_max=5))
    client = Caller.of(shell, counting.broker.endpoint, config=config)
    stream = client.stream("count", 1_000)
    deadline = time.monotonic() + 5
    while client.open_calls and time.monotonic() < deadline:
        client.call("plain")  # So that somebody pumps, in both shells, while nobody reads.
    read = [next(stream) for _ in range(5)]
    assert read == list(range(5))
    with pytest.raises(QueueFull, match="stream_parts_max") as caught:
        next(stream)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert list(stream) == []
    eventually(counting.was_told, "the handler was told")


def test_a_part_that_cannot_be_read_ends_the_stream(counting: _Counting, shell: ShellKind) -> None:
    """Skipping it would hide a hole."""

    class Picky:
        name = "picky"

        def encode(self, value: object) -> bytes:
            return MSGPACK.encode(value)

        def decode(self, data: bytes) -> object:
            raise ValueError("not for me")

    client = Caller.of(shell, counting.broker.endpoint)
    stream = client.options(codec=Picky()).stream("count", 5)
    with pytest.raises(PayloadError, match="not for me"):
        next(stream)
    assert list(stream) == []
    assert client.open_calls == 0


def test_closing_the_client_ends_its_streams(counting: _Counting, shell: ShellKind) -> None:
    """Within a second, for a reader that waits and for one that will read later."""
    client = Caller.of(shell, counting.broker.endpoint)
    waiting, later = (client.stream("count", 3, step=True) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(next, waiting)
        time.sleep(0.1)  # It waits.
        began = time.monotonic()
        client.close()
        assert isinstance(read.exception(2), RequestAbandoned)
        assert time.monotonic() - began < 1.0
    with pytest.raises(RequestAbandoned):
        list(later)
    with pytest.raises(ClosedError):
        client.stream("plain")


def test_a_call_is_cancelled_by_its_id_from_another_thread(counting: _Counting, shell: ShellKind) -> None:
    """An operator's stop button has only the id."""
    client = Caller.of(shell, counting.broker.endpoint)
    stream = client.stream("count", 3, step=True)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(next, stream)
        eventually(lambda: client.open_calls == 1, "the call is open")
        assert client.cancel(stream.source.call_id)
        assert isinstance(read.exception(2), RequestAbandoned)
    assert not client.cancel(stream.source.call_id)


def test_a_client_lives_as_long_as_its_stream(counting: _Counting, no_leaks: None) -> None:
    """``for part in Client(...).stream(...)`` must not be ended by the collector."""
    stream = Client(counting.broker.endpoint, config=QUICK_CLIENT).stream("count", 3)
    assert list(stream) == [0, 1, 2]
    owner = stream._owner
    assert isinstance(owner, Client)
    owner.close()


def test_a_task_that_is_cancelled_while_it_waits_loses_no_part(stage: Stage) -> None:
    """Polling a stream with a timeout of one's own is common; what comes meanwhile is for the next look."""
    loops = ShellKind("asyncio")
    counting = _Counting(stage, loops)

    async def poll() -> None:
        async with AsyncClient(counting.broker.endpoint, config=QUICK_CLIENT) as client:
            stream = client.stream("count", 5, step=True)
            for number in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.02)
                counting.go_on.release()
                assert await anext(stream) == number
            async with client.stream("count", 1, step=True) as shared:
                first = asyncio.create_task(anext(shared))
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(shared)
                counting.go_on.release()
                assert await first == 0

    asyncio.run(poll())
    loops.close()
