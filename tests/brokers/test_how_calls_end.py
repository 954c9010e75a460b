"""How calls end that nobody repeats: deadlines, refusals, cancelling, handler errors; and what credit bounds."""

from __future__ import annotations

from typing import Final

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import (
    CallFlag,
    CallKind,
    GiveBackReason,
    ReportKind,
    ServiceOffer,
)
from reliable.wire.mdp import Version
from tests.support.broker_bench import (
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
    YES,
    final,
    idempotent_or_not,
    no_final,
    verdict,
)

# --- deadlines ---


@idempotent_or_not
def test_call_that_expires_in_the_queue_is_said_not_to_have_run(flags: CallFlag) -> None:
    """And it never reaches a worker."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    client.submit(body=[b"first"], flags=NO, timeout_s=30.0)
    token = worker.job().token
    worker.started(token)
    client.answers()
    client.submit(flags=flags, timeout_s=2.0)
    bench.advance(2.0 - SLACK_S)
    no_final(client)
    bench.advance(2 * SLACK_S)
    assert verdict(client) == EXPIRED_IN_QUEUE
    worker.result(token)
    assert worker.jobs() == []


@idempotent_or_not
def test_call_that_expires_in_a_workers_hands_may_have_run(flags: CallFlag) -> None:
    """The worker is told to stop, its late reply is dropped without punishment, and its slot is free again."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    client.submit(flags=flags, timeout_s=2.0)
    token = worker.job().token
    worker.started(token)
    bench.advance(2.0 + SLACK_S)
    assert verdict(client) == EXPIRED_IN_HANDS
    assert worker.cancels() == [token]
    client.submit(body=[b"next"], flags=flags, timeout_s=60.0)
    assert worker.jobs() == [], "its only slot is taken until it reports"
    worker.result(token, b"late")
    assert worker.disconnects() == 0 and bench.count("late_replies") == 1
    no_final(client)
    assert worker.job().body == [b"next"]


def test_slot_of_a_worker_that_never_reports_comes_back() -> None:
    """Stranded capacity would be a slow leak."""
    bench = Bench(BrokerConfig(overdue_slot_s=20.0))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    client.submit(flags=NO, timeout_s=2.0)
    worker.started(worker.job().token)
    bench.advance(2.0 + SLACK_S)
    client.submit(body=[b"next"], flags=NO, timeout_s=60.0)
    bench.advance(20.0 - 2 * SLACK_S)
    assert worker.jobs() == []
    bench.advance(3 * SLACK_S)
    assert worker.job().body == [b"next"]


def test_call_that_was_lost_once_and_expires_in_the_queue_may_have_run() -> None:
    """Being queued again does not unmake the first delivery."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=YES, timeout_s=3.0)
    worker.job()
    worker.disconnect()
    bench.advance(3.0 + SLACK_S)
    assert verdict(client) == EXPIRED_IN_HANDS


def test_deadline_counts_from_the_sessions_hello() -> None:
    """Clocks need not agree: both sides count from the same message, and a queue in between ages it."""
    bench = Bench()
    client = OurClient(bench)
    bench.advance(7.0)
    client.submit(b"absent", flags=NO, deadline=client.hello_at + 8.0)
    bench.advance(1.0 - SLACK_S)
    no_final(client)
    bench.advance(2 * SLACK_S)
    assert final(client).outcome is Outcome.NOT_EXECUTED


def test_call_that_arrives_after_its_deadline_is_not_dispatched() -> None:
    """Its caller has gone; it aged in a queue on the way."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.advance(2.0)
    client.submit(flags=YES, deadline=bench.now - 1.0, first_sent=bench.now - 1.5)
    assert worker.jobs() == []
    assert verdict(client) == EXPIRED_IN_QUEUE


def test_worker_is_told_the_deadline_in_its_own_sessions_time() -> None:
    """Its hello was at another moment than the client's."""
    bench = Bench()
    client = OurClient(bench)
    bench.advance(1.5)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO, deadline=bench.now + 4.0)
    assert worker.job().delivery.deadline_ms == 4000


# --- no service, no room ---


def test_fail_fast_without_a_worker_is_refused_at_once() -> None:
    """By choice of the caller; nothing is queued."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(b"absent", flags=NO | CallFlag.FAIL_FAST)
    assert verdict(client) == (Status.NO_SERVICE, Outcome.NOT_EXECUTED)
    assert OurWorker(bench, b"w1", services=[ServiceOffer(b"absent")]).ready().jobs() == []


def test_fail_fast_with_a_busy_worker_is_queued() -> None:
    """Busy is not missing."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(body=[b"first"], flags=NO)
    client.submit(flags=NO | CallFlag.FAIL_FAST)
    no_final(client)
    worker.result(worker.job().token)
    assert len(worker.jobs()) == 1


def test_call_for_a_service_that_never_came_ends_as_such_at_its_deadline() -> None:
    """The default waits for a worker until the deadline, and then says what was missing."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(b"absent", flags=NO, timeout_s=2.0)
    bench.advance(2.0 + SLACK_S)
    assert verdict(client) == (Status.NO_SERVICE, Outcome.NOT_EXECUTED)
    assert OurWorker(bench, b"w1", services=[ServiceOffer(b"absent")]).ready().jobs() == []


_OVERFLOWS: Final = {
    "per client": BrokerConfig(queued_per_client_max=3),
    "per service": BrokerConfig(queued_per_service_max=3),
    "in total": BrokerConfig(queued_max=3),
    "in bytes": BrokerConfig(held_bytes_max=3500),
}


@pytest.mark.parametrize("limit", _OVERFLOWS)
def test_call_that_does_not_fit_is_refused_with_an_answer(limit: str) -> None:
    """Overflow is an answer with a hint when to try again, never silence; and what was refused is never run."""
    bench = Bench(_OVERFLOWS[limit])
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    bodies = [b"%d" % number + b"." * 800 for number in range(8)]
    calls = {client.submit(body=[body], flags=YES): body for body in bodies}
    refused = client.answers()
    assert {(a.status, a.outcome, a.final) for a in refused} == {(Status.OVERLOADED, Outcome.NOT_EXECUTED, True)}
    assert all(answer.frame.retry_after_ms > 0 for answer in refused)
    assert len(refused) == 4
    served = []
    while jobs := worker.jobs():
        served.append(jobs[0].body[0])
        worker.result(jobs[0].token)
    assert served == bodies[:4] and {calls[a.frame.call_id] for a in refused} == set(bodies[4:])


def test_unknown_services_that_do_not_fit_are_refused_with_an_answer() -> None:
    """Names are memory too."""
    bench = Bench(BrokerConfig(unknown_services_max=3))
    client = OurClient(bench)
    for number in range(5):
        client.submit(b"absent%d" % number, flags=NO)
    finals = [answer for answer in client.answers() if answer.final]
    assert [(a.service, a.status, a.outcome) for a in finals] == [
        (b"absent3", Status.OVERLOADED, Outcome.NOT_EXECUTED),
        (b"absent4", Status.OVERLOADED, Outcome.NOT_EXECUTED),
    ]


def test_refused_call_may_be_submitted_again_under_its_id() -> None:
    """A refusal leaves nothing behind that would stand in the way."""
    bench = Bench(BrokerConfig(queued_per_service_max=1))
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    for number in range(2):
        client.submit(body=[b"%d" % number], flags=NO)
    began = bench.now
    call = client.submit(flags=NO)
    assert verdict(client) == (Status.OVERLOADED, Outcome.NOT_EXECUTED)
    for _ in range(2):
        worker.result(worker.job().token)
    client.answers()
    client.submit(call_id=call, attempt=2, flags=NO, first_sent=began)
    worker.result(worker.job().token)
    assert verdict(client) == DONE


def test_plain_client_that_overflows_is_dropped_and_counted() -> None:
    """MDP has no word for no."""
    bench = Bench(BrokerConfig(queued_per_client_max=3))
    client = ForeignClient(bench)
    for number in range(10):
        client.request(b"echo", b"%d" % number)
    assert client.replies() == [] and bench.count("overloaded") == 7


# --- cancel ---


def test_cancelled_call_in_the_queue_never_runs() -> None:
    """And the caller is told that it did not."""
    bench = Bench()
    client = OurClient(bench)
    call = client.submit(flags=NO)
    client.answers()
    client.cancel(call)
    assert verdict(client) == (Status.CANCELLED, Outcome.NOT_EXECUTED)
    assert OurWorker(bench, b"w1").ready().jobs() == []


def test_cancelled_call_in_a_workers_hands_may_have_run() -> None:
    """The worker is told; its late reply frees the slot and reaches nobody."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    call = client.submit(flags=NO)
    token = worker.job().token
    client.cancel(call)
    assert verdict(client) == (Status.CANCELLED, Outcome.UNKNOWN)
    assert worker.cancels() == [token]
    worker.result(token, b"late")
    assert client.answers() == [] and worker.disconnects() == 0 and bench.state(worker) == "idle"


def test_cancelled_call_that_the_worker_gives_back_frees_the_slot() -> None:
    """It was not started; nobody is handed it any more."""
    bench = Bench()
    client = OurClient(bench)
    worker, other = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    call = client.submit(flags=YES)
    token = worker.job().token
    client.cancel(call)
    worker.give_back(token, GiveBackReason.CANCELLED)
    assert bench.state(worker) == "idle" and other.jobs() == [] and worker.jobs() == []
    assert final(client).status is Status.CANCELLED


def test_cancelled_call_in_the_hands_of_a_foreign_worker() -> None:
    """MDP has no cancel: the worker goes on, and its reply reaches nobody."""
    bench = Bench()
    client = OurClient(bench)
    worker = ForeignWorker(bench, b"w1", Version.MDP02).ready()
    call = client.submit(flags=NO)
    address = worker.request().address
    client.cancel(call)
    assert verdict(client) == (Status.CANCELLED, Outcome.UNKNOWN)
    worker.send_reply(address, b"late")
    assert client.answers() == [] and worker.disconnects() == 0 and bench.state(worker) == "idle"


def test_cancelled_call_is_not_redelivered_when_its_worker_dies() -> None:
    """Nobody waits for it."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    call = client.submit(flags=YES)
    first.job()
    client.cancel(call)
    first.disconnect()
    bench.advance(1.0)
    assert second.jobs() == []


@pytest.mark.parametrize("kind", [CallKind.ATTACH, CallKind.SUBMIT])
def test_repetition_after_a_cancel_does_not_run(kind: CallKind) -> None:
    """An overtaken attempt of a cancelled call that must not be repeated."""
    bench = Bench()
    client = OurClient(bench)
    worker, other = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    began = bench.now
    call = client.submit(flags=NO)
    worker.job()
    client.cancel(call)
    client.answers()
    client.ask(kind, call, attempt=2, flags=NO, first_sent=began)
    assert other.jobs() == [] and worker.jobs() == []
    assert all(answer.outcome is Outcome.UNKNOWN for answer in client.answers() if answer.final)


# --- handler errors, sessions, credit ---


@pytest.mark.parametrize("status", [Status.TOO_LARGE, Status.REPLY_EVICTED])
def test_handler_that_ran_well_without_a_reply_to_give_is_not_called_failed(status: Status) -> None:
    """An error of the handler's would send people looking for a bug that is not there."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit()
    worker.report(worker.job().token, ReportKind.ERROR, b"Name", b"text", detail=int(status))
    answer = final(client)
    assert (answer.status, answer.outcome, answer.body) == (status, Outcome.EXECUTED, [b"text"])


def test_detail_that_is_no_such_status_is_the_handlers_error() -> None:
    """A worker must not make up a status that means something else to the client."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit()
    worker.report(worker.job().token, ReportKind.ERROR, b"Name", b"text", detail=int(Status.NO_SERVICE))
    answer = final(client)
    assert (answer.status, answer.body) == (Status.HANDLER_ERROR, [b"Name", b"text"])


@pytest.mark.parametrize(("executed", "outcome"), [(True, Outcome.EXECUTED), (False, Outcome.NOT_EXECUTED)])
def test_handler_error_ends_the_call_and_says_whether_it_ran(executed: bool, outcome: Outcome) -> None:
    """A failed handler has run; one that was never entered has not. Neither is repeated."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    client.submit(flags=YES)
    first.error(first.job().token, b"KeyError", b"'x'", executed=executed)
    answer = final(client)
    assert (answer.status, answer.outcome, answer.body) == (Status.HANDLER_ERROR, outcome, [b"KeyError", b"'x'"])
    assert second.jobs() == []


@idempotent_or_not
def test_handler_that_came_to_no_end_of_its_own_may_have_run_and_is_not_repeated(flags: CallFlag) -> None:
    """Its process crashed, or its time was up. What killed one process would kill the next; the caller may judge."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    call_id = client.submit(flags=flags)
    token = first.job().token
    first.report(token, ReportKind.ERROR, b"WorkerCrashed", b"signal 11", detail=Status.WORKER_LOST)
    answer = final(client)
    assert (answer.status, answer.outcome) == (Status.HANDLER_ERROR, Outcome.UNKNOWN)
    assert answer.body == [b"WorkerCrashed", b"signal 11"]
    client.attach(call_id)
    assert verdict(client) == (Status.HANDLER_ERROR, Outcome.UNKNOWN), "and so it is kept"
    assert second.jobs() == [] and first.disconnects() == 0
    client.submit(flags=flags)
    assert second.jobs() or first.jobs(), "its slot is free"


def test_call_frame_without_a_hello_is_neither_served_nor_answered() -> None:
    """Its times mean nothing here: guessing them could run an expired call."""
    bench = Bench()
    stranger = OurClient(bench, b"stranger", hello=False)
    worker = OurWorker(bench, b"w1").ready()
    stranger.submit(flags=YES)
    assert stranger.mail == [] and worker.jobs() == [] and bench.count("dropped_invalid") == 1


def test_extension_ready_without_a_hello_registers_nobody() -> None:
    """Deadlines are told to a worker against its hello, and it said none."""
    bench = Bench()
    worker = OurWorker(bench, b"w1", hello=False).ready()
    assert bench.state(worker) is None


def test_credit_is_how_many_requests_a_worker_holds_at_most() -> None:
    """More would wait in a place where the broker cannot take them back."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", credit=3).ready()
    for number in range(5):
        client.submit(body=[b"%d" % number], flags=NO)
    jobs = worker.jobs()
    assert [job.body for job in jobs] == [[b"0"], [b"1"], [b"2"]]
    worker.started(jobs[0].token)
    worker.progress(jobs[0].token, b"half")
    worker.partial(jobs[0].token, b"part")
    assert worker.jobs() == [], "only a final report frees a slot"
    worker.result(jobs[1].token)
    assert worker.job().body == [b"3"]


def test_credit_zero_is_acknowledged_and_stops_new_work() -> None:
    """A draining worker must know that nothing more is on its way."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", credit=2).ready()
    client.submit(flags=NO)
    job = worker.job()
    worker.set_credit(0)
    assert worker.credit_acks() == 1
    client.submit(flags=NO)
    assert worker.jobs() == []
    worker.result(job.token)
    assert worker.jobs() == [] and verdict(client) == DONE
    worker.set_credit(1)
    assert len(worker.jobs()) == 1


def test_services_of_a_worker_share_its_credit() -> None:
    """One worker, two services, one slot."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=[ServiceOffer(b"echo"), ServiceOffer(b"other")]).ready()
    client.submit(b"echo", [b"1"], flags=NO)
    client.submit(b"other", [b"2"], flags=NO)
    first = worker.job()
    worker.result(first.token)
    second = worker.job()
    assert {first.body[0], second.body[0]} == {b"1", b"2"}


def test_least_loaded_worker_is_preferred_when_credit_is_more_than_one() -> None:
    """Two requests for two workers of credit two: one each."""
    bench = Bench()
    client = OurClient(bench)
    workers = [OurWorker(bench, b"w%d" % number, credit=2).ready() for number in range(2)]
    for number in range(4):
        client.submit(body=[b"%d" % number], flags=NO)
    first, second = (worker.jobs() for worker in workers)
    assert len(first) == len(second) == 2
    assert {first[0].body[0], second[0].body[0]} == {b"0", b"1"}


def test_report_of_another_worker_is_not_accepted() -> None:
    """A token belongs to the connection it was handed to."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    bench.keep_alive(first)
    client.submit(flags=NO)
    token = first.job().token
    second.result(token, b"forged")
    assert client.answers() == [] and second.disconnects() == 1
    first.result(token, b"true")
    assert final(client).body == [b"true"]
