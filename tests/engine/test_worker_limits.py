"""What a worker's owner says of single services: how long a run may take, and how many at once."""

from __future__ import annotations

from reliable.engine.worker import ServiceRule
from reliable.protocol.events import JobPartial
from reliable.wire.extension import ServiceOffer
from tests.support.worker_bench import ECHO, WorkerBench

SLOW = ServiceOffer(b"slow")
TIMEOUT = {b"echo": ServiceRule(timeout_s=1.0)}
KILLABLE = {b"echo": ServiceRule(timeout_s=1.0, killable=True)}


def _without_beats(lines: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [line for line in lines if line[0] not in ("beat", "started")]


# --- timeouts -------------------------------------------------------------------------------------


def test_an_overdue_handler_is_answered_for_and_keeps_its_slot() -> None:
    """The caller is told at once; a thread cannot be taken away from a handler."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register()
    first, second = bench.token(), bench.token()
    bench.deliver(first, 1)
    assert _without_beats(bench.tick(0.99)) == []
    assert _without_beats(bench.tick(0.01)) == [
        ("overdue job", 1),
        ("error", 1, first, "HandlerTimeout", "executed"),
    ]
    bench.deliver(second, 2)
    snapshot = bench.engine.snapshot()
    assert (snapshot.running, snapshot.overrunning, snapshot.queued) == (1, 1, 1)
    assert bench.finish(1, b"late") == [("start", 2, b"work")]
    assert bench.engine.snapshot().overrunning == 0
    assert (bench.counters.handler_timeouts, bench.counters.jobs_failed, bench.counters.jobs_ok) == (1, 1, 0)


def test_a_handler_that_can_be_killed_is_not_answered_for() -> None:
    """Its shell kills it and knows better what became of it."""
    bench = WorkerBench(rules=KILLABLE)
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert _without_beats(bench.tick(1.0)) == [("overdue job", 1)]
    assert bench.fail(1, "HandlerTimeout") == [("error", 1, token, "HandlerTimeout", "executed")]
    assert bench.engine.snapshot().overrunning == 0


def test_a_handler_that_is_done_in_time_hears_nothing() -> None:
    """And no timer is left behind that would wake the shell."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.tick(0.9)
    assert bench.finish(1, b"r") == [("result", 1, token, b"r")]
    assert _without_beats(bench.tick(2.0)) == []
    assert bench.counters.handler_timeouts == 0


def test_the_time_in_the_queue_does_not_count() -> None:
    """It is the handler's own time that is limited."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register()
    bench.deliver(bench.token(), 1)
    bench.tick(0.9)
    waiting = bench.token()
    bench.deliver(waiting, 2)
    assert bench.finish(1, b"r")[-1] == ("start", 2, b"work")
    assert _without_beats(bench.tick(0.9)) == []
    assert bench.finish(2, b"r") == [("result", 1, waiting, b"r")]


def test_who_asks_again_for_an_overdue_call_gets_the_same_answer() -> None:
    """It must not wait for a handler that was given up, nor run beside it."""
    bench = WorkerBench("a", rules=TIMEOUT, concurrency=2)
    bench.register()
    bench.deliver(bench.token(), 1)
    bench.tick(1.0)
    again = bench.token()
    assert bench.deliver(again, 1) == [("error", 1, again, "HandlerTimeout", "executed")]
    assert bench.counters.jobs_started == 1


def test_parts_of_an_overdue_handler_go_nowhere() -> None:
    """Its delivery is answered; a generator that is told so is at its last yield."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register()
    bench.deliver(bench.token())
    bench.tick(1.0)
    assert bench.handle(JobPartial(1, [b"late"])) == []


def test_an_overdue_handler_counts_as_unfinished_at_the_end_of_a_drain() -> None:
    """The process that ends then ends it, too: its owner should know."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register()
    bench.deliver(bench.token())
    bench.tick(1.0)
    assert bench.drain(0.5) == [("credit", 1, 0)]
    lines = bench.tick(0.5)
    assert lines[-1] == ("stopped", 1)


def test_an_overdue_handler_of_a_plain_broker_ends_the_registration() -> None:
    """MDP has no word for a failure, so the broker is left, and may ask another worker."""
    bench = WorkerBench(rules=TIMEOUT)
    bench.register_plain()
    bench.deliver_plain()
    said = [line[0] for line in bench.tick(1.0) if line[0] != "beat"]
    assert said[:3] == ["overdue job", "disconnect", "close"]


# --- concurrency ----------------------------------------------------------------------------------


def test_a_service_has_no_more_runs_than_it_may_and_others_pass_by() -> None:
    """What cannot run now waits, and holds up nobody."""
    rules = {b"slow": ServiceRule(concurrency=1)}
    bench = WorkerBench(concurrency=3, services=(ECHO, SLOW), rules=rules)
    bench.register()
    assert bench.deliver(bench.token(), 1, b"s1", service=b"slow") == [("start", 1, b"s1")]
    waiting = bench.token()
    assert bench.deliver(waiting, 2, b"s2", service=b"slow") == []
    assert bench.deliver(bench.token(), 3, b"e", service=b"echo") == [("start", 3, b"e")]
    assert bench.finish(3, b"r")[1:] == []
    assert bench.finish(1, b"r")[1:] == [("start", 2, b"s2")]
    assert bench.finish(2, b"r") == [("result", 1, waiting, b"r")]


def test_among_services_the_oldest_that_may_run_is_next() -> None:
    """A limit of one service changes nothing in the order of the others."""
    rules = {b"slow": ServiceRule(concurrency=1)}
    bench = WorkerBench(concurrency=2, services=(ECHO, SLOW), rules=rules)
    bench.register()
    bench.deliver(bench.token(), 1, b"s1", service=b"slow")
    bench.deliver(bench.token(), 2, b"e1")
    bench.deliver(bench.token(), 3, b"s2", service=b"slow")
    bench.deliver(bench.token(), 4, b"e2")
    assert bench.finish(2, b"r")[1:] == [("start", 4, b"e2")]
    assert bench.finish(1, b"r")[1:] == [("start", 3, b"s2")]


def test_what_waits_for_its_service_is_given_back_in_a_drain() -> None:
    """As everything that has not started."""
    rules = {b"echo": ServiceRule(concurrency=1), b"slow": ServiceRule()}
    bench = WorkerBench(concurrency=2, services=(ECHO, SLOW), rules=rules)
    bench.register()
    bench.deliver(bench.token(), 1)
    waiting = bench.token()
    bench.deliver(waiting, 2)
    assert ("give back", 1, waiting, "DRAINING") in bench.drain()


def test_what_waits_for_its_service_expires_like_any_other() -> None:
    """Its caller is not to wait for a slot that comes too late."""
    bench = WorkerBench(concurrency=2, rules={b"echo": ServiceRule(concurrency=1)})
    bench.register()
    bench.deliver(bench.token(), 1)
    waiting = bench.token()
    bench.deliver(waiting, 2, within_s=0.5)
    assert ("give back", 1, waiting, "EXPIRED") in bench.tick(0.5)
    assert bench.finish(1, b"r")[1:] == []


def test_the_credit_is_as_much_as_can_run() -> None:
    """More would wait here, where no other worker can take it."""
    limited = {b"echo": ServiceRule(concurrency=2), b"slow": ServiceRule(concurrency=1)}
    bench = WorkerBench(concurrency=8, services=(ECHO, SLOW), rules=limited)
    bench.opened(1)
    assert bench.greet(1)[0][2] == 3
    one_free = {b"slow": ServiceRule(concurrency=1)}
    bench = WorkerBench(concurrency=8, services=(ECHO, SLOW), rules=one_free)
    bench.opened(1)
    assert bench.greet(1)[0][2] == 8
