"""Broker, worker and client in every order of starting, and each of them started again: calls succeed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from reliable import Frames
from tests.support.commands import Running, running
from tests.support.fleet import Fleet, WorkerProcess, fleet_in
from tests.support.loopback import AnyClient, BrokerThread, RunningWorker, ShellKind, Stage

_ORDERS: Final = list(itertools.permutations(["broker", "worker", "client"]))
_TIMEOUT_S: Final = 20.0


@pytest.fixture(params=_ORDERS, ids=" then ".join)
def order(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Who starts when."""
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For calls that are waited for later."""
    with ThreadPoolExecutor(1) as made:
        yield made


class _Cast:
    """The three of them; the client makes a call as soon as it is there, whoever else is."""

    def __init__(
        self, pool: ThreadPoolExecutor, start: dict[str, Callable[[], None]], stop: dict[str, Callable[[], None]]
    ):
        self._pool, self._start, self._stop = pool, start, stop
        self.client: AnyClient | None = None
        self._calls: list[Future[Frames]] = []

    def play(self, order: tuple[str, ...]) -> None:
        """Start them in this order; then start each again, with a call begun while it is away."""
        for name in order:
            self._start[name]()
            if name == "client":
                self._call()
        self._all_answered()
        for name in order:
            self._stop[name]()
            if name != "client":
                # It may still be sent on a connection that has just ended: whether it ran nobody could say.
                self._call(idempotent=True)
            self._start[name]()
            self._call()
            self._all_answered()

    def _call(self, idempotent: bool | None = None) -> None:
        assert self.client is not None
        name = b"call-%d" % len(self._calls)
        call = self._pool.submit(self.client.request, "job", b"echo", name, timeout=_TIMEOUT_S, idempotent=idempotent)
        self._calls.append(call)

    def _all_answered(self) -> None:
        for number, call in enumerate(self._calls):
            assert call.result(_TIMEOUT_S + 5.0)[0] == b"call-%d" % number


def test_calls_succeed_in_every_order_and_over_every_restart(
    stage: Stage, shell: ShellKind, endpoint: str, order: tuple[str, ...], pool: ThreadPoolExecutor
) -> None:
    """Each is told to stop and is started anew: nobody has to be there first, and nobody has to stay."""
    brokers: list[BrokerThread] = []
    workers: list[RunningWorker] = []

    def start_worker() -> None:
        worker = shell.worker(endpoint)
        worker.service("job", raw=True)(lambda action, name: name)
        workers.append(shell.run(worker, ready=False))

    def start_client() -> None:
        cast.client = shell.client(endpoint)

    def stop_client() -> None:
        assert cast.client is not None
        cast.client.close()

    cast = _Cast(
        pool,
        {"broker": lambda: brokers.append(stage.broker(endpoint)), "worker": start_worker, "client": start_client},
        {"broker": lambda: stage.stop(brokers.pop()), "worker": lambda: _ended(workers.pop()), "client": stop_client},
    )
    cast.play(order)


def _ended(worker: RunningWorker) -> None:
    assert worker.stop() == 0


@pytest.mark.slow
def test_calls_succeed_in_every_order_and_over_every_kill(
    tmp_path: Path, stage: Stage, endpoint: str, order: tuple[str, ...], pool: ThreadPoolExecutor
) -> None:
    """The same with processes that are killed, so that nobody says goodbye."""
    kind = ["sync", "asyncio"][_ORDERS.index(order) % 2]
    brokers: list[Running] = []
    workers: list[WorkerProcess] = []
    with ExitStack() as things:
        fleet: Fleet = things.enter_context(fleet_in(tmp_path))
        shell = ShellKind(kind)
        things.callback(shell.close)

        def start_broker() -> None:
            broker = things.enter_context(running("broker", "--bind", endpoint, "--heartbeat", "0.2"))
            broker.line()
            brokers.append(broker)

        def kill_broker() -> None:
            broker = brokers.pop()
            broker.process.kill()
            broker.process.wait(5)

        def start_client() -> None:
            cast.client = shell.client(endpoint)

        def stop_client() -> None:
            assert cast.client is not None
            cast.client.close()

        cast = _Cast(
            pool,
            {
                "broker": start_broker,
                "worker": lambda: workers.append(fleet.start(endpoint, shell=kind, ready=False)),
                "client": start_client,
            },
            {"broker": kill_broker, "worker": lambda: workers.pop().close(), "client": stop_client},
        )
        cast.play(order)
