"""``python -m brokers ppp`` and ``simple``: run a pirate queue until it is told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from brokers.queue_shell import ParanoidQueue, PirateQueue, SimpleQueue
from brokers.queueing import QueueConfig
from reliable.cli.exits import CommandFailed, exit_code
from reliable.cli.params import BIND_URL, DEFAULT_BROKER, SECONDS, is_loopback
from reliable.cli.processes import (
    log_level_option,
    set_up_logging,
    stop_on_eof_option,
    stop_on_signals,
    watch_stdin,
)
from reliable.config import Heartbeat
from reliable.status import ExitCode

__all__ = ["ppp", "simple"]

_DEFAULT_BACKEND: Final = "tcp://127.0.0.1:5556"
_MIB: Final = 1024 * 1024
_COUNT: Final = click.IntRange(min=1)


def _address_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--frontend``, ``--backend``, ``--insecure``."""
    command = click.option(
        "--insecure", is_flag=True, help="Allow to listen beyond loopback: whoever reaches the port may use it."
    )(command)
    command = click.option(
        "--backend",
        "backends",
        type=BIND_URL,
        multiple=True,
        metavar="URL",
        help=f"Listen here for workers; may be repeated. [default: {_DEFAULT_BACKEND}]",
    )(command)
    return click.option(
        "--frontend",
        "frontends",
        type=BIND_URL,
        multiple=True,
        metavar="URL",
        help="Listen here for clients; may be repeated. tcp://HOST:PORT (port 0: any free one) or ipc://PATH. "
        f"[default: {DEFAULT_BROKER}]",
    )(command)


def _size_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--workers-max``, ``--message-mib-max``."""
    command = click.option(
        "--message-mib-max",
        type=_COUNT,
        default=64,
        show_default=True,
        metavar="MIB",
        help="Largest request or reply; larger ones are dropped.",
    )(command)
    return click.option(
        "--workers-max", type=_COUNT, default=10_000, show_default=True, metavar="N", help="Registered workers."
    )(command)


@click.command()
@_address_options
@click.option(
    "--heartbeat-interval",
    "interval_s",
    type=SECONDS,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two heartbeats to each worker; workers must use about the same.",
)
@click.option(
    "--liveness",
    type=click.IntRange(min=2, max=100),
    default=3,
    show_default=True,
    metavar="N",
    help="A worker that was silent for so many intervals is gone; 3 to 5 are usual.",
)
@click.option(
    "--expiry",
    "expiry_s",
    type=SECONDS,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Age at which a request is dropped, waiting or held: about as long as clients wait, and longer than any run.",
)
@click.option(
    "--redeliveries",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="How often a request whose worker died is handed to another.",
)
@click.option(
    "--queue-max",
    type=_COUNT,
    default=10_000,
    show_default=True,
    metavar="N",
    help="Requests that wait for a worker; one more is dropped.",
)
@click.option(
    "--queue-mib-max",
    type=_COUNT,
    default=256,
    show_default=True,
    metavar="MIB",
    help="What all requests, waiting or held, may take together.",
)
@_size_options
@log_level_option
@stop_on_eof_option
def ppp(
    frontends: Sequence[str],
    backends: Sequence[str],
    insecure: bool,
    interval_s: float,
    liveness: int,
    expiry_s: float,
    redeliveries: int,
    queue_max: int,
    queue_mib_max: int,
    workers_max: int,
    message_mib_max: int,
    log_level: str,
    stop_on_eof: bool,
) -> int:
    """Run a Paranoid Pirate queue (6/PPP): REQ clients in front, PPP workers behind.

    One line on standard output tells when it is ready, and where. SIGTERM and Ctrl-C stop it with exit code 0.

    \b
    Example:
      python -m brokers ppp --frontend tcp://127.0.0.1:5555 --backend tcp://127.0.0.1:5556
      python -m brokers ppp --heartbeat-interval 0.5 --liveness 4 --queue-max 1000 --expiry 10
    """
    config = QueueConfig(
        heartbeat=Heartbeat(interval_s=interval_s, timeout_s=liveness * interval_s),
        expiry_s=expiry_s,
        redeliveries_max=redeliveries,
        queue_max=queue_max,
        queue_bytes_max=queue_mib_max * _MIB,
        workers_max=workers_max,
        message_bytes_max=message_mib_max * _MIB,
    )
    fronts, backs = _addresses(frontends, backends, insecure)
    return _serve(ParanoidQueue(fronts, backs, config), "ppp", log_level, stop_on_eof)


@click.command()
@_address_options
@_size_options
@log_level_option
@stop_on_eof_option
def simple(
    frontends: Sequence[str],
    backends: Sequence[str],
    insecure: bool,
    workers_max: int,
    message_mib_max: int,
    log_level: str,
    stop_on_eof: bool,
) -> int:
    """Run a Simple Pirate queue, for teaching: REQ clients in front, REQ workers behind.

    It has no heartbeats: a worker that dies takes its request along, and after a restart of the queue its workers have
    to be restarted, too. SIGTERM and Ctrl-C stop it with exit code 0.

    \b
    Example:
      python -m brokers simple --frontend tcp://127.0.0.1:5555 --backend tcp://127.0.0.1:5556
    """
    config = QueueConfig(workers_max=workers_max, message_bytes_max=message_mib_max * _MIB)
    fronts, backs = _addresses(frontends, backends, insecure)
    return _serve(SimpleQueue(fronts, backs, config), "simple", log_level, stop_on_eof)


def _addresses(frontends: Sequence[str], backends: Sequence[str], insecure: bool) -> tuple[list[str], list[str]]:
    fronts, backs = list(frontends) or [DEFAULT_BROKER], list(backends) or [_DEFAULT_BACKEND]
    for address in (*fronts, *backs):
        if not insecure and not is_loopback(address):
            raise click.UsageError(f"{address} can be reached from other machines; add --insecure to allow it")
    return fronts, backs


def _serve(queue: PirateQueue, name: str, log_level: str, stop_on_eof: bool) -> int:
    set_up_logging(log_level)
    with contextlib.closing(queue):
        stop_on_signals(queue.stop)
        if stop_on_eof:
            watch_stdin(queue.stop)
        try:
            queue.bind()
        except OSError as error:
            raise CommandFailed(error.strerror or str(error), exit_code(error)) from error
        fronts, backs = " ".join(queue.frontends), " ".join(queue.backends)
        click.echo(f"reliable {name}: listening on {fronts} for clients, {backs} for workers")
        queue.run()
    return ExitCode.OK
