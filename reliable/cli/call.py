"""``reliable call``: one request from the shell."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import click

from reliable import MSGPACK, RAW, Client, Dialect
from reliable.cli.exits import describe, exit_code, message_of
from reliable.cli.params import BROKER_URL, DEFAULT_BROKER, SECONDS, SERVICE
from reliable.cli.values import frame_value
from reliable.errors import ReliableError, RequestError
from reliable.status import ExitCode
from reliable.types import Frames

__all__ = ["call"]

_STDIN: Final = "-"


@click.command()
@click.argument("service", type=SERVICE)
@click.argument("body", required=False, default="")
@click.option(
    "--broker",
    "brokers",
    type=BROKER_URL,
    multiple=True,
    default=[DEFAULT_BROKER],
    show_default=True,
    metavar="URL",
    help="A broker; repeat it for others to fail over to.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=SECONDS,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Everything together: connecting, queueing, all attempts, the run, the reply.",
)
@click.option(
    "--idempotent/--not-idempotent",
    default=None,
    help="Whether the request may safely run twice, and so may be sent again after a loss. "
    "[default: what the service declares]",
)
@click.option(
    "--fail-fast/--wait",
    default=False,
    help="If no worker offers the service: end at once, or wait for one until the timeout. [default: --wait]",
)
@click.option(
    "--args", "arguments", metavar="JSON", help="Call a typed service: a list of arguments, or an object of named ones."
)
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    default=Dialect.MDP.value,
    show_default=True,
    help="What the other side speaks: mdp is a broker of this library; all others know no calls, only requests.",
)
@click.option("--stream", "streamed", is_flag=True, help="Print the parts of a reply as they come, one per line.")
@click.option("--one-way", is_flag=True, help="Return as soon as a broker holds the call; print nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply, or the error, as one JSON object.")
def call(
    service: str,
    body: str,
    brokers: Sequence[str],
    timeout_s: float,
    idempotent: bool | None,
    fail_fast: bool,
    arguments: str | None,
    dialect: str,
    streamed: bool,
    one_way: bool,
    as_json: bool,
) -> int:
    """Call SERVICE with BODY and print the reply.

    BODY is text; `-` sends what standard input holds, byte for byte, and then the reply comes out byte for byte too.
    A reply to text, or one shown on a terminal, gets a line break at its end.

    \b
    Example:
      reliable call echo hello
      reliable call digest - --idempotent < photo.jpg
      reliable call add --args '[1, 2]'
      reliable call count --args '[3]' --stream
      reliable call any hello --dialect req --broker tcp://127.0.0.1:5570

    Exit codes: 0 reply, 3 timeout, 4 no such service, 5 the handler failed, 6 no broker reached, 7 overloaded,
    8 worker or broker lost, 9 too large, 10 refused, 2 wrong usage. The error line says whether the work may have run.
    """
    if streamed and one_way:
        raise click.UsageError("--stream and --one-way exclude each other")
    if one_way and dialect != Dialect.MDP.value:
        raise click.UsageError(f"the dialect {dialect!r} has no one-way calls")
    typed = None if arguments is None else _parse_arguments(arguments, body)
    exact = body == _STDIN
    frame = b"" if typed is not None else _frame(body)
    started = time.monotonic()
    try:
        codec = RAW if typed is None else MSGPACK
        with Client(*brokers, timeout=timeout_s, dialect=dialect, codec=codec) as client:
            chosen = client.options(idempotent=idempotent, fail_fast=fail_fast)
            args, kwargs = typed or ([frame], {})
            if one_way:
                chosen.send(service, *args, **kwargs)
            elif streamed:
                _print_parts(chosen.stream(service, *args, **kwargs), as_json, typed is not None)
            elif typed is not None:
                _print_value(chosen.call(service, *args, **kwargs), as_json, time.monotonic() - started)
            else:
                _print_frames(chosen.request(service, frame), as_json, exact, time.monotonic() - started)
    except ReliableError as error:
        return _report(error, as_json)
    return ExitCode.OK


def _frame(body: str) -> bytes:
    return sys.stdin.buffer.read() if body == _STDIN else body.encode("utf-8", "surrogateescape")


def _print_parts(parts: Iterable[object], as_json: bool, typed: bool) -> None:
    for part in parts:
        if typed:
            _print_json({"value": part} if as_json else part)
        else:
            frames = [part] if isinstance(part, bytes) else list(cast("Frames", part))
            if as_json:
                _print_json({"frames": [frame_value(frame) for frame in frames]})
            else:
                sys.stdout.buffer.write(b"".join(frames) + b"\n")
        sys.stdout.flush()


def _parse_arguments(text: str, body: str) -> tuple[list[Any], dict[str, Any]]:
    if body:
        raise click.UsageError("--args and BODY exclude each other")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--args is not JSON: {error}") from error
    if isinstance(value, list):
        return value, {}
    if isinstance(value, dict):
        return [], value
    raise click.UsageError("--args is neither a JSON list nor a JSON object")


def _print_frames(frames: Frames, as_json: bool, exact: bool, elapsed_s: float) -> None:
    if as_json:
        _print_json({"frames": [frame_value(frame) for frame in frames], "elapsed_s": round(elapsed_s, 6)})
        return
    break_lines = not exact or sys.stdout.isatty()
    for frame in frames:
        sys.stdout.buffer.write(frame)
        if break_lines and not frame.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _print_value(value: object, as_json: bool, elapsed_s: float) -> None:
    _print_json({"value": value, "elapsed_s": round(elapsed_s, 6)} if as_json else value)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, default=_unusual))


def _unusual(value: object) -> object:
    return frame_value(value) if isinstance(value, bytes) else str(value)


def _report(error: ReliableError, as_json: bool) -> int:
    if as_json:
        _print_json(_error_value(error))
    click.echo(f"reliable: {describe(error)}", err=True)
    return exit_code(error)


def _error_value(error: ReliableError) -> dict[str, object]:
    value: dict[str, object] = {"error": type(error).__name__, "message": message_of(error)}
    if isinstance(error, RequestError):
        value |= {
            "outcome": error.outcome.name,
            "service": error.service,
            "attempts": error.attempts,
            "elapsed_s": round(error.elapsed_s, 6),
            "retry_after_s": error.retry_after_s,
            "call_id": error.call_id.hex(),
            "story": list(error.story),
        }
    return value
