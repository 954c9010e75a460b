"""What a worker's next READY proves about requests that were on their way when its connection broke.

"newest" in READY is the counter of the newest delivery that has reached the process. All connections of the process to
this life but the new one are over when it says so, and deliveries on one connection come in the order of their
counters. So a delivery that was handed over before, with a greater counter, has not come and never will.
"""

from __future__ import annotations

import pytest

from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import token_counter
from tests.support.broker_bench import LIFE, SLACK_S, Bench, OurClient, OurWorker
from tests.support.broker_verdicts import NO, WORKER_LOST, final, no_final, verdict


def handed_over(credit: int = 1) -> tuple[Bench, OurClient, OurWorker]:
    """A worker whose connection may have broken, and a call that must not run twice on its way to it."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", credit=credit).ready()
    client.submit(flags=NO)
    return bench, client, worker


@pytest.mark.parametrize("noticed", [False, True], ids=["half open", "in limbo"])
def test_a_request_that_never_arrived_goes_out_again(noticed: bool) -> None:
    """It did not run, and it is no delivery that counts."""
    bench, client, worker = handed_over()
    if noticed:
        bench.notice_death(worker)
    bench.advance(0.1)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE, newest=0)
    job = again.job()
    assert job.delivery.delivery == 1
    assert bench.count("never_arrived") == 1
    again.result(job.token, b"done")
    answer = final(client)
    assert (answer.status, answer.body) == (Status.OK, [b"done"])


def test_a_request_that_never_arrived_goes_to_any_worker() -> None:
    """But not to the connection that swallowed it, though nobody has missed that yet."""
    bench, client, worker = handed_over()
    other = OurWorker(bench, b"w2").ready()
    bench.advance(0.1)
    again = worker.successor(b"w1-again")
    again.credit = 0
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE, newest=0)
    other.result(other.job().token, b"done")
    assert final(client).body == [b"done"]


def test_a_request_that_arrived_and_is_not_in_hand_any_more_has_run() -> None:
    """Its report was lost with the connection, or given up: nobody knows what it said."""
    bench, client, worker = handed_over()
    token = worker.job().token
    bench.notice_death(worker)
    bench.advance(0.1)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE, newest=token_counter(token))
    bench.keep_alive(again)
    assert again.jobs() == []
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    assert bench.count("never_arrived") == 0


def test_of_two_requests_the_one_behind_the_newest_never_arrived() -> None:
    """The first is named, as it still runs."""
    bench, client, worker = handed_over(credit=2)
    client.submit(flags=NO, body=[b"second"])
    first, second = worker.jobs()
    bench.advance(0.1)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(tokens=[first.token], last_life=LIFE, newest=token_counter(first.token))
    assert again.job().body == [b"second"]
    assert token_counter(second.token) > token_counter(first.token)
    again.result(first.token, b"1")
    assert final(client).body == [b"1"]


@pytest.mark.parametrize("newest", [None, 0])
def test_a_worker_that_does_not_say_it_or_was_with_another_life_proves_nothing(newest: int | None) -> None:
    """One of an earlier version, one with two connections to this broker, or one that counts for another life."""
    bench, client, worker = handed_over()
    worker.job()
    bench.notice_death(worker)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE if newest is None else b"another.", newest=newest)
    bench.keep_alive(again)
    assert again.jobs() == []
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST


def test_a_request_handed_over_since_the_hello_may_be_on_its_way() -> None:
    """By another address of this broker: its connection came up after this READY was written and before it came."""
    bench, client, worker = handed_over()
    first = worker.job()
    late = worker.successor(b"w1-late")
    bench.advance(0.1)
    early = worker.successor(b"w1-early")
    bench.advance(SLACK_S)
    early.ready(tokens=[first.token], last_life=LIFE)
    early.result(first.token)
    client.submit(flags=NO, body=[b"second"])
    second = early.job()
    late.ready(last_life=LIFE, newest=token_counter(first.token))
    assert bench.count("never_arrived") == 0 and late.jobs() == []
    final(client)
    early.result(second.token, b"2")
    assert final(client).body == [b"2"]


def test_a_request_that_was_reported_started_is_believed_to_have_started() -> None:
    """Whatever READY says: of two words that contradict each other the worse one counts."""
    bench, client, worker = handed_over()
    worker.started(worker.job().token)
    bench.advance(0.1)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE, newest=0)
    assert bench.count("never_arrived") == 0 and again.jobs() == []
    no_final(client)


@pytest.mark.parametrize("noticed", [False, True], ids=["half open", "in limbo"])
def test_another_process_proves_nothing_about_this_one(noticed: bool) -> None:
    """Only who should have got it can say that it did not come."""
    bench, client, worker = handed_over()
    worker.job()
    if noticed:
        bench.notice_death(worker)
    bench.advance(0.1)
    stranger = OurWorker(bench, b"w2")
    bench.advance(SLACK_S)
    stranger.ready(last_life=LIFE, newest=0)
    assert bench.count("never_arrived") == 0 and stranger.jobs() == []
    no_final(client)


def test_a_call_that_has_ended_meanwhile_is_known_not_to_have_run() -> None:
    """Who asks again hears it."""
    bench, client, worker = handed_over()
    call_id = worker.job().delivery.call_id
    bench.advance(0.1)
    client.cancel(call_id)
    assert verdict(client) == (Status.CANCELLED, Outcome.UNKNOWN)
    again = worker.successor(b"w1-again")
    bench.advance(SLACK_S)
    again.ready(last_life=LIFE, newest=0)
    client.attach(call_id, attempt=2)
    assert verdict(client) == (Status.CANCELLED, Outcome.NOT_EXECUTED)
    assert again.jobs() == []
