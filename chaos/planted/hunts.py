"""Known mistakes that real processes under real faults show as well, and who finds each.

The simulator finds all of them (``chaos.planted.catalogue``); these are the ones for which a scenario makes the
difference visible from outside, within a few runs. A hunt runs its scenario with the bug in every process, and again
with the next seed as long as the check that is named finds nothing. ``scripts/hunt_planted_bugs.py`` runs them all.
"""

from __future__ import annotations

from typing import Final

import attrs

from chaos.planted.carrier import command
from chaos.planted.catalogue import BUGS
from chaos.reporting.value import RunReport
from chaos.running.catalogue import find
from chaos.running.inside import run_apart
from chaos.running.run import Say

__all__ = ["HUNTS", "RUNS_MAX", "Found", "Hunt", "hunt"]

RUNS_MAX: Final = 8
"""After so many runs without a find the bug counts as missed."""


@attrs.frozen(kw_only=True)
class Hunt:
    """Where a bug is looked for."""

    bug: str = attrs.field(validator=attrs.validators.in_(BUGS))
    scenario: str
    found_by: str
    """The name of the check that must fail."""
    seed: int = 1
    """Of the first run."""
    short: bool = True
    """In the short form of the scenario."""


@attrs.frozen(kw_only=True)
class Found:
    """What came of a hunt."""

    runs: int
    """How many were made."""
    report: RunReport
    """Of the last one."""
    found: bool
    """Whether the check that is there for it failed in the last one."""


HUNTS: Final = (
    Hunt(bug="credit-not-returned", scenario="heartbeat-soak", found_by="calls after healing succeed"),
    Hunt(bug="lost-counts-as-executed", scenario="worker-crash", found_by="EXECUTED is true"),
    Hunt(bug="every-end-not-executed", scenario="worker-crash", found_by="NOT_EXECUTED is true"),
    Hunt(bug="life-not-checked", scenario="broker-restart", found_by="not idempotent: at most once", short=False),
    Hunt(bug="no-token-check", scenario="flapping-link", found_by="every reply is the caller's own"),
    Hunt(bug="wrong-reply-replayed", scenario="flapping-link", found_by="every reply is the caller's own"),
    Hunt(bug="record-forgotten-with-its-client", scenario="flapping-link", found_by="not idempotent: at most once"),
    Hunt(bug="deadlines-not-kept-by-the-broker", scenario="overload", found_by="nothing starts after its deadline"),
    Hunt(bug="streams-begin-anew", scenario="stream-cut", found_by="parts in order"),
    Hunt(bug="vetoed-hedge", scenario="hedged-tail", found_by="not idempotent: at most once"),
    Hunt(bug="loser-not-cancelled", scenario="hedged-tail", found_by="losers of hedged pairs stop"),
    Hunt(bug="cancel-not-passed-on", scenario="hedged-tail", found_by="losers of hedged pairs stop"),
)


def hunt(wanted: Hunt, say: Say, runs_max: int = RUNS_MAX) -> Found:
    """Run the scenario with the bug until it is found.

    Args:
        wanted: Which bug, and where.
        say: Gets news of each run.
        runs_max: At most so many runs, each with a seed of its own.

    Raises:
        NotInjected: This machine lacks what the scenario needs.
        StartFailed: The run ended without a report.
        TimeoutError: It did not end.
    """
    scenario = find(wanted.scenario)
    python = command(wanted.bug, "chaos.running.inside")
    runs = 0
    while True:
        report = run_apart(scenario, seed=wanted.seed + runs, short=wanted.short, say=say, python=python)
        runs += 1
        found = any(check.name == wanted.found_by and not check.ok for check in report.checks)
        if found or runs >= runs_max or report.verdict == "not injected":
            return Found(runs=runs, report=report, found=found)
