"""What a worker's owner can say of each service: where it runs, how long, how many at once, and what it takes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from reliable import AsyncWorker, Outcome, Worker, WorkerFailed, current_request
from reliable.handling import offer
from reliable.payload import MSGPACK
from tests.support.loopback import ShellKind, Stage, eventually
from tests.support.parts_reader import Told, ask
from tests.support.ports import free_endpoint


def _value(told: Told) -> object:
    return MSGPACK.decode(told.reply[0])


# --- timeouts -------------------------------------------------------------------------------------


def test_a_thread_past_its_timeout_is_reported_at_once_and_keeps_its_slot(stage: Stage, shell: ShellKind) -> None:
    """Nobody can end it; but nobody has to wait for it either."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    release, told_to_stop = threading.Event(), threading.Event()

    @worker.service("hang", timeout=0.3)
    def hang() -> None:
        if current_request().wait_cancelled(5):
            told_to_stop.set()
        release.wait(5)

    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    told = ask(broker.endpoint, "hang")
    assert isinstance(told.error, WorkerFailed)
    assert (told.error.remote_type, told.error.outcome) == ("HandlerTimeout", Outcome.UNKNOWN)
    assert 0.3 <= told.elapsed_s < 0.8
    assert told_to_stop.wait(5)
    snapshot, stats = worker.snapshot(), worker.stats()
    assert snapshot is not None
    assert stats is not None
    assert (snapshot.overrunning, stats.handler_timeouts) == (1, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, broker.endpoint, "echo", body=[b"x"])
        time.sleep(0.1)  # It must not be served before the slot is free.
        assert not waiting.done()
        release.set()
        assert waiting.result(5).reply == [b"x"]


def test_a_task_past_its_timeout_is_cancelled(stage: Stage, shell: ShellKind) -> None:
    """At its next await, and its slot is free then."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    cancelled = threading.Event()

    @worker.service("hang", timeout=0.2)
    async def hang() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    told = ask(broker.endpoint, "hang")
    assert isinstance(told.error, WorkerFailed)
    assert told.error.remote_type == "HandlerTimeout"
    assert cancelled.wait(5)
    assert ask(broker.endpoint, "echo", body=[b"x"]).reply == [b"x"]


# --- where handlers run ---------------------------------------------------------------------------


def test_coroutines_of_either_worker_run_at_once_in_one_loop(stage: Stage, shell: ShellKind) -> None:
    """The blocking worker has a loop for them in a thread of its own."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, concurrency=2)
    loops: list[asyncio.AbstractEventLoop] = []
    both = asyncio.Event()

    @worker.service("meet")
    async def meet() -> int:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 5)
        return threading.get_ident()

    shell.run(worker)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: _value(ask(broker.endpoint, "meet")), range(2))
    assert loops[0] is loops[1]
    assert first == second != threading.get_ident()


def test_a_cancelled_request_cancels_the_task_of_either_worker(stage: Stage, shell: ShellKind) -> None:
    """Whichever loop it runs in."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    entered, cancelled = threading.Event(), threading.Event()

    @worker.service("forever")
    async def forever() -> None:
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    shell.run(worker)
    ask(broker.endpoint, "forever", cancel_when=lambda _: entered.is_set())
    assert cancelled.wait(5)


def test_a_task_that_runs_at_the_end_is_cancelled_and_left_nowhere(stage: Stage, shell: ShellKind) -> None:
    """No thread, loop or task outlives the worker; the stage's leak check looks at that."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    entered, cancelled = threading.Event(), threading.Event()

    @worker.service("forever")
    async def forever() -> None:
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    running = shell.run(worker)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, broker.endpoint, "forever", timeout=2.0)
        assert entered.wait(5)
        assert running.stop(0.1) == 1
        assert cancelled.wait(5)
        call.result(10)


def test_an_inline_handler_runs_in_the_loop_itself(stage: Stage, shell: ShellKind) -> None:
    """No thread is worth starting for what takes a microsecond."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    threads: list[str] = []

    @worker.service("where", executor="inline")
    def where(fail: bool) -> str:
        threads.append(threading.current_thread().name)
        if fail:
            raise ValueError("no")
        return "here"

    shell.run(worker)
    assert _value(ask(broker.endpoint, "where", False)) == "here"
    assert isinstance(ask(broker.endpoint, "where", True).error, WorkerFailed)
    assert set(threads) == {"worker" if shell.name == "sync" else "event loop"}


def _coroutine() -> Callable[..., object]:
    async def handler() -> None: ...

    return handler


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
@pytest.mark.parametrize(
    ("executor", "function", "words"),
    [
        ("thread", _coroutine(), "as a task or in a process"),
        ("inline", _coroutine(), "as a task or in a process"),
        ("task", lambda: None, "no coroutine function"),
        ("inline", lambda: (yield), "generator"),
    ],
)
def test_an_executor_that_cannot_run_the_function_is_refused(
    kind: type[Worker] | type[AsyncWorker], executor: str, function: Callable[..., object], words: str
) -> None:
    """Where it is declared, with the reason."""
    with pytest.raises(TypeError, match=words):
        kind(free_endpoint()).service("x", executor=executor)(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"timeout": 0}, "positive"), ({"concurrency": 0}, "at least 1"), ({"executor": "fork"}, "thread, process, task")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match=words):
        Worker(free_endpoint()).service("x", **options)  # type: ignore[arg-type]


# --- concurrency ----------------------------------------------------------------------------------


def test_one_service_can_be_held_to_fewer_runs_than_the_worker(stage: Stage, shell: ShellKind) -> None:
    """A licence for one, and threads for many."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, concurrency=4)
    lock, now, most = threading.Lock(), [0], [0]

    @worker.service("licensed", concurrency=1)
    def licensed() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1

    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(ask, broker.endpoint, "licensed") for _ in range(3)]
        assert ask(broker.endpoint, "echo", body=[b"x"]).reply == [b"x"]
        for call in calls:
            assert _value(call.result(10)) is None
    assert most[0] == 1


def test_what_waits_for_a_limited_service_takes_no_room_of_others(stage: Stage, shell: ShellKind) -> None:
    """Two slots: one call runs at the limit of its service, three more wait, and the other slot serves others."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, concurrency=2)
    release = threading.Event()

    @worker.service("licensed", concurrency=1)
    def licensed() -> None:
        release.wait(10)

    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(ask, broker.endpoint, "licensed") for _ in range(4)]
        eventually(lambda: broker.broker.snapshot().usage["queued"] == 3, "three wait at the broker")
        assert ask(broker.endpoint, "echo", body=[b"x"]).reply == [b"x"]
        assert not any(call.done() for call in calls)
        release.set()
        for call in calls:
            assert _value(call.result(10)) is None


# --- arguments ------------------------------------------------------------------------------------


class Order(msgspec.Struct):
    """What a handler may ask for."""

    item: str
    count: int = 1


def test_arguments_are_checked_at_the_door(stage: Stage, shell: ShellKind, capfd: pytest.CaptureFixture[str]) -> None:
    """A caller's mistake is told to the caller, not to the worker's log, and never entered the handler."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    entered: list[Order] = []

    @worker.service("order", idempotent=False)
    def order(order: Order) -> Order:
        entered.append(order)
        return order

    shell.run(worker)
    assert _value(ask(broker.endpoint, "order", {"item": "tea"})) == {"item": "tea", "count": 1}
    told = ask(broker.endpoint, "order", {"item": "tea", "count": "two"})
    assert isinstance(told.error, WorkerFailed)
    assert (told.error.remote_type, told.error.outcome) == ("InvalidArguments", Outcome.NOT_EXECUTED)
    assert "argument 'order': Expected `int`, got `str` - at `$.count`" in told.error.remote_message
    assert entered == [Order("tea")]
    assert "Traceback" not in capfd.readouterr().err


# --- objects --------------------------------------------------------------------------------------


class Shop:
    """Something with methods."""

    open = True

    def __init__(self) -> None:
        self.sold = 0

    def sell(self, count: int) -> int:
        self.sold += count
        return self.sold

    @offer(idempotent=True, raw=True)
    def echo(self, frame: bytes) -> bytes:
        return frame

    async def later(self) -> str:
        return "later"

    @staticmethod
    def static() -> str:
        return "static"

    @property
    def price(self) -> int:
        raise AssertionError("a property is no method")

    def _private(self) -> None: ...


def test_an_object_offers_a_service_for_each_public_method(stage: Stage, shell: ShellKind) -> None:
    """And keeps its state between calls; a method's own options go before the object's."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    names = worker.register(Shop(), "shop", idempotent=False)
    assert names == worker.services == ["shop.echo", "shop.later", "shop.sell", "shop.static"]
    offers = {entry.name: entry.idempotent for entry in worker._setup.services.offers()}
    assert (offers[b"shop.echo"], offers[b"shop.sell"]) == (True, False)
    shell.run(worker)
    assert [_value(ask(broker.endpoint, "shop.sell", 2)) for _ in range(2)] == [2, 4]
    assert ask(broker.endpoint, "shop.echo", body=[b"x"]).reply == [b"x"]
    assert _value(ask(broker.endpoint, "shop.later")) == "later"
    assert _value(ask(broker.endpoint, "shop.static")) == "static"
    eventually(lambda: len(broker.broker.snapshot().workers) == 1, "one registration for all")


def test_an_object_is_offered_as_a_whole_or_not_at_all() -> None:
    """Half an object would be found out by its callers."""
    worker = Worker(free_endpoint())
    worker.service("shop.sell")(lambda: None)
    with pytest.raises(ValueError, match=r"'shop\.sell'"):
        worker.register(Shop(), "shop")
    assert worker.services == ["shop.sell"]
    with pytest.raises(TypeError, match="class"):
        worker.register(Shop, "shop")
    with pytest.raises(TypeError, match="no public methods"):
        worker.register(object(), "shop")
    with pytest.raises(ValueError, match="positive"):
        offer(timeout=-1)
