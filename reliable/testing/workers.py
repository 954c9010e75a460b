"""A worker in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from reliable.aio.worker import AsyncWorker
from reliable.config import WorkerConfig
from reliable.sync.worker import Worker
from reliable.testing.brokers import HasEndpoint, endpoint_of
from reliable.testing.serving import Offered, as_worker
from reliable.testing.settings import QUICK_WORKER
from reliable.testing.waiting import END_S_MAX, READY_S_MAX, LeftRunning, eventually, join

__all__ = ["RunningWorker", "running_worker"]

_DRAIN_S = 2.0


class RunningWorker:
    """A worker whose ``run`` goes on in a thread.

    Args:
        worker: Does not run yet. Where it registers is changed for as long as it runs here.
        brokers: Where it registers.
        ready_timeout_s: Seconds until it must be registered with all of them.

    Raises:
        ValueError: It has no service, or no broker is given.
        AssertionError: It was not registered in time.
    """

    def __init__(
        self, worker: Worker | AsyncWorker, *brokers: str | HasEndpoint, ready_timeout_s: float = READY_S_MAX
    ) -> None:
        self.worker = worker
        """The worker itself: ``stats()`` tells what it did."""
        self._brokers_before = worker.brokers
        worker.brokers = [endpoint_of(broker) for broker in brokers]
        self._unfinished = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"worker {' '.join(worker.services)}", daemon=True)
        self._thread.start()
        try:
            eventually(self._settled, ready_timeout_s, f"{worker!r} registers with {' '.join(worker.brokers)}")
            if self._error is not None:
                raise self._error
        except BaseException:
            self._end(0.0)
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(self.worker.services)}{'' if self.running else ' stopped'}>"

    @property
    def running(self) -> bool:
        """Whether its ``run`` has not returned."""
        return self._thread.is_alive()

    @property
    def registered(self) -> int:
        """With how many brokers it is registered now."""
        try:
            snapshot = self.worker.snapshot()
        except RuntimeError:
            # Its loop changed a table while it was read from here; the next look finds it at rest.
            return 0
        return 0 if snapshot is None else snapshot.registered

    def stop(self, timeout: float = _DRAIN_S) -> None:
        """Let running handlers finish, and end. A second time does nothing.

        Args:
            timeout: Seconds that handlers get to finish.

        Raises:
            LeftRunning: Handlers, or the worker itself, still ran then.
            BaseException: What its ``run`` raised, if it ended so.
        """
        services = " ".join(self.worker.services)
        self._end(timeout)
        unfinished, self._unfinished = self._unfinished, 0
        error, self._error = self._error, None
        if error is not None:
            raise error
        if unfinished:
            count = "a handler was" if unfinished == 1 else f"{unfinished} handlers were"
            raise LeftRunning(f"{count} still running {timeout:g} s after the worker of {services} was told to stop")

    def _end(self, timeout: float) -> None:
        if self._thread.is_alive():
            self.worker.stop(timeout)
        join(self._thread, f"the worker of {' '.join(self.worker.services)}", timeout + END_S_MAX)
        self.worker.brokers = self._brokers_before

    def _settled(self) -> bool:
        return not self._thread.is_alive() or 0 < len(self.worker.brokers) == self.registered

    def _run(self) -> None:
        try:
            worker = self.worker
            self._unfinished = asyncio.run(worker.run()) if isinstance(worker, AsyncWorker) else worker.run()
        except BaseException as error:
            self._error = error


@contextlib.contextmanager
def running_worker(
    offered: Offered,
    *brokers: str | HasEndpoint,
    more: tuple[Callable[..., Any], ...] = (),
    idempotent: bool | None = None,
    concurrency: int | None = None,
    config: WorkerConfig = QUICK_WORKER,
    ready_timeout: float = READY_S_MAX,
    drain: float = _DRAIN_S,
) -> Iterator[RunningWorker]:
    """A worker that is registered inside the block, and drained at its end.

    Args:
        offered: A worker of yours, a function, or functions by the names of their services.
        brokers: Where to register: addresses, brokers, or proxies in front of them.
        more: Further functions.
        idempotent: Of all the functions: whether they may run more than once. None leaves it to the caller.
        concurrency: For functions: handlers at once; None is 4.
        config: For functions: settings of the worker; by default quick ones, for tests.
        ready_timeout: Seconds until it must be registered with all brokers.
        drain: Seconds that running handlers get at the end.

    Raises:
        AssertionError: It was not registered in time.
        LeftRunning: A handler still ran at the end.
        TypeError, ValueError: As ``as_worker``.
    """
    worker = as_worker(offered, *more, idempotent=idempotent, concurrency=concurrency, config=config)
    running = RunningWorker(worker, *brokers, ready_timeout_s=ready_timeout)
    try:
        yield running
    except BaseException:
        # What went wrong in the block is what its writer must see.
        with contextlib.suppress(LeftRunning):
            running.stop(drain)
        raise
    running.stop(drain)
