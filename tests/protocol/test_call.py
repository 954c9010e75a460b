"""The machine of one call: every state against every event, and the client rows of "who may repeat what"."""

from __future__ import annotations

import math

import attrs
import pytest

from reliable.config import Backoff, ClientConfig, RetryPolicy
from reliable.errors import (
    AttemptsExhausted,
    BrokerLost,
    BrokerUnreachable,
    DeadlineExceeded,
    LocalProtocolError,
    MessageTooLarge,
    Outcome,
    QueueFull,
    RequestAbandoned,
    RequestError,
    ServiceNotFound,
    Spent,
    WorkerLost,
)
from reliable.protocol.call import may_submit, step
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import (
    Answered,
    Asked,
    CallEvent,
    CallState,
    Deliver,
    GiveUp,
    Grant,
    Lost,
    Missed,
    NoBroker,
    NotSent,
    Only,
    Order,
    Suspect,
    Tick,
    Transmit,
    Waiting,
)
from reliable.protocol.call_facts import ATTEMPT_MAX, Call, Past
from reliable.protocol.events import Submit
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.wire.extension import AnswerFrame, CallFlag, CallKind, Place

L1, L2 = b"life-one", b"life-two"
ATTEMPTS = 5
CONFIG = ClientConfig(retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff(initial_s=0.4, delay_s_max=2.0)))
NOW = 10.0


def make_call(*, idempotent: bool | None = None, fail_fast: bool = False, deadline: float | None = 30.0) -> Call:
    submit = Submit(
        call_id=b"c" * 16,
        service=b"echo",
        body=[b"hi"],
        deadline=deadline,
        idempotent=idempotent,
        fail_fast=fail_fast,
    )
    return Call.from_submit(submit, 5.0)


ONCE = make_call(idempotent=False)
UNSAID = make_call()
SAFE = make_call(idempotent=True)


def go(
    call: Call, state: CallState, *events: CallEvent, now: float = NOW, config: ClientConfig = CONFIG, u: float = 0.5
) -> tuple[CallState, list[Order]]:
    """All events in one instant; the orders of the last one."""
    orders: tuple[Order, ...] = ()
    for event in events:
        state, orders = step(call, state, event, config, now, u)
    return state, list(orders)


def said(
    status: Status,
    attempt: int = 1,
    *,
    outcome: Outcome | None = None,
    life: bytes = L1,
    place: Place = Place.UNSAID,
    retry_after_ms: int = 0,
    elsewhere: bool = False,
) -> Answered:
    """The broker of ``life`` says ``status``."""
    rule = STATUS_TABLE[status]
    own = outcome if outcome is not None else rule.outcome if rule.outcome is not None else Outcome.UNKNOWN
    answer = AnswerFrame(status, attempt, b"c" * 16, life, own, place, 0, retry_after_ms)
    return Answered(life, answer, [b"body"], elsewhere)


GRANT = Grant(1, "a", L1)
OTHER_GRANT = Grant(2, "b", L2)
FRESH = Waiting(Past(), NOW)


def asked(call: Call, *events: CallEvent) -> Asked:
    """Sent on link 1 to life L1 of broker a, then what the events make of it."""
    state, _ = go(call, FRESH, GRANT, *events)
    assert isinstance(state, Asked)
    return state


def bound(call: Call = ONCE) -> Waiting:
    """May have run at L1 and may be attached there alone."""
    state, _ = go(call, asked(call), Lost(1, "cut"))
    assert isinstance(state, Waiting) and state.only == Only("a", L1)
    return state


def error_of(state: CallState) -> RequestError:
    assert isinstance(state, Ended) and isinstance(state.result, RequestError)
    assert state.result.outcome is state.outcome
    return state.result


# --- states × events ------------------------------------------------------------------------------

STATES: dict[str, tuple[Call, CallState]] = {
    "fresh": (ONCE, FRESH),
    "bound": (ONCE, bound()),
    "bound unsaid": (UNSAID, bound(UNSAID)),
    "refused": (SAFE, go(SAFE, asked(SAFE), said(Status.OVERLOADED, elsewhere=True))[0]),
    "sent": (ONCE, asked(ONCE)),
    "attached": (ONCE, go(ONCE, bound(), Grant(2, "a", L1))[0]),
    "sent safe": (SAFE, asked(SAFE)),
    "ended": (ONCE, go(ONCE, asked(ONCE), said(Status.OK))[0]),
}

EVENTS: dict[str, CallEvent] = {
    "grant": Grant(3, "a", L1),
    "grant other life": Grant(3, "a", L2),
    **{f"says {status.name}": said(status) for status in Status},
    "not sent": NotSent(1),
    "lost 1": Lost(1, "cut"),
    "lost 2": Lost(2, "cut"),
    "missed a": Missed("a", "refused"),
    "foreign a": Missed("a", "501", foreign=True),
    "missed b": Missed("b", "refused"),
    "no broker": NoBroker("a: 501"),
    "early tick": Tick(),
    "cancel": GiveUp("cancelled"),
}

SAME, WRONG = "same", "wrong"
_EVERY_END = {f"says {status.name}": Ended for status in Status if STATUS_TABLE[status].retry is Retry.NEVER}
_NEWS = {f"says {status.name}": Asked for status in Status if STATUS_TABLE[status].retry is Retry.NOT_FINAL}
_ALWAYS: dict[str, object] = {"says OK": Ended, "says HANDLER_ERROR": Ended, "cancel": Ended}
_NOTED: dict[str, object] = {
    f"says {status.name}": Waiting for status in Status if status not in (Status.OK, Status.HANDLER_ERROR)
}

# The class of the state after each pair; what is not listed leaves the state alone.
EXPECTED: dict[str, dict[str, object]] = {
    "fresh": {"grant": Asked, "grant other life": Asked, "no broker": Ended, "not sent": Waiting} | _NOTED | _ALWAYS,
    "bound": {
        "grant": Asked,
        "grant other life": Ended,
        "not sent": Waiting,
        "missed a": Waiting,
        "foreign a": Ended,
    }
    | _NOTED
    | _ALWAYS,
    "refused": {
        "grant": Asked,
        "grant other life": Asked,
        "not sent": Waiting,
        "missed a": Waiting,
        "foreign a": Waiting,
        "missed b": Waiting,
        "no broker": Ended,
    }
    | _NOTED
    | _ALWAYS,
    "sent": {
        "grant": WRONG,
        "grant other life": WRONG,
        "not sent": Waiting,
        "lost 1": Waiting,
        "says NO_SERVICE": Waiting,
        "says OVERLOADED": Waiting,
        "says UNKNOWN_CALL": Waiting,
        "says WRONG_LIFE": Asked,
    }
    | _EVERY_END
    | _NEWS
    | _ALWAYS,
    # Answers to attempt 1 while attempt 2 is out: they are noted, and end the call only if they end its record.
    "attached": {
        "grant": WRONG,
        "grant other life": WRONG,
        "not sent": Asked,
        "lost 2": Waiting,
        "says NO_SERVICE": Asked,
        "says OVERLOADED": Asked,
        "says UNKNOWN_CALL": Asked,
        "says WRONG_LIFE": Asked,
    }
    | _EVERY_END
    | _NEWS
    | _ALWAYS,
    "ended": {"grant": WRONG, "grant other life": WRONG},
}
EXPECTED["sent safe"] = EXPECTED["sent"]
EXPECTED["bound unsaid"] = EXPECTED["bound"] | {"grant other life": Asked}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_state_has_an_answer_to_every_event(state: str, event: str) -> None:
    """A pair that nobody thought of is where calls hang."""
    call, before = STATES[state]
    expected = EXPECTED[state].get(event, SAME)
    if expected is WRONG:
        with pytest.raises(LocalProtocolError):
            go(call, before, EVENTS[event])
        return
    after, orders = go(call, before, EVENTS[event])
    if expected is SAME:
        assert after == before and orders == []
    else:
        assert isinstance(expected, type) and isinstance(after, expected)


@pytest.mark.parametrize("state", [name for name in STATES if name != "ended"])
def test_the_deadline_ends_a_call_in_every_state(state: str) -> None:
    """The first promise: every call ends by its deadline."""
    call, before = STATES[state]
    after, _ = go(call, before, Tick(reach="a: refused"), now=30.0)
    assert isinstance(error_of(after), DeadlineExceeded if before.past.attempts else BrokerUnreachable)


@pytest.mark.parametrize("state", [name for name in STATES if name != "ended"])
def test_a_call_without_deadline_is_not_ended_by_time(state: str) -> None:
    """None was written out by the caller and means what it says."""
    call, before = STATES[state]
    after, _ = go(attrs.evolve(call, deadline=None), before, Tick(link_heard=1e9), now=1e9)
    assert not isinstance(after, Ended)


# --- row 1: surely not sent, or refused before a worker saw it → send anywhere --------------------


@pytest.mark.parametrize("call", [ONCE, SAFE])
@pytest.mark.parametrize("proof", [NotSent(1), said(Status.NO_SERVICE), said(Status.OVERLOADED)])
def test_a_call_that_is_proven_not_to_have_run_may_go_anywhere(call: Call, proof: CallEvent) -> None:
    """Idempotent or not: nothing ran, so the next copy is the first."""
    state, _ = go(call, asked(call), proof)
    assert isinstance(state, Waiting) and state.only is None
    state, orders = go(call, state, OTHER_GRANT)
    assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=False)]


def test_a_refusal_proves_only_the_copy_that_was_refused() -> None:
    """A full broker keeps no record, so an older copy on its way may still be dispatched there."""
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), Grant(2, "a", L1), said(Status.OVERLOADED, 2))
    assert state.past.copies == ((L1, 1),)


def test_a_record_speaks_for_every_copy_that_it_joined() -> None:
    """Once the broker showed that it holds the call, an older copy can only join what it knows."""
    news = said(Status.ACCEPTED, 2, place=Place.QUEUED_NO_WORKER)
    refusal = said(Status.NO_SERVICE, 2, place=Place.QUEUED_NO_WORKER)
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), Grant(2, "a", L1), news, refusal)
    assert not state.past.may_have_run


@pytest.mark.parametrize("status", [Status.OVERLOADED, Status.NO_SERVICE])
def test_a_refusal_after_the_record_was_forgotten_speaks_for_its_own_copy_alone(status: Status) -> None:
    """The broker ran the call, answered into a link that was gone, forgot it, and refused the next copy as new."""
    news = said(Status.STARTED, 2, place=Place.RUNNING)
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), Grant(2, "a", L1), news, said(status, 2))
    assert state.past.may_have_run


def test_a_record_does_not_speak_for_another_life() -> None:
    """A broker knows nothing of what another one did."""
    expired = said(Status.EXPIRED, 2, outcome=Outcome.NOT_EXECUTED, life=L2)
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), OTHER_GRANT, expired)
    assert error_of(state).outcome is Outcome.UNKNOWN


def test_a_refusal_that_admits_it_may_have_run_proves_nothing() -> None:
    """A broker that stops may say "overloaded" of a call that a worker holds."""
    state, _ = go(ONCE, asked(ONCE), said(Status.OVERLOADED, outcome=Outcome.UNKNOWN, elsewhere=True))
    assert isinstance(error_of(state), QueueFull) and error_of(state).outcome is Outcome.UNKNOWN
    state, _ = go(SAFE, asked(SAFE), said(Status.OVERLOADED, outcome=Outcome.UNKNOWN, elsewhere=True), OTHER_GRANT)
    assert isinstance(state, Asked) and state.past.copies == ((L1, 1), (L2, 2))


# --- row 2: may have run, same life → safe: send; else: attach ------------------------------------


def test_a_safe_call_is_sent_again_at_the_same_life() -> None:
    """The broker joins it to what it knows."""
    _, orders = go(SAFE, asked(SAFE), Lost(1, "cut"), Grant(2, "a", L1))
    assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=False)]


@pytest.mark.parametrize("idempotent", [None, False])
def test_another_call_is_only_attached_at_the_same_life(idempotent: bool | None) -> None:
    """Unsaid counts as no: sending it again could run it twice."""
    call = make_call(idempotent=idempotent)
    _, orders = go(call, asked(call), Lost(1, "cut"), Grant(2, "a", L1))
    assert orders == [Transmit(2, CallKind.ATTACH, 2)]


def test_a_fenced_miss_frees_the_call() -> None:
    """The broker has no record and will refuse the first copy: now it did not run, provably."""
    missing = said(Status.UNKNOWN_CALL, 2, outcome=Outcome.NOT_EXECUTED)
    state, _ = go(ONCE, bound(), Grant(2, "a", L1), missing)
    assert isinstance(state, Waiting) and state.only is None and not state.past.may_have_run
    _, orders = go(ONCE, state, OTHER_GRANT)
    assert orders == [Transmit(2, CallKind.SUBMIT, 3, repeat=False)]


def test_a_miss_without_a_fence_ends_the_call() -> None:
    """The record may have been dropped after the work was done."""
    state, _ = go(ONCE, bound(), Grant(2, "a", L1), said(Status.UNKNOWN_CALL, 2, outcome=Outcome.UNKNOWN))
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


def test_a_safe_call_is_sent_again_after_a_miss_without_a_fence() -> None:
    """It may run twice, so it does not matter that nobody knows."""
    state, orders = go(SAFE, asked(SAFE), Tick(), now=NOW + 2.5)
    assert orders == [Transmit(1, CallKind.ATTACH, 2)]
    state, _ = go(SAFE, state, said(Status.UNKNOWN_CALL, 2, outcome=Outcome.UNKNOWN))
    assert isinstance(state, Waiting) and state.past.may_have_run
    assert go(SAFE, state, GRANT)[1] == [Transmit(1, CallKind.SUBMIT, 3, repeat=False)]


def test_a_copy_that_the_broker_will_not_repeat_ends_the_call() -> None:
    """The service vetoed repeating, or the horizon hides what became of an earlier copy."""
    veto = said(Status.UNKNOWN_CALL, 2, outcome=Outcome.UNKNOWN, life=L2)
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), OTHER_GRANT, veto)
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


def test_a_fenced_copy_is_sent_again_under_a_new_number() -> None:
    """Should a fence catch a copy that we count as new, its successor is above the fence; with a pause, not a loop."""
    fenced = said(Status.UNKNOWN_CALL, 1, outcome=Outcome.NOT_EXECUTED)
    state, _ = go(ONCE, asked(ONCE), fenced)
    assert isinstance(state, Waiting) and state.not_before > NOW and state.past.failures == 1


# --- row 3: may have run, other life or other broker → safe: send; else: UNKNOWN ------------------


def test_a_safe_call_goes_to_another_life_with_the_repeat_flag() -> None:
    """The other broker cannot know of the first copy; a service that vetoes repeats must be able to."""
    _, orders = go(SAFE, asked(SAFE), Lost(1, "cut"), OTHER_GRANT)
    assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=True)]


def test_another_life_ends_a_call_that_may_have_run() -> None:
    """Its record is gone with the old life."""
    state, orders = go(ONCE, bound(), Grant(2, "a", L2))
    assert orders == []
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


def test_another_life_gets_a_repeat_of_a_call_of_which_nobody_said_anything() -> None:
    """The service may have declared itself idempotent, which only brokers know; they run it only then."""
    state, orders = go(UNSAID, bound(UNSAID), Grant(2, "a", L2))
    assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=True)]
    state, _ = go(UNSAID, state, said(Status.UNKNOWN_CALL, 2, outcome=Outcome.UNKNOWN, life=L2))
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


def test_another_broker_is_asked_once_the_one_that_knows_cannot_be_reached() -> None:
    """It goes there without a bond to the first; should the first come back, it is attached to there."""
    state: CallState = bound(UNSAID)
    for _ in range(ATTEMPTS):
        state, _ = go(UNSAID, state, Missed("a", "refused", elsewhere=True))
    assert isinstance(state, Waiting) and state.only is None and state.avoid == {"a"}
    _, orders = go(UNSAID, state, OTHER_GRANT)
    assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=True)]
    _, orders = go(UNSAID, state, Grant(2, "a", L1))
    assert orders == [Transmit(2, CallKind.ATTACH, 2)]


def test_a_call_that_was_repeated_on_the_services_word_does_not_wear_out_brokers_for_ever() -> None:
    """A request that kills each broker must come to an end, although each of them says first that it runs."""
    state: CallState = asked(UNSAID)
    for number in range(2, 2 + 2 * ATTEMPTS):
        life = bytes([number]) * 8
        state, _ = go(UNSAID, state, said(Status.STARTED, 99, life=state.life if isinstance(state, Asked) else L1))
        state, _ = go(UNSAID, state, Lost(number - 1, "cut"))
        if isinstance(state, Ended):
            break
        state, _ = go(UNSAID, state, Grant(number, "a", life))
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("call", "goes_on"), [(UNSAID, True), (ONCE, False)])
def test_a_brokers_word_that_the_service_is_idempotent_counts_unless_the_caller_said_no(
    call: Call, goes_on: bool
) -> None:
    """A broker that stops hands its calls over like this: overloaded, may have run, may be repeated."""
    news = Answered(L1, AnswerFrame(Status.STARTED, 1, b"c" * 16, L1, Outcome.UNKNOWN, idempotent=True), [b""])
    state, _ = go(call, asked(call), news, Lost(1, "cut"))
    assert isinstance(state, Waiting) and (state.only is None) is goes_on
    if goes_on:
        _, orders = go(call, state, OTHER_GRANT)
        assert orders == [Transmit(2, CallKind.SUBMIT, 2, repeat=True)]


def test_a_second_copy_of_a_call_that_may_have_run_is_refused_here_too() -> None:
    """The last line of defence should the engine ever grant what it must not."""
    wrong = Waiting(asked(ONCE).past, NOW)
    assert not may_submit(ONCE, wrong.past)
    with pytest.raises(LocalProtocolError):
        go(ONCE, wrong, GRANT)


# --- strictness after a partial -------------------------------------------------------------------


def test_after_a_part_of_the_reply_nothing_is_repeated() -> None:
    """Also not an idempotent call: the caller would see the beginning twice."""
    state, orders = go(SAFE, asked(SAFE), said(Status.PARTIAL))
    assert orders == [Deliver([b"body"], partial=True)]
    after, _ = go(SAFE, state, Lost(1, "cut"))
    assert isinstance(error_of(after), BrokerLost) and error_of(after).outcome is Outcome.UNKNOWN
    state, _ = go(SAFE, state, said(Status.OVERLOADED))
    assert isinstance(error_of(state), QueueFull) and error_of(state).outcome is Outcome.UNKNOWN


# --- which answer ends what -----------------------------------------------------------------------


def test_an_ok_ends_the_call_whichever_attempt_it_answers() -> None:
    """Also while waiting for another broker."""
    refused, _ = go(SAFE, asked(SAFE), said(Status.OVERLOADED, elsewhere=True))
    for state in (asked(SAFE), refused, go(SAFE, refused, OTHER_GRANT)[0]):
        after, _ = go(SAFE, state, said(Status.OK))
        assert isinstance(after, Ended) and after.result == [b"body"] and after.outcome is Outcome.EXECUTED


def test_a_final_status_of_an_earlier_broker_does_not_end_the_attempt_at_the_next() -> None:
    """The second broker is working on it."""
    state, _ = go(SAFE, asked(SAFE), said(Status.OVERLOADED, elsewhere=True), OTHER_GRANT)
    after, _ = go(SAFE, state, said(Status.WORKER_LOST))
    assert isinstance(after, Asked) and after.life == L2
    after, _ = go(SAFE, after, said(Status.WORKER_LOST, 2, life=L2))
    assert isinstance(error_of(after), WorkerLost)


@pytest.mark.parametrize("status", [status for status in Status if STATUS_TABLE[status].retry is Retry.NEVER])
def test_a_status_that_ends_the_call_raises_what_the_table_says(status: Status) -> None:
    """One table for broker, client and docs."""
    state, _ = go(ONCE, asked(ONCE), said(status))
    assert isinstance(state, Ended)
    rule = STATUS_TABLE[status]
    assert rule.error is None or type(state.result) is rule.error
    # One copy was sent and this is about it, so the broker's own outcome stands.
    assert state.outcome is (Outcome.EXECUTED if status is Status.OK else rule.outcome)


@pytest.mark.parametrize("status", [Status.UNKNOWN_CALL, Status.OVERLOADED, Status.NO_SERVICE])
def test_what_has_run_is_not_sent_again_whatever_the_status(status: Status) -> None:
    """Work that is known to be done must not be done twice for want of its reply."""
    state, _ = go(SAFE, asked(SAFE), said(status, outcome=Outcome.EXECUTED, elsewhere=True))
    assert error_of(state).outcome is Outcome.EXECUTED


def test_news_of_the_call_restarts_its_silence() -> None:
    """The broker answers for a long run; nothing fails as long as it does."""
    state, _ = step(ONCE, asked(ONCE), said(Status.STARTED), CONFIG, NOW + 2.0)
    assert isinstance(state, Asked) and state.silent_at == NOW + 4.5
    assert state.past.known == L1


# --- silence --------------------------------------------------------------------------------------


def silence(call: Call, state: CallState, now: float, heard: float = -math.inf) -> tuple[CallState, tuple[Order, ...]]:
    return step(call, state, Tick(heard), CONFIG, now)


def test_silence_is_followed_by_a_question_and_then_by_suspicion() -> None:
    """The question costs a message; tearing down a link costs everybody on it."""
    state, orders = silence(SAFE, asked(SAFE), NOW + 2.5)
    assert orders == (Transmit(1, CallKind.ATTACH, 2),)
    state, orders = silence(SAFE, state, NOW + 3.4)
    assert orders == ()
    state, orders = silence(SAFE, state, NOW + 3.5)
    assert len(orders) == 1 and isinstance(orders[0], Suspect) and orders[0].link == 1


def test_a_link_that_carries_other_answers_is_asked_again() -> None:
    """It is this call that is silent, not the broker."""
    state, _ = silence(ONCE, asked(ONCE), NOW + 2.5)
    state, orders = silence(ONCE, state, NOW + 3.5, heard=NOW + 3.0)
    assert orders == (Transmit(1, CallKind.ATTACH, 3),)
    assert state.past.failures == 1


def test_a_question_to_the_broker_itself_is_repeated_as_it_is() -> None:
    """No record is kept of mmi requests, so there is nothing to attach to."""
    call = Call.from_submit(Submit(call_id=b"c" * 16, service=b"mmi.service", body=[b"x"], deadline=None), NOW)
    _, orders = silence(call, asked(call), NOW + 2.5)
    assert orders == (Transmit(1, CallKind.SUBMIT, 2),)


def test_a_question_that_did_not_get_out_is_asked_again_later() -> None:
    """It proves nothing about the copy before it."""
    state, _ = silence(ONCE, asked(ONCE), NOW + 2.5)
    after, orders = go(ONCE, state, NotSent(2))
    assert isinstance(after, Asked) and orders == [] and after.past.may_have_run


# --- the policy -----------------------------------------------------------------------------------


def exhaust(call: Call, config: ClientConfig) -> tuple[int, CallState]:
    """Lose links until the call ends."""
    state: CallState = FRESH
    losses = 0
    while not isinstance(state, Ended) and losses < 50:
        state, _ = go(call, state, Grant(losses, "a", L1), Lost(losses, "cut"), config=config)
        losses += 1
    return losses, state


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize(("call", "kind"), [(SAFE, AttemptsExhausted), (ONCE, BrokerLost)])
def test_the_policy_bounds_how_many_attempts_fail(attempts: int, call: Call, kind: type[RequestError]) -> None:
    """Exactly that many, whatever kind of call."""
    losses, state = exhaust(call, ClientConfig(retry=RetryPolicy(attempts=attempts)))
    assert losses == attempts
    assert type(error_of(state)) is kind and error_of(state).outcome is Outcome.UNKNOWN


def test_a_policy_without_a_bound_leaves_the_end_to_the_deadline() -> None:
    """None means no limit."""
    assert exhaust(SAFE, ClientConfig(retry=RetryPolicy(attempts=None)))[0] == 50


def test_news_clears_the_failures_of_a_call_that_can_only_be_asked_about() -> None:
    """A long run over a bad link is no danger to anybody."""
    state, _ = go(ONCE, bound(), Grant(2, "a", L1), said(Status.STARTED, 2))
    assert state.past.failures == 0
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), Grant(2, "a", L1), said(Status.STARTED, 2))
    assert state.past.failures == 1, "a request that kills its brokers must not be sent for ever"


def test_each_try_to_reach_the_one_broker_counts() -> None:
    """Nobody else can be asked, so the policy bounds these tries instead."""
    state: CallState = bound()
    for _ in range(4):
        state, _orders = go(ONCE, state, Missed("a", "refused"))
        assert isinstance(state, Waiting)
    state, _orders = go(ONCE, state, Missed("a", "refused"))
    assert isinstance(error_of(state), BrokerLost)


def test_a_call_that_may_go_anywhere_does_not_count_missed_brokers() -> None:
    """A wait for a broker that is not there is no attempt."""
    state, _ = go(ONCE, FRESH, *[Missed("a", "refused")] * 50)
    assert state == FRESH


@pytest.mark.parametrize(("failures", "wait_s"), [(1, 0.0), (2, 0.2), (3, 0.4), (4, 0.8)])
def test_the_first_retry_goes_out_at_once_and_later_ones_back_off(failures: int, wait_s: float) -> None:
    """u is 0.5, the bounds are 0.4, 0.8, 1.6 seconds."""
    state: CallState = FRESH
    for link in range(failures):
        state, _ = go(SAFE, state, Grant(link, "a", L1), Lost(link, "cut"))
    assert isinstance(state, Waiting) and state.not_before == pytest.approx(NOW + wait_s)


def test_a_backoff_is_never_nothing() -> None:
    """Full jitter may say zero, and a fast refusal would then spin."""
    state, _ = go(ONCE, asked(ONCE), said(Status.OVERLOADED), u=0.0)
    assert isinstance(state, Waiting) and state.not_before > NOW


def test_a_retry_that_does_not_fit_is_not_started() -> None:
    """It could only turn what is known into a guess."""
    call = make_call(idempotent=True, deadline=NOW + 0.2)
    state, _ = go(call, FRESH, GRANT, Lost(1, "cut"), Grant(2, "a", L1), Lost(2, "cut"))
    assert isinstance(state, Waiting) and state.not_before == math.inf
    call = make_call(deadline=NOW + 0.05)
    state, _ = go(call, FRESH, GRANT, said(Status.OVERLOADED, elsewhere=True))
    assert isinstance(error_of(state), QueueFull) and error_of(state).outcome is Outcome.NOT_EXECUTED


def test_retry_after_goes_before_a_shorter_backoff() -> None:
    """The broker knows better when there will be room."""
    state, _ = go(ONCE, asked(ONCE), said(Status.OVERLOADED, retry_after_ms=5000))
    assert isinstance(state, Waiting) and state.not_before == NOW + 5.0


def test_other_brokers_are_asked_before_any_pause() -> None:
    """And the one that refused is passed over in this round."""
    state, _ = go(ONCE, asked(ONCE), said(Status.OVERLOADED, retry_after_ms=5000, elsewhere=True))
    assert state == Waiting(state.past, NOW, avoid=frozenset({"a"}), extra=True)
    state, _ = go(ONCE, state, OTHER_GRANT, said(Status.OVERLOADED, 2, life=L2, elsewhere=True))
    assert isinstance(state, Waiting) and state.avoid == {"a", "b"}
    state, _ = go(ONCE, state, Missed("c", "refused"))
    assert isinstance(state, Waiting) and state.avoid == frozenset() and state.not_before > NOW


def test_fail_fast_ends_when_nobody_else_is_left_to_ask() -> None:
    """The others either said no as well or cannot be reached."""
    call = make_call(fail_fast=True)
    state, _ = go(call, asked(call), said(Status.NO_SERVICE))
    assert isinstance(error_of(state), ServiceNotFound)
    state, _ = go(call, asked(call), said(Status.NO_SERVICE, elsewhere=True), Missed("b", "refused"))
    assert isinstance(error_of(state), ServiceNotFound) and error_of(state).outcome is Outcome.NOT_EXECUTED


def test_an_attach_that_is_refused_is_asked_again_at_the_same_life() -> None:
    """A full broker could not look; that says nothing about the call."""
    state, _ = go(ONCE, bound(), Grant(2, "a", L1), said(Status.OVERLOADED, 2, elsewhere=True))
    assert isinstance(state, Waiting) and state.only == Only("a", L1) and state.past.may_have_run


# --- proofs ---------------------------------------------------------------------------------------


def test_a_wrong_life_proves_its_own_copy_and_costs_the_link() -> None:
    """The copies before it went to the life that the link was opened to."""
    wrong = Answered(L1, attrs.evolve(said(Status.WRONG_LIFE).answer, life=L2), [b""])
    state, orders = go(ONCE, asked(ONCE), wrong)
    assert [type(order) for order in orders] == [Suspect] and not state.past.may_have_run
    state, _ = go(ONCE, state, Lost(1, "another life"))
    assert isinstance(state, Waiting) and state.only is None


def test_a_proof_that_comes_while_bound_sets_the_call_free() -> None:
    """No need to attach to a broker that never got it."""
    state, _ = go(ONCE, bound(), NotSent(1))
    assert isinstance(state, Waiting) and state.only is None


def test_when_all_is_proven_first_sent_starts_anew() -> None:
    """Else a broker would refuse, before its horizon, a copy whose predecessors never ran."""
    state, _ = step(ONCE, asked(ONCE), said(Status.OVERLOADED), CONFIG, NOW)
    state, _ = step(ONCE, state, GRANT, CONFIG, NOW + 3.0)
    assert state.past.first_sent == NOW + 3.0
    state, _ = step(SAFE, asked(SAFE), Lost(1, "cut"), CONFIG, NOW)
    state, _ = step(SAFE, state, GRANT, CONFIG, NOW + 3.0)
    assert state.past.first_sent == NOW


def test_more_copies_than_can_be_counted_may_have_run_for_good() -> None:
    """Memory is bounded, and what was forgotten counts as unknown."""
    state: CallState = FRESH
    config = ClientConfig(retry=RetryPolicy(attempts=None))
    for link in range(100):
        state, _ = go(SAFE, state, Grant(link, "a", L1), Lost(link, "cut"), config=config)
    assert state.past.untracked and len(state.past.copies) <= 64
    assert state.past.proven(L1, ATTEMPT_MAX, record=True).may_have_run
    assert state.past.repeats(L1)


def test_attempt_numbers_do_not_run_over() -> None:
    """The wire has 16 bits; asking goes on under the last number, sending does not."""
    past = Past(attempts=ATTEMPT_MAX)
    state, _ = go(ONCE, Waiting(past, NOW), GRANT)
    assert isinstance(error_of(state), AttemptsExhausted)
    last = attrs.evolve(bound().past, attempts=ATTEMPT_MAX)
    state, orders = go(ONCE, Waiting(last, NOW, Only("a", L1)), GRANT)
    assert orders == [Transmit(1, CallKind.ATTACH, ATTEMPT_MAX)]


def test_a_story_is_bounded() -> None:
    """The beginning and the end explain; the middle of a long struggle does not."""
    past = Past()
    for number in range(1000):
        past = past.told(float(number), f"step {number}")
    assert len(past.story) == 32
    assert past.story[0][1] == "step 0" and past.story[-1][1] == "step 999"


# --- ends -----------------------------------------------------------------------------------------


def test_a_request_that_the_broker_would_not_take_is_not_sent() -> None:
    """Its oversize would cost the link."""
    state, orders = go(ONCE, FRESH, Grant(1, "a", L1, bytes_max=100))
    assert orders == [] and isinstance(error_of(state), MessageTooLarge)
    assert error_of(state).outcome is Outcome.NOT_EXECUTED


def test_cancelling_tells_the_broker_only_if_it_was_asked() -> None:
    """There is nobody to tell before that."""
    state, orders = go(ONCE, asked(ONCE), GiveUp("cancelled"))
    assert orders == [Transmit(1, CallKind.CANCEL, 1)]
    assert isinstance(error_of(state), RequestAbandoned) and error_of(state).outcome is Outcome.UNKNOWN
    state, orders = go(ONCE, FRESH, GiveUp("cancelled"))
    assert orders == [] and error_of(state).outcome is Outcome.NOT_EXECUTED


def test_a_deadline_names_the_reason_if_no_worker_was_there() -> None:
    """The caller can act on that; a plain timeout tells nothing."""
    state, _ = go(ONCE, asked(ONCE), said(Status.NO_SERVICE), Tick(), now=30.0)
    assert isinstance(error_of(state), ServiceNotFound)


def test_flags_say_what_the_caller_said() -> None:
    """Unsaid is neither yes nor no."""
    assert UNSAID.flags == CallFlag.NONE and SAFE.flags == CallFlag.IDEMPOTENT
    assert make_call(idempotent=False, fail_fast=True).flags == CallFlag.NOT_IDEMPOTENT | CallFlag.FAIL_FAST


def test_no_broker_at_all_ends_a_call_that_may_have_run_as_unknown() -> None:
    """ "Unreachable" would claim that nothing was sent."""
    state, _ = go(SAFE, asked(SAFE), Lost(1, "cut"), NoBroker("a: 501"))
    assert isinstance(error_of(state), BrokerLost) and error_of(state).outcome is Outcome.UNKNOWN


def test_time_is_put_down_to_where_the_broker_says_that_the_call_is() -> None:
    """Silence is what nobody has said anything about."""
    state, _ = step(ONCE, Waiting(Past(phase_at=10.0), 10.0), GRANT, CONFIG, 11.0)
    state, _ = step(ONCE, state, said(Status.ACCEPTED, place=Place.QUEUED), CONFIG, 13.0)
    assert state.past.spent_until(13.0) == (1.0, 2.0, 0.0, 0.0)
    state, _ = step(ONCE, state, said(Status.STARTED, place=Place.RUNNING), CONFIG, 16.0)
    state, _ = step(ONCE, state, said(Status.EXPIRED, outcome=Outcome.UNKNOWN, place=Place.RUNNING), CONFIG, 20.0)
    assert error_of(state).spent == Spent(unsent_s=1.0, queued_s=5.0, running_s=4.0, silent_s=0.0)
