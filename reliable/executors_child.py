"""A handler process: gets requests from its worker over a socket pair, runs them one after the other, and dies with it.

Handlers run in the main thread, as in a program of their own. A second thread listens to the worker: it hears that a
request was cancelled, and that the worker is gone. A handler that holds the interpreter lock keeps that thread from
hearing anything; then the kernel ends the process with its parent, and the worker kills it when it has to.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import multiprocessing.spawn
import os
import queue
import resource
import signal
import socket
import threading
from functools import reduce
from pathlib import Path
from typing import Any, Final, cast

import attrs

from reliable import handling
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
    unpack_codec,
)
from reliable.payload import Codec
from reliable.protocol.events import JobPartial, StartJob
from reliable.request import Request
from reliable.running import PartWindow, run_coroutine, run_function

__all__ = ["EXIT_WITH_PARENT", "main"]

EXIT_WITH_PARENT: Final = 0
_READ_BYTES: Final = 256 * 1024
_LAST_WORDS_S: Final = 0.2
"""What an idle process gets for its exit functions when the worker is gone."""


def main(fd: int) -> None:
    """Be a handler process until the worker hangs up.

    Args:
        fd: Our end of the socket pair.
    """
    os.set_inheritable(fd, False)
    # Ctrl-C and a service manager's SIGTERM reach the whole group; when to end is the worker's decision. No SIG_IGN,
    # which programs that a handler starts would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    child = _Child(socket.socket(fileno=fd))
    if child.begin():
        child.serve()


@attrs.define(eq=False)
class _Job:
    start: StartJob
    request: Request
    window: PartWindow
    task: asyncio.Task[Any] | None = None


class _Child:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = MessageBuffer(ToChild)
        self._services = handling.Services()
        self._codec: Codec
        self._parts_ahead_max = 1
        self._measure_memory = False
        self._sending = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._runner: asyncio.Runner | None = None

    def _send(self, message: FromChild) -> None:
        try:
            with self._sending:
                self._link.sendall(encode(message))
        except OSError:
            os._exit(EXIT_WITH_PARENT)

    def begin(self) -> bool:
        """Learn what to be; whether that is possible."""
        begin = None
        while begin is None:
            data = self._link.recv(_READ_BYTES)
            if not data:
                return False
            self._buffer.add(data)
            begin = next(self._buffer.messages(), None)
        try:
            self._load(cast(Begin, begin))
        except BaseException as error:
            self._send(NotReady(f"{type(error).__name__}: {error}"))
            return False
        self._send(Ready())
        return True

    def _load(self, begin: Begin) -> None:
        handling.forbid_workers()
        if begin.main:
            # The way of multiprocessing: the program's file is run under another name, so that its guard
            # ``if __name__ == "__main__"`` holds.
            multiprocessing.spawn.prepare(dict(begin.main))
        self._codec = unpack_codec(begin.codec)
        self._parts_ahead_max = begin.parts_ahead_max
        self._measure_memory = begin.measure_memory
        for service, module, qualname, raw in begin.handlers:
            function = reduce(getattr, qualname.split("."), cast(Any, importlib.import_module(module)))
            self._services.add(service.decode(), function, handling.ServiceOptions(raw=raw))

    def serve(self) -> None:
        """Run what comes, until the worker hangs up."""
        threading.Thread(target=self._listen, name="worker-link", daemon=True).start()
        while (job := self._waiting.get()) is not None:
            self._run(job)
            # Let go of the request before waiting for the next one.
            del job
        if self._runner is not None:
            self._runner.close()

    def _run(self, job: _Job) -> None:
        handler = self._services.find(job.start.service)
        if handler is not None and handler.executor == "task":
            self._runner = self._runner or asyncio.Runner()
            result = self._runner.run(self._run_task(handler, job))
        else:
            result = run_function(handler, self._codec, job.start, job.request, job.window)
        number = job.start.job
        del self._jobs[number]
        self._send(Done.of(number, result, _memory_bytes() if self._measure_memory else 0))

    async def _run_task(self, handler: handling.Handler, job: _Job) -> Any:
        job.task = asyncio.current_task()
        return await run_coroutine(handler, self._codec, job.start, job.request, job.window)

    # --- the other thread -------------------------------------------------------------------------

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            self._hear()
            while data := self._link.recv(_READ_BYTES):
                self._buffer.add(data)
                self._hear()
        if self._jobs:
            os._exit(EXIT_WITH_PARENT)
        self._waiting.put(None)
        threading.Event().wait(_LAST_WORDS_S)
        os._exit(EXIT_WITH_PARENT)

    def _hear(self) -> None:
        for message in self._buffer.messages():
            if isinstance(message, Run):
                self._take(message)
            elif isinstance(message, Cancel | Taken) and (job := self._jobs.get(message.job)) is not None:
                if isinstance(message, Taken):
                    job.window.taken()
                else:
                    self._cancel(job)

    def _take(self, run: Run) -> None:
        start, number = run.start(), run.job
        request = Request(start, lambda body: self._send(Progress(number, body)))

        def post(part: JobPartial) -> None:
            self._send(Part(part.job, part.body))

        job = self._jobs[number] = _Job(start, request, PartWindow(number, request, post, self._parts_ahead_max))
        self._waiting.put(job)

    def _cancel(self, job: _Job) -> None:
        job.request.cancel()
        job.window.wake()
        task = job.task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended, and the loop with it
                task.get_loop().call_soon_threadsafe(task.cancel)


def _memory_bytes() -> int:
    """What of this process is in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        # Where there is no /proc there is at least the peak.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
