"""The asyncio worker: coroutine handlers are tasks, plain functions run in threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from reliable.aio.pump import LoopDriver, LoopWait
from reliable.config import WorkerConfig
from reliable.engine.worker import WorkerCounters, WorkerEngine, WorkerSnapshot
from reliable.executors import Executors
from reliable.handling import WorkerSettings, WorkerSetup
from reliable.payload import MSGPACK, Codec
from reliable.protocol.events import CancelJob, Drain, StartJob, WorkerEffect, WorkerEvent, WorkerStopped
from reliable.transport import LinkTable
from reliable.types import Observer

__all__ = ["AsyncWorker"]

_TASKS_END_S: Final = 1.0
_PROCESSES_END_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.005
_CLOSE_S_MAX: Final = 5.0
"""What threads, tasks and processes get at the end, all together, and some more."""


class _Run:
    """One life of a worker on the running loop."""

    def __init__(self, setup: WorkerSetup, turned: Callable[[], None]) -> None:
        self._setup = setup
        self.engine: WorkerEngine = setup.engine()
        loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # First what may refuse its arguments.
        self._executors = Executors(setup, self.post_from_anywhere, self.engine.counters, loop)
        self.over: asyncio.Future[WorkerStopped | None] = loop.create_future()
        """Ends with what the engine said, with None if the worker shall end at once, or with the engine's failure."""
        self.left: concurrent.futures.Future[int | None] = concurrent.futures.Future()
        """Once everything is given back: handlers that were still running, or None if the loop failed."""

        def make_links(wait: LoopWait) -> LinkTable:
            config = setup.config
            return LinkTable(config.transport, wait, wait.wake, message_bytes_max=config.limits.message_bytes_max)

        self._driver: LoopDriver[WorkerEvent, WorkerEffect] = LoopDriver(
            self.engine, self._perform, self._fail, make_links, turned
        )

    def start(self) -> None:
        self.engine.start(time.monotonic())
        self._driver.turn()

    def post(self, event: WorkerEvent) -> None:
        """Feed the engine, in the loop's thread."""
        if not self.over.done():
            self._driver.handle(event)
        self._executors.taken(event)

    def post_from_anywhere(self, event: WorkerEvent) -> None:
        """The same from any thread; after the loop's end it is nobody's business any more."""
        if threading.get_ident() == self._thread:
            self.post(event)
            return
        with contextlib.suppress(RuntimeError):
            self._driver.loop.call_soon_threadsafe(self.post, event)

    def end_now(self) -> None:
        """End without a drain."""
        if not self.over.done():
            self.over.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def _perform(self, effect: WorkerEffect) -> None:
        if isinstance(effect, StartJob):
            self._executors.start(effect)
        elif isinstance(effect, CancelJob):
            self._executors.cancel(effect)
        else:
            assert isinstance(effect, WorkerStopped), effect
            if not self.over.done():
                self.over.set_result(effect)

    @property
    def unfinished(self) -> int:
        """Handlers that have not returned."""
        return self._executors.unfinished

    async def close(self) -> None:
        """Cancel tasks, leave threads that still run to themselves, and give everything else back."""
        if not self.over.done():
            self.over.cancel()
        tasks = self._executors.cancel_all()
        if tasks:
            await asyncio.wait(tasks, timeout=_TASKS_END_S)
        await self._driver.close()
        until = time.monotonic() + _PROCESSES_END_S
        while not self._executors.processes_ended and time.monotonic() < until:  # noqa: ASYNC110 - threads end there
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._executors.close()


class AsyncWorker(WorkerSettings):
    """Offers services at one or more brokers; coroutine handlers run as tasks, plain functions in threads.

    Args:
        brokers: Addresses to register with, all of them; may also be set as ``worker.brokers`` before ``run``.
        concurrency: Handlers that run at once, which also bounds how many requests are taken. Not given:
            ``config.concurrency``, 1.
        config: All settings.
        codec: How typed handlers get their arguments and give their results.
        observer: Is told of links and drops; called in the loop, so it must not block.

    Raises:
        ValueError: An address that cannot be read, or a concurrency out of range.
    """

    def __init__(
        self,
        *brokers: str,
        concurrency: int | None = None,
        config: WorkerConfig | None = None,
        codec: Codec = MSGPACK,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(WorkerSetup(brokers, concurrency, config, codec, observer))
        self._run: _Run | None = None
        self._ending: _Run | None = None
        """The same, until it has given everything back."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self._stopping = False
        self._asked: deque[float] = deque()
        """Seconds to drain, of each wish to stop that the engine has not heard of."""

    async def run(self) -> int:
        """Register with the brokers and work until stopped, by ``stop``, SIGTERM or SIGINT.

        In the main thread the two signals are caught: the first drains, as ``stop`` does, a second one ends at once.
        Cancelling the task that runs this ends at once too.

        Returns:
            How many handlers were still running at the end; 0 after a clean drain.

        Raises:
            ValueError: No broker or no service.
            RuntimeError: It is running already.
        """
        if self._run is not None:
            raise RuntimeError("the worker is running already")
        run = self._run = self._ending = _Run(self._setup, self._tell_ready)
        self._loop = asyncio.get_running_loop()
        unfinished: int | None = None
        try:
            with self._signals(self._loop):
                run.start()
                self._drain_if_asked()
                stopped = await run.over
                unfinished = run.unfinished if stopped is None else stopped.unfinished
        finally:
            self._run = self._loop = None
            self._ready.clear()
            self._stopping = False
            self._asked.clear()
            try:
                await run.close()
            finally:
                if self._ending is run:
                    self._ending = None
                run.left.set_result(unfinished)
        return unfinished

    def _drain_if_asked(self) -> None:
        while self._run is not None and self._asked:
            self._run.post(Drain(time.monotonic() + self._asked.popleft()))

    def _tell_ready(self) -> None:
        if self._run is not None and self._run.engine.registered > 0:
            self._ready.set()
        else:
            self._ready.clear()

    def stop(self, timeout: float | None = None) -> None:
        """Ask ``run`` to end: take nothing new, finish what runs, say goodbye. From any thread; returns at once.

        Asked more than once, the earliest end counts. A worker that does not run yet ends as soon as it does.

        Args:
            timeout: Seconds that running handlers get; None is ``drain_timeout``, 10 s.

        Raises:
            ValueError: Not a number of seconds.
        """
        self._asked.append(self._drain_s(timeout))
        self._stopping = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._drain_if_asked)

    async def drain(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as in Worker
        """Ask ``run`` to end, as ``stop`` does, and wait until it has. In any loop; a thread has ``stop``.

        A handler that awaits it waits for itself, until the drain's end.

        Args:
            timeout: Seconds that running handlers get; None is ``drain_timeout``, 10 s.

        Returns:
            Whether every handler was done by then. Also False if ``run`` failed, was cancelled, or hangs.

        Raises:
            ValueError: Not a number of seconds.
        """
        seconds = self._drain_s(timeout)
        run = self._ending
        if run is None or run is self._run:
            self.stop(timeout)
        if run is None:
            return True
        # Shielded: others may wait for the same end.
        ended = asyncio.shield(asyncio.wrap_future(run.left))
        try:
            return await asyncio.wait_for(ended, seconds + _CLOSE_S_MAX) == 0
        except TimeoutError:
            return False

    async def wait_ready(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as in Worker
        """Wait until the worker is registered with at least one broker.

        Args:
            timeout: Seconds; None is no limit.

        Returns:
            Whether it is.
        """
        try:
            await asyncio.wait_for(self._ready.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def stats(self) -> WorkerCounters | None:
        """What the worker did since ``run`` began; None if it is not running."""
        return None if self._run is None else self._run.engine.counters

    def snapshot(self) -> WorkerSnapshot | None:
        """What it holds; None if it is not running."""
        return None if self._run is None else self._run.engine.snapshot()

    def __repr__(self) -> str:
        services = " ".join(offer.name.decode() for offer in self._setup.services.offers())
        return f"<{type(self).__name__} {services} at {' '.join(self.brokers)}>"

    # --- signals ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Catch SIGTERM and SIGINT while running, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        old = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in old.items():
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self) -> None:
        if not self._stopping:
            self.stop()
        elif self._run is not None:
            self._run.end_now()
