"""How calls end without a reply: classes, outcomes and words."""

from __future__ import annotations

import attrs
import pytest

from reliable.errors import (
    AttemptsExhausted,
    BrokerLost,
    BrokerUnreachable,
    DeadlineExceeded,
    Outcome,
    QueueFull,
    RequestError,
    ServiceNotFound,
    Spent,
    WorkerFailed,
)
from reliable.protocol import call_endings as endings
from reliable.protocol.call_facts import Call, Past, Phase
from reliable.protocol.events import Submit
from reliable.status import Status
from reliable.wire.extension import AnswerFrame, CallKind, Place

LIFE = b"life-one"
CALL = Call.from_submit(Submit(call_id=b"c" * 16, service=b"echo", body=[b"hi"], deadline=9.0), 5.0)
FRESH = Past()
SENT = Past().sent(CallKind.SUBMIT, 1, LIFE, "tcp://a", 6.0)
NOW = 9.0


def error(ended: endings.Ended) -> RequestError:
    """The error, which says the same outcome as the ending."""
    assert isinstance(ended.result, RequestError)
    assert ended.result.outcome is ended.outcome
    return ended.result


def past(status: Status | None = None, place: Place = Place.UNSAID, *, proven: bool = False) -> Past:
    """Sent once, with that as the last news."""
    copies = () if proven else SENT.copies
    return Past(attempts=1, copies=copies, first_sent=6.0, address="tcp://a", status=status, place=place)


@pytest.mark.parametrize(
    ("known", "kind", "outcome"),
    [
        (FRESH, BrokerUnreachable, Outcome.NOT_EXECUTED),
        (past(), DeadlineExceeded, Outcome.UNKNOWN),
        (past(proven=True), DeadlineExceeded, Outcome.NOT_EXECUTED),
        (past(Status.NO_SERVICE, proven=True), ServiceNotFound, Outcome.NOT_EXECUTED),
        (past(Status.EXPIRED, Place.QUEUED_NO_WORKER, proven=True), ServiceNotFound, Outcome.NOT_EXECUTED),
        (past(Status.ACCEPTED, Place.QUEUED_NO_WORKER), DeadlineExceeded, Outcome.UNKNOWN),
    ],
)
def test_a_deadline_says_what_was_the_matter(known: Past, kind: type[RequestError], outcome: Outcome) -> None:
    """ "Timed out" helps nobody who could have been told that no worker is there."""
    found = error(endings.at_deadline(CALL, known, NOW, "tcp://a: refused"))
    assert type(found) is kind and found.outcome is outcome


def test_a_timeout_says_where_the_time_went() -> None:
    """Unsent, waiting, and the last that was heard."""
    known = attrs.evolve(past(place=Place.RUNNING), phase=Phase.SILENT, phase_at=NOW - 2.5, spent=(1.0, 0.0, 0.5, 0.0))
    found = error(endings.at_deadline(CALL, attrs.evolve(known, brokers=("tcp://a", "tcp://b")), NOW, ""))
    text = str(found)
    assert "within 4.00 s" in text and "1.00 s unsent" in text and "2.50 s waiting" in text and "queued" not in text
    assert "tcp://a" in text and "0.50 s running" in text
    assert found.spent == Spent(unsent_s=1.0, queued_s=0.0, running_s=0.5, silent_s=2.5)
    assert found.last_state == "running" and found.brokers == ("tcp://a", "tcp://b")


def test_of_two_that_failed_beside_each_other_the_first_is_told_with_what_is_true_of_both() -> None:
    """NOT_EXECUTED is a promise about all the work, the hedge's included."""
    proven = endings.exhausted(CALL, past(proven=True), NOW, "x")
    unknown = endings.at_deadline(CALL, past(), NOW, "")
    assert endings.hedged(proven, proven) is proven
    assert endings.hedged(unknown, proven) is unknown
    both = endings.hedged(proven, unknown)
    assert both.outcome is Outcome.UNKNOWN and both.result is proven.result
    assert error(both).outcome is Outcome.UNKNOWN


def test_an_unreachable_broker_is_named_with_its_trouble() -> None:
    """The address in the message is what the user has to check."""
    assert "tcp://a: refused" in str(error(endings.at_deadline(CALL, FRESH, NOW, "tcp://a: refused")))


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        (past(Status.OVERLOADED, proven=True), QueueFull),
        (past(Status.NO_SERVICE, proven=True), ServiceNotFound),
        (past(Status.OVERLOADED), AttemptsExhausted),
        (past(), AttemptsExhausted),
    ],
)
def test_giving_up_names_the_refusal_only_if_nothing_ran(known: Past, kind: type[RequestError]) -> None:
    """A refusal says "not executed", which must not be claimed of a call that may have run."""
    found = error(endings.exhausted(CALL, known, NOW, "why"))
    assert type(found) is kind
    assert found.outcome is (Outcome.UNKNOWN if known.may_have_run else Outcome.NOT_EXECUTED)


@pytest.mark.parametrize(("known", "kind"), [(FRESH, BrokerUnreachable), (past(), BrokerLost)])
def test_no_broker_at_all_is_unreachable_only_if_nothing_was_sent(known: Past, kind: type[RequestError]) -> None:
    """ "Unreachable" promises that nothing was ever sent."""
    assert type(error(endings.no_broker(CALL, known, NOW, "a: 501"))) is kind


@pytest.mark.parametrize("own", Outcome)
def test_the_brokers_outcome_is_joined_over_all_attempts(own: Outcome) -> None:
    """It can speak for itself alone; that it did run settles the matter."""
    answer = AnswerFrame(Status.EXPIRED, 1, CALL.call_id, LIFE, own)
    assert error(endings.by_status(CALL, past(proven=True), answer, [b""], NOW)).outcome is own
    joined = Outcome.UNKNOWN if own is Outcome.NOT_EXECUTED else own
    assert error(endings.by_status(CALL, past(), answer, [b""], NOW)).outcome is joined


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        ([b"KeyError", b"'x'"], "KeyError", "'x'"),
        ([b"KeyError"], "KeyError", ""),
        ([], "", ""),
        ([b"\xff"], "\ufffd", ""),
    ],
)
def test_a_handlers_error_survives_any_body(body: list[bytes], name: str, text: str) -> None:
    """A foreign worker may write what it likes; the client must not fail over it."""
    answer = AnswerFrame(Status.HANDLER_ERROR, 1, CALL.call_id, LIFE, Outcome.EXECUTED)
    found = error(endings.by_status(CALL, past(), answer, body, NOW))
    assert isinstance(found, WorkerFailed) and (found.remote_type, found.remote_message) == (name, text)


def test_an_error_carries_the_facts_of_its_call() -> None:
    """Fields for programs, words for people."""
    found = error(endings.abandoned(CALL, SENT.told(7.5, "link lost", "tcp://a"), NOW, "cancelled by the caller"))
    assert (found.service, found.call_id, found.attempts, found.elapsed_s) == ("echo", CALL.call_id, 1, 4.0)
    assert found.story == ("   1.000 s  sent (tcp://a)", "   2.500 s  link lost (tcp://a)")
