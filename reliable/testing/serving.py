"""From what a user has, a function, several or a worker, to a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from reliable.aio.worker import AsyncWorker
from reliable.config import WorkerConfig
from reliable.sync.worker import Worker
from reliable.testing.settings import QUICK_WORKER

__all__ = ["Offered", "as_worker"]

Offered: TypeAlias = Worker | AsyncWorker | Callable[..., Any] | Mapping[str, Callable[..., Any]]
"""A worker; a function, whose name is the service's; or functions by the names of their services."""


def as_worker(
    offered: Offered,
    *more: Callable[..., Any],
    idempotent: bool | None = None,
    concurrency: int | None = None,
    config: WorkerConfig = QUICK_WORKER,
) -> Worker | AsyncWorker:
    """A worker that offers what is given; a worker is given back as it is.

    Args:
        offered: What to serve.
        more: Further functions.
        idempotent: Of all the functions: whether they may run more than once. None leaves it to the caller.
        concurrency: Handlers at once; None is 4 for functions.
        config: For functions: the settings of the worker; by default quick ones, for tests.

    Raises:
        TypeError: A worker with options that only functions have, or something that cannot be served.
        ValueError: A bad name of a service, or the same one twice.
    """
    if isinstance(offered, (Worker, AsyncWorker)):
        if more or idempotent is not None or concurrency is not None:
            raise TypeError("a worker has its own services and settings: give either a worker or functions")
        return offered
    services = dict(offered) if isinstance(offered, Mapping) else {_name(offered): offered}
    for function in more:
        if _name(function) in services:
            raise ValueError(f"two functions are named {_name(function)!r}: give them as {{'name': function}}")
        services[_name(function)] = function
    coroutines = any(map(inspect.iscoroutinefunction, services.values()))
    made = (AsyncWorker if coroutines else Worker)(concurrency=concurrency or 4, config=config)
    for name, function in services.items():
        made.service(name, idempotent=idempotent)(function)
    return made


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"{function!r} has no name to be served under: give it as {{'name': function}}")
    return name
