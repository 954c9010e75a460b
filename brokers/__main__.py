"""``python -m brokers NAME``: the brokers by name; without a name, the Majordomo broker, as ``reliable broker``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from reliable.cli.broker import broker
from reliable.cli.main import run
from reliable.cli.queues import ppp, simple

__all__ = ["main"]

_DEFAULT: Final = "majordomo"
_HELP: Final = ("-h", "--help")

_TEXT: Final = """Run a broker: majordomo (the default) for services, ppp or simple for a queue of like workers.

\b
Example:
  python -m brokers majordomo --bind tcp://127.0.0.1:5555
  python -m brokers ppp --frontend tcp://127.0.0.1:5555 --backend tcp://127.0.0.1:5556
"""


class _Group(click.Group):
    """Takes options without a name in front for those of the default."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in _HELP):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


_group = _Group(
    "brokers",
    commands={_DEFAULT: broker, "broker": broker, "ppp": ppp, "simple": simple},
    help=_TEXT,
    no_args_is_help=False,
    context_settings={"help_option_names": list(_HELP)},
)


def main(args: Sequence[str] | None = None) -> int:
    """Run ``python -m brokers``; see ``reliable.cli.main.main``."""
    return run(_group, args, "python -m brokers")


if __name__ == "__main__":
    sys.exit(main())
