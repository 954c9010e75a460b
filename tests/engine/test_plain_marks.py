"""Requests of dialect ``req`` with a mark that the server gives back."""

from __future__ import annotations

from reliable.config import Dialect
from reliable.protocol.events import Received
from tests.support.engine_desk import call_id
from tests.support.plain_desk import PlainDesk


def test_a_marked_request_takes_no_reply_but_its_own_however_late_the_other_comes() -> None:
    """A server that answers the first request twice must not answer the second one with it."""
    desk = PlainDesk(correlate=True)
    desk.submit("a")
    desk.open(1)
    mark_a, mark_b = call_id("a"), call_id("b")
    assert desk.trace() == ["open 1 a", "send 1 a...............|-|a"]
    desk.feed(Received(1, [mark_a, b"", b"first"]))
    desk.submit("b")
    desk.feed(Received(1, [mark_a, b"", b"first"]))
    assert desk.trace() == ["end a first", "send 1 b...............|-|b"]
    desk.feed(Received(1, [b"", b"no mark"]))
    assert desk.trace() == [] and desk.engine.counters.dropped == 2
    desk.feed(Received(1, [mark_b, b"", b"second"]))
    assert desk.trace() == ["end b second"]


def test_only_req_has_a_place_for_marks() -> None:
    """A Paranoid Pirate worker counts frames, and a broker of somebody else may."""
    for dialect in (Dialect.PPP, Dialect.MDP01, Dialect.MDP02):
        marked, bare = PlainDesk(dialect=dialect, correlate=True), PlainDesk(dialect=dialect)
        for desk in (marked, bare):
            desk.submit("c")
            desk.open(1)
        assert marked.trace() == bare.trace()
