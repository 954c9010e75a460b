"""Who may repeat what, on the side of the clients: joining, fences, lives, replays, and tables that fail closed.

The other half of ``test_who_may_repeat.py``: here the worker is well, and the client asks again.
"""

from __future__ import annotations

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import (
    NO_LIFE,
    CallFlag,
    CallKind,
    Place,
    ServiceOffer,
    body_digest,
)
from tests.support.broker_bench import (
    OTHER_LIFE,
    Bench,
    OurClient,
    OurWorker,
)
from tests.support.broker_verdicts import (
    DONE,
    NO,
    UNKNOWN_PROVEN,
    UNKNOWN_UNPROVEN,
    UNSAID,
    YES,
    final,
    idempotent_or_not,
    no_final,
    verdict,
)

# --- the client asks again ---


def test_attach_to_a_queued_call_is_answered_from_the_queue() -> None:
    """The caller learns that it is still waited for, and that nothing ran."""
    bench = Bench()
    client = OurClient(bench)
    busy = OurWorker(bench, b"w1").ready()
    bench.keep_alive(busy)
    client.submit(body=[b"first"], flags=NO)
    call = client.submit(flags=NO)
    assert client.answers() == [], "ordinary queueing is not announced"
    client.attach(call, flags=NO)
    news = client.answer()
    assert (news.status, news.place, news.final, news.frame.attempt) == (Status.ACCEPTED, Place.QUEUED, False, 2)
    assert len(busy.jobs()) == 1


def test_attach_to_a_call_without_a_worker_says_so() -> None:
    """The difference between a busy service and a missing one belongs into the caller's error text."""
    bench = Bench()
    client = OurClient(bench)
    call = client.submit(b"absent", flags=NO)
    first = client.answer()
    assert (first.status, first.place, first.final) == (Status.ACCEPTED, Place.QUEUED_NO_WORKER, False)
    client.attach(call, b"absent", flags=NO)
    news = client.answer()
    assert (news.status, news.place, news.final) == (Status.ACCEPTED, Place.QUEUED_NO_WORKER, False)


@pytest.mark.parametrize("kind", [CallKind.ATTACH, CallKind.SUBMIT])
def test_asking_again_for_a_call_in_hand_is_answered_and_not_dispatched(kind: CallKind) -> None:
    """Joined, not repeated: delivered first, running once the worker has said so."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    call = client.submit(flags=YES)
    token = first.job().token
    client.ask(kind, call, attempt=2, flags=YES)
    news = client.answer()
    assert (news.status, news.place, news.final, news.frame.attempt) == (Status.STARTED, Place.DELIVERED, False, 2)
    first.started(token)
    client.answers()
    client.ask(kind, call, attempt=3, flags=YES)
    news = client.answer()
    assert (news.status, news.place, news.final, news.frame.attempt) == (Status.STARTED, Place.RUNNING, False, 3)
    assert second.jobs() == [] and first.jobs() == []


def test_attach_to_a_call_in_limbo_is_not_final() -> None:
    """Its worker may still come back."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    call = client.submit(flags=NO)
    worker.job()
    worker.disconnect()
    client.attach(call, flags=NO)
    news = client.answer()
    assert (news.place, news.final) == (Place.LIMBO, False)


@idempotent_or_not
@pytest.mark.parametrize("kind", [CallKind.ATTACH, CallKind.SUBMIT])
@pytest.mark.parametrize("failed", [False, True], ids=["reply", "handler error"])
def test_asking_again_for_an_answered_call_replays_the_answer(flags: CallFlag, kind: CallKind, failed: bool) -> None:
    """Run once, answered as often as asked, byte for byte."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    began = bench.now
    call = client.submit(flags=flags)
    if failed:
        worker.error(worker.job().token, b"ValueError", b"no")
    else:
        worker.result(worker.job().token, b"a", b"", b"b")
    original = final(client)
    bench.advance(1.0)
    client.ask(kind, call, attempt=2, flags=flags, first_sent=began, timeout_s=9.0)
    again = final(client)
    assert (again.status, again.outcome, again.body) == (original.status, original.outcome, original.body)
    assert original.outcome is Outcome.EXECUTED and again.frame.attempt == 2
    assert worker.jobs() == []


def test_attach_to_an_unknown_call_leaves_a_fence_against_its_first_copy() -> None:
    """Not executed is a promise: the first copy may still be on its way, and must not run when it comes."""
    bench = Bench()
    client, late = OurClient(bench, b"new-link"), OurClient(bench, b"old-link")
    worker = OurWorker(bench, b"w1").ready()
    call = bench.new_call_id()
    began = bench.now
    client.attach(call, attempt=2, flags=NO, first_sent=began)
    assert verdict(client) == UNKNOWN_PROVEN
    late.submit(call_id=call, attempt=1, flags=NO, first_sent=began)
    assert worker.jobs() == [], "the fenced first copy was dispatched"
    assert all((a.status, a.outcome) == UNKNOWN_PROVEN for a in late.answers())
    assert bench.count("fenced") == 1 and bench.count("fence_hits") == 1
    client.submit(call_id=call, attempt=3, flags=NO, first_sent=began)
    worker.result(worker.job().token)
    assert verdict(client) == DONE


def test_fence_holds_against_every_attempt_up_to_it_and_until_the_deadline() -> None:
    """A second copy of the fenced attempt is no newer than the first."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    call = bench.new_call_id()
    began = bench.now
    client.attach(call, attempt=4, flags=NO, first_sent=began, deadline=began + 10)
    for _ in range(9):
        bench.advance(1.0)
        for attempt in (1, 2, 3, 4):
            client.submit(call_id=call, attempt=attempt, flags=NO, first_sent=began, deadline=began + 10)
    assert worker.jobs() == []


def test_later_question_raises_the_fence() -> None:
    """Each answer is a promise about all attempts up to its own."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    call = bench.new_call_id()
    began = bench.now
    for attempt in (2, 4, 3):
        client.attach(call, attempt=attempt, flags=NO, first_sent=began)
        assert verdict(client) == UNKNOWN_PROVEN
    client.submit(call_id=call, attempt=4, flags=NO, first_sent=began)
    assert verdict(client) == UNKNOWN_PROVEN and worker.jobs() == []
    client.submit(call_id=call, attempt=5, flags=NO, first_sent=began)
    assert len(worker.jobs()) == 1


def test_attach_to_a_call_older_than_this_life_is_answered_with_unknown() -> None:
    """It may have run in the life before: nobody here can promise that it did not."""
    bench = Bench()
    client = OurClient(bench)
    client.attach(bench.new_call_id(), flags=NO, first_sent=bench.now - 1.0)
    assert verdict(client) == UNKNOWN_UNPROVEN


@pytest.mark.parametrize(("flags", "dispatched"), [(YES, True), (NO, False), (UNSAID, False)])
def test_submit_of_a_call_older_than_this_life(flags: CallFlag, dispatched: bool) -> None:
    """Idempotent ones are run again; of the others nobody knows whether they ran."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(attempt=2, flags=flags, first_sent=bench.now - 1.0)
    assert len(worker.jobs()) == int(dispatched)
    if dispatched:
        no_final(client)
    else:
        assert verdict(client) == UNKNOWN_UNPROVEN


@pytest.mark.parametrize("kind", [CallKind.ATTACH, CallKind.SUBMIT])
@idempotent_or_not
def test_join_retargets_the_reply_to_the_newest_address(kind: CallKind, flags: CallFlag) -> None:
    """The old link is dead to the client: a reply sent there is lost."""
    bench = Bench()
    old = OurClient(bench, b"old-link", instance=b"i" * 16)
    worker = OurWorker(bench, b"w1").ready()
    began = bench.now
    call = old.submit(flags=flags)
    new = OurClient(bench, b"new-link", instance=b"i" * 16)
    new.ask(kind, call, attempt=2, flags=flags, first_sent=began)
    new.answers()
    worker.result(worker.job().token)
    assert verdict(new) == DONE
    assert old.answers() == []
    assert bench.count("dispatched") == 1


def test_overtaken_attempt_does_not_take_the_reply_back() -> None:
    """A copy that comes late over the old link must not turn the answer back to it."""
    bench = Bench()
    old, new = OurClient(bench, b"old-link", instance=b"i" * 16), OurClient(bench, b"new-link", instance=b"i" * 16)
    worker = OurWorker(bench, b"w1").ready()
    call = bench.new_call_id()
    new.submit(call_id=call, attempt=2, flags=YES)
    old.submit(call_id=call, attempt=1, flags=YES)
    worker.result(worker.job().token)
    assert verdict(new) == DONE
    no_final(old)
    assert bench.count("dispatched") == 1


@pytest.mark.parametrize("difference", ["body", "service", "service under the same digest"])
@pytest.mark.parametrize("when", ["queued", "running", "answered"])
def test_call_id_of_another_request_is_a_conflict(difference: str, when: str) -> None:
    """Joining it would hand one caller the reply to something else."""
    bench = Bench()
    first, second = OurClient(bench, b"c1"), OurClient(bench, b"c2")
    call = first.submit(flags=NO) if when == "queued" else b""
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo"), ServiceOffer(b"other")])
    if when != "queued":
        worker.ready()
        call = first.submit(flags=NO)
    if when == "answered":
        worker.result(worker.job().token)
    first.answers()
    if difference == "body":
        second.submit(b"echo", [b"different"], call_id=call, attempt=2, flags=NO)
    else:
        digest = None if difference == "service" else body_digest(b"echo", [b"work"])
        second.submit(b"other", [b"work"], call_id=call, attempt=2, flags=NO, digest=digest)
    assert verdict(second) == (Status.ID_CONFLICT, Outcome.NOT_EXECUTED)
    if when == "answered":
        assert worker.jobs() == []
        return
    if when == "queued":
        worker.ready()
    worker.result(worker.job().token)
    assert verdict(first) == DONE
    assert worker.jobs() == [] and second.answers() == []


@pytest.mark.parametrize("kind", [CallKind.SUBMIT, CallKind.ATTACH])
@idempotent_or_not
def test_message_for_another_life_is_refused(kind: CallKind, flags: CallFlag) -> None:
    """What was meant for the life before must not run in this one."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.ask(kind, bench.new_call_id(), flags=flags, life=OTHER_LIFE)
    assert verdict(client) == (Status.WRONG_LIFE, Outcome.NOT_EXECUTED)
    assert worker.jobs() == [] and bench.count("wrong_life") == 1


def test_message_for_any_life_is_taken() -> None:
    """A client that has not met this broker yet cannot name its life."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(life=NO_LIFE, flags=NO)
    assert len(worker.jobs()) == 1


# --- caches fail closed ---


def _run_calls(bench: Bench, client: OurClient, worker: OurWorker, count: int) -> None:
    for _ in range(count):
        client.submit(flags=NO)
        worker.result(worker.job().token, b"x" * 100)
        bench.advance(0.01)
    client.answers()


@pytest.mark.parametrize(("flags", "dispatched"), [(NO, False), (UNSAID, False), (YES, True)])
def test_forgotten_call_is_not_run_again_unless_it_is_idempotent(flags: CallFlag, dispatched: bool) -> None:
    """A full table must not turn "I do not remember" into "run it": past the horizon the answer is unknown."""
    bench = Bench(BrokerConfig(finished_calls_max=8))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    began = bench.now
    call = client.submit(flags=flags, timeout_s=30.0)
    worker.result(worker.job().token)
    bench.advance(0.01)
    _run_calls(bench, client, worker, 64)
    client.submit(call_id=call, attempt=2, flags=flags, first_sent=began)
    assert len(worker.jobs()) == int(dispatched)
    if not dispatched:
        assert verdict(client) == UNKNOWN_UNPROVEN
        client.attach(call, attempt=3, flags=flags, first_sent=began)
        assert verdict(client) == UNKNOWN_UNPROVEN
    assert bench.count("calls_forgotten") > 0


def test_call_first_sent_after_the_horizon_is_served_as_ever() -> None:
    """The horizon must not stop new calls."""
    bench = Bench(BrokerConfig(finished_calls_max=8))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    _run_calls(bench, client, worker, 100)
    bench.advance(0.01)
    client.attach(bench.new_call_id(), flags=NO)
    assert verdict(client) == UNKNOWN_PROVEN
    client.submit(flags=NO)
    worker.result(worker.job().token)
    assert verdict(client) == DONE


def test_fences_that_did_not_fit_move_the_horizon() -> None:
    """A forgotten promise must still be kept."""
    bench = Bench(BrokerConfig(fences_max=8))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    calls = []
    for _ in range(64):
        bench.advance(0.01)
        began = bench.now
        calls.append((client.attach(bench.new_call_id(), flags=NO, first_sent=began, timeout_s=60.0), began))
    assert {(answer.status, answer.outcome) for answer in client.answers()} == {UNKNOWN_PROVEN}
    for call, began in calls:
        client.submit(call_id=call, attempt=1, flags=NO, first_sent=began)
    assert worker.jobs() == []
    assert all(answer.final for answer in client.answers())


def test_call_in_flight_is_never_forgotten() -> None:
    """Whatever finishes around it."""
    bench = Bench(BrokerConfig(finished_calls_max=8))
    client = OurClient(bench)
    holder = OurWorker(bench, b"holder").ready()
    bench.keep_alive(holder)
    began = bench.now
    call = client.submit(flags=NO, timeout_s=60.0)
    token = holder.job().token
    holder.started(token)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    _run_calls(bench, client, worker, 64)
    client.attach(call, attempt=2, flags=NO, first_sent=began, timeout_s=60.0)
    news = client.answer()
    assert (news.place, news.final) == (Place.RUNNING, False)
    holder.result(token)
    assert verdict(client) == DONE


@idempotent_or_not
def test_reply_that_is_no_longer_kept_is_said_to_have_run(flags: CallFlag) -> None:
    """Bodies go first, ids stay: the work is not done twice for want of its result."""
    bench = Bench(BrokerConfig(reply_cache_bytes_max=1000))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    began = bench.now
    call = client.submit(flags=flags)
    worker.result(worker.job().token, b"y" * 900)
    _run_calls(bench, client, worker, 5)
    for attempt, kind in ((2, CallKind.ATTACH), (3, CallKind.SUBMIT)):
        client.ask(kind, call, attempt=attempt, flags=flags, first_sent=began)
        assert verdict(client) == (Status.REPLY_EVICTED, Outcome.EXECUTED)
    assert worker.jobs() == []


def test_reply_that_could_not_be_delivered_is_kept_for_the_next_attempt() -> None:
    """The link died while the worker worked: its result is asked for over the next one."""
    bench = Bench()
    old = OurClient(bench, b"old-link", instance=b"i" * 16)
    worker = OurWorker(bench, b"w1").ready()
    began = bench.now
    call = old.submit(flags=NO)
    bench.kill(old)
    worker.result(worker.job().token, b"precious")
    assert bench.count("undeliverable_replies") == 1
    new = OurClient(bench, b"new-link", instance=b"i" * 16)
    new.attach(call, flags=NO, first_sent=began)
    answer = final(new)
    assert (answer.status, answer.body) == (Status.OK, [b"precious"])
    assert worker.jobs() == []


def test_call_that_ran_is_never_denied_after_its_record_aged_out() -> None:
    """An attempt that was held up on its way until after deadline and grace gets no false promise."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    began = bench.now
    call = client.submit(flags=NO, timeout_s=2.0)
    worker.result(worker.job().token)
    client.answers()
    bench.advance(2.0 + bench.config.grace_s + 2.0)
    client.attach(call, flags=NO, first_sent=began, deadline=began + 2.0)
    client.submit(call_id=call, attempt=3, flags=NO, first_sent=began, deadline=began + 2.0)
    assert worker.jobs() == []
    assert all(answer.outcome is not Outcome.NOT_EXECUTED for answer in client.answers() if answer.final)


# --- repeating at another broker ---


def test_repetition_is_refused_by_a_service_that_vetoes() -> None:
    """The caller held it for idempotent and asked another broker first; the service knows better."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", False)]).ready()
    client.submit(attempt=2, flags=YES | CallFlag.REPEAT)
    assert verdict(client) == UNKNOWN_UNPROVEN
    assert worker.jobs() == []


def test_repetition_is_refused_at_once_while_the_workers_are_busy() -> None:
    """The veto is known: the caller does not wait in a queue for it."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", False)]).ready()
    client.submit(body=[b"first"], flags=NO)
    client.submit(attempt=2, flags=YES | CallFlag.REPEAT)
    assert verdict(client) == UNKNOWN_UNPROVEN
    worker.result(worker.job().token)
    assert worker.jobs() == []


def test_repetition_is_refused_also_if_the_veto_is_learnt_only_at_dispatch() -> None:
    """The request came before the first worker did."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(attempt=2, flags=YES | CallFlag.REPEAT)
    no_final(client)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", False)]).ready()
    assert worker.jobs() == []
    assert verdict(client) == UNKNOWN_UNPROVEN


@pytest.mark.parametrize("declared", [None, True])
def test_repetition_is_run_where_nobody_vetoes(declared: bool | None) -> None:
    """An idempotent call moves on to the next broker."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", declared)]).ready()
    client.submit(attempt=2, flags=YES | CallFlag.REPEAT)
    assert len(worker.jobs()) == 1


@pytest.mark.parametrize("known_before", [True, False])
@pytest.mark.parametrize(("declared", "runs"), [(None, 0), (False, 0), (True, 1)])
def test_repetition_of_a_caller_who_said_nothing_is_run_only_on_the_services_word(
    declared: bool | None, runs: int, known_before: bool
) -> None:
    """The client cannot know what the service declares; the broker can, if need be once a worker has come."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", declared)])
    if known_before:
        worker.ready()
    client.submit(attempt=2, flags=CallFlag.REPEAT)
    if not known_before:
        no_final(client)
        worker.ready()
    assert len(worker.jobs()) == runs
    if not runs:
        assert verdict(client) == UNKNOWN_UNPROVEN


@pytest.mark.parametrize(("declared", "runs"), [(None, 0), (False, 0), (True, 1)])
def test_call_of_a_former_life_waits_for_the_services_word(declared: bool | None, runs: int) -> None:
    """After a restart clients are back before workers: nobody has said no yet."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(attempt=2, flags=CallFlag.REPEAT, first_sent=bench.now - 5.0)
    no_final(client)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", declared)]).ready()
    assert len(worker.jobs()) == runs
    if not runs:
        assert verdict(client) == UNKNOWN_UNPROVEN


def test_first_sending_is_run_by_a_service_that_vetoes_repeating() -> None:
    """The veto is against repeating, not against running."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo", False)]).ready()
    client.submit(flags=YES)
    assert len(worker.jobs()) == 1
