"""When some connection ends, the broker looks at once which worker it was, instead of at its next heartbeat."""

from __future__ import annotations

from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import CallFlag
from tests.support.broker_bench import Bench, ForeignWorker, OurClient, OurWorker

_SOON_S = 0.1
"""Two buckets of the wheel."""


def test_a_dead_worker_is_found_by_the_ended_connection_not_by_the_next_heartbeat() -> None:
    """Without this a caller waits up to a whole heartbeat interval for nothing."""
    bench = Bench()
    client = OurClient(bench)
    victim, other = OurWorker(bench, b"victim").ready(), OurWorker(bench, b"other").ready()
    call = client.submit(flags=CallFlag.IDEMPOTENT)
    bench.kill(victim)
    bench.engine.connection_ended(bench.now)
    bench.advance(_SOON_S)
    other.result(other.job().token, b"done")
    answer = client.answer()
    assert (answer.frame.call_id, answer.status) == (call, Status.OK)


def test_a_worker_that_zeromq_still_took_for_connected_is_found_by_the_second_look() -> None:
    """The end of a connection may be reported before a send to the peer fails."""
    bench = Bench()
    victim = OurWorker(bench, b"victim").ready()
    bench.engine.connection_ended(bench.now)
    bench.advance(0.051)
    assert bench.count("probes") == 1 and bench.state(victim) == "idle"
    bench.kill(victim)
    bench.advance(_SOON_S)
    assert bench.state(victim) is None


def test_a_call_that_may_not_run_twice_ends_unknown_well_within_a_second_of_the_death() -> None:
    """Detection and limbo together are what the caller waits."""
    bench = Bench()
    client = OurClient(bench)
    victim = OurWorker(bench, b"victim").ready()
    client.submit()
    bench.kill(victim)
    bench.engine.connection_ended(bench.now)
    bench.advance(_SOON_S + bench.config.limbo_s + _SOON_S)
    answer = client.answer()
    assert (answer.status, answer.outcome) == (Status.WORKER_LOST, Outcome.UNKNOWN)


def test_an_ended_connection_costs_live_workers_two_heartbeats_and_nothing_else() -> None:
    """Clients come and go all day; workers of either kind must not notice more than a heartbeat."""
    bench = Bench()
    workers = [OurWorker(bench, b"ours").ready(), ForeignWorker(bench, b"foreign").ready(b"echo")]
    before = [worker.heartbeats() for worker in workers]
    for _ in range(50):
        bench.engine.connection_ended(bench.now)
    bench.advance(2 * _SOON_S)
    assert bench.count("probes") == 2
    assert [worker.heartbeats() - count for worker, count in zip(workers, before, strict=True)] == [2, 2]
    assert [bench.state(worker) for worker in workers] == ["idle", "idle"]


def test_without_workers_nothing_is_probed() -> None:
    """A broker that only meets clients has nobody to look for."""
    bench = Bench()
    bench.engine.connection_ended(bench.now)
    bench.advance(1.0)
    assert bench.count("probes") == 0
