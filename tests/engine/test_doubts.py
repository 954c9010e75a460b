"""Final reports that a link may have taken down with it are said again, and no others."""

from __future__ import annotations

import math

from reliable.engine.doubts import REPORTS_MAX, Doubts
from reliable.engine.jobs import Handover
from tests.support.worker_bench import LIFE_A, LIFE_B, WorkerBench


def _handover(number: int = 1) -> Handover:
    return Handover(broker=0, token=b"%016d" % number, life=LIFE_A, link=1, deadline=math.inf)


# --- the table ------------------------------------------------------------------------------------


def test_only_the_last_seconds_before_the_break_are_in_doubt() -> None:
    """A link that carries nothing is found out within the time of its heartbeats."""
    doubts = Doubts(detection_s=4.0, bytes_max=1000)
    doubts.add(_handover(1), [b"a"], 10.0)
    doubts.add(_handover(2), [b"b"], 15.0)
    assert [sent.frames for sent in doubts.take(15.1)] == [[b"b"]]
    assert doubts.take(15.1) == []


def test_what_is_remembered_is_bounded_in_number_bytes_and_time() -> None:
    """The oldest go first; they are the ones that surely arrived."""
    doubts = Doubts(detection_s=4.0, bytes_max=100)
    for number in range(REPORTS_MAX + 5):
        doubts.add(_handover(number), [b""], 1.0)
    assert len(doubts) == REPORTS_MAX
    doubts.add(_handover(), [b"x" * 60], 2.0)
    doubts.add(_handover(), [b"y" * 60], 2.0)
    assert [sent.frames for sent in doubts.take(2.0)] == [[b"y" * 60]]
    doubts.add(_handover(), [b"z"], 3.0)
    doubts.add(_handover(), [b"new"], 9.0)
    assert len(doubts) == 1


# --- in the worker --------------------------------------------------------------------------------


def _answered(bench: WorkerBench) -> bytes:
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.finish(1, b"r")
    return token


def test_a_reply_sent_just_before_the_link_broke_is_sent_again_on_the_next() -> None:
    """Otherwise a call that is not idempotent would end as unknown although its reply is here."""
    bench = WorkerBench()
    token = _answered(bench)
    bench.tick(0.1)
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("result", 2, token, b"r")]
    assert (bench.counters.replies_sent, bench.counters.replies_resent) == (1, 1)
    assert bench.engine.snapshot().brokers[0].tokens == 0


def test_it_is_said_again_only_once() -> None:
    """A broker that answers the repetition with DISCONNECT is not to get it for ever."""
    bench = WorkerBench()
    _answered(bench)
    bench.closed(1)
    bench.tick(0.05)
    bench.register(2)
    bench.disconnect(2)
    bench.tick(0.2)
    bench.opened(3)
    assert bench.greet(3) == [("ready", 3, 1, LIFE_A)]


def test_a_reply_that_arrived_long_ago_is_not_said_again() -> None:
    """The broker would have to remember every token for ever."""
    bench = WorkerBench()
    _answered(bench)
    for _ in range(8):
        bench.tick(1.0)
        bench.beat(1)
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A)]


def test_another_life_of_the_broker_is_not_told() -> None:
    """It never gave out the token."""
    bench = WorkerBench()
    _answered(bench)
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2, LIFE_B) == [("ready", 2, 1, LIFE_A)]
    assert bench.counters.replies_dropped == 0


def test_a_broker_that_stays_away_is_forgotten() -> None:
    """Its limbo is long over, and nothing is to be kept for it."""
    bench = WorkerBench()
    _answered(bench)
    bench.closed(1)
    assert bench.engine.snapshot().brokers[0].tokens == 1
    bench.tick(10.0)
    assert bench.engine.snapshot().brokers[0].tokens == 0


def test_a_worker_that_says_goodbye_itself_doubts_nothing() -> None:
    """Its socket had its time to send, and there is no next link."""
    bench = WorkerBench()
    _answered(bench)
    bench.drain()
    lines = bench.tick(1.0)
    assert lines[-1] == ("stopped", 0)


def test_a_drain_does_not_wait_long_for_a_broker_that_may_miss_a_reply() -> None:
    """It waits as for a reply that could not be sent, and no longer than the drain may take."""
    bench = WorkerBench()
    token = _answered(bench)
    bench.closed(1)
    assert bench.drain(2.0) == []
    bench.tick(0.1)
    bench.opened(2)
    assert bench.greet(2)[:2] == [("ready", 2, 0, LIFE_A, token), ("result", 2, token, b"r")]


def test_replies_of_a_plain_broker_are_never_said_again() -> None:
    """MDP knows no tokens: it would go to whoever has that address now."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain()
    bench.finish(1, b"r")
    bench.closed(2)
    assert bench.engine.snapshot().brokers[0].tokens == 0
