"""From many readings to a few figures: percentiles, medians with their spread, ratios, histograms. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

import attrs

__all__ = [
    "PERCENTILES",
    "Latency",
    "Spread",
    "histogram",
    "latency_of",
    "percentile",
    "ratios",
    "size_text",
    "spread_of",
]

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
"""What a summary of latencies holds."""
_UNITS: Final = ((1_000_000, "MB"), (1_000, "kB"))


@attrs.frozen
class Spread:
    """Several figures of the same thing."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""

    def text(self, unit: str = "", digits: int = 2) -> str:
        """``1.10 (1.08 to 1.13)``."""
        return f"{self.median:.{digits}f}{unit} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles; of a single figure, itself."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """One over the other, round by round: what disturbs a whole round drops out.

    Raises:
        ValueError: They have not the same number of rounds.
    """
    return spread_of([our / their for our, their in zip(ours, theirs, strict=True)])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest reading that so many percent do not exceed: a reading that was made, never one in between.

    Args:
        ordered: Sorted, at least one.
        share: Above 0, up to 100.
    """
    return ordered[max(math.ceil(len(ordered) * share / 100) - 1, 0)]


@attrs.frozen
class Latency:
    """How long calls took, in microseconds."""

    count: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float

    def cells(self) -> list[str]:
        """For a table: the percentiles and the slowest."""
        return [f"{value:,.0f}" for value in (self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us)]


def latency_of(taken_ns: Sequence[int]) -> Latency:
    """Summary of at least one reading in nanoseconds."""
    ordered = sorted(taken_ns)
    p50, p90, p99, p999 = (percentile(ordered, share) / 1000 for share in PERCENTILES)
    return Latency(len(ordered), p50, p90, p99, p999, ordered[-1] / 1000)


def histogram(taken_ns: Sequence[int], bins_per_decade: int = 20) -> list[tuple[float, int]]:
    """Readings counted in bins that grow by the same factor: lower edge in microseconds, and how many.

    Bins between the first and the last are all there, also empty ones.
    """
    counts: dict[int, int] = {}
    for taken in taken_ns:
        number = math.floor(math.log10(max(taken, 1) / 1000) * bins_per_decade)
        counts[number] = counts.get(number, 0) + 1
    if not counts:
        return []
    return [(10 ** (number / bins_per_decade), counts.get(number, 0)) for number in range(min(counts), max(counts) + 1)]


def size_text(size_bytes: int) -> str:
    """``64 MB``, ``1 kB``, ``16 B``: powers of ten, and the exact number where that does not fit."""
    for unit, name in _UNITS:
        if size_bytes >= unit and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"
