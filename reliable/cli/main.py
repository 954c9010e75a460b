"""The entry point ``reliable``: whatever goes wrong becomes one line on standard error and a documented exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Final

import click

from reliable.cli.bench import bench
from reliable.cli.broker import broker
from reliable.cli.call import call
from reliable.cli.chaos import chaos
from reliable.cli.demo import demo
from reliable.cli.doctor import doctor
from reliable.cli.exits import CommandFailed, describe, exit_code, one_line
from reliable.cli.status import status
from reliable.cli.worker import worker
from reliable.errors import ReliableError
from reliable.status import ExitCode

__all__ = ["cli", "main", "run"]

_TRACEBACK_VARIABLE: Final = "RELIABLE_TRACEBACK"
"""Set to 1, it shows where an error came from: for reports of defects."""


def _version() -> str:
    try:
        return metadata.version("reliable")
    except metadata.PackageNotFoundError:
        return "(not installed)"


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="reliable")
@click.pass_context
def cli(context: click.Context) -> None:
    """Request/reply over ZeroMQ that always ends.

    \b
    Example, in three terminals:
      reliable broker
      reliable worker my_services:worker
      reliable call echo hello

    `reliable demo` shows what it is for: it kills workers and brokers while thousands of calls are made.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (broker, worker, call, status, demo, chaos, bench, doctor):
    cli.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit code (``reliable.status.ExitCode``). It never raises for anything that a user can cause.
    """
    return run(cli, args, "reliable")


def run(group: click.Command, args: Sequence[str] | None, prog_name: str) -> int:
    """Run a command and turn every way it can end into an exit code; see ``main``."""
    try:
        # Not group.main(): it prints an empty line of its own at Ctrl-C.
        with group.make_context(prog_name, list(sys.argv[1:] if args is None else args)) as context:
            code = group.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:
        return _report(error, prog_name)


def _report(error: Exception, prog_name: str) -> int:
    if os.environ.get(_TRACEBACK_VARIABLE) == "1":
        traceback.print_exc()
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx is not None else prog_name
            return _fail(f"{error.format_message()} (see '{path} --help')", ExitCode.USAGE)
        case click.ClickException():
            return _fail(error.format_message(), ExitCode.FAILURE)
        case CommandFailed():
            return _fail(str(error), error.code)
        case ReliableError():
            return _fail(describe(error), exit_code(error))
        case OSError():
            return _fail(str(error), exit_code(error))
        case _:
            where = f"set {_TRACEBACK_VARIABLE}=1 to see where"
            return _fail(f"unexpected {type(error).__name__}: {error} ({where})", ExitCode.FAILURE)


def _fail(message: str, code: ExitCode) -> int:
    click.echo(f"reliable: {one_line(message)}", err=True)
    return code


def _reader_gone() -> int:
    # Whoever read our output has left (`reliable status --watch 1 | head`). Nothing more can be written, not even at
    # interpreter exit, which would print a traceback of its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.FAILURE
