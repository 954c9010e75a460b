"""From what ``module:object`` names to a worker."""

from __future__ import annotations

import inspect

import attrs
import click

from reliable import AsyncWorker, Worker
from reliable.handling import ExecutorName

__all__ = ["Wish", "as_worker"]


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line says of the services; None and False leave what there is."""

    service: str | None = None
    object_name: str | None = None
    raw: bool = False
    idempotent: bool | None = None
    executor: ExecutorName | None = None
    handler_timeout_s: float | None = None


def as_worker(found: object, target: str, wish: Wish) -> Worker | AsyncWorker:
    """The worker itself, or one that offers a function, or the methods of an object.

    Args:
        found: What the target names.
        target: For the errors.
        wish: Options.

    Raises:
        click.UsageError: It is none of these, or cannot be served so.
    """
    made = _made_of(found, target, wish)
    try:
        made.set_defaults(executor=wish.executor, timeout=wish.handler_timeout_s)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{target!r} cannot be served: {error}") from error
    if not made.services:
        raise click.UsageError(f"{target!r} has no service: decorate a function with @worker.service('name')")
    return made


def _made_of(found: object, target: str, wish: Wish) -> Worker | AsyncWorker:
    if isinstance(found, (Worker, AsyncWorker)):
        if wish.service is not None or wish.object_name is not None or wish.raw or wish.idempotent is not None:
            raise click.UsageError(
                "--service, --object-name, --raw and --idempotent are for a function or an object; this is a worker"
            )
        return found
    kind = type(found).__name__
    if isinstance(found, type):
        raise click.UsageError(f"{target!r} is a {kind}, neither a worker nor a function nor an object")
    last = target.rpartition(":")[2].rpartition(".")[2]
    made: Worker | AsyncWorker = Worker()
    try:
        if callable(found) and wish.object_name is None:
            if inspect.iscoroutinefunction(found):
                made = AsyncWorker()
            served = wish.service if wish.service is not None else str(getattr(found, "__name__", last))
            made.service(served, idempotent=wish.idempotent, raw=wish.raw)(found)
            return made
        if wish.service is not None:
            raise click.UsageError(f"--service is for a function; {target!r} is an object: --object-name names it")
        made.register(found, wish.object_name or last, idempotent=wish.idempotent, raw=wish.raw)
    except (TypeError, ValueError) as error:
        if not callable(found) and wish.object_name is None and isinstance(error, TypeError):
            text = f"{target!r} is a {kind}, neither a worker nor a function, nor an object that can be served: {error}"
            raise click.UsageError(text) from error
        raise click.UsageError(f"{target!r} cannot be served: {error}") from error
    return made
