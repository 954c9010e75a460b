"""``python -m chaos``: the same as ``reliable chaos``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reliable.cli.chaos import chaos
from reliable.cli.main import run

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run ``python -m chaos``; see ``reliable.cli.main.main``."""
    return run(chaos, args, "python -m chaos")


if __name__ == "__main__":
    sys.exit(main())
