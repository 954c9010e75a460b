"""When calls are due, and whose turn it is."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.bench.schedule import due_times, turns


def test_even_arrivals_are_equally_apart_and_end_in_time() -> None:
    """The rate that was asked for is the one that is measured."""
    assert list(due_times(4.0, 1.0)) == [0.0, 0.25, 0.5, 0.75]


def test_random_arrivals_have_the_rate_and_repeat_with_their_seed() -> None:
    """Two runs under the same seed must see the same load."""
    found = list(due_times(1_000.0, 10.0, "random", random.Random(7)))
    assert len(found) == pytest.approx(10_000, rel=0.05)
    assert found == sorted(found) and found[0] > 0 and found[-1] < 10.0
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.05)
    assert found == list(due_times(1_000.0, 10.0, "random", random.Random(7)))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_senseless_rate_is_refused(rate: float) -> None:
    """It would end in a division, or never."""
    with pytest.raises(ValueError, match="rate"):
        due_times(rate, 1.0)
    with pytest.raises(ValueError, match="arrivals are one of even, random"):
        due_times(1.0, 1.0, "odd")


@given(st.integers(0, 20), st.integers(0, 100))
def test_everyone_has_one_turn_in_each_round(many: int, number: int) -> None:
    """Whoever is left out of a round has no ratio in it."""
    names = list(range(many))
    assert sorted(turns(names, number)) == names


def test_places_in_a_round_change() -> None:
    """Who always comes first pays for what the last round left behind."""
    names = ["a", "b", "c"]
    orders = [turns(names, number) for number in range(6)]
    assert orders[0] == names
    assert Counter(order[0] for order in orders) == {"a": 2, "b": 2, "c": 2}
    assert Counter(order[-1] for order in orders) == {"a": 2, "b": 2, "c": 2}
