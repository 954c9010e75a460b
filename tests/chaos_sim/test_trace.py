"""The trace: what happened, and the one hash that stands for it."""

from __future__ import annotations

from chaos.sim.clock import VirtualClock
from chaos.sim.trace import Trace


def test_the_hash_covers_every_line_and_its_time() -> None:
    """Two runs that differ in one moment must differ in the hash."""
    hashes = set()
    for moves, lines in [((0.0,), ["a"]), ((0.5,), ["a"]), ((0.0,), ["b"]), ((0.0,), ["a", "a"])]:
        clock = VirtualClock()
        trace = Trace(clock)
        for move in moves:
            clock.advance_to(clock() + move)
        for line in lines:
            trace(line)
        hashes.add(trace.hash())
    assert len(hashes) == 4


def test_remarks_are_kept_for_readers_and_left_out_of_the_hash() -> None:
    """A replay in words must have the hash of the run that failed."""
    terse, wordy = Trace(VirtualClock()), Trace(VirtualClock(), verbose=True)
    for trace in (terse, wordy):
        trace("b1 < x")
        trace.remark("a request")
    assert terse.hash() == wordy.hash()
    assert (len(terse.lines), len(wordy.lines)) == (1, 2)
    assert wordy.matching("a", "request") and not wordy.matching("a", "reply")


def test_lines_need_not_be_kept() -> None:
    """A simulated year has many of them."""
    trace = Trace(VirtualClock(), keep=False)
    empty = trace.hash()
    trace("x")
    assert trace.lines == [] and trace.count == 1 and trace.hash() != empty
