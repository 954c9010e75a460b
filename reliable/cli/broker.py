"""``reliable broker``: run a Majordomo broker until it is told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from brokers import BrokerConfig, MajordomoBroker
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

__all__ = ["broker"]

_SILENT_HEARTBEATS = 3


@click.command()
@click.option(
    "--bind",
    "binds",
    type=BIND_URL,
    multiple=True,
    metavar="URL",
    help="Listen here; may be repeated. tcp://HOST:PORT (port 0: any free one) or ipc://PATH. "
    f"[default: {DEFAULT_BROKER}]",
)
@click.option("--insecure", is_flag=True, help="Allow to listen beyond loopback: whoever reaches the port may use it.")
@click.option(
    "--heartbeat",
    "heartbeat_s",
    type=SECONDS,
    metavar="SECONDS",
    help=f"Between two heartbeats; a worker silent for {_SILENT_HEARTBEATS} of them is lost. [default: 1]",
)
@click.option(
    "--drain-timeout",
    "drain_s",
    type=click.FloatRange(min=0),
    default=BrokerConfig().drain_s,
    show_default=True,
    metavar="SECONDS",
    help="How long, when told to stop, to wait for what workers hold; 0: not at all.",
)
@log_level_option
@stop_on_eof_option
def broker(
    binds: Sequence[str],
    insecure: bool,
    heartbeat_s: float | None,
    drain_s: float,
    log_level: str,
    stop_on_eof: bool,
) -> int:
    """Run a Majordomo broker (7/MDP and 18/MDP on one socket).

    One line on standard output tells when it is ready, and where. SIGTERM and Ctrl-C stop it: it takes no new calls,
    waits for what workers hold, tells workers and clients, and exits with 0. A second signal ends the wait.

    \b
    Example:
      reliable broker --bind tcp://127.0.0.1:5555 --bind ipc:///run/reliable.sock
    """
    addresses = list(binds) or [DEFAULT_BROKER]
    _refuse_open_addresses(addresses, insecure)
    set_up_logging(log_level)
    with contextlib.closing(MajordomoBroker(addresses, _config(heartbeat_s, drain_s))) as running:
        stop_on_signals(running.stop, lambda: running.stop(0.0))
        if stop_on_eof:
            watch_stdin(running.stop)
        _bind(running)
        where = " ".join(running.endpoints)
        click.echo(f"reliable broker: listening on {where} (life {running.snapshot().life})")
        running.run()
    return ExitCode.OK


def _refuse_open_addresses(addresses: Sequence[str], insecure: bool) -> None:
    for address in addresses:
        if not insecure and not is_loopback(address):
            raise click.UsageError(f"{address} can be reached from other machines; add --insecure to allow it")


def _config(heartbeat_s: float | None, drain_s: float) -> BrokerConfig:
    if heartbeat_s is None:
        return BrokerConfig(drain_s=drain_s)
    heartbeat = Heartbeat(interval_s=heartbeat_s, timeout_s=_SILENT_HEARTBEATS * heartbeat_s)
    return BrokerConfig(heartbeat=heartbeat, drain_s=drain_s)


def _bind(running: MajordomoBroker) -> None:
    try:
        running.bind()
    except OSError as error:
        raise CommandFailed(error.strerror or str(error), exit_code(error)) from error
