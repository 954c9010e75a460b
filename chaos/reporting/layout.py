"""Where things go in the picture of a run: rows without overlaps, ticks, spans of states. Pure arithmetic."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

import attrs

from chaos.reporting.value import SampleLine, StateLine

__all__ = ["Span", "pack", "seconds_text", "spans_of", "ticks", "words_of"]

_TICKS_MAX: Final = 14


@attrs.frozen
class Span:
    """Somebody was in a state from one moment to another, in seconds."""

    from_s: float
    to_s: float
    state: str


def pack(intervals: Sequence[tuple[float, float]]) -> tuple[list[int], int]:
    """A row for each interval, so that those of one row do not overlap, and how many rows there are.

    The lowest free row is taken, in order of the beginnings.
    """
    rows = [0] * len(intervals)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    count = 0
    for index in sorted(range(len(intervals)), key=lambda index: intervals[index]):
        begin, end = intervals[index]
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            row = heapq.heappop(free)
        else:
            row, count = count, count + 1
        rows[index] = row
        heapq.heappush(busy, (max(end, begin), row))
    return rows, count


def ticks(until_s: float) -> list[float]:
    """Round moments from 0 on for a time axis, not too many."""
    step = next(
        step
        for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, math.inf)
        if until_s / step <= _TICKS_MAX
    )
    if step == math.inf:
        return [0.0]
    return [number * step for number in range(int(until_s / step + 1e-9) + 1)]


def seconds_text(seconds: float) -> str:
    """A moment as text: ``0``, ``2.5 s``."""
    return f"{seconds:g} s" if seconds else "0"


def spans_of(states: Sequence[StateLine], until_s: float) -> dict[str, list[Span]]:
    """The states of each process, one after the other, in the order in which processes appeared."""
    found: dict[str, list[StateLine]] = {}
    for line in states:
        found.setdefault(line.who, []).append(line)
    spans = {}
    for who, lines in found.items():
        ends = [*(line.at_s for line in lines[1:]), until_s]
        spans[who] = [
            Span(line.at_s, min(end, until_s), line.state)
            for line, end in zip(lines, ends, strict=True)
            if min(end, until_s) > line.at_s
        ]
    return spans


def words_of(samples: Sequence[SampleLine], who: str, until_s: float) -> list[Span]:
    """What the brokers said of a worker (``worker 2``), where it is worth a mark: working, stuck or absent.

    Of several brokers the one that says most counts: stuck before working before idle.
    """
    prefix = who.replace(" ", "-") + "."
    moments: list[tuple[float, str]] = []
    for sample in samples:
        said = [state for name, state in sample.workers.items() if name.startswith(prefix)]
        word = next((word for word in ("stuck", "unverified", "working", "idle") if word in said), "absent")
        moments.append((sample.at_s, word))
    spans: list[Span] = []
    ends = [*(at for at, _ in moments[1:]), until_s]
    for (at, word), end in zip(moments, ends, strict=True):
        if at >= until_s or end <= 0 or word == "idle":
            continue
        if spans and spans[-1].state == word and abs(spans[-1].to_s - max(at, 0.0)) < 1e-9:
            spans[-1] = Span(spans[-1].from_s, min(end, until_s), word)
        else:
            spans.append(Span(max(at, 0.0), min(end, until_s), word))
    return spans
