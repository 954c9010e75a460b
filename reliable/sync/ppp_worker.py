"""A worker of a Paranoid Pirate queue for blocking handlers; its rules are in ``reliable.protocol.ppp_worker``."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, TypeAlias

from reliable.config import TransportConfig
from reliable.driver import Driver
from reliable.names import parse_address
from reliable.protocol.events import Drain, JobError, JobFinished, StartJob, WorkerEffect, WorkerEvent, WorkerStopped
from reliable.protocol.ppp_worker import PppWorkerConfig, PppWorkerCounters, PppWorkerEngine
from reliable.sync.waiting import SelectorWait
from reliable.threads import HandlerThreads
from reliable.transport import LinkTable
from reliable.types import Frames

__all__ = ["PppHandler", "PppWorker"]

PppHandler: TypeAlias = Callable[..., "bytes | list[bytes]"]
"""Takes the frames of a request's body as arguments; returns one frame or a list of them."""

_log = logging.getLogger("reliable.worker")

_WAIT_S_MAX: Final = 0.5
_MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
_RECEIVED_MESSAGES_MAX: Final = 1_000
_THREADS_END_S_MAX: Final = 0.5


class PppWorker:
    """Answers the requests of one queue, one at a time, and comes back when the queue does.

        PppWorker("tcp://127.0.0.1:5556", lambda *frames: list(frames)).run()   # until worker.stop()

    Requests may be run twice, here or at another worker: 6/PPP is for work that allows it. A handler that raises is
    logged, and its request is given to another worker.

    Args:
        queue: The queue's address for workers, like ``tcp://127.0.0.1:5556``.
        handler: Runs in a thread of its own, so that heartbeats go on meanwhile.
        config: Heartbeats, as the queue has them, and pauses.
        transport: Heartbeats and time limits of the connection.

    Raises:
        ValueError: The address cannot be read.
    """

    def __init__(
        self,
        queue: str,
        handler: PppHandler,
        config: PppWorkerConfig | None = None,
        transport: TransportConfig | None = None,
    ) -> None:
        parse_address(queue)
        self._queue = queue
        self._handler = handler
        self._config = config or PppWorkerConfig()
        self._transport = transport or TransportConfig()
        self._engine: PppWorkerEngine | None = None
        self._wait: SelectorWait | None = None
        self._threads = HandlerThreads(1, "ppp handler")
        self._inbox: deque[WorkerEvent] = deque()
        self._stop_timeout_s: float | None = None
        self._stopped: WorkerStopped | None = None

    def run(self) -> int:
        """Work until ``stop``, or until SIGTERM or SIGINT if this is the main thread.

        Returns:
            How many handlers were still running at the end: 0 or 1.

        Raises:
            RuntimeError: It is running, or has run: make another one.
        """
        if self._engine is not None:
            raise RuntimeError("a PppWorker runs once")
        self._engine = PppWorkerEngine(self._queue, self._config, jitter=random.random)
        self._wait = SelectorWait()
        links = LinkTable(
            self._transport,
            self._wait,
            self._wait.wake,
            message_bytes_max=_MESSAGE_BYTES_MAX,
            received_messages_max=_RECEIVED_MESSAGES_MAX,
        )
        driver: Driver[WorkerEvent, WorkerEffect] = Driver(self._engine, links, self._perform, time.monotonic)
        try:
            with self._signals():
                self._loop(self._engine, driver, self._wait)
        finally:
            links.shutdown()
            self._threads.close(_THREADS_END_S_MAX)
            self._wait.close()
        return self._stopped.unfinished if self._stopped is not None else 0

    def _loop(self, engine: PppWorkerEngine, driver: Driver[WorkerEvent, WorkerEffect], wait: SelectorWait) -> None:
        driver.turn()
        draining = False
        while self._stopped is None:
            if self._stop_timeout_s is not None and not draining:
                draining = True
                driver.handle(Drain(time.monotonic() + self._stop_timeout_s))
                continue
            due_s = driver.wait_s()
            wait_s = _WAIT_S_MAX if due_s is None else min(due_s, _WAIT_S_MAX)
            began = time.monotonic()
            for callback in wait.wait(wait_s):
                callback()
            now = time.monotonic()
            late_s = now - began - wait_s
            if late_s > self._config.heartbeat.interval_s:
                # We were stopped or starved: the queue's silence meanwhile is no sign of its end.
                engine.stalled(late_s, now)
            driver.turn()
            while self._inbox and self._stopped is None:
                driver.handle(self._inbox.popleft())

    def _perform(self, effect: WorkerEffect) -> None:
        if isinstance(effect, StartJob):
            job, body = effect.job, effect.body
            self._threads.run(lambda: self._handle(job, body))
        elif isinstance(effect, WorkerStopped):
            self._stopped = effect

    def _handle(self, job: int, body: Frames) -> None:
        """In the handler's thread; must not raise."""
        result: Frames | JobError
        try:
            returned = self._handler(*body)
            result = [returned] if isinstance(returned, bytes) else list(returned)
            if not all(isinstance(frame, bytes) for frame in result):
                raise TypeError("a handler returns bytes or a list of bytes")
        except BaseException as error:
            # Also SystemExit, which would end the thread and leave the request unanswered for ever.
            _log.exception("the handler failed; its request is given to another worker")
            result = JobError(type(error).__name__, str(error))
        self._inbox.append(JobFinished(job, result))
        if self._wait is not None:
            self._wait.wake()

    def stop(self, timeout: float = 10.0) -> None:
        """Ask ``run`` to end: take nothing new, finish what runs. From any thread; returns at once.

        Args:
            timeout: Seconds that a running handler gets.
        """
        self._stop_timeout_s = timeout
        if self._wait is not None:
            self._wait.wake()

    @property
    def counters(self) -> PppWorkerCounters:
        """What the worker did so far."""
        return PppWorkerCounters() if self._engine is None else self._engine.counters

    def __repr__(self) -> str:
        return f"<PppWorker at {self._queue}>"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Catch SIGTERM and SIGINT while running, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
