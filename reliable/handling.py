"""What both workers do alike: their settings, and the table of services."""

from __future__ import annotations

import functools
import inspect
import math
import os
import random
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import attrs

from reliable.arguments import Arguments
from reliable.calling import UNSET, Unset
from reliable.config import WorkerConfig
from reliable.engine.worker import ServiceRule, WorkerEngine
from reliable.names import parse_address
from reliable.observing import guarded
from reliable.payload import Codec
from reliable.types import Observer
from reliable.wire.extension import INSTANCE_BYTES, ServiceOffer
from reliable.wire.mdp import check_service

__all__ = [
    "ExecutorName",
    "Handler",
    "HandlerFunction",
    "ServiceOptions",
    "Services",
    "WorkerSettings",
    "WorkerSetup",
    "forbid_workers",
    "importable_name",
    "offer",
]

HandlerFunction: TypeAlias = Callable[..., Any]
"""Whatever a user decorates; its own signature is kept."""

FunctionT = TypeVar("FunctionT", bound=HandlerFunction)

_workers_forbidden = False

_OFFERED: Final = "__reliable_offer__"
ExecutorName: TypeAlias = Literal["thread", "process", "task", "inline"]
"""Where a handler runs."""

_EXECUTORS: Final = get_args(ExecutorName)


@attrs.frozen(kw_only=True)
class ServiceOptions:
    """What is said of one service; see ``Worker.service``."""

    idempotent: bool | None = None
    raw: bool = False
    timeout: float | None = None
    concurrency: int | None = None
    executor: ExecutorName | None = None

    def __attrs_post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"the timeout of a handler is a positive number of seconds, not {self.timeout!r}")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"the concurrency of a service is at least 1, not {self.concurrency!r}")
        if self.executor is not None and self.executor not in _EXECUTORS:
            raise ValueError(f"there is no executor {self.executor!r}; there are {', '.join(_EXECUTORS)}")


@attrs.frozen
class Handler:
    """One registered function."""

    function: HandlerFunction
    offer: ServiceOffer
    options: ServiceOptions
    executor: ExecutorName
    arguments: Arguments

    def offer_to(self, brokers: int) -> ServiceOffer:
        """The offer, with this broker's share of how many may run at once."""
        limit = self.options.concurrency
        if limit is None:
            return self.offer
        return ServiceOffer(self.offer.name, self.offer.idempotent, min(max(1, limit // brokers), 0xFFFF))

    @property
    def raw(self) -> bool:
        """Whether it takes and gives frames."""
        return self.options.raw


class Services:
    """The services of one worker, in order of registration."""

    def __init__(self) -> None:
        self._handlers: dict[bytes, Handler] = {}

    def add(self, name: str, function: HandlerFunction, options: ServiceOptions) -> Handler:
        """Register a function.

        Raises:
            ValueError: A bad or reserved name, or one that is taken.
            TypeError: Not a function, or not one that its executor can run.
        """
        service = check_service(name)
        if service.startswith(b"mmi."):
            raise ValueError(f"{name!r}: brokers answer names that start with mmi. themselves")
        if service in self._handlers:
            raise ValueError(f"this worker has a handler for {name!r} already")
        if not callable(function):
            raise TypeError(f"the handler of {name!r} is {function!r}, which cannot be called")
        handler = Handler(
            function,
            ServiceOffer(service, options.idempotent),
            options,
            _executor(name, function, options.executor),
            Arguments(function, typed=not options.raw),
        )
        self._handlers[service] = handler
        return handler

    def add_object(self, name: str, obj: object, options: ServiceOptions) -> list[str]:
        """Register the public methods of an object: all of them, or none.

        Raises:
            ValueError: A bad or reserved name, or one that is taken.
            TypeError: A class, nothing to offer, or a method that its executor cannot run.
        """
        methods = _public_methods(obj)
        if not methods:
            raise TypeError(f"{obj!r} has no public methods to offer as {name!r}")
        before = dict(self._handlers)
        try:
            for attribute, method in methods:
                own = getattr(method, _OFFERED, {})
                self.add(f"{name}.{attribute}", method, attrs.evolve(options, **own))
        except BaseException:
            self._handlers = before
            raise
        return [f"{name}.{attribute}" for attribute, _ in methods]

    def set_defaults(self, *, executor: ExecutorName | None = None, timeout: float | None = None) -> None:
        """Options for those services that were registered without them.

        Raises:
            ValueError: A value that no service takes.
            TypeError: A handler that this executor cannot run; then nothing has changed.
        """
        given = ServiceOptions(executor=executor, timeout=timeout)
        changed = {}
        for service, handler in self._handlers.items():
            own = handler.options
            options = attrs.evolve(
                own,
                executor=given.executor if own.executor is None else own.executor,
                timeout=given.timeout if own.timeout is None else own.timeout,
            )
            runs_in = _executor(service.decode(), handler.function, options.executor)
            changed[service] = attrs.evolve(handler, options=options, executor=runs_in)
        self._handlers = changed

    def __len__(self) -> int:
        return len(self._handlers)

    def find(self, service: bytes) -> Handler | None:
        """The handler of a service."""
        return self._handlers.get(service)

    def all(self) -> list[Handler]:
        """Every handler."""
        return list(self._handlers.values())

    def rules(self) -> dict[bytes, ServiceRule]:
        """What the engine has to heed of the services' options."""
        return {
            handler.offer.name: ServiceRule(
                timeout_s=handler.options.timeout,
                concurrency=handler.options.concurrency,
                killable=handler.executor == "process",
            )
            for handler in self._handlers.values()
        }

    def offers(self, brokers: int = 1) -> list[ServiceOffer]:
        """What READY tells each of so many brokers. Limits of services are shared by them, as the credit is: what
        cannot be split further may come from several at once, and waits here."""
        return [handler.offer_to(brokers) for handler in self._handlers.values()]


def _executor(name: str, function: HandlerFunction, wanted: ExecutorName | None) -> ExecutorName:
    """Where a function runs: where it was wanted, if it can."""
    a_task = _runs_in_a_loop(function)
    if wanted is None:
        return "task" if a_task else "thread"
    if a_task and wanted in ("thread", "inline"):
        raise TypeError(f"the handler of {name!r} is a coroutine function: it runs as a task or in a process")
    if not a_task and wanted == "task":
        raise TypeError(f"the handler of {name!r} is no coroutine function, so as a task it would stop all others")
    if wanted == "inline" and inspect.isgeneratorfunction(function):
        raise TypeError(f"the handler of {name!r} is a generator: inline, nothing could be sent before its end")
    if wanted == "process":
        importable_name(name, function)
    return wanted


def importable_name(name: str, function: HandlerFunction) -> tuple[str, str]:
    """Module and qualified name by which another process finds a function.

    Args:
        name: Of its service, for the error.

    Raises:
        TypeError: It cannot be found by a name.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise TypeError(f"the handler of {name!r} has no name that a process could import it by")
    if "<" in qualname:
        raise TypeError(f"the handler of {name!r} is {qualname}: a process can import only what a module has by name")
    if inspect.ismethod(function) and not isinstance(function.__self__, type):
        raise TypeError(f"the handler of {name!r} is a method of an object, which a process would not have")
    main = sys.modules.get("__main__")
    if module == "__main__" and getattr(main, "__spec__", None) is None and not hasattr(main, "__file__"):
        raise TypeError(f"the handler of {name!r} was typed in, or came with -c: a process needs a file to import")
    return module, qualname


def _public_methods(obj: object) -> list[tuple[str, HandlerFunction]]:
    if isinstance(obj, type):
        raise TypeError(f"{obj.__name__} is a class: register an object of it")
    kinds = (types.FunctionType, staticmethod, classmethod, functools.partialmethod)
    return [
        (name, getattr(obj, name))
        for name in dir(type(obj))
        if not name.startswith("_") and isinstance(inspect.getattr_static(type(obj), name), kinds)
    ]


def offer(
    *,
    idempotent: bool | Unset | None = UNSET,
    raw: bool | Unset = UNSET,
    timeout: float | Unset | None = UNSET,
    concurrency: int | Unset | None = UNSET,
    executor: ExecutorName | Unset | None = UNSET,
) -> Callable[[FunctionT], FunctionT]:
    """Decorate a method of an object for ``Worker.register``: what is given goes before what ``register`` says.

    Args:
        idempotent: As for ``Worker.service``, and so are the others.

    Raises:
        ValueError: A value that no service takes.
    """
    options = {
        "idempotent": idempotent,
        "raw": raw,
        "timeout": timeout,
        "concurrency": concurrency,
        "executor": executor,
    }
    own: dict[str, Any] = {name: value for name, value in options.items() if value is not UNSET}
    ServiceOptions(**own)

    def mark(function: FunctionT) -> FunctionT:
        setattr(function, _OFFERED, own)
        return function

    return mark


def _runs_in_a_loop(function: HandlerFunction) -> bool:
    called = getattr(function, "__call__", None)  # noqa: B004 - the bound method is wanted, not whether there is one
    return any(map(inspect.iscoroutinefunction, (function, called))) or any(
        map(inspect.isasyncgenfunction, (function, called))
    )


def forbid_workers() -> None:
    """From now on no worker runs here: this is a handler process, which imports its worker's own program."""
    global _workers_forbidden
    _workers_forbidden = True


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
        self._observer = guarded(observer)

    def engine(self) -> WorkerEngine:
        """A new engine, under a new instance id.

        Raises:
            ValueError: No broker, no service, or an address that cannot be read.
            RuntimeError: This is a handler process.
        """
        if _workers_forbidden:
            raise RuntimeError(
                "a handler process imports the module of its handler, and that runs a worker: "
                'put worker.run() behind if __name__ == "__main__"'
            )
        if not self.brokers:
            raise ValueError("name at least one broker, like 'tcp://localhost:5555'")
        if not self.services:
            raise ValueError("the worker has no service: decorate a function with @worker.service('name')")
        return WorkerEngine(
            [parse_address(broker).text for broker in self.brokers],
            self.services.offers(len(self.brokers)),
            self.config,
            instance=os.urandom(INSTANCE_BYTES),
            jitter=random.Random(os.urandom(16)).random,
            observer=self._observer,
            rules=self.services.rules(),
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
    def drain_timeout(self) -> float:
        """Seconds that running handlers get when the worker is asked to stop; changes count at the next ``stop``."""
        return self._setup.config.drain_timeout_s

    @drain_timeout.setter
    def drain_timeout(self, seconds: float) -> None:
        self._setup.config = attrs.evolve(self._setup.config, drain_timeout_s=seconds)

    def _drain_s(self, timeout: float | None) -> float:
        if timeout is not None and not 0 <= timeout < math.inf:
            raise ValueError(f"a drain takes zero or more seconds, not {timeout!r}")
        return self.drain_timeout if timeout is None else timeout

    def service(
        self,
        name: str,
        *,
        idempotent: bool | None = None,
        raw: bool = False,
        timeout: float | None = None,
        concurrency: int | None = None,
        executor: ExecutorName | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Decorate a function as the handler of a service.

        A generator or an async generator streams: each value that it yields is sent at once as a part of the reply, and
        what it returns, if that is not None, is the last item. It is closed when nobody waits any more.

        Args:
            name: 1 to 255 printable ASCII characters without spaces.
            idempotent: True: may run more than once, even at the same time, so that a lost reply or worker costs a
                repetition instead of an error. False: must not, whatever callers say. None: as the caller says.
            raw: The handler gets the frames of the body as ``bytes`` arguments, and returns ``bytes`` or a list of
                them. Otherwise it gets and returns values by the worker's codec, and the annotations of its
                parameters are checked before it is entered.
            timeout: Seconds that one run may take; None is no limit. After it the caller gets ``WorkerFailed`` with
                the remote type ``HandlerTimeout``. A process is killed and a task cancelled; a thread cannot be ended
                from outside, so it keeps its slot until it ends by itself.
            concurrency: Runs of this service at once, within the concurrency of the worker; None is no further limit.
            executor: ``"thread"``, the default for functions. ``"task"``, the default for coroutine functions: in the
                loop of ``AsyncWorker``, or in a loop of its own with ``Worker``. ``"process"``: in a child process,
                for what crashes or holds the interpreter lock; only functions that can be imported. ``"inline"``: in
                the worker's own loop, which stands still meanwhile, heartbeats included; only for what takes no time.

        Raises:
            ValueError: A bad name, or one that is taken; a timeout or concurrency out of range; no such executor.
            TypeError: Not a function, or not one that this executor can run.
        """
        options = ServiceOptions(
            idempotent=idempotent, raw=raw, timeout=timeout, concurrency=concurrency, executor=executor
        )

        def register(function: FunctionT) -> FunctionT:
            self._setup.services.add(name, function, options)
            return function

        return register

    def register(
        self,
        obj: object,
        name: str,
        *,
        idempotent: bool | None = None,
        raw: bool = False,
        timeout: float | None = None,
        concurrency: int | None = None,
        executor: ExecutorName | None = None,
    ) -> list[str]:
        """Offer every public method of an object as the service ``name.method``.

        Args:
            obj: Whatever it is; methods whose names begin with an underscore are not offered, nor are properties.
            name: What the services' names begin with.
            idempotent: As for ``service``, and so are the others. A method decorated with ``offer`` has its own.

        Returns:
            The names of the services.

        Raises:
            ValueError: As for ``service``; then none of the methods is offered.
            TypeError: A class, or an object without public methods, or a method that its executor cannot run.
        """
        given = ServiceOptions(
            idempotent=idempotent, raw=raw, timeout=timeout, concurrency=concurrency, executor=executor
        )
        return self._setup.services.add_object(name, obj, given)

    def set_defaults(self, *, executor: ExecutorName | None = None, timeout: float | None = None) -> None:
        """Options for those services that were registered without them; counts at the next ``run``.

        Args:
            executor: As for ``service``; None leaves what there is.
            timeout: The same.

        Raises:
            ValueError: A value that no service takes.
            TypeError: A handler that this executor cannot run; then nothing has changed.
        """
        self._setup.services.set_defaults(executor=executor, timeout=timeout)

    @property
    def services(self) -> list[str]:
        """Names of the services, in order of registration."""
        return [offer.name.decode() for offer in self._setup.services.offers()]
