"""What the commands that run for long share: signals, end of input, log output."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

__all__ = [
    "log_level_option",
    "set_up_logging",
    "signals_as_ctrl_c",
    "stop_on_eof_option",
    "stop_on_signals",
    "watch_stdin",
]


def stop_on_signals(stop: Callable[[], None], now: Callable[[], None] | None = None) -> None:
    """SIGTERM and SIGINT call ``stop`` instead of ending the process.

    Args:
        stop: Must be safe in a signal handler.
        now: The same, for every signal after the first; None: ``stop`` again.
    """
    calls = itertools.chain([stop], itertools.repeat(now or stop))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: next(calls)())


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP clean up as Ctrl-C does while the block runs, instead of ending the process at once."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
