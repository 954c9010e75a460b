"""One handler, run from body to result. Whatever it does, there is one answer, and whether it was entered is known.

A handler that gives a generator streams: each value that it yields is a part of the reply, what it returns is the end
of it. Parts go out through a ``PartWindow``, which lets a generator run ahead of the loop only so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, Protocol

import attrs

from reliable.arguments import InvalidArguments
from reliable.errors import PayloadError
from reliable.handling import Handler
from reliable.payload import JSON, Codec, decode_call, encode_reply, raw_reply
from reliable.protocol.events import JobError, JobPartial, StartJob
from reliable.request import Request, request_context
from reliable.types import Frames

__all__ = ["NOBODY_WAITS", "PartWindow", "Parts", "job_error", "run_coroutine", "run_function"]

_ERROR_TEXT_MAX: Final = 4096
_NO_MORE: Final = [b""]
"""The end of a stream that carries nothing itself."""
_WAIT_S_MAX: Final = 0.5
_OVERDUE_S_MAX: Final = 1.0
"""At the deadline the broker says that nobody waits, by its own clock; this is for a broker that is not heard."""

NOBODY_WAITS: Final = JobError("Cancelled", "nobody waits for the reply any more")
"""How a handler ends that was stopped because its request was cancelled or came to its deadline."""
_NO_STREAM: Final = JobError("TypeError", "a generator cannot run inline: nothing could be sent before its end")


class Parts(Protocol):
    """Where the parts of a streamed reply go; waits until there is room."""

    def send(self, body: Frames) -> bool:
        """Send one part; False if nobody wants it any more."""

    async def send_from_task(self, body: Frames) -> bool:
        """The same, for a handler that is a task: lets the loop run meanwhile."""


class PartWindow:
    """The parts of one job that are on their way to the engine: at most ``limit``, then the generator waits.

    ``send`` is called where the handler runs, the rest from anywhere.

    Args:
        job: Its number.
        request: Its request: once that is cancelled or long past its deadline, no more parts are taken.
        post: Takes the events, from any thread.
        limit: Parts that may be on their way at once.
    """

    def __init__(self, job: int, request: Request, post: Callable[[JobPartial], None], limit: int) -> None:
        self._job = job
        self._request = request
        self._post = post
        self._limit = limit
        self._ahead = 0
        self._changed = threading.Condition()
        self._sleeper: Callable[[], None] | None = None

    def _wanted(self) -> bool:
        return not self._request.cancelled and self._request.overdue_s < _OVERDUE_S_MAX

    def send(self, body: Frames) -> bool:
        """Send one part, when there is room; False if nobody wants it any more."""
        with self._changed:
            while self._ahead >= self._limit and self._wanted():
                self._changed.wait(_WAIT_S_MAX)
            return self._sent(body)

    async def send_from_task(self, body: Frames) -> bool:
        """The same, for a handler that is a task: lets the loop run meanwhile."""
        loop = asyncio.get_running_loop()
        while True:
            room = asyncio.Event()

            def wake(room: asyncio.Event = room) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody sleeps in it
                    loop.call_soon_threadsafe(room.set)

            with self._changed:
                if self._ahead < self._limit or not self._wanted():
                    self._sleeper = None
                    sent = self._sent(body)
                    break
                self._sleeper = wake
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(room.wait(), _WAIT_S_MAX)
        # A generator that never waits for anything would keep the loop to itself.
        await asyncio.sleep(0)
        return sent

    def _sent(self, body: Frames) -> bool:
        if not self._wanted():
            return False
        self._ahead += 1
        self._post(JobPartial(self._job, body))
        return True

    def taken(self) -> None:
        """The engine has one more of the parts."""
        with self._changed:
            self._ahead -= 1
        self.wake()

    def wake(self) -> None:
        """Look again whether there is room, or whether anybody waits."""
        with self._changed:
            self._changed.notify_all()
            sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            sleeper()


def job_error(error: BaseException, *, executed: bool = True) -> JobError:
    """How a failed handler is told, its text bounded."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    return JobError(type(error).__name__, text[:_ERROR_TEXT_MAX], executed)


@attrs.frozen
class _Call:
    """A handler with its arguments; ``error`` instead if it must not be entered."""

    run: Callable[[], Any] | None
    error: JobError | None = None


def _prepare(handler: Handler | None, codec: Codec, job: StartJob) -> _Call:
    """Everything that can go wrong before the handler is entered, so that it is known not to have run."""
    if handler is None:
        name = job.service.decode("utf-8", "backslashreplace")
        return _Call(None, JobError("ServiceNotFound", f"this worker does not offer {name!r}", executed=False))
    function = handler.function
    try:
        sent, named = (job.body, {}) if handler.raw else decode_call(codec, job.body)
        args, kwargs = handler.arguments.check(sent, named, textual=codec is JSON)
    except (PayloadError, InvalidArguments) as error:
        return _Call(None, attrs.evolve(job_error(error, executed=False), type_name="InvalidArguments"))
    return _Call(lambda: function(*args, **kwargs))


def _finish(handler: Handler, codec: Codec, value: object) -> Frames | JobError:
    try:
        return raw_reply(value) if handler.raw else encode_reply(codec, value)
    except PayloadError as error:
        return job_error(error)


def run_function(
    handler: Handler | None, codec: Codec, job: StartJob, request: Request, parts: Parts | None = None
) -> Frames | JobError:
    """Run a plain handler here and now; whatever it throws becomes a ``JobError``.

    Args:
        handler: None if there is none for the service.
        parts: Takes the parts of a streamed reply; None refuses them.
    """
    call = _prepare(handler, codec, job)
    if handler is None or call.run is None:
        return call.error or JobError("InternalError", "the handler could not be prepared", executed=False)
    token = request_context.set(request)
    try:
        value = call.run()
        if isinstance(value, Generator):
            return _stream(handler, codec, value, parts)
    except BaseException as error:
        # SystemExit and the like too: this thread belongs to the worker, and the caller waits for an answer.
        return job_error(error)
    finally:
        request_context.reset(token)
    return _finish(handler, codec, value)


def _stream(
    handler: Handler, codec: Codec, generator: Generator[object, None, object], parts: Parts | None
) -> Frames | JobError:
    with contextlib.closing(generator):
        if parts is None:
            return _NO_STREAM
        while True:
            try:
                value = next(generator)
            except StopIteration as end:
                return _NO_MORE if end.value is None else _finish(handler, codec, end.value)
            body = _finish(handler, codec, value)
            if isinstance(body, JobError):
                return body
            if not parts.send(body):
                return NOBODY_WAITS


async def run_coroutine(
    handler: Handler | None, codec: Codec, job: StartJob, request: Request, parts: Parts | None = None
) -> Frames | JobError:
    """Run a coroutine handler in the task at hand; cancelling the task is answered with a ``JobError``."""
    call = _prepare(handler, codec, job)
    if handler is None or call.run is None:
        return call.error or JobError("InternalError", "the handler could not be prepared", executed=False)
    request_context.set(request)
    try:
        value = call.run()
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, AsyncGenerator):
            return await _stream_from_task(handler, codec, value, parts)
    except BaseException as error:
        # A cancelled handler is an answer too; the task that runs it ends right after, so nobody misses the exception.
        return job_error(error)
    return _finish(handler, codec, value)


async def _stream_from_task(
    handler: Handler, codec: Codec, generator: AsyncGenerator[object, None], parts: Parts | None
) -> Frames | JobError:
    async with contextlib.aclosing(generator):
        if parts is None:
            return _NO_STREAM
        async for value in generator:
            body = _finish(handler, codec, value)
            if isinstance(body, JobError):
                return body
            if not await parts.send_from_task(body):
                return NOBODY_WAITS
    return _NO_MORE
