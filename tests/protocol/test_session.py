"""What is known of a broker's zero: never less safe than the hello, and better whenever the broker says more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.protocol.session import CLOCK_RATES_APART_MAX, SessionTime, begin
from reliable.types import Frames
from reliable.wire.mmi import time_answer, time_query

DAY_S = 86_400.0


def stamp(number: int) -> bytes:
    """What comes back with the answer to the question of that number."""
    return number.to_bytes(8, "big")


def says(number: int, since_hello_s: float) -> Frames:
    """The answer of a broker whose clock shows so much since the hello."""
    return [b"200", *time_answer(stamp(number), int(since_hello_s * 1000))]


def test_a_hello_is_the_first_reckoning() -> None:
    """Its two moments hold the broker's zero between them."""
    assert begin(9.0, 9.5, 60.0) == SessionTime(9.0, 9.5, 9.5, 69.5)
    assert begin(9.0, 9.5, None).ask_at == math.inf


def test_a_question_carries_its_number_and_leaves_the_reckoning() -> None:
    """An answer that never comes must cost nothing."""
    asked, frames = begin(9.0, 9.5, 60.0).ask(69.5, 60.0)
    assert frames == time_query(stamp(1))
    assert (asked.t0, asked.t1, asked.at, asked.ask_at, asked.asked_at) == (9.0, 9.5, 9.5, 129.5, 69.5)


@given(
    rate=st.floats(1 - 0.004, 1 + 0.004),
    age_s=st.floats(1.0, 10 * DAY_S),
    hello_ways=st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)),
    ways=st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 5.0)),
)
def test_the_zero_lies_between_both_moments_after_any_answer(
    rate: float, age_s: float, hello_ways: tuple[float, float], ways: tuple[float, float]
) -> None:
    """Else a deadline could be early, or a call that a broker has forgotten look like a new one: it would run twice."""
    # Our clock is the true one; the broker's goes at another rate, and its zero is when the hello arrives.
    zero = 1000.0
    time = begin(zero - hello_ways[0], zero + hello_ways[1], 60.0)
    asked, _ = time.ask(zero + age_s, 60.0)
    there = zero + age_s + ways[0]
    here = there + ways[1]
    told = asked.answered(says(1, (there - zero) * rate), here)
    broker_says = (here - zero) * rate
    slack = 1e-6 + abs(1 - rate) * (here - told.at + sum(hello_ways) + sum(ways))
    assert here - told.t1 <= broker_says + slack
    assert here - told.t0 >= broker_says - slack
    assert told.asked_at is None
    if told.at > time.at:
        assert told.width_s(here) <= sum(ways) * (1 + 2 * CLOCK_RATES_APART_MAX) + 0.003


@given(
    rate=st.floats(1 - CLOCK_RATES_APART_MAX, 1 + CLOCK_RATES_APART_MAX),
    age_s=st.floats(1.0, 10 * DAY_S),
    ways=st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 5.0)),
    sent_s=st.floats(-100.0, 1000.0),
)
def test_a_first_sending_is_never_written_later_than_it_was(
    rate: float, age_s: float, ways: tuple[float, float], sent_s: float
) -> None:
    """Whichever way the message took, whenever it was: what a broker reads is not after what its own clock showed."""
    zero = 1000.0
    asked, _ = begin(zero, zero + 20.0, 60.0).ask(zero + age_s, 60.0)
    there = zero + age_s + ways[0]
    told = asked.answered(says(1, (there - zero) * rate), there + ways[1])
    assert told.at == asked.asked_at
    first_sent = zero + age_s + sent_s
    shown = (there - zero) * rate + (first_sent - there) * rate
    written = first_sent - told.t1 - abs(first_sent - told.at) * CLOCK_RATES_APART_MAX
    assert written <= shown + 1e-6


def test_an_answer_that_says_less_than_is_known_is_not_taken() -> None:
    """It was on its way for five seconds, and would make every deadline so much later."""
    time, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    told = time.answered(says(1, 62.0), 74.0)
    assert (told.t0, told.t1, told.asked_at, told.ask_at) == (9.0, 9.01, None, 129.0)


def test_an_answer_that_nobody_read_for_an_hour_leaves_the_next_question_due() -> None:
    """A blocking client reads only while it calls."""
    time, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    told = time.answered(says(1, 60.0), 3669.0)
    assert told.t1 == 9.01
    assert told.ask_at < 3669.0


@pytest.mark.parametrize(
    "body",
    [[], [b"200"], [b"200", b"junk", b"junk"], [b"200", stamp(1)], [b"200", stamp(1), b"x"], says(2, 60.0), [b"500"]],
)
def test_what_is_no_answer_to_the_open_question_changes_nothing(body: Frames) -> None:
    """An answer to an earlier question would tell of an earlier moment."""
    time, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    assert time.answered(body, 69.1) is time


@pytest.mark.parametrize("body", [says(0, 60.0), [b"501"], [b"404"]])
def test_an_answer_without_a_question_changes_nothing(body: Frames) -> None:
    """Nobody but the broker that was asked is to move deadlines."""
    time = begin(9.0, 9.01, 60.0)
    assert time.answered(body, 69.1) is time


@pytest.mark.parametrize("code", [b"501", b"404"])
def test_a_broker_that_cannot_say_it_is_not_asked_again(code: bytes) -> None:
    """An older one; the hello's reckoning goes on."""
    time, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    told = time.answered([code], 69.1)
    assert (told.t0, told.t1, told.ask_at, told.asked_at) == (9.0, 9.01, math.inf, None)


def test_more_frames_than_today_are_left_alone() -> None:
    """Later versions may say more."""
    time, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    assert time.answered([*says(1, 60.0), b"more"], 69.1) == time.answered(says(1, 60.0), 69.1)


def test_after_waiting_in_vain_the_next_question_is_not_due_at_once() -> None:
    """Whoever asks more often than calls may wait would spin."""
    time, _ = begin(9.0, 9.01, 0.5).ask(69.0, 0.5)
    assert time.in_vain(70.0).ask_at == 71.0
    slow, _ = begin(9.0, 9.01, 60.0).ask(69.0, 60.0)
    assert slow.in_vain(70.0).ask_at == 129.0
    assert slow.in_vain(70.0).waited
