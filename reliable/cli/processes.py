"""What the commands that run for long share: signals, end of input, log output."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

__all__ = ["log_level_option", "set_up_logging", "stop_on_eof_option", "stop_on_signals", "watch_stdin"]


def stop_on_signals(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call ``stop`` (which must be safe in a signal handler) instead of ending the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop())


def watch_stdin(stop: Callable[[], None]) -> None:
    """Call ``stop`` once, from another thread, when standard input ends."""

    def wait() -> None:
        # Not sys.stdin: a daemon thread that holds its lock makes the interpreter abort at shutdown.
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=wait, name="stdin-watch", daemon=True).start()


def set_up_logging(level: str) -> None:
    """Log to standard error, one line per record."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def log_level_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--log-level``."""
    levels = click.Choice(["debug", "info", "warning", "error"], case_sensitive=False)
    return click.option(
        "--log-level", type=levels, default="warning", show_default=True, help="Log this and above to standard error."
    )(command)


def stop_on_eof_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--stop-on-eof``."""
    text = "Also stop when standard input ends: for a parent process that must not leave this one behind."
    return click.option("--stop-on-eof", is_flag=True, help=text)(command)
