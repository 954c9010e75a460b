"""Brokers, workers and clients of both shells on loopback, with one interface for tests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from brokers import BrokerConfig, MajordomoBroker
from reliable import AsyncClient, AsyncWorker, Client, ClientConfig, Frames, Worker, WorkerConfig
from reliable.calling import UNSET, Timeout
from reliable.config import Backoff, Heartbeat, RetryPolicy, TransportConfig
from tests.support.ports import free_endpoint

__all__ = [
    "QUICK_BROKER",
    "QUICK_CLIENT",
    "QUICK_TRANSPORT",
    "QUICK_WORKER",
    "BrokerThread",
    "LoopThread",
    "ShellKind",
    "Stage",
    "eventually",
    "worker_process",
]

ResultT = TypeVar("ResultT")
_BOUND_S = 10.0

QUICK_TRANSPORT = TransportConfig(heartbeat_interval_s=0.3, heartbeat_timeout_s=1.0, connect_timeout_s=0.5)
QUICK_CLIENT = ClientConfig(
    timeout_s=8.0,
    retry=RetryPolicy(attempts=10, attempt_timeout_s=1.0, backoff=Backoff(initial_s=0.02, delay_s_max=0.2)),
    reconnect=Backoff(initial_s=0.05, delay_s_max=0.2),
    transport=QUICK_TRANSPORT,
)
QUICK_WORKER = WorkerConfig(
    heartbeat=Heartbeat(interval_s=0.2, timeout_s=0.8),
    reconnect=Backoff(initial_s=0.05, delay_s_max=0.2),
    started_after_s=0.1,
    drain_timeout_s=2.0,
    transport=QUICK_TRANSPORT,
)
QUICK_BROKER = BrokerConfig(heartbeat=Heartbeat(interval_s=0.2, timeout_s=0.8), drain_s=0.0)


def eventually(condition: Callable[[], bool], what: str, timeout: float = _BOUND_S) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.005)


class BrokerThread:
    """A broker in a thread of this process."""

    def __init__(
        self, endpoint: str, config: BrokerConfig = QUICK_BROKER, transport: TransportConfig = QUICK_TRANSPORT
    ) -> None:
        self.broker = MajordomoBroker([endpoint], config, transport)
        self.broker.bind()
        self.endpoint = self.broker.endpoints[0]
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"broker {self.endpoint}")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.broker.run()
        except BaseException as error:
            self.error = error

    def stop(self, drain_s: float | None = None) -> None:
        """Stop as SIGTERM does; by default after the drain of its settings, which is none in ``QUICK_BROKER``."""
        self.broker.stop(drain_s)
        self._thread.join(_BOUND_S)
        assert not self._thread.is_alive(), "the broker does not stop"
        assert self.error is None, f"the broker's loop raised {self.error!r}"


class LoopThread:
    """An event loop in a thread, for asyncio shells in tests that block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event loop")
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run it as a task."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, ResultT], timeout: float = 30.0) -> ResultT:
        """Run it and wait; Ctrl-C in the test cancels it."""
        future = self.start(coroutine)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop."""
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_BOUND_S)
        self.loop.close()


class AnyClient(Protocol):
    """What both clients look like to a test that blocks."""

    def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames: ...
    def call(self, service: str, /, *args: object, **kwargs: object) -> object: ...
    def close(self) -> None: ...


class AnyWorker(Protocol):
    """What both workers look like."""

    def service(self, name: str, *, idempotent: bool | None = None, raw: bool = False) -> Callable[[Any], Any]: ...
    def stop(self, timeout: float | None = None) -> None: ...


class _BlockingAsyncClient:
    def __init__(self, loop: LoopThread, client: AsyncClient) -> None:
        self._loop = loop
        self.client = client

    def request(
        self,
        service: str,
        *frames: bytes,
        timeout: Timeout = UNSET,
        idempotent: bool | None = None,
        fail_fast: bool | None = None,
    ) -> Frames:
        return self._loop.run(
            self.client.request(service, *frames, timeout=timeout, idempotent=idempotent, fail_fast=fail_fast)
        )

    def call(self, service: str, /, *args: object, **kwargs: object) -> object:
        return self._loop.run(self.client.call(service, *args, **kwargs))

    def close(self) -> None:
        self._loop.run(self.client.close())


class RunningWorker:
    """A worker whose ``run`` goes on elsewhere."""

    def __init__(self, worker: Worker | AsyncWorker, loop: LoopThread | None) -> None:
        self.worker = worker
        self._loop = loop
        self._result: Future[int] = Future()
        if isinstance(worker, AsyncWorker):
            assert loop is not None
            self._result = loop.start(worker.run())
        else:
            threading.Thread(target=self._run, args=(worker,), name="worker").start()

    def _run(self, worker: Worker) -> None:
        try:
            self._result.set_result(worker.run())
        except BaseException as error:
            self._result.set_exception(error)

    def wait_ready(self) -> None:
        """Until it is registered somewhere."""
        if isinstance(self.worker, AsyncWorker):
            assert self._loop is not None
            assert self._loop.run(self.worker.wait_ready(_BOUND_S))
        else:
            assert self.worker.wait_ready(_BOUND_S)

    def wait_registered(self, brokers: int) -> None:
        """Until it is registered with so many."""

        def registered() -> bool:
            snapshot = self.worker.snapshot()
            return snapshot is not None and snapshot.registered == brokers

        eventually(registered, f"the worker is registered with {brokers} brokers")

    def stop(self, timeout: float | None = None) -> int:
        """Drain; how many handlers were left."""
        self.worker.stop(timeout)
        return self._result.result(_BOUND_S)

    @property
    def ended(self) -> bool:
        """Whether ``run`` has returned."""
        return self._result.done()


class ShellKind:
    """Makes clients and workers of one shell, and ends what it made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = LoopThread() if name == "asyncio" else None
        self._clients: list[AnyClient] = []
        self._workers: list[RunningWorker] = []

    def client(self, *brokers: str, config: ClientConfig = QUICK_CLIENT, **options: Any) -> AnyClient:
        """A client; closed at the end of the test."""
        made: AnyClient
        if self.loop is None:
            made = Client(*brokers, config=config, **options)
        else:
            made = _BlockingAsyncClient(self.loop, AsyncClient(*brokers, config=config, **options))
        self._clients.append(made)
        return made

    def worker(self, *brokers: str, config: WorkerConfig = QUICK_WORKER, **options: Any) -> Worker | AsyncWorker:
        """A worker that does not run yet."""
        kind = Worker if self.loop is None else AsyncWorker
        return kind(*brokers, config=config, **options)

    def run(self, worker: Worker | AsyncWorker, *, ready: bool = True) -> RunningWorker:
        """Run a worker until the end of the test; ``ready`` waits until it is registered."""
        running = RunningWorker(worker, self.loop)
        self._workers.append(running)
        if ready:
            running.wait_ready()
        return running

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            client.close()
        for worker in self._workers:
            if not worker.ended:
                worker.stop(0.0)
        if self.loop is not None:
            self.loop.close()


class Stage:
    """Brokers of one test."""

    def __init__(self) -> None:
        self._brokers: list[BrokerThread] = []

    def broker(
        self,
        endpoint: str | None = None,
        config: BrokerConfig = QUICK_BROKER,
        transport: TransportConfig = QUICK_TRANSPORT,
    ) -> BrokerThread:
        """A broker that serves."""
        made = BrokerThread(endpoint or free_endpoint(), config, transport)
        self._brokers.append(made)
        return made

    def stop(self, broker: BrokerThread) -> None:
        """Stop one before the end of the test."""
        self._brokers.remove(broker)
        broker.stop()

    def close(self) -> None:
        """Stop those that are left."""
        for broker in self._brokers:
            broker.stop()


@contextlib.contextmanager
def worker_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child that runs ``code`` and prints a line when it is ready; killed at the end."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()
