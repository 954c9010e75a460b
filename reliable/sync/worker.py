"""The blocking worker: one thread pumps the sockets, handlers run in others."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from reliable.config import WorkerConfig
from reliable.driver import Driver
from reliable.engine.worker import WorkerCounters, WorkerEngine, WorkerSnapshot
from reliable.executors import Executors
from reliable.handling import WorkerSettings, WorkerSetup
from reliable.payload import MSGPACK, Codec
from reliable.protocol.events import CancelJob, Drain, StartJob, WorkerEffect, WorkerEvent, WorkerStopped
from reliable.sync.waiting import SelectorWait
from reliable.transport import LinkTable
from reliable.types import Observer

__all__ = ["Worker"]

_WAIT_S_MAX: Final = 1.0
_CLOSE_S_MAX: Final = 5.0
"""What threads, tasks and processes get at the end, all together, and some more."""


class _Run:
    """One life of a worker, from ``run`` to its end; used by one thread, but for ``post`` and ``wake``."""

    def __init__(self, setup: WorkerSetup) -> None:
        config = setup.config
        self._setup = setup
        self.engine: WorkerEngine = setup.engine()
        # First what may refuse its arguments.
        self._executors = Executors(setup, self.post, self.engine.counters, None)
        self._wait = SelectorWait()
        self.wake: Callable[[], None] = self._wait.wake
        self._links = LinkTable(
            config.transport, self._wait, self._wait.wake, message_bytes_max=config.limits.message_bytes_max
        )
        self._driver: Driver[WorkerEvent, WorkerEffect] = Driver(
            self.engine, self._links, self._perform, time.monotonic
        )
        self._inbox: deque[WorkerEvent] = deque()
        self.stopped: WorkerStopped | None = None
        self.thread = threading.get_ident()
        self.over = threading.Event()
        """It has given everything back."""
        self.left: int | None = None
        """Handlers that were still running at the end; None before that, and if the loop failed."""

    def start(self) -> None:
        self.engine.start(time.monotonic())
        self._driver.turn()

    def post(self, event: WorkerEvent) -> None:
        """From any thread: feed the engine in the next turn."""
        self._inbox.append(event)
        self._wait.wake()

    def turn(self) -> None:
        """Wait until something happens, and let the engine have it."""
        wait_s = self._driver.wait_s()
        for callback in self._wait.wait(_WAIT_S_MAX if wait_s is None else min(wait_s, _WAIT_S_MAX)):
            callback()
        self._driver.turn()
        while self._inbox:
            self._take(self._inbox.popleft())

    def _take(self, event: WorkerEvent) -> None:
        if self.stopped is None:
            self._driver.handle(event)
        self._executors.taken(event)

    def _perform(self, effect: WorkerEffect) -> None:
        if isinstance(effect, StartJob):
            self._executors.start(effect)
        elif isinstance(effect, CancelJob):
            self._executors.cancel(effect)
        else:
            assert isinstance(effect, WorkerStopped), effect
            self.stopped = effect

    @property
    def unfinished(self) -> int:
        """Handlers that have not returned."""
        return self._executors.unfinished

    def close(self) -> None:
        """Leave handlers that still run to themselves, and give everything else back."""
        self._executors.cancel_all()
        self._links.shutdown()
        self._executors.close()
        self._wait.close()


class Worker(WorkerSettings):
    """Offers services at one or more brokers; functions run in threads, coroutines as tasks of a loop of its own.

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
        self._ready = threading.Event()
        self._stopping = False
        self._asked: deque[float] = deque()
        """Seconds to drain, of each wish to stop that the engine has not heard of."""
        self._now = False

    def run(self) -> int:
        """Register with the brokers and work until stopped, by ``stop``, SIGTERM or SIGINT.

        In the main thread the two signals are caught: the first drains, as ``stop`` does, a second one ends at once.

        Returns:
            How many handlers were still running at the end; 0 after a clean drain.

        Raises:
            ValueError: No broker or no service.
            RuntimeError: It is running already.
        """
        if self._run is not None:
            raise RuntimeError("the worker is running already")
        run = self._run = self._ending = _Run(self._setup)
        try:
            with self._signals():
                run.start()
                while run.stopped is None and not self._now:
                    self._drain_if_asked(run)
                    run.turn()
                    self._tell_ready(run)
            left = run.left = run.stopped.unfinished if run.stopped is not None else run.unfinished
        finally:
            self._run = None
            self._ready.clear()
            self._stopping, self._now = False, False
            self._asked.clear()
            try:
                run.close()
            finally:
                if self._ending is run:
                    self._ending = None
                run.over.set()
        return left

    def _drain_if_asked(self, run: _Run) -> None:
        while self._asked:
            run.post(Drain(time.monotonic() + self._asked.popleft()))

    def _tell_ready(self, run: _Run) -> None:
        if (run.engine.registered > 0) is not self._ready.is_set():
            if self._ready.is_set():
                self._ready.clear()
            else:
                self._ready.set()

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
        run = self._run
        if run is not None:
            run.wake()

    def drain(self, timeout: float | None = None) -> bool:
        """Ask ``run`` to end, as ``stop`` does, and wait until it has. From any thread but the one that runs it.

        A handler that calls it waits for itself, until the drain's end.

        Args:
            timeout: Seconds that running handlers get; None is ``drain_timeout``, 10 s.

        Returns:
            Whether every handler was done by then. Also False if ``run`` failed, or hangs.

        Raises:
            ValueError: Not a number of seconds.
            RuntimeError: Called in the worker's own loop (by an observer, or a handler that runs inline).
        """
        seconds = self._drain_s(timeout)
        run = self._ending
        if run is not None and run.thread == threading.get_ident():
            raise RuntimeError("the worker's own loop cannot wait for its end: call stop there")
        if run is None or run is self._run:
            self.stop(timeout)
        return run is None or (run.over.wait(seconds + _CLOSE_S_MAX) and run.left == 0)

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until the worker is registered with at least one broker.

        Args:
            timeout: Seconds; None is no limit.

        Returns:
            Whether it is.
        """
        return self._ready.wait(timeout)

    def stats(self) -> WorkerCounters | None:
        """What the worker did since ``run`` began; None if it is not running."""
        run = self._run
        return None if run is None else run.engine.counters

    def snapshot(self) -> WorkerSnapshot | None:
        """What it holds; None if it is not running. Call it from the thread that runs, or take it as approximate."""
        run = self._run
        return None if run is None else run.engine.snapshot()

    def __repr__(self) -> str:
        services = " ".join(offer.name.decode() for offer in self._setup.services.offers())
        return f"<{type(self).__name__} {services} at {' '.join(self.brokers)}>"

    # --- signals ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Catch SIGTERM and SIGINT while running, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Only sets flags: it runs between any two instructions of the main thread."""
        if not self._stopping:
            self.stop()
        else:
            self._now = True
            if self._run is not None:
                self._run.wake()
