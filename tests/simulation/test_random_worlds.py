"""Worlds drawn from seeds: whatever happens in them, no checker finds anything, and afterwards everything works.

``RELIABLE_WORLDS=10000`` runs that many seeds instead of the usual ones. A seed that failed once is kept in
``REGRESSIONS`` for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from chaos.planted import BUGS
from chaos.sim.faults import Fault
from chaos.sim.random_world import Report, run_world
from chaos.sim.shrink import shrink
from chaos.sim.themes import SHORT_THEMES, THEMES

WORLDS = int(os.environ.get("RELIABLE_WORLDS", "1000"))
BATCH = 25
ROOT = Path(__file__).parents[2]
REGRESSIONS = [5, 33, 34, 46, 55, 60, 102, 199, 6071, 6487, 10787]
"""Seeds that once found a defect, in an engine or in the simulator. When the way worlds are drawn changes they become
other worlds: what must never be lost has its exact trace in ``test_at_most_once`` or a test of the engine itself."""


def verdict(reports: Iterable[Report]) -> str:
    """What was wrong and how to see it again; empty if nothing was."""
    lines = []
    for report in reports:
        if report.problems:
            lines += [f"seed {report.seed}, replay with: {report.replay_command()}", *report.problems]
            needed = shrink(report.seed, runs_max=50).after.faults
            lines += [f"{len(needed)} of its {len(report.faults)} faults are needed:", *map(repr, needed)]
    return "\n".join(lines)


@pytest.mark.timeout(60 + WORLDS)
@pytest.mark.parametrize("first", range(0, WORLDS, BATCH))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Safety while faults happen, progress when they are over; at thousand times the speed of a real run."""
    seeds = range(first, min(first + BATCH, WORLDS))
    reports = [run_world(seed) for seed in seeds]
    assert not verdict(reports), verdict(reports)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_failed_once_stays_fixed(seed: int) -> None:
    """Each of them was a defect that somebody could have met."""
    assert not verdict([run_world(seed)]), verdict([run_world(seed)])


@pytest.mark.parametrize(
    ("theme", "seed"), [("forgetful", 81), ("forgetful", 5355), ("flaps", 1), ("flaps", 20), ("flaps", 782)]
)
def test_a_themed_seed_that_failed_once_stays_fixed(theme: str, seed: int) -> None:
    """The first took a refusal for a proof about a run that the broker had forgotten; in the second two clocks ran at
    different rates, and an old copy looked like one that the broker would remember. In the others the error of a
    handler that was told to stop answered a call that had been given to another worker, or to the same one again."""
    report = run_world(seed, theme=THEMES[theme])
    assert not report.problems, report.problems


def test_the_worlds_are_hard_enough_to_mean_something() -> None:
    """If nearly every call went well, the checkers would have had nothing to judge; if nearly none did, neither."""
    reports = [run_world(seed) for seed in range(1000, 1040)]
    calls = sum(report.calls for report in reports)
    assert 0.4 < sum(report.ok for report in reports) / calls < 0.9
    assert sum(report.unknown for report in reports) / calls > 0.05
    kinds = {type(fault).__name__ for report in reports for fault in report.faults}
    assert kinds == {"Kill", "Stop", "Leave", "Freeze", "Stall", "Cut", "Part", "Clog"}


def test_a_seed_that_fails_is_reported_with_the_few_faults_that_it_needs() -> None:
    """Twenty faults explain nothing."""
    with BUGS["credit-not-returned"].planted():
        told = verdict([run_world(seed) for seed in (0,)])
    assert "reliable chaos replay 0 --verbose" in told and "stranded: " in told
    assert "0 of its 5 faults are needed:" in told


@pytest.mark.parametrize("seed", [3, 19])
def test_a_seed_run_twice_leaves_the_same_trace(seed: int) -> None:
    """Otherwise a failure could not be replayed."""
    first, second = run_world(seed), run_world(seed)
    assert first.trace == second.trace
    assert first.trace_hash == second.trace_hash
    assert first.trace_hash != run_world(seed + 1).trace_hash


@pytest.mark.parametrize("seed", [5])
def test_a_replay_in_words_is_a_replay(seed: int) -> None:
    """The messages in words are remarks: they change nothing."""
    terse, wordy = run_world(seed), run_world(seed, verbose=True)
    assert terse.trace_hash == wordy.trace_hash
    assert len(wordy.trace) > len(terse.trace)


def test_a_failing_schedule_can_be_cut_down_without_changing_the_rest_of_the_world() -> None:
    """Faults are values: the smallest schedule that still fails is found by leaving some out."""
    faults: tuple[Fault, ...] = run_world(7).faults
    assert run_world(7, faults=faults).trace_hash == run_world(7).trace_hash
    calm = run_world(7, faults=[])
    assert calm.calls == run_world(7).calls
    assert not calm.problems


def test_the_trace_does_not_depend_on_the_hash_seed_of_the_interpreter() -> None:
    """Iterating a set of bytes in an engine would show here, and nowhere else until a replay fails."""
    hashes = [_hashes_under(hash_seed) for hash_seed in ("1", "2")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(SHORT_THEMES)
    assert hashes[0][0] == run_world(6).trace_hash


def _hashes_under(hash_seed: str) -> list[str]:
    """Of one world of each theme, in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "chaos.sim", "6", "--theme", "all", "--hash"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return found.stdout.split()
