"""The two steps that nearly every call takes are made in one go; they must come to what the machine comes to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.config import ClientConfig, RetryPolicy
from reliable.errors import MessageTooLarge, Outcome
from reliable.protocol import call_endings
from reliable.protocol.call import first_copy, step
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import Answered, Asked, CallState, Grant, Lost, Tick, Transmit, Waiting
from reliable.protocol.call_facts import Call, Past
from reliable.protocol.events import Submit
from reliable.status import Status
from reliable.wire.extension import AnswerFrame, CallKind

NOW = 10.0
LIFE = b"life-one"
GRANT = Grant(3, "tcp://a:1", LIFE)
CONFIGS = [ClientConfig(), ClientConfig(retry=RetryPolicy(attempts=1))]

calls = st.builds(
    lambda idempotent, fail_fast, one_way, timeout_s: Call.from_submit(
        Submit(
            call_id=b"c" * 16,
            service=b"echo",
            body=[b"hi"],
            deadline=None if timeout_s is None else NOW + timeout_s,
            idempotent=idempotent,
            fail_fast=fail_fast,
            one_way=one_way,
        ),
        NOW,
    ),
    st.sampled_from([None, True, False]),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.floats(0.001, 1e6)),
)


@given(calls, st.sampled_from(CONFIGS), st.sampled_from([0, 10_000]))
def test_the_first_copy_leaves_a_call_as_a_grant_does(call: Call, config: ClientConfig, bytes_max: int) -> None:
    """A call that began the short way must go on like one that waited."""
    grant = Grant(GRANT.link, GRANT.address, GRANT.life, bytes_max)
    state, orders = step(call, Waiting(Past(phase_at=NOW), NOW), grant, config, NOW)
    assert first_copy(call, grant, config, NOW) == state
    assert orders == (Transmit(GRANT.link, CallKind.SUBMIT, 1, False),)


@given(calls)
def test_a_new_call_fits_unless_it_is_over(call: Call) -> None:
    """The short way does not ask for the margin, since that is a share of the time that a call was given."""
    assert call.fits(NOW)


def test_a_call_that_the_broker_would_refuse_takes_the_long_way() -> None:
    """There it ends with an error that says what the limit is."""
    call = Call.from_submit(Submit(call_id=b"c" * 16, service=b"echo", body=[bytes(2000)], deadline=None), NOW)
    grant = Grant(3, "tcp://a:1", LIFE, 1000)
    assert first_copy(call, grant, CONFIGS[0], NOW) is None
    state, _ = step(call, Waiting(Past(phase_at=NOW), NOW), grant, CONFIGS[0], NOW)
    assert isinstance(state, Ended) and isinstance(state.result, MessageTooLarge)


def states_of(call: Call) -> list[CallState]:
    """Every state in which an answer can find a call: asked, asked again, waiting after a loss, and for one broker."""
    config = CONFIGS[0]
    asked = first_copy(call, GRANT, config, NOW)
    assert asked is not None
    again, _ = step(call, asked, Tick(), config, asked.silent_at)
    lost, _ = step(call, asked, Lost(GRANT.link, "cut"), config, NOW + 1, 0.5)
    assert isinstance(again, Asked) and again.past.attempts == 2 and isinstance(lost, Waiting)
    return [asked, again, lost]


@pytest.mark.parametrize("idempotent", [None, True, False])
@pytest.mark.parametrize("which", range(3))
def test_a_reply_ends_a_call_as_its_machine_says(which: int, idempotent: bool | None) -> None:
    """An OK counts whichever attempt it answers, and nothing else is to be done then."""
    submit = Submit(call_id=b"c" * 16, service=b"echo", body=[b"hi"], deadline=math.inf, idempotent=idempotent)
    call = Call.from_submit(submit, NOW)
    state = states_of(call)[which]
    answer = AnswerFrame(Status.OK, 1, call.call_id, LIFE, Outcome.EXECUTED)
    ended, orders = step(call, state, Answered(LIFE, answer, [b"yes"]), CONFIGS[0], NOW + 2, 0.5)
    assert ended == call_endings.replied(state.past, [b"yes"])
    assert orders == ()
