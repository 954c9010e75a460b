"""Cutting a failing world down: fewer faults that still make it fail.

Delta debugging (Zeller's ddmin) over the list of faults. Everything else in the world stays as its seed drew it, but
what leaves out a fault may change all that follows; so a smaller list that fails is another failure of the same kind,
and what counts as the same kind is the word in front of the problem: the checker that found it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import attrs

from chaos.sim.faults import Fault
from chaos.sim.random_world import Report, run_world
from chaos.sim.themes import ANYTHING, Theme

__all__ = ["Shrunk", "kinds_of", "shrink", "shrink_list"]

_RUNS_MAX: Final = 400
ItemT = TypeVar("ItemT")


@attrs.frozen(kw_only=True)
class Shrunk:
    """A failing world with as few faults as were found to do.

    Attributes:
        before: The world as its seed draws it.
        after: The same with the faults that are left.
        runs: How many worlds were tried for that.
    """

    before: Report
    after: Report
    runs: int


def kinds_of(problems: Sequence[str]) -> frozenset[str]:
    """Which checkers found something."""
    return frozenset(problem.split(":", 1)[0] for problem in problems)


def shrink_list(
    items: Sequence[ItemT], fails: Callable[[Sequence[ItemT]], bool], *, runs_max: int = _RUNS_MAX
) -> tuple[list[ItemT], int]:
    """The items without those that are not needed to fail, and how many runs that took.

    Args:
        items: A list that fails.
        fails: Whether a part of it, in the same order, still does.
        runs_max: After so many runs the best list so far is given; else no single item of it can be left out.
    """
    left, runs, pieces = list(items), 0, 2
    if left and runs < runs_max:
        runs += 1
        if fails([]):
            return [], runs
    while len(left) > 1 and runs < runs_max:
        size = -(-len(left) // pieces)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            runs += 1
            if fails(rest):
                left, pieces = rest, max(pieces - 1, 2)
                break
            if runs >= runs_max:
                break
        else:
            if size == 1:
                break
            pieces = min(2 * pieces, len(left))
    return left, runs


def shrink(seed: int, *, theme: Theme = ANYTHING, runs_max: int = _RUNS_MAX) -> Shrunk:
    """Find fewer faults with which the world of a seed still fails as it does.

    Raises:
        ValueError: It does not fail.
    """
    before = run_world(seed, theme=theme)
    kinds = kinds_of(before.problems)
    if not kinds:
        raise ValueError(f"seed {seed} of theme {theme.name!r} has no problem to shrink")

    def fails(faults: Sequence[Fault]) -> bool:
        return bool(kinds & kinds_of(run_world(seed, faults=faults, theme=theme, keep_trace=False).problems))

    faults, runs = shrink_list(before.faults, fails, runs_max=runs_max)
    return Shrunk(before=before, after=run_world(seed, faults=faults, theme=theme), runs=runs + 2)
