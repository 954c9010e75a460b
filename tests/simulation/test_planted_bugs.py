"""Every known mistake, patched into the engines one at a time, is found: a checker that never failed proves nothing.

For each bug the catalogue names a seed that found it. A change of an engine, or of how worlds are drawn, may make that
seed another world; so a few seeds after it are looked at as well, and the same world must be clean without the bug.
``scripts/soak_simulation.py --renew`` writes new ones into the catalogue where that is not enough.
"""

from __future__ import annotations

import pytest

from chaos.checkers import CHECKERS
from chaos.planted import BUGS, Change, PlantedBug
from chaos.sim.random_world import Report, run_world
from chaos.sim.shrink import kinds_of
from chaos.sim.themes import THEMES

LOOKS = 12
PROBES = {
    "silence unjudged",
    "ghost",
    "no progress",
    "no bound",
    "unread",
    "left behind",
    "stranded",
    "blamed",
    "hoard",
}


def hunt(bug: PlantedBug) -> Report | None:
    """The first world from the known seed on that finds it."""
    for seed in range(bug.seed, bug.seed + LOOKS):
        with bug.planted():
            report = run_world(seed, theme=THEMES[bug.theme], keep_trace=False)
        if bug.found_by in kinds_of(report.problems):
            return report
    return None


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_the_same_world_is_clean_without_it(name: str) -> None:
    """By the checker that is there for it, and not because that checker always complains."""
    bug = BUGS[name]
    found = hunt(bug)
    assert found is not None, f"{name} was not found by {bug.found_by!r} in {LOOKS} worlds from seed {bug.seed} on"
    clean = run_world(found.seed, theme=THEMES[bug.theme], keep_trace=False)
    assert clean.problems == ()


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_taken_out_again(name: str) -> None:
    """Else it would spoil every test that runs after it."""
    changes = BUGS[name].changes()
    before = [vars(change.owner)[change.name] for change in changes]
    with BUGS[name].planted():
        assert [vars(change.owner)[change.name] for change in changes] != before
    assert [vars(change.owner)[change.name] for change in changes] == before


def test_every_checker_and_every_look_has_found_a_bug() -> None:
    """No one of them is decoration."""
    names = {checker.__name__ for checker in CHECKERS} | PROBES | {"beyond the budget"}
    assert {bug.found_by for bug in BUGS.values()} == names


def test_a_bug_that_raises_while_it_is_planted_leaves_nothing_behind() -> None:
    """Half of a patch would be worse than all of it."""

    class Owner:
        first = 1

    def changes() -> list[Change]:
        return [Change(Owner, "first", 2), Change(object(), "second", 2)]

    bug = PlantedBug(name="n", breaks="b", found_by="f", theme="calm", seed=0, changes=changes)
    with pytest.raises((AttributeError, TypeError)), bug.planted():
        pass
    assert Owner.first == 1
