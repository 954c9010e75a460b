"""Percentiles, ratios and histograms: what the tables say must be what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.bench.figures import histogram, latency_of, percentile, ratios, size_text, spread_of


def test_a_percentile_is_a_reading_that_was_made() -> None:
    """Between a fast and a slow call there is none that took the mean of both."""
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.1, 50, 90, 99, 99.9, 100)] == [1, 50, 90, 99, 100, 100]
    assert percentile([7.0], 50) == percentile([7.0], 99.9) == 7.0


@given(st.lists(st.integers(1, 10**12), min_size=1), st.floats(0.001, 100))
def test_so_many_readings_do_not_exceed_a_percentile(readings: list[int], share: float) -> None:
    """That is what the word means."""
    found = percentile(sorted(readings), share)
    assert found in readings
    assert sum(reading <= found for reading in readings) >= len(readings) * share / 100
    assert sum(reading < found for reading in readings) < len(readings) * share / 100


def test_a_latency_is_told_in_microseconds() -> None:
    """A factor of a thousand is easily lost."""
    found = latency_of([3_000, 1_000, 2_000])
    assert (found.count, found.p50_us, found.p999_us, found.max_us) == (3, 2.0, 3.0, 3.0)
    assert found.cells() == ["2", "3", "3", "3", "3"]


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which everything was slow must not count as a slow contestant."""
    assert ratios([110.0, 1100.0, 120.0], [100.0, 1000.0, 100.0]).median == pytest.approx(1.1)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        ratios([1.0], [1.0, 2.0])


def test_spread_is_median_and_quartiles() -> None:
    """What is printed in brackets."""
    assert spread_of([5.0]).text() == "5.00 (5.00 to 5.00)"
    assert spread_of([1.0, 2.0, 3.0, 4.0, 5.0]).text("s", 0) == "3s (2 to 4)"


@given(st.lists(st.integers(0, 10**11), max_size=50))
def test_a_histogram_holds_every_reading_once(readings: list[int]) -> None:
    """Also those at the edges of bins."""
    found = histogram(readings)
    assert sum(count for _, count in found) == len(readings)
    edges = [edge for edge, _ in found]
    assert edges == sorted(edges)


def test_bins_of_a_histogram_grow_by_the_same_factor_and_none_is_left_out() -> None:
    """A gap must be seen as a gap."""
    found = histogram([1_000, 1_500, 100_000], bins_per_decade=1)
    assert [count for _, count in found] == [2, 0, 1]
    assert [edge for edge, _ in found] == pytest.approx([1.0, 10.0, 100.0])
    assert histogram([]) == []


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (16, "16 B"), (1_000, "1 kB"), (1_024, "1024 B"), (64_000_000, "64 MB")]
)
def test_sizes_are_told_exactly(size: int, text: str) -> None:
    """1 kB and 1024 B are not the same."""
    assert size_text(size) == text
