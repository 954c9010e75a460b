"""Where handlers run: in threads, as tasks of an event loop, in child processes, or in the worker's own loop.

The worker's shell hands over what its engine wants (``start``, ``cancel``), feeds the engine with what is posted, and
says when it has (``taken``). Each job ends with exactly one ``JobFinished``, whatever its handler does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Final

import attrs

from reliable.config import WorkerConfig
from reliable.engine.worker import OverdueJob, WorkerCounters
from reliable.executors_process import ChildProcesses
from reliable.handling import Handler, WorkerSetup
from reliable.protocol.events import (
    CancelJob,
    JobError,
    JobFinished,
    JobPartial,
    JobProgress,
    StartJob,
    WorkerEvent,
)
from reliable.request import Request
from reliable.running import PartWindow, job_error, run_coroutine, run_function
from reliable.status import Status
from reliable.threads import HandlerThreads
from reliable.types import Frames

__all__ = ["Executors", "LoopThread"]

_THREADS_END_S: Final = 0.2
_TASKS_END_S: Final = 1.0


@attrs.define(eq=False)
class _Run:
    """One job under way here."""

    request: Request
    window: PartWindow
    process: bool = False
    task: asyncio.Task[Frames | JobError] | None = None


class LoopThread:
    """An event loop in a thread of its own, for the tasks of a worker that has no loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="reliable-tasks", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    def close(self, timeout: float) -> None:
        """End it, as soon as the task that has it lets go of it.

        Args:
            timeout: Seconds to wait for that; afterwards the thread is left to itself.
        """
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)


class Executors:
    """Runs the handlers of one worker. Used by the thread of the worker's loop.

    Args:
        setup: Services, codec and settings.
        post: Takes events for the engine, from any thread.
        counters: Of the engine; those about processes are kept here.
        loop: For tasks; None starts one in a thread when the first task comes.

    Raises:
        TypeError: A handler that shall run in a process cannot be had there.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        post: Callable[[WorkerEvent], None],
        counters: WorkerCounters,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._services = setup.services
        self._codec = setup.codec
        self._config: WorkerConfig = setup.config
        self._post = post
        self._loop = loop
        self._loop_thread: LoopThread | None = None
        self._threads = HandlerThreads(setup.config.concurrency, "reliable-handler")
        self._runs: dict[int, _Run] = {}
        self._processes: ChildProcesses | None = None
        handlers = [handler for handler in setup.services.all() if handler.executor == "process"]
        if handlers:
            limits = [handler.options.concurrency or setup.config.concurrency for handler in handlers]
            size = min(setup.config.concurrency, sum(limits)) + setup.config.process_spares
            self._processes = ChildProcesses(size, handlers, setup.codec, setup.config, post, counters)

    @property
    def unfinished(self) -> int:
        """Handlers that have not returned."""
        return len(self._runs)

    def start(self, job: StartJob) -> None:
        """Run the handler of a job."""
        number = job.job
        request = Request(job, lambda body: self._post(JobProgress(number, body)))
        run = _Run(request, PartWindow(number, request, self._post, self._config.stream_parts_ahead_max))
        self._runs[number] = run
        handler = self._services.find(job.service)
        executor = "inline" if handler is None else handler.executor
        if executor == "process" and self._processes is not None:
            run.process = True
            self._processes.start(job)
        elif executor == "task":
            self._start_task(handler, job, run)
        elif executor == "inline":
            self._post(JobFinished(number, run_function(handler, self._codec, job, request)))
        else:
            self._threads.run(functools.partial(self._run_in_thread, handler, job, run))

    def cancel(self, effect: CancelJob) -> None:
        """Tell a handler that nobody waits for it any more, or that it took too long."""
        run = self._runs.get(effect.job)
        if run is None:
            return
        if run.process and self._processes is not None:
            self._processes.cancel(effect.job, overdue=isinstance(effect, OverdueJob))
        else:
            self._cancel(run)

    def _cancel(self, run: _Run) -> None:
        run.request.cancel()
        run.window.wake()
        if self._loop_thread is None:
            if run.task is not None:
                run.task.cancel()
        else:
            # Its task may not be made yet, so it is looked up there.
            self._loop_thread.loop.call_soon_threadsafe(lambda: run.task and run.task.cancel())

    def taken(self, event: WorkerEvent) -> None:
        """The engine has been fed with an event that was posted here."""
        if isinstance(event, JobPartial):
            run = self._runs.get(event.job)
            if run is not None and run.process and self._processes is not None:
                self._processes.taken(event.job)
            elif run is not None:
                run.window.taken()
        elif isinstance(event, JobFinished):
            self._runs.pop(event.job, None)

    # --- threads ----------------------------------------------------------------------------------

    def _run_in_thread(self, handler: Handler | None, job: StartJob, run: _Run) -> None:
        result: Frames | JobError = JobError(
            "InternalError", "the handler's thread ended without a result", status=Status.WORKER_LOST
        )
        try:
            result = run_function(handler, self._codec, job, run.request, run.window)
        finally:
            self._post(JobFinished(job.job, result))

    # --- tasks ------------------------------------------------------------------------------------

    def _start_task(self, handler: Handler | None, job: StartJob, run: _Run) -> None:
        if self._loop is not None:
            self._make_task(self._loop, handler, job, run)
            return
        if self._loop_thread is None:
            self._loop_thread = LoopThread()
        loop = self._loop_thread.loop
        loop.call_soon_threadsafe(self._make_task, loop, handler, job, run)

    def _make_task(self, loop: asyncio.AbstractEventLoop, handler: Handler | None, job: StartJob, run: _Run) -> None:
        run.task = loop.create_task(run_coroutine(handler, self._codec, job, run.request, run.window))
        run.task.add_done_callback(functools.partial(self._on_task_done, job.job))

    def _on_task_done(self, job: int, task: asyncio.Task[Frames | JobError]) -> None:
        """Whatever became of the task: one that is cancelled before its first step never gets to say so itself."""
        if task.cancelled():
            result: Frames | JobError = JobError("CancelledError", "cancelled before it began", executed=False)
        else:
            error = task.exception()
            result = task.result() if error is None else job_error(error)
        self._post(JobFinished(job, result))

    # --- the end ----------------------------------------------------------------------------------

    def cancel_all(self) -> list[asyncio.Task[Frames | JobError]]:
        """Tell every handler; gives the tasks that the caller's own loop has to let end."""
        for run in self._runs.values():
            self._cancel(run)
        if self._processes is not None:
            self._processes.begin_close()
        return [run.task for run in self._runs.values() if run.task is not None and self._loop is not None]

    @property
    def processes_ended(self) -> bool:
        """Whether every handler process has ended, after ``cancel_all``."""
        return self._processes is None or self._processes.closed

    def close(self) -> None:
        """After ``cancel_all``: leave threads that still run to themselves, and give everything else back."""
        if self._loop_thread is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself, which only a broken one does
                self._end_loop_thread(self._loop_thread)
        if self._processes is not None:
            self._processes.close()
        self._threads.close(0.0 if self._runs else _THREADS_END_S)

    def _end_loop_thread(self, thread: LoopThread) -> None:
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            ended = threading.Event()

            async def wait() -> None:
                await asyncio.wait(tasks, timeout=_TASKS_END_S)
                ended.set()

            waiting = asyncio.run_coroutine_threadsafe(wait(), thread.loop)
            ended.wait(_TASKS_END_S)
            del waiting
        thread.close(_THREADS_END_S)
