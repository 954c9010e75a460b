#!/usr/bin/env python3
"""Look for planted bugs with real processes under real faults, and write down who found them.

    nice scripts/hunt_planted_bugs.py
    nice scripts/hunt_planted_bugs.py --only vetoed-hedge --only no-token-check --again 5 --clean 3

Each bug is patched into every process of its scenario; the table says which check found it and after how many runs.
Then each scenario runs without a bug: what complains there complains always. The exit code is 1 if a bug was missed, or
if a clean run failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import attrs

from chaos.planted.hunts import HUNTS, RUNS_MAX, Hunt, hunt
from chaos.running.catalogue import find
from chaos.running.inside import run


def _quiet(_kind: str, _text: str) -> None:
    """The table at the end says what matters."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[one.bug for one in HUNTS], help="may be repeated")
    parser.add_argument("--again", type=int, default=1, metavar="N", help="hunt each N times, with other seeds")
    parser.add_argument("--runs", type=int, default=RUNS_MAX, metavar="N", help="give a hunt up after N runs")
    parser.add_argument("--clean", type=int, default=1, metavar="N", help="clean runs of each scenario")
    chosen = parser.parse_args(arguments)
    wanted = [one for one in HUNTS if not chosen.only or one.bug in chosen.only]
    missed = [one.bug for one in wanted if not _hunted(one, chosen.again, chosen.runs)]
    dirty = []
    for name, short in dict.fromkeys((one.scenario, one.short) for one in wanted):
        for seed in range(1, chosen.clean + 1):
            report = run(find(name), seed=seed, short=short, say=_quiet)
            broken = [check.name for check in report.checks if not check.ok]
            print(f"{name} without a bug, seed {seed}: {report.verdict} {report.reason}{', '.join(broken)}", flush=True)
            dirty += [name] if report.verdict == "failed" else []
    print(f"{len(wanted) - len(missed)} of {len(wanted)} found; missed: {', '.join(missed) or 'none'}")
    return 1 if missed or dirty else 0


def _hunted(one: Hunt, again: int, runs_max: int) -> bool:
    """Whether each of the hunts for it found it; prints a row of the table for it."""
    counts, began = [], time.monotonic()
    for number in range(again):
        came = hunt(attrs.evolve(one, seed=one.seed + number * runs_max), _quiet, runs_max)
        if not came.found:
            print(f"| `{one.bug}` | `{one.scenario}` | missed in {came.runs} runs | {came.report.reason} |", flush=True)
            return False
        counts.append(came.runs)
    runs = ", ".join(map(str, counts))
    took_s = (time.monotonic() - began) / sum(counts)
    print(f"| `{one.bug}` | `{one.scenario}` | {one.found_by} | {runs} | {took_s:.0f} s |", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
