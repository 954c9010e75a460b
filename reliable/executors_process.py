"""Child processes for handlers: one thread here for each, which starts it, talks to it, and replaces it.

* A child that dies while it has a request is an answer at once: ``WorkerCrashed``, with its exit code or signal.
* A child is killed for a handler past its timeout, and for one that goes on after its request was cancelled.
* A child is replaced after so many requests, or when it has grown beyond its memory, always between two requests.
* Starts that follow deaths wait ever longer, up to a limit; what waits for a child that cannot be started is told so.

Never a fork of the worker: it would hold the worker's connections open, and its death would not be seen. Processes come
from ``executors_origin``, which has a clean one to copy. The kernel ends them with the worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import random
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, Final, cast

import attrs
import msgspec

from reliable.config import WorkerConfig
from reliable.engine.worker import WorkerCounters
from reliable.executors_origin import ChildProcess, Origin
from reliable.executors_wire import (
    Begin,
    Cancel,
    Done,
    FromChild,
    MessageBuffer,
    NotReady,
    Part,
    Progress,
    Ready,
    Run,
    Taken,
    ToChild,
    encode,
    pack_codec,
)
from reliable.handling import Handler, importable_name
from reliable.payload import Codec
from reliable.protocol.events import JobError, JobFinished, JobPartial, JobProgress, StartJob, WorkerEvent
from reliable.running import NOBODY_WAITS
from reliable.status import Status
from reliable.transport import Waker

__all__ = ["ChildProcesses"]

_READ_BYTES: Final = 256 * 1024
_WAIT_S_MAX: Final = 1.0
_NO_PIDFD_WAIT_S: Final = 0.05
_EXIT_S_MAX: Final = 0.5
"""What an idle child gets for its exit functions."""
_JOIN_S_MAX: Final = 2.0

_CRASH_PAUSE_S_MAX: Final = 0.2

_OVERDUE: Final = "overdue"
_UNWANTED: Final = "unwanted"
_NOT_STARTED: Final = "no handler process could be started"
_KILLED_LATE: Final = JobError(
    "HandlerTimeout",
    "the handler was not done in time and was killed; it may have run in part",
    status=Status.WORKER_LOST,
)
_KILLED_UNWANTED: Final = attrs.evolve(NOBODY_WAITS, status=Status.WORKER_LOST)


def _begin(handlers: Sequence[Handler], codec: Codec, config: WorkerConfig) -> Begin:
    """What each child is told first.

    Raises:
        TypeError: A handler or the codec cannot be had by another process.
    """
    named = []
    for handler in handlers:
        name = handler.offer.name.decode()
        module, qualname = importable_name(name, handler.function)
        try:
            found = reduce(getattr, qualname.split("."), cast(Any, sys.modules[module]))
        except (KeyError, AttributeError):
            found = None
        if found != handler.function:
            raise TypeError(f"the handler of {name!r} cannot be imported: {module}.{qualname} is something else")
        named.append((handler.offer.name, module, qualname, handler.raw))
    main: dict[str, str] = {}
    if any(module == "__main__" for _, module, _, _ in named):
        data = multiprocessing.spawn.get_preparation_data("reliable-handler")
        main = {key: str(value) for key, value in data.items() if key in ("init_main_from_name", "init_main_from_path")}
    return Begin(
        handlers=named,
        codec=pack_codec(codec),
        parts_ahead_max=config.stream_parts_ahead_max,
        measure_memory=config.process_memory_bytes_max is not None,
        main=main,
    )


class ChildProcesses:
    """Runs jobs in child processes. ``start``, ``cancel`` and ``taken`` are called by one thread.

    Args:
        size: Processes.
        handlers: What they run.
        codec: Of typed handlers.
        config: How long and how often.
        post: Takes events for the engine, from any thread.
        counters: Of the worker; the fields about processes are written here alone.

    Raises:
        TypeError: A handler or the codec cannot be had by another process.
    """

    def __init__(
        self,
        size: int,
        handlers: Sequence[Handler],
        codec: Codec,
        config: WorkerConfig,
        post: Callable[[WorkerEvent], None],
        counters: WorkerCounters,
    ) -> None:
        self.begin = encode(_begin(handlers, codec, config))
        self.config = config
        self.post = post
        self.counters = counters
        self.lock = threading.Lock()
        self.closing = False
        self._waiting: deque[StartJob] = deque()
        self.origin = Origin(config.process_start_timeout_s)
        self._children = [_Child(self, number) for number in range(size)]
        for child in self._children:
            child.thread.start()

    def start(self, job: StartJob) -> None:
        """Run a job in the next process that is free."""
        with self.lock:
            idle = [child for child in self._children if child.idle]
            if idle:
                # The one that worked last has everything in its caches.
                max(idle, key=lambda child: child.given_at).give(job)
            else:
                self._waiting.append(job)

    def next_job(self) -> StartJob | None:
        """What waits longest. Under the lock."""
        return self._waiting.popleft() if self._waiting else None

    def put_back(self, job: StartJob) -> None:
        """A job that no process was told of. Under the lock."""
        self._waiting.appendleft(job)

    def cancel(self, job: int, *, overdue: bool) -> None:
        """Nobody waits for a job; or it is overdue, and its process is killed at once."""
        with self.lock:
            for waiting in self._waiting:
                if waiting.job == job:
                    self._waiting.remove(waiting)
                    why = _not_up_in_time() if overdue else attrs.evolve(NOBODY_WAITS, executed=False)
                    self.post(JobFinished(job, why))
                    return
            for child in self._children:
                if child.job == job:
                    child.cancel(overdue=overdue)

    def taken(self, job: int) -> None:
        """The engine has one more part of a job."""
        with self.lock:
            for child in self._children:
                if child.job == job:
                    child.order(Taken(job))

    def not_started(self, reason: str) -> None:
        """A child could not be started. If there is none that could take what waits, that has its answer."""
        with self.lock:
            if any(child.up for child in self._children):
                return
            while (job := self.next_job()) is not None:
                self.post(JobFinished(job.job, JobError("ProcessNotStarted", reason, executed=False)))

    def count(self, *, started: int = 0, crashed: int = 0, killed: int = 0) -> None:
        """Add to the counters."""
        with self.lock:
            self.counters.processes_started += started
            self.counters.processes_crashed += crashed
            self.counters.processes_killed += killed

    def begin_close(self) -> None:
        """Begin to end every process: idle ones by asking, the others by force."""
        with self.lock:
            self.closing = True
            for child in self._children:
                child.waker.wake()
        self.origin.begin_close()

    @property
    def closed(self) -> bool:
        """Whether all have ended."""
        return not any(child.thread.is_alive() for child in self._children)

    def close(self) -> None:
        """After ``begin_close``: wait until all have ended."""
        deadline = time.monotonic() + _JOIN_S_MAX
        for child in self._children:
            child.thread.join(max(0.0, deadline - time.monotonic()))
            if not child.thread.is_alive():
                child.waker.close()
        self.origin.close(max(0.0, deadline - time.monotonic()))


def _not_up_in_time() -> JobError:
    return JobError("HandlerTimeout", "no handler process was free within the timeout", executed=False)


class _Child:
    """One place for a process. Attributes that others read are changed under the lock of the pool."""

    def __init__(self, pool: ChildProcesses, number: int) -> None:
        self._pool = pool
        self.waker = Waker()
        self.thread = threading.Thread(target=self._live, name=f"reliable-process-{number}", daemon=True)
        self.up = False
        """The process is ready."""
        self._free = False
        self.job: int | None = None
        self.given_at = 0.0
        self._given: StartJob | None = None
        """The job, until the process was told."""
        self._orders: deque[ToChild] = deque()
        self._kill: str | None = None
        self._kill_at: float | None = None
        self._deaths = 0
        """In a row, without a request that ended well in between."""
        self._crashed = False
        """The last one was under a request, of a process that had started well."""

    # --- called by the pool, under its lock ---

    @property
    def idle(self) -> bool:
        """Whether it can take a job now."""
        return self._free and self.job is None

    def give(self, job: StartJob) -> None:
        """Run a job; only if idle."""
        self.job, self._kill, self._kill_at = job.job, None, None
        self._free, self._given, self.given_at = False, job, time.monotonic()
        self.order(Run.of(job))

    def order(self, message: ToChild) -> None:
        """Tell the process something."""
        self._orders.append(message)
        self.waker.wake()

    def cancel(self, *, overdue: bool) -> None:
        """End the job: politely, or by force."""
        if overdue:
            self._kill, self._kill_at = _OVERDUE, time.monotonic()
            self.waker.wake()
        elif self.job is not None and self._kill is None:
            self._kill, self._kill_at = _UNWANTED, time.monotonic() + self._pool.config.cancel_grace_s
            self.order(Cancel(self.job))

    # --- the thread ---

    def _live(self) -> None:
        while not self._pool.closing:
            try:
                reason = self._one_life()
            except Exception as error:
                # No memory, no descriptors: the same place tries again, later and later.
                self._deaths += 1
                reason = f"{type(error).__name__}: {error}"
            if reason:
                self._pool.not_started(f"{_NOT_STARTED}: {reason}")
            self._pause()

    def _pause(self) -> None:
        """The first start after a death comes at once, further ones later: ever later if processes do not come up."""
        if self._deaths < 2:
            return
        delay_s = self._pool.config.process_restart.delay_s(self._deaths - 1, random.random())
        if self._crashed:
            # Each such death answers a request, so they come no faster than requests; and a copy costs little.
            delay_s = min(delay_s, _CRASH_PAUSE_S_MAX)
        until = time.monotonic() + delay_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.waker.fileno(), selectors.EVENT_READ)
            while not self._pool.closing and (left_s := until - time.monotonic()) > 0:
                selector.select(left_s)
                self.waker.clear()

    def _one_life(self) -> str:
        """Start a process, and stay with it until it ended; why it could not be started, or nothing."""
        self._crashed = False
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = self._pool.origin.start(theirs)
            self._pool.count(started=1)
            ours.setblocking(False)
            life = _Life(self._pool.config, process, ours)
            try:
                return self._stay(life)
            finally:
                with self._pool.lock:
                    self.up = self._free = False
                    self._orders.clear()
                life.end()

    def _stay(self, life: _Life) -> str:
        life.write(self._pool.begin)
        start_by = time.monotonic() + self._pool.config.process_start_timeout_s
        with life.watching(self.waker) as selector:
            while True:
                selector.select(self._wait_s(life, start_by))
                self.waker.clear()
                self._send_orders(life)
                for message in life.read():
                    if isinstance(message, NotReady):
                        self._deaths += 1
                        return message.reason
                    self._hear(life, message)
                if life.gone:
                    return self._died(life)
                if self._pool.closing or life.retired:
                    life.retired = self.job is None
                    return ""
                if self._must_kill():
                    return ""
                if not life.ready and time.monotonic() >= start_by:
                    self._deaths += 1
                    return "it was not ready in time"

    def _wait_s(self, life: _Life, start_by: float) -> float:
        limits = [_WAIT_S_MAX if life.has_pidfd else _NO_PIDFD_WAIT_S]
        if not life.ready:
            limits.append(start_by - time.monotonic())
        with self._pool.lock:
            if self._kill_at is not None:
                limits.append(self._kill_at - time.monotonic())
        return max(0.0, min(limits))

    def _send_orders(self, life: _Life) -> None:
        with self._pool.lock:
            orders = [encode(order) for order in self._orders]
            self._orders.clear()
            self._given = None
        for order in orders:
            life.write(order)
        life.flush()

    def _hear(self, life: _Life, message: FromChild) -> None:
        match message:
            case Ready():
                life.ready = True
                with self._pool.lock:
                    self._take_next()
            case Part():
                self._pool.post(JobPartial(message.job, message.body))
            case Progress():
                self._pool.post(JobProgress(message.job, message.body))
            case Done():
                self._deaths = 0
                life.served += 1
                life.retired = life.is_used_up(message.memory_bytes)
                self._finish(JobFinished(message.job, message.result()), stays=not life.retired)

    def _take_next(self) -> None:
        """The process is free. Under the lock of the pool."""
        self.up = self._free = True
        job = self._pool.next_job()
        if job is not None:
            self.give(job)

    def _finish(self, event: JobFinished, *, stays: bool = False) -> None:
        """A job is over, and its process too unless it ``stays``; it is free then before anybody can know."""
        with self._pool.lock:
            self.job, self._kill, self._kill_at = None, None, None
            if stays:
                self._take_next()
        self._pool.post(event)

    def _must_kill(self) -> bool:
        """Whether the process is to be killed for what it runs; that has its answer then."""
        with self._pool.lock:
            kill, kill_at, job = self._kill, self._kill_at, self.job
        if kill_at is None or job is None or time.monotonic() < kill_at:
            return False
        self._pool.count(killed=1)
        self._finish(JobFinished(job, _KILLED_LATE if kill == _OVERDUE else _KILLED_UNWANTED))
        return True

    def _died(self, life: _Life) -> str:
        how = life.how_it_ended()
        self._deaths += 1
        self._crashed = life.ready
        self._pool.count(crashed=1)
        with self._pool.lock:
            self.up = self._free = False
            job, given = self.job, self._given
            if given is not None:
                # It died idle, just before it would have been told: the next one gets the job.
                self._pool.put_back(given)
                self.job = self._given = job = None
        if job is None:
            return "" if life.ready else how
        text = f"the handler's process ended: {how}; it may have run in part"
        self._finish(JobFinished(job, JobError("WorkerCrashed", text, status=Status.WORKER_LOST)))
        return ""


class _Life:
    """One process, from its start to its end."""

    def __init__(self, config: WorkerConfig, process: ChildProcess, link: socket.socket) -> None:
        self._config = config
        self._process = process
        self._link = link
        self._buffer = MessageBuffer(FromChild)
        self._unsent = bytearray()
        self._selector: selectors.BaseSelector | None = None
        self.ready = False
        self.retired = False
        """It is to be replaced now."""
        self.served = 0
        self._hung_up = False

    @property
    def has_pidfd(self) -> bool:
        """Whether the end of the process wakes whoever waits here, even if others hold its end of the link."""
        return self._process.pidfd is not None

    @property
    def gone(self) -> bool:
        """Whether it ended, and everything that it said was read."""
        return self._hung_up or self._process.poll() is not None

    @contextlib.contextmanager
    def watching(self, waker: Waker) -> Iterator[selectors.BaseSelector]:
        """A selector that wakes for everything that can happen to it."""
        with selectors.DefaultSelector() as selector:
            selector.register(waker.fileno(), selectors.EVENT_READ)
            selector.register(self._link, selectors.EVENT_READ)
            if self._process.pidfd is not None:
                selector.register(self._process.pidfd, selectors.EVENT_READ)
            self._selector = selector
            self.flush()
            yield selector
            self._selector = None

    def is_used_up(self, memory_bytes: int) -> bool:
        """Whether it has done enough, or grown too large."""
        requests_max, memory_max = self._config.process_requests_max, self._config.process_memory_bytes_max
        return (requests_max is not None and self.served >= requests_max) or (
            memory_max is not None and memory_bytes > memory_max
        )

    def write(self, data: bytes) -> None:
        """Send, now or when it can be sent."""
        self._unsent += data

    def flush(self) -> None:
        """Send as much as goes; the rest when the selector says so."""
        try:
            while self._unsent:
                del self._unsent[: self._link.send(memoryview(self._unsent)[:_READ_BYTES].tobytes())]
        except BlockingIOError:
            pass  # the selector tells when there is room again
        except OSError:
            self._unsent.clear()
        if self._selector is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._link, wanted)

    def read(self) -> Sequence[FromChild]:
        """Everything that it said since. A process that has ended is read to its last word."""
        ended = self._process.poll() is not None
        messages: list[Any] = []
        try:
            while data := self._link.recv(_READ_BYTES):
                self._buffer.add(data)
                messages += self._buffer.messages()
                if not ended:
                    return messages
            self._hung_up = True
        except BlockingIOError:
            pass  # nothing more for now
        except (OSError, msgspec.MsgspecError):
            # Reset, or the handler has written into our descriptor: nothing that it says can be believed any more.
            self._hung_up = True
        return messages

    def how_it_ended(self) -> str:
        """In words; a process that only hung up is ended first."""
        code = self._process.wait(_EXIT_S_MAX)
        if code is None:
            self._process.kill()
            return "it hung up, and was killed"
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"signal {-code} ({signal.Signals(-code).name})"
        return f"signal {-code}"

    def end(self) -> None:
        """Whatever state it is in."""
        self._link.close()
        if self.ready and self.retired:
            self._process.wait(_EXIT_S_MAX)
        if self._process.poll() is None:
            self._process.kill()
        self._process.close()
