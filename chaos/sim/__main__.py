"""``python -m chaos.sim SEED [SEED] [--theme T] [--verbose] [--hash]``: the random worlds of a seed, or of many."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from chaos.sim.random_world import Report, run_world
from chaos.sim.themes import ANYTHING, SHORT_THEMES, THEMES

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; 0 if the checkers found nothing, else 1."""
    parser = argparse.ArgumentParser(prog="python -m chaos.sim", description=__doc__)
    parser.add_argument("seed", type=int, help="the seed of a world")
    parser.add_argument("last", type=int, nargs="?", help="run every seed up to this one")
    parser.add_argument("--theme", choices=[*THEMES, "all"], default=ANYTHING.name, help="what worlds are drawn from")
    parser.add_argument("--verbose", action="store_true", help="print the trace, every message in words")
    parser.add_argument("--hash", action="store_true", help="print nothing but the hash of each trace")
    chosen = parser.parse_args(arguments)
    failed = 0
    for name in SHORT_THEMES if chosen.theme == "all" else [chosen.theme]:
        for seed in range(chosen.seed, (chosen.seed if chosen.last is None else chosen.last) + 1):
            report = run_world(seed, verbose=chosen.verbose, theme=THEMES[name])
            failed += bool(report.problems)
            _print(report, verbose=chosen.verbose, only_hash=chosen.hash)
    return 1 if failed else 0


def _print(report: Report, *, verbose: bool, only_hash: bool) -> None:
    if only_hash:
        print(report.trace_hash)
        return
    if verbose:
        print(*report.trace, sep="\n")
    if verbose or report.problems:
        print(*report.faults, sep="\n")
    print(report.in_one_line())
    print(*[f"  {problem}" for problem in report.problems], sep="\n", end="\n" if report.problems else "")


if __name__ == "__main__":
    sys.exit(main())
