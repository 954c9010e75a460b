"""``reliable status``: what brokers say about themselves, their services and their workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import attrs
import click

from reliable import Client
from reliable.cli.exits import describe, exit_code, message_of
from reliable.cli.params import BROKER_URL, DEFAULT_BROKER, SECONDS
from reliable.cli.status_table import render
from reliable.errors import ReliableError, RemoteProtocolError, RequestError
from reliable.status import ExitCode
from reliable.types import Frames
from reliable.wire.mmi import FOUND, STATUS_QUERY

__all__ = ["STATUS_SERVICE", "BrokerReport", "parse_status", "status"]

_CLEAR: Final = "\x1b[H\x1b[2J"
STATUS_SERVICE: Final = STATUS_QUERY.decode()


@attrs.frozen
class BrokerReport:
    """What one broker answered, or why it did not."""

    broker: str
    snapshot: dict[str, Any] | None = None
    error: ReliableError | None = None

    def value(self) -> dict[str, object]:
        """For ``--json``."""
        if self.error is None:
            return {"broker": self.broker, **(self.snapshot or {})}
        outcome = self.error.outcome.name if isinstance(self.error, RequestError) else None
        return {
            "broker": self.broker,
            "error": type(self.error).__name__,
            "outcome": outcome,
            "message": message_of(self.error),
        }


@click.command()
@click.option(
    "--broker",
    "brokers",
    type=BROKER_URL,
    multiple=True,
    default=[DEFAULT_BROKER],
    show_default=True,
    metavar="URL",
    help="The broker to ask; may be repeated.",
)
@click.option("--timeout", "timeout_s", type=SECONDS, default=3.0, show_default=True, metavar="SECONDS")
@click.option("--json", "as_json", is_flag=True, help='Print one JSON object per round: {"brokers": [...]}.')
@click.option("--watch", "watch_s", type=SECONDS, metavar="SECONDS", help="Ask again after so long, until Ctrl-C.")
def status(brokers: Sequence[str], timeout_s: float, as_json: bool, watch_s: float | None) -> int:
    """Show the services and workers of a broker: states, queue lengths, counters.

    \b
    Example:
      reliable status --broker tcp://127.0.0.1:5555
      reliable status --json | jq '.brokers[0].services'
    """
    while True:
        reports = [_ask(broker, timeout_s) for broker in brokers]
        _show(reports, as_json, clear=watch_s is not None)
        if watch_s is None:
            return _finish(reports)
        time.sleep(watch_s)


def _ask(broker: str, timeout_s: float) -> BrokerReport:
    try:
        with Client(broker, timeout=timeout_s) as client:
            return BrokerReport(broker, snapshot=parse_status(client.request(STATUS_SERVICE, b"")))
    except ReliableError as error:
        return BrokerReport(broker, error=error)


def parse_status(frames: Frames) -> dict[str, Any]:
    """The snapshot in an answer to ``mmi.reliable.status``.

    Raises:
        RemoteProtocolError: The broker does not know the question, or answers something else.
    """
    if len(frames) < 2 or frames[0] != FOUND:
        code = frames[0].decode(errors="replace") if frames else "nothing"
        raise RemoteProtocolError(f"the broker answers {code} to the status query: it is not one of ours")
    try:
        value = json.loads(frames[1])
    except ValueError as error:
        raise RemoteProtocolError(f"the broker's status is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError("the broker's status is not a JSON object")
    return value


def _show(reports: Sequence[BrokerReport], as_json: bool, clear: bool) -> None:
    if as_json:
        click.echo(json.dumps({"brokers": [report.value() for report in reports]}, ensure_ascii=False))
        return
    tables = [render(report.broker, report.snapshot) for report in reports if report.snapshot is not None]
    if clear and sys.stdout.isatty():
        click.echo(_CLEAR, nl=False)
    if tables:
        click.echo("\n\n".join(tables))
    for report in reports:
        if report.error is not None and clear:
            click.echo(f"{report.broker}: {describe(report.error)}")


def _finish(reports: Sequence[BrokerReport]) -> int:
    code = ExitCode.OK
    for report in reports:
        if report.error is not None:
            click.echo(f"reliable: {report.broker}: {describe(report.error)}", err=True)
            code = code or exit_code(report.error)
    return code
