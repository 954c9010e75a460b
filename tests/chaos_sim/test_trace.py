"""The trace: what happened, and the one hash that stands for it."""

from __future__ import annotations

import zlib

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


def test_the_hash_covers_all_of_a_message() -> None:
    """Who, which way, over which link, each byte and where frames begin, and what became of it."""
    hashes = set()
    for who, way, link, frames, end in [
        ("c1", ">", 1, [b"a", b"b"], "sent"),
        ("c2", ">", 1, [b"a", b"b"], "sent"),
        ("c1", "<", 1, [b"a", b"b"], "sent"),
        ("c1", ">", 2, [b"a", b"b"], "sent"),
        ("c1", ">", 1, [b"a|b"], "sent"),
        ("c1", ">", 1, [b"a", b"c"], "sent"),
        ("c1", ">", 1, [b"a", b"b"], "full"),
    ]:
        trace = Trace(VirtualClock())
        trace.message(who, way, link, frames, end)
        hashes.add(trace.hash())
    assert len(hashes) == 7


def test_a_message_is_a_line_for_readers() -> None:
    """With a link's number, or with the routing id that its first frame is."""
    trace = Trace(VirtualClock())
    trace.message("c1", ">", 7, [b"x"], "sent")
    trace.message("b1", "<", 0, [b"\x00\x01", b"x"])
    assert [line.split("  ")[-1] for line in trace.lines] == [
        "c1 > link 7 1 frames 8cdc1683 sent",
        f"b1 < 0001 2 frames {zlib.crc32(bytes([0, 1]) + b'|x'):08x}",
    ]


def test_the_hash_is_the_same_whether_lines_are_kept_or_not() -> None:
    """A soak keeps none, and its hash names the run that a replay shows."""
    kept, unkept = Trace(VirtualClock()), Trace(VirtualClock(), keep=False)
    for trace in (kept, unkept):
        for number in range(5000):
            trace.message("c1", ">", 1, [b"%d" % number], "sent")
            trace("killed")
    assert kept.hash() == unkept.hash() and len(kept.lines) == 10_000 and unkept.lines == []


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
