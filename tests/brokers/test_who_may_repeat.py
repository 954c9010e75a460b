"""Who may repeat what, on the side of the workers: each rule of the broker with its exact trace.

The promise behind it: *a call that is not declared idempotent runs at most once, and NOT_EXECUTED is only said of work
that never ran and never will.* Every test fails if its rule is taken out of the broker. What the broker does when a
client asks again is in ``test_who_asks_again.py``, how calls end otherwise in ``test_how_calls_end.py``.
"""

from __future__ import annotations

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import (
    CallFlag,
    CallKind,
    GiveBackReason,
    Place,
    ServiceOffer,
)
from reliable.wire.mdp import Version
from tests.support.broker_bench import (
    LIFE,
    OTHER_LIFE,
    SLACK_S,
    Bench,
    ForeignClient,
    ForeignWorker,
    OurClient,
    OurWorker,
)
from tests.support.broker_verdicts import (
    DONE,
    EXPIRED_IN_HANDS,
    EXPIRED_IN_QUEUE,
    NO,
    SOON,
    UNSAID,
    WORKER_LOST,
    YES,
    final,
    idempotent_or_not,
    no_final,
    verdict,
)

# --- what counts as idempotent ---


@pytest.mark.parametrize(
    ("declared", "flags", "effective"),
    [
        (None, UNSAID, False),
        (None, YES, True),
        (None, NO, False),
        (True, UNSAID, True),
        (True, YES, True),
        (True, NO, False),
        (False, UNSAID, False),
        (False, YES, False),
        (False, NO, False),
    ],
)
def test_service_and_caller_decide_together(declared: bool | None, flags: CallFlag, effective: bool) -> None:
    """Default no; the caller's word decides where the service is silent; the service's no vetoes."""
    bench = Bench()
    client = OurClient(bench)
    first = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", declared)]).ready()
    client.submit(flags=flags)
    job = first.job()
    assert bool(job.delivery.flags & YES) is effective
    second = OurWorker(bench, b"w2", services=[ServiceOffer(b"echo", declared)]).ready()
    bench.keep_alive(second)
    bench.notice_death(first)
    bench.advance(bench.config.limbo_s + SOON)
    assert len(second.jobs()) == int(effective)
    if effective:
        no_final(client)
    else:
        assert verdict(client) == WORKER_LOST


@pytest.mark.parametrize(("declared", "repeated"), [(None, True), (True, True), (False, False)])
def test_plain_requests_count_as_idempotent_unless_the_service_says_no(declared: bool | None, repeated: bool) -> None:
    """RFC 7 says of workers that they are idempotent; a service that declares otherwise is believed."""
    bench = Bench()
    first = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", declared)]).ready()
    ForeignClient(bench).request(b"echo", b"work")
    first.job()
    second = OurWorker(bench, b"w2", services=[ServiceOffer(b"echo", declared)]).ready()
    bench.keep_alive(second)
    bench.notice_death(first)
    bench.advance(bench.config.limbo_s + SOON)
    assert len(second.jobs()) == int(repeated)


def test_veto_of_one_worker_holds_for_the_service() -> None:
    """Half of a pool cannot declare for the other half that repeating is safe."""
    bench = Bench()
    client = OurClient(bench)
    permissive = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", True)]).ready()
    strict = OurWorker(bench, b"w2", services=[ServiceOffer(b"echo", False)]).ready()
    bench.keep_alive(strict)
    client.submit(flags=YES)
    assert not permissive.job().delivery.flags & YES
    bench.notice_death(permissive)
    bench.advance(bench.config.limbo_s + SOON)
    assert strict.jobs() == []
    assert verdict(client) == WORKER_LOST


# --- the send to the worker failed ---


@idempotent_or_not
@pytest.mark.parametrize("failure", ["unreachable", "full"])
def test_unsent_request_goes_to_the_next_worker(flags: CallFlag, failure: str) -> None:
    """It never left the broker, so even a call that must not be repeated goes on."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    (bench.unreachable if failure == "unreachable" else bench.full).add(first.id)
    client.submit(flags=flags)
    second.result(second.job().token, b"done")
    answer = final(client)
    assert (answer.status, answer.body) == (Status.OK, [b"done"])
    assert first.jobs() == []


@idempotent_or_not
def test_unsent_request_that_finds_no_other_worker_expires_unexecuted(flags: CallFlag) -> None:
    """A failed send is no execution: the caller may be told so."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.kill(worker)
    client.submit(flags=flags, timeout_s=2.0)
    bench.advance(2.0 + SLACK_S)
    assert verdict(client) == EXPIRED_IN_QUEUE


def test_unsent_requests_do_not_count_towards_the_delivery_cap() -> None:
    """The cap bounds how many workers a request may take with it; these never had it."""
    bench = Bench(BrokerConfig(delivery_cap=1))
    client = OurClient(bench)
    for number in range(5):
        bench.unreachable.add(OurWorker(bench, b"dead%d" % number).ready().id)
    live = OurWorker(bench, b"live").ready()
    client.submit(flags=YES)
    live.result(live.job().token)
    assert verdict(client) == DONE


def test_other_requests_of_an_unreachable_worker_may_have_run() -> None:
    """Only the message that failed is proven unsent; what the worker took before is another matter."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", credit=2).ready()
    held = client.submit(body=[b"held"], flags=NO)
    assert worker.job().body == [b"held"]
    other = OurWorker(bench, b"w2").ready()
    bench.keep_alive(other)
    bench.kill(worker)
    # Load decides who gets the second one; make it the dead worker by taking the other's slot first.
    client.submit(body=[b"filler"], flags=NO)
    filler = other.job()
    unsent = client.submit(body=[b"unsent"], flags=NO)
    other.result(filler.token)
    assert other.job().body == [b"unsent"]
    bench.advance(bench.config.limbo_s + SOON)
    finals = {answer.frame.call_id: answer.status for answer in client.answers() if answer.final}
    assert finals.pop(held) is Status.WORKER_LOST
    assert unsent not in finals


# --- given back unstarted ---


@idempotent_or_not
@pytest.mark.parametrize(
    "reason",
    [GiveBackReason.DRAINING, GiveBackReason.FULL, GiveBackReason.NO_SUCH_SERVICE, GiveBackReason.BAD_DELIVERY],
)
def test_request_given_back_unstarted_goes_to_the_next_worker(flags: CallFlag, reason: GiveBackReason) -> None:
    """The worker itself says that it did not run."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    client.submit(flags=flags)
    first.give_back(first.job().token, reason)
    second.result(second.job().token)
    assert verdict(client) == DONE


@idempotent_or_not
def test_request_given_back_and_never_taken_again_expires_unexecuted(flags: CallFlag) -> None:
    """Giving back is proof, and the proof reaches the caller."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=flags, timeout_s=2.0)
    token = worker.job().token
    worker.set_credit(0)
    worker.give_back(token)
    bench.keep_alive(worker)
    bench.advance(2.0 + SLACK_S)
    assert verdict(client) == EXPIRED_IN_QUEUE


@idempotent_or_not
def test_request_given_back_as_expired_is_answered_as_expired_and_unexecuted(flags: CallFlag) -> None:
    """The worker found its deadline passed before it started."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    client.submit(flags=flags)
    first.give_back(first.job().token, GiveBackReason.EXPIRED)
    assert verdict(client) == EXPIRED_IN_QUEUE
    assert second.jobs() == []


def test_giving_back_after_a_loss_does_not_prove_that_nothing_ran() -> None:
    """May-have-run is sticky: the first worker may have run it, whatever the second one says."""
    bench = Bench()
    client = OurClient(bench)
    first = OurWorker(bench, b"w1").ready()
    client.submit(flags=YES, timeout_s=4.0)
    first.job()
    second = OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    bench.notice_death(first)
    token = second.job().token
    second.set_credit(0)
    second.give_back(token)
    bench.advance(4.0)
    assert verdict(client) == EXPIRED_IN_HANDS


def test_giving_back_what_was_started_proves_nothing() -> None:
    """A worker that said STARTED cannot unsay it: a call that must not be repeated ends there."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    client.submit(flags=NO)
    token = first.job().token
    first.started(token)
    first.give_back(token)
    assert second.jobs() == []
    assert final(client).outcome is Outcome.UNKNOWN


# --- the worker is gone while it holds the request ---


def _lose(bench: Bench, worker: OurWorker | ForeignWorker, how: str) -> None:
    if how == "unreachable":
        bench.notice_death(worker)
    elif how == "DISCONNECT":
        worker.disconnect()
    elif how == "second READY":
        worker.ready()
    else:
        worker.send(b"junk")


losses = pytest.mark.parametrize("how", ["unreachable", "DISCONNECT", "second READY", "malformed"])


@losses
def test_idempotent_call_is_redelivered_up_to_the_cap_and_then_quarantined(how: str) -> None:
    """Each loss may be the request's own doing; at the cap it is given to nobody any more."""
    bench = Bench()
    client = OurClient(bench)
    call = client.submit(flags=YES, timeout_s=60.0)
    deliveries = []
    for number in range(5):
        worker = OurWorker(bench, b"w%d" % number).ready()
        jobs = worker.jobs()
        deliveries += [job.delivery.delivery for job in jobs]
        if jobs:
            _lose(bench, worker, how)
            bench.kill(worker)
    assert deliveries == [1, 2, 3]
    assert verdict(client) == WORKER_LOST
    assert bench.count("quarantined") == 1
    client.submit(call_id=call, attempt=2, flags=YES, first_sent=bench.now - 5.0)
    assert verdict(client) == WORKER_LOST
    assert OurWorker(bench, b"fresh").ready().jobs() == []


def test_redelivery_does_not_wait_for_a_limbo() -> None:
    """What may be repeated is repeated at once."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    client.submit(flags=YES)
    first.job()
    first.disconnect()
    assert second.job().delivery.delivery == 2


@losses
def test_other_call_waits_in_limbo_and_ends_as_lost(how: str) -> None:
    """The worker may come back with it within half a second; after that nobody knows whether it ran."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    client.submit(flags=NO)
    first.job()
    _lose(bench, first, how)
    no_final(client)
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    bench.advance(5.0)
    assert second.jobs() == [], "a call that must not be repeated was delivered twice"


def test_limbo_lasts_as_long_as_it_is_said() -> None:
    """Too short, and every reconnect of a worker costs a call; too long, and the caller waits for nothing."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    worker.job()
    worker.disconnect()
    bench.advance(bench.config.limbo_s - SLACK_S)
    no_final(client)
    bench.advance(2 * SLACK_S)
    assert verdict(client) == WORKER_LOST


@losses
def test_worker_that_comes_back_with_the_token_in_limbo_keeps_the_call(how: str) -> None:
    """A cut link is not a dead worker: its work goes on, and is answered once."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    token = worker.job().token
    _lose(bench, worker, how)
    bench.advance(0.2)
    again = worker.successor(b"w1-again").ready(tokens=[token], last_life=LIFE)
    bench.keep_alive(again)
    bench.advance(2.0)
    no_final(client)
    assert bench.state(again) == "working"
    again.result(token, b"survived")
    answer = final(client)
    assert (answer.status, answer.body) == (Status.OK, [b"survived"])
    assert again.jobs() == [] and bench.count("limbo_recovered") == 1


def test_worker_that_comes_back_with_the_token_holds_it_against_its_credit() -> None:
    """Its slot is taken, so it gets nothing else until it reports."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(body=[b"1"], flags=NO)
    token = worker.job().token
    worker.disconnect()
    again = worker.successor(b"w1-again").ready(tokens=[token], last_life=LIFE)
    client.submit(body=[b"2"], flags=NO)
    assert again.jobs() == []
    again.result(token)
    assert again.job().body == [b"2"]


def test_worker_may_come_back_before_its_old_connection_is_missed() -> None:
    """The old link is half open for seconds; the token moves to the new one, and the old one may not speak for it."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    token = worker.job().token
    again = worker.successor(b"w1-again").ready(tokens=[token], last_life=LIFE)
    bench.keep_alive(again)
    bench.notice_death(worker)
    bench.advance(bench.config.limbo_s + SOON)
    no_final(client)
    again.result(token, b"over the new link")
    assert final(client).body == [b"over the new link"]


def test_worker_that_comes_back_without_the_token_has_lost_the_call() -> None:
    """Its reply may have died with the old connection: nobody knows, and nobody runs it again."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    worker.job()
    worker.disconnect()
    again = worker.successor(b"w1-again").ready(last_life=LIFE)
    bench.keep_alive(again)
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    bench.advance(2.0)
    assert again.jobs() == []


@pytest.mark.parametrize("lie", ["another instance", "another life"])
def test_token_is_not_given_to_whoever_names_it(lie: str) -> None:
    """Only the process that held it, in this life of the broker, can have it."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    token = worker.job().token
    worker.disconnect()
    if lie == "another instance":
        thief = OurWorker(bench, b"thief").ready(tokens=[token], last_life=LIFE)
    else:
        thief = worker.successor(b"thief").ready(tokens=[token], last_life=OTHER_LIFE)
    thief.result(token, b"stolen")
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST


def test_worker_that_comes_back_after_limbo_is_not_punished() -> None:
    """Its call has ended without it; its late reply is counted, and it works on."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO, timeout_s=30.0)
    token = worker.job().token
    worker.disconnect()
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    again = worker.successor(b"w1-again").ready(tokens=[token], last_life=LIFE)
    again.result(token, b"late")
    assert again.disconnects() == 0 and bench.state(again) == "idle"
    assert bench.count("late_replies") == 1
    no_final(client)
    client.submit(body=[b"next"], flags=NO)
    assert again.job().body == [b"next"]


@losses
@pytest.mark.parametrize("version", [Version.MDP01, Version.MDP02], ids=["0.1", "0.2"])
def test_other_call_in_the_hands_of_a_foreign_worker_is_lost_at_once(how: str, version: Version) -> None:
    """A foreign worker has no way to come back with it."""
    bench = Bench()
    client = OurClient(bench)
    first, second = ForeignWorker(bench, b"w1", version).ready(), ForeignWorker(bench, b"w2", version).ready()
    bench.keep_alive(second)
    client.submit(flags=NO)
    first.request()
    _lose(bench, first, how)
    assert verdict(client) == WORKER_LOST
    assert second.requests() == []


@idempotent_or_not
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
def test_nothing_is_repeated_after_a_part_was_forwarded(flags: CallFlag, ours: bool) -> None:
    """The caller would see the beginning twice."""
    bench = Bench()
    client = OurClient(bench)
    first: OurWorker | ForeignWorker
    if ours:
        first = OurWorker(bench, b"w1").ready()
    else:
        first = ForeignWorker(bench, b"w1", Version.MDP02).ready()
    second = OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    client.submit(flags=flags)
    if isinstance(first, OurWorker):
        first.partial(first.job().token, b"part")
    else:
        first.send_reply(first.request().address, b"part", final=False)
    part = client.answer()
    assert (part.status, part.final, part.body) == (Status.PARTIAL, False, [b"part"])
    first.disconnect()
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    assert second.jobs() == []


def test_call_that_ended_as_lost_is_not_run_by_a_repetition() -> None:
    """The record outlives the answer: a client that did not get it and asks again learns the same."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    began = bench.now
    call = client.submit(flags=NO)
    first.job()
    first.disconnect()
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    for attempt, kind in ((2, CallKind.ATTACH), (3, CallKind.SUBMIT)):
        client.ask(kind, call, attempt=attempt, flags=NO, first_sent=began)
        assert final(client).outcome is Outcome.UNKNOWN
    assert second.jobs() == []


# --- delivered, and not a word about it ---


def test_idempotent_call_that_a_live_worker_never_started_goes_elsewhere() -> None:
    """A lost REQUEST must not strand the call, nor the worker's slot."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=YES, timeout_s=60.0)
    first.job()
    bench.advance(bench.config.delivery_timeout_s - SLACK_S)
    assert second.jobs() == []
    bench.advance(2 * SLACK_S)
    second.result(second.job().token)
    assert verdict(client) == DONE
    assert bench.state(first) == "idle", "its slot is stranded"


def test_other_call_that_a_live_worker_never_started_is_asked_back_and_ends_as_lost() -> None:
    """It may still be in the worker's hands: unless the worker says otherwise, nobody may run it elsewhere."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=NO, timeout_s=60.0)
    first.job()
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    no_final(client)
    assert len(first.cancels()) == 1
    bench.advance(bench.config.limbo_s + SLACK_S)
    assert verdict(client) == WORKER_LOST
    assert second.jobs() == []


def test_other_call_that_was_asked_back_and_given_back_goes_to_the_next_worker() -> None:
    """The worker had it in a queue of its own: its word that it never started is proof."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=NO, timeout_s=60.0)
    token = first.job().token
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    assert first.cancels() == [token]
    first.give_back(token, GiveBackReason.CANCELLED)
    second.result(second.job().token)
    assert verdict(client) == DONE


def test_other_call_that_was_asked_back_and_started_after_all_runs_on() -> None:
    """The request to drop it crossed the news that it runs."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=NO, timeout_s=60.0)
    token = first.job().token
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    first.started(token)
    bench.advance(5.0)
    first.result(token)
    assert verdict(client) == DONE
    assert second.jobs() == []


@idempotent_or_not
@pytest.mark.parametrize("sign", ["started", "progress", "partial"])
def test_call_that_shows_signs_of_running_is_left_alone(flags: CallFlag, sign: str) -> None:
    """A long run of a live worker is no fault."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=flags, timeout_s=60.0)
    token = first.job().token
    if sign == "started":
        first.started(token)
    elif sign == "progress":
        first.progress(token, b"half")
    else:
        first.partial(token, b"part")
    bench.advance(4 * bench.config.delivery_timeout_s)
    assert second.jobs() == []
    first.result(token)
    assert verdict(client) == DONE


def test_late_reply_to_a_retired_token_answers_the_call_that_still_waits() -> None:
    """It is the work that was asked for; the second copy is then the late one, and neither worker is punished."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    call = client.submit(flags=YES, timeout_s=60.0)
    early = first.job().token
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    late = second.job().token
    client.submit(call_id=call, attempt=2, flags=YES, timeout_s=60.0, first_sent=bench.now - 5)
    first.result(early, b"from the first")
    answer = final(client)
    assert (answer.status, answer.body, answer.frame.attempt) == (Status.OK, [b"from the first"], 2)
    second.result(late, b"from the second")
    no_final(client)
    assert (first.disconnects(), second.disconnects()) == (0, 0)
    assert (bench.state(first), bench.state(second)) == ("idle", "idle")
    assert bench.count("late_replies") >= 1


def test_late_error_of_a_retired_token_does_not_end_a_call_that_may_run_elsewhere() -> None:
    """Its handler may have ended only because it was told that nobody waits for it any more."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first, second)
    client.submit(flags=YES, timeout_s=60.0)
    early = first.job().token
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    late = second.job().token
    first.error(early, b"Cancelled", b"nobody waits for the reply")
    no_final(client)
    second.result(late, b"from the second")
    assert final(client).body == [b"from the second"]
    assert (bench.state(first), bench.count("late_replies")) == ("idle", 1)


def test_retired_token_in_the_mouth_of_another_worker_is_forged() -> None:
    """Late replies are welcome from whom the request was given to, and from nobody else."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    forger = OurWorker(bench, b"forger", services=[ServiceOffer(b"other")]).ready()
    bench.keep_alive(first, second, forger)
    client.submit(flags=YES, timeout_s=60.0)
    token = first.job().token
    bench.advance(bench.config.delivery_timeout_s + SLACK_S)
    forger.result(token, b"forged")
    assert client.answers() == [] and forger.disconnects() == 1
    second.result(second.job().token)
    assert verdict(client) == DONE


# --- stuck ---


def test_idempotent_call_of_a_stuck_worker_goes_elsewhere() -> None:
    """Its loop is silent; whoever may run the call instead does."""
    bench = Bench(BrokerConfig(delivery_timeout_s=60.0))
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    client.submit(flags=YES, timeout_s=60.0)
    first.job()
    bench.advance(bench.stuck_s + SLACK_S)
    assert bench.state(first) == "stuck"
    second.result(second.job().token)
    assert verdict(client) == DONE


@pytest.mark.parametrize("started", [True, False])
def test_slot_of_a_stuck_worker_stays_taken_by_what_went_elsewhere(started: bool) -> None:
    """When its loop wakes up it still has the request and runs it: more than its credit would wait in its hands."""
    bench = Bench(BrokerConfig(delivery_timeout_s=60.0))
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    client.submit(flags=YES, timeout_s=60.0)
    token = first.job().token
    if started:
        first.started(token)
    bench.advance(bench.stuck_s + SLACK_S)
    second.job()
    client.submit(body=[b"next"], flags=YES, timeout_s=60.0)
    first.heartbeat()
    assert bench.state(first) == "working" and first.jobs() == []
    first.result(token)
    assert first.job().body == [b"next"]


def test_running_call_of_a_stuck_worker_is_kept_until_its_deadline() -> None:
    """A handler that holds the GIL is working: never evicted on silence alone, never run elsewhere."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(second)
    call = client.submit(flags=NO, timeout_s=30.0)
    token = first.job().token
    first.started(token)
    bench.advance(bench.stuck_s + SLACK_S)
    client.answers()
    client.attach(call, timeout_s=20.0, flags=NO, first_sent=bench.now - 5)
    news = client.answer()
    assert (news.status, news.place, news.final) == (Status.STARTED, Place.STUCK, False)
    bench.advance(10.0)
    no_final(client)
    first.result(token, b"there it is")
    assert verdict(client) == DONE
    assert second.jobs() == [] and bench.state(first) == "idle"


def test_running_call_of_a_stuck_worker_ends_at_its_deadline_as_unknown() -> None:
    """Every call ends by its deadline."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO, timeout_s=12.0)
    worker.started(worker.job().token)
    bench.advance(12.0 - SLACK_S)
    no_final(client)
    bench.advance(2 * SLACK_S)
    assert verdict(client) == EXPIRED_IN_HANDS


def test_stuck_worker_gets_no_new_work_until_it_is_heard() -> None:
    """It is not available, and the service says so; its first sign of life brings it back."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.advance(bench.stuck_s + SLACK_S)
    client.submit(flags=NO)
    assert worker.jobs() == [] and bench.state(worker) == "stuck"
    assert bench.mmi(b"echo") == b"404"
    worker.heartbeat()
    assert len(worker.jobs()) == 1 and bench.mmi(b"echo") == b"200"
