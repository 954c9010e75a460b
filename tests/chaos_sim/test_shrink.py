"""Shrinking: what is left still fails, and nothing of it can be left out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from chaos.planted import BUGS
from chaos.sim.random_world import run_world
from chaos.sim.shrink import kinds_of, shrink, shrink_list
from chaos.sim.themes import THEMES


@pytest.mark.parametrize("needed", [[], [3], [0, 19], [4, 5, 6], [0, 7, 13, 19], list(range(20))])
def test_only_what_is_needed_is_left(needed: list[int]) -> None:
    """In its order; whatever else stood between."""
    left, runs = shrink_list(range(20), lambda part: set(needed) <= set(part))
    assert left == needed
    assert runs <= 400


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_fails_and_none_of_it_can_be_left_out(seed: int) -> None:
    """Also for a failure that wants one of several combinations."""
    rng = random.Random(seed)
    wanted = [set(rng.sample(range(30), rng.randint(1, 4))) for _ in range(3)]

    def fails(part: Sequence[int]) -> bool:
        return any(combination <= set(part) for combination in wanted)

    left, _ = shrink_list(range(30), fails)
    assert fails(left)
    assert not any(fails(left[:index] + left[index + 1 :]) for index in range(len(left)))


def test_the_number_of_runs_is_bounded() -> None:
    """Each of them is a whole world."""
    tried: list[Sequence[int]] = []

    def fails(part: Sequence[int]) -> bool:
        tried.append(part)
        return len(part) == 100

    left, runs = shrink_list(range(100), fails, runs_max=10)
    assert len(left) == 100 and runs == len(tried) <= 10


def test_a_failing_world_is_shrunk_to_the_faults_that_it_needs() -> None:
    """From a schedule of many to a few, and the same checker complains."""
    bug = BUGS["retry-of-a-non-idempotent-call"]
    theme = THEMES[bug.theme]
    with bug.planted():
        seed = next(
            s for s in range(bug.seed, bug.seed + 40) if bug.found_by in kinds_of(run_world(s, theme=theme).problems)
        )
        shrunk = shrink(seed, theme=theme)
        again = run_world(seed, theme=theme, faults=shrunk.after.faults)
    assert bug.found_by in kinds_of(shrunk.after.problems)
    assert again.trace_hash == shrunk.after.trace_hash
    assert 1 <= len(shrunk.after.faults) < len(shrunk.before.faults)
    assert set(shrunk.after.faults) <= set(shrunk.before.faults)


def test_a_world_without_a_problem_cannot_be_shrunk() -> None:
    """Rather than claim that no fault at all is needed."""
    with pytest.raises(ValueError, match="no problem"):
        shrink(2)
