"""A broker that stood still judges nobody by the time that it lost."""

from __future__ import annotations

from brokers.config import BrokerConfig
from reliable.status import Status
from tests.support.broker_bench import LIFE, SLACK_S, Bench, OurClient, OurWorker
from tests.support.broker_verdicts import NO, WORKER_LOST, final, no_final, verdict


def _in_limbo(bench: Bench) -> tuple[OurClient, OurWorker, bytes]:
    client, worker = OurClient(bench), OurWorker(bench, b"old").ready()
    client.submit(flags=NO, timeout_s=60.0)
    token = worker.job().token
    bench.notice_death(worker)
    return client, worker, token


def test_limbo_begins_anew_after_a_stall() -> None:
    """The worker could not come back while nobody answered its hello, and its call must not end for that."""
    bench = Bench()
    client, worker, token = _in_limbo(bench)
    bench.now += 3.0
    bench.engine.stalled(3.0, bench.now)
    bench.advance(bench.config.limbo_s - SLACK_S)
    no_final(client)
    again = worker.successor(b"new").ready(tokens=[token], last_life=LIFE)
    again.result(token, b"done")
    assert final(client).status is Status.OK


def test_limbo_ends_after_a_stall_as_it_does_without_one() -> None:
    """A worker that does not come back is not waited for until the deadline of the call."""
    bench = Bench(BrokerConfig(limbo_s=1.0))
    client, _, _ = _in_limbo(bench)
    bench.now += 3.0
    bench.engine.stalled(3.0, bench.now)
    bench.advance(1.0 + 2 * SLACK_S)
    assert verdict(client) == WORKER_LOST
