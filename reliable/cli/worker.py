"""``reliable worker``: run a worker, or a plain function as one."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from reliable import AsyncWorker, Worker
from reliable.cli.exits import CommandFailed
from reliable.cli.loading import load_object
from reliable.cli.params import BROKER_URL, DEFAULT_BROKER, SERVICE
from reliable.cli.processes import log_level_option, set_up_logging, stop_on_eof_option, watch_stdin
from reliable.status import ExitCode

__all__ = ["worker"]

_PATIENCE_S = 3.0
"""How long no broker may answer before the user is told that we are still trying."""


@click.command()
@click.argument("target", metavar="MODULE:OBJECT")
@click.option(
    "--broker",
    "brokers",
    type=BROKER_URL,
    multiple=True,
    metavar="URL",
    help=f"Register here; may be repeated. [default: the worker's own list, else {DEFAULT_BROKER}]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    help="How many requests to handle at once. [default: the worker's own number, else 1]",
)
@click.option("--service", "name", type=SERVICE, help="For a function: the name to serve it under. [default: its own]")
@click.option("--raw", is_flag=True, help="For a function: it takes and returns bytes, not encoded arguments.")
@click.option(
    "--idempotent/--not-idempotent",
    default=None,
    help="For a function: whether it may safely run twice. [default: the caller decides]",
)
@log_level_option
@stop_on_eof_option
def worker(
    target: str,
    brokers: Sequence[str],
    concurrency: int | None,
    name: str | None,
    raw: bool,
    idempotent: bool | None,
    log_level: str,
    stop_on_eof: bool,
) -> int:
    """Run the worker that MODULE:OBJECT names; the current directory is searched for the module first.

    OBJECT is a reliable.Worker or AsyncWorker, or a plain function. One line on standard output tells when a broker
    has taken it in. Brokers that cannot be reached are tried again for ever. SIGTERM and Ctrl-C let running handlers
    finish; a second one does not.

    \b
    Example:
      reliable worker my_services:worker --broker tcp://127.0.0.1:5555 --concurrency 4
      reliable worker math:sqrt
    """
    set_up_logging(log_level)
    sys.path.insert(0, str(Path.cwd()))
    running = _as_worker(load_object(target), target, name, raw, idempotent)
    if not running.services:
        raise click.UsageError(f"{target!r} has no service: decorate a function with @worker.service('name')")
    if brokers or not running.brokers:
        running.brokers = list(brokers) or [DEFAULT_BROKER]
    if concurrency is not None:
        running.concurrency = concurrency
    if stop_on_eof:
        watch_stdin(running.stop)
    unfinished = _run(running)
    if unfinished:
        raise CommandFailed(f"stopped while {unfinished} handlers were still running")
    return ExitCode.OK


def _as_worker(
    found: object, target: str, name: str | None, raw: bool, idempotent: bool | None
) -> Worker | AsyncWorker:
    if isinstance(found, (Worker, AsyncWorker)):
        if name is not None or raw or idempotent is not None:
            raise click.UsageError("--service, --raw and --idempotent are for a plain function; this is a worker")
        return found
    if not callable(found) or isinstance(found, type):
        raise click.UsageError(f"{target!r} is a {type(found).__name__}, neither a worker nor a function")
    made: Worker | AsyncWorker = AsyncWorker() if inspect.iscoroutinefunction(found) else Worker()
    served = name if name is not None else str(getattr(found, "__name__", target.rpartition(":")[2]))
    try:
        made.service(served, idempotent=idempotent, raw=raw)(found)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{target!r} cannot be served: {error}") from error
    return made


def _run(running: Worker | AsyncWorker) -> int:
    if isinstance(running, AsyncWorker):
        return asyncio.run(_run_async(running))
    threading.Thread(target=_announce, args=(running,), name="announce", daemon=True).start()
    return running.run()


def _announce(running: Worker) -> None:
    if not running.wait_ready(_PATIENCE_S):
        _still_trying(running)
        while not running.wait_ready(_PATIENCE_S):
            pass
    _ready(running)


async def _run_async(running: AsyncWorker) -> int:
    announcing = asyncio.create_task(_announce_async(running))
    try:
        return await running.run()
    finally:
        announcing.cancel()


async def _announce_async(running: AsyncWorker) -> None:
    if not await running.wait_ready(_PATIENCE_S):
        _still_trying(running)
        while not await running.wait_ready(_PATIENCE_S):
            pass
    _ready(running)


def _still_trying(running: Worker | AsyncWorker) -> None:
    click.echo(f"reliable worker: no answer yet from {' '.join(running.brokers)}; still trying", err=True)


def _ready(running: Worker | AsyncWorker) -> None:
    snapshot = running.snapshot()
    registered = [broker.address for broker in snapshot.brokers if broker.state == "registered"] if snapshot else []
    where = " ".join(registered or running.brokers)
    click.echo(f"reliable worker: ready at {where} for {' '.join(running.services)}")
