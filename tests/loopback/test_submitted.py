"""Calls that are submitted and looked at later, and many calls at once, with both shells."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import attrs
import pytest

from reliable import (
    AsyncClient,
    Client,
    ClosedError,
    DeadlineExceeded,
    Limits,
    PayloadError,
    QueueFull,
    RequestAbandoned,
    WorkerFailed,
    current_request,
)
from tests.support.callers import Caller
from tests.support.loopback import QUICK_CLIENT, BrokerThread, ShellKind, Stage, eventually, worker_process

_BACKGROUND = "reliable client"


class _Serving:
    """A broker with a worker that doubles numbers, fails, and holds what it is told to hold."""

    def __init__(self, stage: Stage, shell: ShellKind, concurrency: int = 8) -> None:
        self.broker: BrokerThread = stage.broker()
        self.release = threading.Event()
        self.cancelled: list[bool] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        worker = shell.worker(self.broker.endpoint, concurrency=concurrency)

        @worker.service("double", idempotent=True)
        def double(number: int) -> int:
            return number * 2

        @worker.service("fail")
        def fail(number: int) -> int:
            if number % 5 == 3:
                raise ValueError(f"not {number}")
            return number

        @worker.service("hold")
        def hold(number: int = 0) -> int:
            with self._lock:
                self._now += 1
                self.most_at_once = max(self.most_at_once, self._now)
            request = current_request()
            try:
                while not (self.release.is_set() or request.cancelled):
                    time.sleep(0.005)
            finally:
                with self._lock:
                    self._now -= 1
                self.cancelled.append(request.cancelled)
            return number

        @worker.service("tell")
        def tell() -> str:
            current_request().progress(b"a", b"b")
            current_request().progress(b"c")
            return "told"

        @worker.service("tell_of")
        def tell_of(_: int) -> str:
            return tell()

        shell.run(worker)


@pytest.fixture
def serving(stage: Stage, shell: ShellKind) -> Iterator[_Serving]:
    made = _Serving(stage, shell)
    yield made
    made.release.set()


def _background() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == _BACKGROUND]


# --- submit ---------------------------------------------------------------------------------------


def test_a_submitted_call_has_its_result_later(serving: _Serving, shell: ShellKind) -> None:
    """Also if nobody waits for it meanwhile; what goes wrong is raised where it is looked at."""
    client = Caller.of(shell, serving.broker.endpoint)
    pending = [client.submit("double", number) for number in range(50)]
    failing = client.submit("fail", 3)
    eventually(lambda: all(one.done() for one in pending), "all go on by themselves")
    assert [one.result() for one in pending] == [2 * number for number in range(50)]
    assert isinstance(failing.error(), WorkerFailed)
    assert len({one.call_id for one in pending}) == 50
    with pytest.raises(PayloadError):
        client.submit("double", object())


def test_a_submitted_call_ends_by_its_deadline(serving: _Serving, shell: ShellKind) -> None:
    """Like every other, whoever waits, or nobody."""
    client = Caller.of(shell, serving.broker.endpoint)
    began = time.monotonic()
    pending = client.options(timeout=0.4).submit("hold")
    eventually(pending.done, "it ended")
    assert time.monotonic() - began < 1.0
    assert isinstance(pending.error(), DeadlineExceeded)


def test_a_cancelled_call_is_cancelled_at_the_worker(serving: _Serving, shell: ShellKind) -> None:
    """By its own method; it cannot be told from a reply that there was none."""
    client = Caller.of(shell, serving.broker.endpoint)
    pending, other = client.submit("hold"), client.submit("hold", 7)
    eventually(lambda: serving.most_at_once == 2, "both run")
    assert pending.cancel()
    assert pending.done()
    assert isinstance(pending.error(), CancelledError | asyncio.CancelledError)
    eventually(lambda: serving.cancelled == [True], "its handler was told, and no other")
    serving.release.set()
    assert other.result() == 7
    assert not other.cancel()


def test_a_submitted_call_is_ended_by_its_id(serving: _Serving, shell: ShellKind) -> None:
    """That is an end from outside, so it is an error of ours and no cancellation of the user's."""
    client = Caller.of(shell, serving.broker.endpoint)
    pending = client.submit("hold")
    eventually(lambda: serving.most_at_once == 1, "it runs")
    assert client.cancel(pending.call_id)
    assert isinstance(pending.error(), RequestAbandoned)
    assert not client.cancel(pending.call_id)
    assert not client.cancel(b"x" * 16)


def test_closing_ends_submitted_calls(serving: _Serving, shell: ShellKind) -> None:
    """Within a second, and a result that was there before is not lost."""
    client = Caller.of(shell, serving.broker.endpoint)
    there = client.submit("double", 1)
    assert there.result() == 2
    pending = [client.submit("hold") for _ in range(20)]
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 1.0
    assert all(isinstance(one.error(1.0), RequestAbandoned) for one in pending)
    assert there.result() == 2
    with pytest.raises(ClosedError):
        client.submit("double", 1)
    assert not client.cancel(pending[0].call_id)


def test_progress_of_a_submitted_call_is_told(serving: _Serving, shell: ShellKind) -> None:
    """As of every other call, frame by frame; a function that throws must not end anything."""
    client = Caller.of(shell, serving.broker.endpoint)
    told: list[list[bytes]] = []

    def tell(frames: list[bytes]) -> None:
        told.append(frames)
        raise ValueError("a mistake of the user's")

    telling = client.options(on_progress=tell)
    assert telling.submit("tell").result() == "told"
    eventually(lambda: len(told) == 2, "the background thread has told it")
    assert telling.call("tell") == "told"
    assert list(telling.stream("tell")) == ["told"]
    assert client.request("tell", b"\x92\x90\x80", on_progress=tell) == [b"\xa4told"]
    eventually(lambda: told == [[b"a", b"b"], [b"c"]] * 4, "all was told")


def test_a_function_that_is_told_of_progress_may_use_the_blocking_client(blocking: _Serving) -> None:
    """It runs outside of every lock, and whoever runs it does not hold up the others meanwhile."""
    with Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
        doubled: list[object] = []

        def use(frames: list[bytes]) -> None:
            doubled.append(client.call("double", len(frames)))
            doubled.append(client.submit("double", 10 * len(frames)).result(5))

        telling = client.options(on_progress=use)
        assert telling.call("tell") == "told"
        assert telling.submit("tell").result(5) == "told"
        eventually(lambda: len(doubled) == 8, "the background thread has told it")
        assert list(telling.map("tell_of", [0])) == ["told"]
        eventually(lambda: len(doubled) == 12, "all was told")
        assert doubled == [4, 40, 2, 20] * 3


def test_a_slow_function_of_the_users_does_not_hold_up_the_calls_of_others(blocking: _Serving) -> None:
    """Whoever is told of progress may be the one that leads; it hands the lead on meanwhile."""
    with (
        Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        busy, go_on = threading.Event(), threading.Event()

        def dawdle(_: object) -> None:
            busy.set()
            go_on.wait(5)

        slow = pool.submit(client.options(on_progress=dawdle).call, "tell")
        assert busy.wait(5)
        began = time.monotonic()
        for number in range(3):
            assert client.call("double", number) == 2 * number
        assert time.monotonic() - began < 0.4
        go_on.set()
        assert slow.result(5) == "told"


def test_the_limit_of_calls_in_flight_is_an_error_of_the_call(serving: _Serving, shell: ShellKind) -> None:
    """A loop that submits without end is stopped before it fills the memory."""
    config = attrs.evolve(QUICK_CLIENT, limits=Limits(calls_in_flight_max=3))
    client = Caller.of(shell, serving.broker.endpoint, config=config)
    pending = [client.submit("hold") for _ in range(5)]
    errors = [one.error() for one in pending[3:]]
    assert all(isinstance(error, QueueFull) for error in errors), errors
    assert not pending[0].done()


# --- the futures and the thread of the blocking client --------------------------------------------


@pytest.fixture
def blocking(stage: Stage) -> Iterator[_Serving]:
    shell = ShellKind("sync")
    made = _Serving(stage, shell)
    yield made
    made.release.set()
    shell.close()


def test_futures_work_with_the_tools_of_the_standard_library(blocking: _Serving) -> None:
    """wait, as_completed, callbacks and wrap_future, in any mixture with futures of others."""
    with Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
        pending = [client.submit("double", number) for number in range(20)]
        assert sorted(str(one.result()) for one in concurrent.futures.as_completed(pending, timeout=5)) == sorted(
            str(2 * number) for number in range(20)
        )
        held, cancelled = client.submit("hold"), client.submit("hold")
        done, left = concurrent.futures.wait([*pending, held], timeout=0.1)
        assert (done, left) == (set(pending), {held})
        called: list[object] = []
        cancelled.add_done_callback(lambda one: called.append((one.cancelled(), client.call("double", 4))))
        assert cancelled.cancel()
        eventually(lambda: called == [(True, 8)], "the callback ran, and could use the client")
        assert concurrent.futures.wait([cancelled], timeout=5).done == {cancelled}
        assert (held.running(), held.done(), held.cancelled()) == (True, False, False)
        with pytest.raises(TimeoutError, match="still open"):
            held.result(0.05)
        with pytest.raises(TimeoutError):
            held.exception(0.05)

        async def wrapped() -> object:
            return await asyncio.wrap_future(client.submit("double", 21))

        assert asyncio.run(wrapped()) == 42
        failed = client.submit("fail", 3)
        assert isinstance(failed.exception(5), WorkerFailed)
        assert repr(failed) == "<PendingCall fail done>"


def test_the_background_thread_starts_when_needed_and_ends_with_the_client(blocking: _Serving) -> None:
    """One, not one per call; it sleeps while there is nothing to do."""
    with Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
        client.call("double", 1)
        assert _background() == []
        for one in [client.submit("double", number) for number in range(50)]:
            one.result(5)
        (thread,) = _background()
        before, began = _cpu_s(thread), time.monotonic()
        time.sleep(0.6)
        assert _cpu_s(thread) - before < 0.1 * (time.monotonic() - began)
        assert client.submit("double", 3).result(5) == 6
        assert _background() == [thread]
    assert not thread.is_alive()


def _cpu_s(thread: threading.Thread) -> float:
    fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_calls_of_threads_and_submitted_calls_share_the_lead(blocking: _Serving) -> None:
    """Whoever leads leads for all: nobody waits for the next look of somebody else."""
    with Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
        slowest = 0.0
        held = client.submit("hold")
        for number in range(100):
            began = time.monotonic()
            pending = client.submit("double", number)
            assert client.call("double", number) == 2 * number == pending.result(5)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.45
        blocking.release.set()
        assert held.result(5) == 0


@pytest.mark.slow
def test_a_submitted_call_ends_even_if_the_engine_never_says_so(blocking: _Serving) -> None:
    """Behind its deadline, for whoever waits in whatever way."""
    with Client(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
        assert client.submit("double", 1).result(5) == 2
        pump = client._pump
        assert pump is not None
        pump._driver.handle = lambda event: None  # type: ignore[method-assign]
        began = time.monotonic()
        pending = [client.options(timeout=0.3).submit("double", number) for number in range(3)]
        results = client.options(timeout=0.3).map("double", [1])
        assert isinstance(pending[0].exception(5), DeadlineExceeded)
        assert concurrent.futures.wait(pending, timeout=5).not_done == set()
        with pytest.raises(DeadlineExceeded):
            next(results)
        assert time.monotonic() - began < 3.0


def test_a_client_may_be_closed_from_a_callback(blocking: _Serving) -> None:
    """That is the background thread itself, which must not wait for its own end."""
    client = Client(blocking.broker.endpoint, config=QUICK_CLIENT)
    closed = threading.Event()

    def close(_: object) -> None:
        client.close()
        closed.set()

    client.submit("double", 1).add_done_callback(close)
    assert closed.wait(2)
    eventually(lambda: _background() == [], "the thread ended")


def test_a_client_without_a_reference_lives_until_its_calls_have_ended(blocking: _Serving) -> None:
    """``Client(...).submit(...).result()`` must not be ended by the collector; then it is collected and says so."""
    pending = Client(blocking.broker.endpoint, config=QUICK_CLIENT).submit("double", 4)
    assert pending.result(5) == 8
    owner = weakref.ref(pending._owner)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del pending
        eventually(lambda: gc.collect() >= 0 and owner() is None, "it was collected")
    eventually(lambda: _background() == [], "the thread ended")


_INTERRUPTED = """
import signal, sys, time
from reliable import Client
client = Client(sys.argv[1], timeout=None)
pending = [client.submit("hold", n) for n in range(3)]
stream = client.stream("hold", 9)
results = client.map("hold", range(100), in_flight=4)
ways = {
    "result": lambda: pending[0].result(),
    "stream": lambda: next(stream),
    "map": lambda: next(results),
}
print("ready", flush=True)
try:
    ways[sys.argv[2]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
began = time.monotonic()
client.close()
print(type(pending[1].exception()).__name__, time.monotonic() - began < 1.0, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["result", "stream", "map"])
def test_ctrl_c_returns_at_once_with_everything_open(blocking: _Serving, way: str) -> None:
    """Whatever the main thread waits for; closing after that is quick too."""
    with worker_process(_INTERRUPTED, blocking.broker.endpoint, way) as child:
        time.sleep(0.3)  # It waits.
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert child.stdout is not None
        assert child.stdout.readline() == b"interrupted\n"
        assert time.monotonic() - began < 1.0
        assert child.stdout.readline() == b"RequestAbandoned True\n"
        assert child.wait(2) == 0


_CTRL_C_STORM = """
import signal, sys
from reliable import Client
signal.signal(signal.SIGALRM, signal.default_int_handler)
client = Client(sys.argv[1], timeout=5.0)
client.call("double", 1)
print("ready", flush=True)
interrupted = done = 0
while interrupted < 60:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (1 + interrupted % 9), 0.05)
        while True:
            assert client.submit("double", done).result() == 2 * done
            with client.map("double", range(5), in_flight=2) as results:
                assert list(results) == [0, 2, 4, 6, 8]
            assert list(client.stream("double", done)) == [2 * done]
            done += 1
    except KeyboardInterrupt:
        interrupted += 1
    except Exception as error:
        # An interrupt inside the engine ends what the background thread was at.
        assert type(error).__name__ == "RequestAbandoned", repr(error)
signal.setitimer(signal.ITIMER_REAL, 0)
print(client.submit("double", 21).result(), flush=True)
client.close()
"""


@pytest.mark.slow
def test_ctrl_c_at_any_instruction_leaves_a_client_that_submits(blocking: _Serving) -> None:
    """Also between the start of the background thread and the note that it was started."""
    with worker_process(_CTRL_C_STORM, blocking.broker.endpoint) as child:
        out, _ = child.communicate(timeout=40)
        assert child.returncode == 0
    assert out == b"42\n"


_FORKED = """
import asyncio, concurrent.futures, os, sys, threading
from reliable import AsyncClient, Client

def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(7)
        except BaseException as error:
            print("in the child:", repr(error), flush=True)
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

client = Client(sys.argv[1], timeout=8.0)
pending = [client.submit("hold", n) for n in range(3)]
stream, results = client.stream("hold", 4), client.map("hold", range(5, 7))
waiting = threading.Thread(target=lambda: next(results)); waiting.start()

def of_child():
    for one in concurrent.futures.as_completed(pending, timeout=5):
        assert type(one.exception(5)).__name__ == "RequestAbandoned", one.exception(5)
    try:
        next(stream)
    except Exception as error:
        assert type(error).__name__ == "RequestAbandoned", error
    else:
        raise AssertionError("the stream went on")
    assert client.submit("double", 1).result(5) == 2
    assert list(client.map("double", range(3))) == [0, 2, 4]
    client.close()

in_child(of_child)
assert client.submit("double", 4).result(5) == 8

async def main():
    async with AsyncClient(sys.argv[1], timeout=8.0) as other:
        held = other.submit("hold", 8)
        assert await other.call("double", 1) == 2

        async def again():
            assert await other.submit("double", 5) == 10
            assert [x async for x in other.map("double", range(3))] == [0, 2, 4]
            await other.close()

        def of_child():
            asyncio._set_running_loop(None)
            asyncio.run(again())

        in_child(of_child)
        assert await other.call("double", 6) == 12
        print("ready", flush=True)
        print(await held, flush=True)

asyncio.run(main())
waiting.join()
print([one.result(5) for one in pending], next(stream), flush=True)
client.close()
"""


@pytest.mark.slow
def test_submitted_calls_stay_the_parents_after_a_fork(blocking: _Serving) -> None:
    """The child hears at once that they are not its own, and has a client that works, with a thread of its own."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _FORKED, blocking.broker.endpoint], stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"7\n"
            assert parent.stdout.readline() == b"7\n"
            assert parent.stdout.readline() == b"ready\n"
            blocking.release.set()
            assert parent.stdout.readline() == b"8\n"
            assert parent.stdout.readline() == b"[0, 1, 2] 4\n"
            assert parent.wait(5) == 0
        finally:
            parent.kill()


# --- the futures of asyncio -----------------------------------------------------------------------


def test_futures_work_with_the_tools_of_asyncio(blocking: _Serving) -> None:
    """gather, wait, as_completed and cancellation of the task that waits."""

    async def use() -> None:
        async with AsyncClient(blocking.broker.endpoint, config=QUICK_CLIENT) as client:
            assert await asyncio.gather(*(client.submit("double", n) for n in range(20))) == list(range(0, 40, 2))
            assert {await one for one in asyncio.as_completed([client.submit("double", n) for n in (1, 2)])} == {2, 4}
            shielded, held = client.submit("hold", 1), client.submit("hold", 2)

            async def wait(what: asyncio.Future[object]) -> object:
                return await what

            tasks = [asyncio.create_task(wait(asyncio.shield(shielded))), asyncio.create_task(wait(held))]
            await asyncio.to_thread(eventually, lambda: blocking.most_at_once == 2, "both run")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5)
            assert held.cancelled()
            assert not shielded.done()
            await asyncio.to_thread(eventually, lambda: blocking.cancelled == [True], "one handler was told")
            blocking.release.set()
            assert await shielded == 1

    asyncio.run(asyncio.wait_for(use(), 20))


def test_an_asyncio_client_closes_in_a_task_that_is_cancelled_or_whose_threads_are_all_taken(stage: Stage) -> None:
    """A cancellation amid closing must come through, and closing needs none of the loop's threads."""
    broker = stage.broker()

    async def close() -> None:
        client = AsyncClient(broker.endpoint, config=QUICK_CLIENT)
        await client.ping()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        release = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        taken = loop.run_in_executor(None, release.wait, 5)
        other = AsyncClient(broker.endpoint, config=QUICK_CLIENT)
        pending = other.submit("nobody")
        await other.ping()
        began = time.monotonic()
        await other.close()
        assert time.monotonic() - began < 0.9
        assert isinstance(pending.exception(), RequestAbandoned)
        release.set()
        await taken
        stuck = AsyncClient(broker.endpoint, config=QUICK_CLIENT)
        await stuck.ping()
        assert stuck._pump is not None
        links = stuck._pump._driver._links
        shutdown, ended = links.shutdown, threading.Event()

        def slowly() -> None:
            ended.wait(5)
            shutdown()

        links.shutdown = slowly  # type: ignore[method-assign]
        began = time.monotonic()
        await stuck.close(0.1)
        assert time.monotonic() - began < 0.9
        ended.set()

    asyncio.run(asyncio.wait_for(close(), 20))
