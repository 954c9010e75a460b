"""``reliable worker``: run a worker, a plain function or an object as one, in this process or in several."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import attrs
import click

from reliable import AsyncWorker, Worker
from reliable.cli.exits import CommandFailed
from reliable.cli.loading import load_object
from reliable.cli.params import BROKER_URL, DEFAULT_BROKER, SECONDS, SERVICE
from reliable.cli.processes import log_level_option, set_up_logging, stop_on_eof_option, watch_stdin
from reliable.cli.worker_health import HealthFile
from reliable.cli.worker_processes import Processes, die_with, tell_loaded
from reliable.cli.worker_reload import check_watchfiles, places_of, watch
from reliable.cli.worker_target import Wish, as_worker
from reliable.handling import ExecutorName
from reliable.status import ExitCode

__all__ = ["worker"]

_PATIENCE_S = 3.0
"""How long no broker may answer before the user is told that we are still trying."""
_PROCESSES_MAX = 1000


@attrs.frozen(kw_only=True)
class _Options:
    """What was given on the command line, but for what the parent of several processes keeps to itself."""

    target: str
    brokers: tuple[str, ...]
    concurrency: int | None
    drain_timeout_s: float | None
    wish: Wish
    log_level: str

    def arguments(self) -> list[str]:
        """The same as arguments again, for child processes."""
        wish = self.wish
        given = {
            "--concurrency": self.concurrency,
            "--drain-timeout": self.drain_timeout_s,
            "--service": wish.service,
            "--object-name": wish.object_name,
            "--executor": wish.executor,
            "--handler-timeout": wish.handler_timeout_s,
        }
        flags = ["--raw"] * wish.raw
        if wish.idempotent is not None:
            flags.append("--idempotent" if wish.idempotent else "--not-idempotent")
        return [
            *(f"--broker={broker}" for broker in self.brokers),
            *(f"{name}={value}" for name, value in given.items() if value is not None),
            *flags,
            f"--log-level={self.log_level}",
            "--",
            self.target,
        ]


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
    help="How many requests to handle at once, in each process. [default: the worker's own number, else 1]",
)
@click.option(
    "--executor",
    type=click.Choice(get_args(ExecutorName)),
    help="Where handlers run that do not say so themselves. [default: coroutine functions as tasks, others in threads]",
)
@click.option(
    "--handler-timeout",
    "handler_timeout_s",
    type=SECONDS,
    metavar="SECONDS",
    help="How long a handler may run that does not say so itself. [default: no limit]",
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=SECONDS,
    metavar="SECONDS",
    help="How long running handlers may take after SIGTERM or Ctrl-C. [default: the worker's own number, else 10]",
)
@click.option(
    "--processes",
    type=click.IntRange(1, _PROCESSES_MAX),
    metavar="N",
    help="Run so many processes, and replace those that die. [default: this process alone]",
)
@click.option("--reload", is_flag=True, help="Start again when a .py file changes: for development.")
@click.option(
    "--health-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write this file anew each second: 'ready' or, without a broker, 'waiting'. For probes.",
)
@click.option("--service", type=SERVICE, help="For a function: the name to serve it under. [default: its own]")
@click.option(
    "--object-name",
    type=SERVICE,
    metavar="NAME",
    help="For an object: offer its public methods as NAME.method. [default: the OBJECT in MODULE:OBJECT]",
)
@click.option("--raw", is_flag=True, help="For a function or an object: bytes in and out, not encoded arguments.")
@click.option(
    "--idempotent/--not-idempotent",
    default=None,
    help="For a function or an object: whether it may safely run twice. [default: the caller decides]",
)
@log_level_option
@stop_on_eof_option
@click.option("--supervised", hidden=True, help="PID:FD of the command that started this one.")
def worker(
    target: str,
    brokers: Sequence[str],
    concurrency: int | None,
    executor: ExecutorName | None,
    handler_timeout_s: float | None,
    drain_timeout_s: float | None,
    processes: int | None,
    reload: bool,
    health_file: Path | None,
    service: str | None,
    object_name: str | None,
    raw: bool,
    idempotent: bool | None,
    log_level: str,
    stop_on_eof: bool,
    supervised: str | None,
) -> int:
    """Run the worker that MODULE:OBJECT names; the current directory is searched for the module first.

    OBJECT is a reliable.Worker or AsyncWorker, a plain function, or an object whose public methods are to be served.
    One line on standard output tells when a broker has taken it in. Brokers that cannot be reached are tried again for
    ever. SIGTERM and Ctrl-C let running handlers finish; a second one does not.

    Ends with 0 when all handlers were done, with 3 if some still ran when their time was up.

    \b
    Example:
      reliable worker my_services:worker --broker tcp://127.0.0.1:5555 --concurrency 4
      reliable worker math:sqrt
      reliable worker my_services:shop --object-name shop --handler-timeout 20
      reliable worker my_services:worker --processes 4 --drain-timeout 25
      reliable worker my_services:worker --reload
    """
    wish = Wish(
        service=service,
        object_name=object_name,
        raw=raw,
        idempotent=idempotent,
        executor=executor,
        handler_timeout_s=handler_timeout_s,
    )
    options = _Options(
        target=target,
        brokers=tuple(brokers),
        concurrency=concurrency,
        drain_timeout_s=drain_timeout_s,
        wish=wish,
        log_level=log_level,
    )
    set_up_logging(log_level)
    sys.path.insert(0, str(Path.cwd()))
    if supervised is None and (processes is not None or reload):
        if health_file is not None:
            raise click.UsageError("--health-file tells of one process: not with --processes or --reload")
        return _run_several(options, processes or 1, reload, stop_on_eof)
    return _run_one(options, stop_on_eof, supervised, health_file)


def _run_several(options: _Options, count: int, reload: bool, stop_on_eof: bool) -> int:
    watching = None
    if reload:
        check_watchfiles()
        module = options.target.partition(":")[0]
        watching = functools.partial(watch, places_of(module, Path.cwd().resolve()))

    async def run() -> int:
        return await Processes(options.arguments(), count, watching).run(stop_on_eof=stop_on_eof)

    return asyncio.run(run())


def _run_one(options: _Options, stop_on_eof: bool, supervised: str | None, health_file: Path | None) -> int:
    parent, fd = map(int, supervised.split(":")) if supervised is not None else (0, -1)
    if supervised is not None:
        die_with(parent)
    running = as_worker(load_object(options.target), options.target, options.wish)
    if options.brokers or not running.brokers:
        running.brokers = list(options.brokers) or [DEFAULT_BROKER]
    if options.concurrency is not None:
        running.concurrency = options.concurrency
    if options.drain_timeout_s is not None:
        running.drain_timeout = options.drain_timeout_s
    if stop_on_eof:
        watch_stdin(running.stop)
    if supervised is not None:
        tell_loaded(fd, running.drain_timeout)
    health = HealthFile(health_file)
    unfinished = _run(running, health, f" (process {os.getpid()})" if supervised is not None else "")
    if unfinished:
        raise CommandFailed(f"stopped while {unfinished} handlers were still running", ExitCode.TIMEOUT)
    return ExitCode.OK


def _run(running: Worker | AsyncWorker, health: HealthFile, note: str) -> int:
    if isinstance(running, AsyncWorker):
        return asyncio.run(_run_async(running, health, note))
    threading.Thread(target=_announce, args=(running, note), name="announce", daemon=True).start()
    with health.kept(running):
        return running.run()


def _announce(running: Worker, note: str) -> None:
    if not running.wait_ready(_PATIENCE_S):
        _still_trying(running)
        while not running.wait_ready(_PATIENCE_S):
            pass
    _ready(running, note)


async def _run_async(running: AsyncWorker, health: HealthFile, note: str) -> int:
    announcing = asyncio.create_task(_announce_async(running, note))
    try:
        async with health.kept_in_loop(running):
            return await running.run()
    finally:
        announcing.cancel()


async def _announce_async(running: AsyncWorker, note: str) -> None:
    if not await running.wait_ready(_PATIENCE_S):
        _still_trying(running)
        while not await running.wait_ready(_PATIENCE_S):
            pass
    _ready(running, note)


def _still_trying(running: Worker | AsyncWorker) -> None:
    click.echo(f"reliable worker: no answer yet from {' '.join(running.brokers)}; still trying", err=True)


def _ready(running: Worker | AsyncWorker, note: str) -> None:
    snapshot = running.snapshot()
    registered = [broker.address for broker in snapshot.brokers if broker.state == "registered"] if snapshot else []
    where = " ".join(registered or running.brokers)
    click.echo(f"reliable worker: ready at {where} for {' '.join(running.services)}{note}")
