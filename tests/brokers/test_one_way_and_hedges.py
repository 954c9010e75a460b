"""Calls that want no reply, and calls that are the second of two attempts."""

from __future__ import annotations

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import CallFlag, Place, ReadyExtension, ServiceOffer
from reliable.wire.mdp import Version, WorkerReady
from tests.support.broker_bench import Bench, OurClient, OurWorker
from tests.support.broker_verdicts import DONE, NO, YES, final, no_final, verdict

ONE_WAY = CallFlag.ONE_WAY | CallFlag.NOT_IDEMPOTENT
HEDGE = CallFlag.HEDGE | CallFlag.IDEMPOTENT


def test_one_way_call_is_told_that_it_is_held_and_nothing_more() -> None:
    """The reply of a call that nobody waits for would only fill the client's queue."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=ONE_WAY)
    answer = client.answer()
    assert (answer.status, answer.final) == (Status.ACCEPTED, False)
    token = worker.job().token
    worker.started(token)
    worker.partial(token, b"part")
    worker.result(token, b"done")
    assert client.answers() == []
    assert bench.count("one_way_ended") == 1 and bench.count("partials") == 0


def test_one_way_call_that_waits_in_the_queue_is_accepted_at_once() -> None:
    """The caller wants to hear that it is held, not that it runs."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(flags=ONE_WAY)
    assert client.answer().place is Place.QUEUED_NO_WORKER
    worker = OurWorker(bench).ready()
    worker.result(worker.job().token, b"done")
    assert client.answers() == []


@pytest.mark.parametrize(
    ("config", "status"),
    [
        (BrokerConfig(queued_per_unknown_service_max=1), Status.OVERLOADED),
        (BrokerConfig(message_bytes_max=1500), Status.TOO_LARGE),
    ],
)
def test_one_way_call_that_is_refused_is_told_so(config: BrokerConfig, status: Status) -> None:
    """Accepted would be a lie."""
    bench = Bench(config)
    client = OurClient(bench)
    client.submit(flags=NO)
    client.answers()
    client.submit(flags=ONE_WAY, body=[b"x" * 2000])
    assert final(client).status is status


def test_one_way_call_that_ends_before_it_was_accepted_is_answered() -> None:
    """Too large for the worker that would have taken it: the caller must not take that for done."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench)
    extension = ReadyExtension(worker.instance, 1, worker.services, max_message_bytes=1024)
    worker.send(*WorkerReady(Version.MDP02, b"echo", extension.encode()).encode())
    client.submit(flags=ONE_WAY, body=[b"x" * 2000])
    assert verdict(client) == (Status.TOO_LARGE, Outcome.NOT_EXECUTED)


def test_who_asks_after_a_one_way_call_is_answered() -> None:
    """The word that it is held may have been lost, and the client asks again."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    call_id = client.submit(flags=ONE_WAY)
    client.answers()
    token = worker.job().token
    worker.started(token)
    client.attach(call_id, flags=ONE_WAY)
    assert client.answer().status is Status.STARTED
    worker.result(token, b"done")
    client.attach(call_id, flags=ONE_WAY, attempt=3)
    assert verdict(client) == DONE


def test_one_way_call_whose_worker_is_lost_runs_at_most_once() -> None:
    """Nobody waiting is no licence to repeat."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=ONE_WAY)
    worker.job()
    other = OurWorker(bench, b"other").ready()
    bench.kill(worker)
    bench.notice_death(worker)
    bench.keep_alive(other)
    bench.advance(2.0)
    assert other.jobs() == [] and bench.count("one_way_ended") == 1
    no_final(client)


def test_hedge_goes_to_a_worker_that_does_not_hold_the_first_attempt() -> None:
    """Two attempts in the hands of one slow worker are as slow as one; so the busier worker gets it here."""
    bench = Bench()
    client, other = OurClient(bench), OurClient(bench, b"other-client")
    first, second = OurWorker(bench, b"first", credit=4).ready(), OurWorker(bench, b"second", credit=4).ready()
    client.submit(flags=YES)
    first.job()
    for body in (b"1", b"2", b"3"):
        other.submit(body=[body], flags=YES)
        for job in first.jobs():
            first.result(job.token, b"done")
    assert len(second.jobs()) == 2, "the first one is less busy"
    client.submit(flags=HEDGE)
    assert second.job().body == [b"work"]
    other.submit(flags=HEDGE)
    assert first.jobs(), "the same work of somebody else is another call"


def test_hedge_is_run_by_the_same_worker_if_there_is_no_other() -> None:
    """It may be stuck in one of its threads only."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench, credit=2).ready()
    client.submit(flags=YES)
    worker.job()
    client.submit(flags=HEDGE)
    worker.result(worker.job().token, b"second")
    assert final(client).body == [b"second"]


@pytest.mark.parametrize("registered_first", [True, False])
def test_hedge_of_a_service_that_vetoes_repeats_is_refused_unrun(registered_first: bool) -> None:
    """The caller said idempotent, the service says no: the two are calls of their own, so the broker must look."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, services=[ServiceOffer(b"pay", False)], credit=2)
    if registered_first:
        worker.ready()
    client.submit(b"pay", flags=YES)
    client.submit(b"pay", flags=HEDGE)
    if not registered_first:
        worker.ready()
    token = worker.job().token
    assert verdict(client) == (Status.CANCELLED, Outcome.NOT_EXECUTED)
    worker.result(token, b"done")
    assert verdict(client) == DONE
