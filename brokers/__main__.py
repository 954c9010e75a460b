"""``python -m brokers NAME``: the brokers by name; the same code as ``reliable broker``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from reliable.cli.broker import broker
from reliable.cli.main import run

__all__ = ["main"]

_HELP = """Run a broker.

\b
Example:
  python -m brokers majordomo --bind tcp://127.0.0.1:5555
"""

_group = click.Group(
    "brokers",
    commands={"majordomo": broker, "broker": broker},
    help=_HELP,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(args: Sequence[str] | None = None) -> int:
    """Run ``python -m brokers``; see ``reliable.cli.main.main``."""
    return run(_group, args, "python -m brokers")


if __name__ == "__main__":
    sys.exit(main())
