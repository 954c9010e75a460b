"""What both workers do alike: the table of services, and one handler run from body to result."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from reliable.config import WorkerConfig
from reliable.engine.worker import WorkerEngine
from reliable.errors import PayloadError
from reliable.names import parse_address
from reliable.payload import Codec, decode_call, encode_reply, raw_reply
from reliable.protocol.events import JobError, StartJob
from reliable.request import Request, request_context
from reliable.types import Frames, Observer
from reliable.wire.extension import INSTANCE_BYTES, ServiceOffer
from reliable.wire.mdp import check_service

__all__ = [
    "Handler",
    "HandlerFunction",
    "Services",
    "WorkerSettings",
    "WorkerSetup",
    "job_error",
    "run_coroutine",
    "run_function",
]

HandlerFunction: TypeAlias = Callable[..., Any]
"""Whatever a user decorates; its own signature is kept."""

_ERROR_TEXT_MAX: Final = 4096


@attrs.frozen
class Handler:
    """One registered function."""

    function: HandlerFunction
    offer: ServiceOffer
    raw: bool
    is_coroutine: bool
    signature: inspect.Signature | None
    """None if it cannot be told, as for some functions written in C."""


class Services:
    """The services of one worker, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[bytes, Handler] = {}

    def add(self, name: str, function: HandlerFunction, *, idempotent: bool | None, raw: bool) -> Handler:
        """Register a function.

        Raises:
            ValueError: A bad or reserved name, or one that is taken.
            TypeError: Not a function, or a generator, whose parts nobody would send.
        """
        service = check_service(name)
        if service.startswith(b"mmi."):
            raise ValueError(f"{name!r}: brokers answer names that start with mmi. themselves")
        if service in self._handlers:
            raise ValueError(f"this worker has a handler for {name!r} already")
        if not callable(function):
            raise TypeError(f"the handler of {name!r} is {function!r}, which cannot be called")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"the handler of {name!r} is a generator; return a value instead")
        handler = Handler(
            function, ServiceOffer(service, idempotent), raw, _is_coroutine(function), _signature(function)
        )
        self._handlers[service] = handler
        return handler

    def __len__(self) -> int:
        return len(self._handlers)

    def find(self, service: bytes) -> Handler | None:
        """The handler of a service."""
        return self._handlers.get(service)

    def offers(self) -> list[ServiceOffer]:
        """What READY tells the brokers."""
        return [handler.offer for handler in self._handlers.values()]


def _is_coroutine(function: HandlerFunction) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the bound method is wanted, not whether there is one


def _signature(function: HandlerFunction) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


class WorkerSetup:
    """The arguments of a worker.

    Args:
        brokers: Addresses to register with.
        concurrency: Handlers at once, in place of ``config.concurrency``; None leaves that.
        config: All settings.
        codec: Of typed handlers.
        observer: Gets the engine's observations.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        concurrency: int | None,
        config: WorkerConfig | None,
        codec: Codec,
        observer: Observer | None,
    ) -> None:
        config = config or WorkerConfig()
        self.config = config if concurrency is None else attrs.evolve(config, concurrency=concurrency)
        self.codec = codec
        self.services = Services()
        self.brokers = [parse_address(broker).text for broker in brokers]
        self._observer = observer

    def engine(self) -> WorkerEngine:
        """A new engine, under a new instance id.

        Raises:
            ValueError: No broker, no service, or an address that cannot be read.
        """
        if not self.brokers:
            raise ValueError("name at least one broker, like 'tcp://localhost:5555'")
        if not self.services:
            raise ValueError("the worker has no service: decorate a function with @worker.service('name')")
        return WorkerEngine(
            [parse_address(broker).text for broker in self.brokers],
            self.services.offers(),
            self.config,
            instance=os.urandom(INSTANCE_BYTES),
            jitter=random.Random(os.urandom(16)).random,
            observer=self._observer,
        )


class WorkerSettings:
    """What can be read and changed of a worker before it runs; the base of both workers."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup

    @property
    def brokers(self) -> list[str]:
        """Addresses to register with; changes count at the next ``run``."""
        return self._setup.brokers

    @brokers.setter
    def brokers(self, brokers: list[str]) -> None:
        self._setup.brokers = list(brokers)

    @property
    def concurrency(self) -> int:
        """Handlers that run at once; changes count at the next ``run``."""
        return self._setup.config.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        self._setup.config = attrs.evolve(self._setup.config, concurrency=concurrency)

    @property
    def services(self) -> list[str]:
        """Names of the services, in order of registration."""
        return [offer.name.decode() for offer in self._setup.services.offers()]


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
    if handler.raw:
        args: list[object] = list(job.body)
        kwargs: dict[str, object] = {}
    else:
        try:
            args, kwargs = decode_call(codec, job.body)
        except PayloadError as error:
            return _Call(None, job_error(error, executed=False))
    if handler.signature is not None:
        try:
            handler.signature.bind(*args, **kwargs)
        except TypeError as error:
            return _Call(None, job_error(error, executed=False))
    return _Call(lambda: function(*args, **kwargs))


def _finish(handler: Handler, codec: Codec, value: object) -> Frames | JobError:
    try:
        return raw_reply(value) if handler.raw else encode_reply(codec, value)
    except PayloadError as error:
        return job_error(error)


def run_function(handler: Handler | None, codec: Codec, job: StartJob, request: Request) -> Frames | JobError:
    """Run a plain handler here and now; whatever it throws becomes a ``JobError``."""
    call = _prepare(handler, codec, job)
    if handler is None or call.run is None:
        return call.error or JobError("InternalError", "the handler could not be prepared", executed=False)
    token = request_context.set(request)
    try:
        value = call.run()
    except BaseException as error:
        # SystemExit and the like too: this thread belongs to the worker, and the caller waits for an answer.
        return job_error(error)
    finally:
        request_context.reset(token)
    return _finish(handler, codec, value)


async def run_coroutine(handler: Handler, codec: Codec, job: StartJob, request: Request) -> Frames | JobError:
    """Run a coroutine handler in the task at hand; cancelling the task is answered with a ``JobError``."""
    call = _prepare(handler, codec, job)
    if call.run is None:
        return call.error or JobError("InternalError", "the handler could not be prepared", executed=False)
    request_context.set(request)
    try:
        result: Awaitable[object] = call.run()
        value = await result
    except BaseException as error:
        # A cancelled handler is an answer too; the task that runs it ends right after, so nobody misses the exception.
        return job_error(error)
    return _finish(handler, codec, value)
