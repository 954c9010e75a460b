"""The circuit breaker of one broker."""

from __future__ import annotations

import math

from reliable.config import Backoff, BreakerPolicy
from reliable.engine.breaker import Breaker


def make(failures: int | None = 3) -> Breaker:
    return Breaker(BreakerPolicy(failures=failures, pause=Backoff(initial_s=1.0, delay_s_max=4.0)), trial_s=2.5)


def opened(now: float = 100.0) -> Breaker:
    breaker = make()
    assert [breaker.failed(now, 0.0) for _ in range(3)] == [False, False, True]
    return breaker


def test_failures_in_a_row_open_it_and_one_success_between_them_does_not_let_it() -> None:
    """One bad answer in a thousand is not a broker in trouble."""
    breaker = make()
    for _ in range(10):
        assert not breaker.failed(100.0, 0.5)
        assert not breaker.failed(100.0, 0.5)
        assert not breaker.succeeded(), "it was closed all the time"
    assert breaker.allows(100.0) and breaker.state(100.0) == "closed"
    assert breaker.opens_up_at() == -math.inf


def test_an_open_breaker_lets_nothing_through_until_its_pause_is_over() -> None:
    """Half of the bound at least, however the jitter falls."""
    breaker = opened()
    assert breaker.state(100.0) == "open"
    assert not breaker.allows(100.49)
    assert breaker.opens_up_at() == 100.5
    assert breaker.state(100.5) == "half-open" and breaker.allows(100.5)


def test_a_half_open_breaker_lets_one_call_through_and_the_next_only_after_its_verdict() -> None:
    """A broker that comes back must not meet all who waited at once."""
    breaker = opened()
    breaker.sent(101.0)
    assert not breaker.allows(101.0) and breaker.opens_up_at() == 103.5
    assert breaker.succeeded()
    assert breaker.allows(101.0) and breaker.state(101.0) == "closed" and breaker.failures == 0


def test_a_call_that_tries_and_never_ends_does_not_keep_the_breaker_shut_for_ever() -> None:
    """Its caller may have cancelled it; nobody would ever try again."""
    breaker = opened()
    breaker.sent(101.0)
    assert not breaker.allows(103.4)
    assert breaker.allows(103.5)


def test_each_failed_try_doubles_the_pause_up_to_its_bound_and_a_success_sets_it_back() -> None:
    """A broker that is down for an hour costs one call in a while, not one per second."""
    breaker = opened()
    now = 100.0
    pauses = []
    for _ in range(4):
        start = breaker.opens_up_at()
        pauses.append(start - now)
        now = start
        breaker.sent(now)
        assert breaker.failed(now, 0.0)
    assert pauses == [0.5, 1.0, 2.0, 2.0]
    breaker.succeeded()
    assert [breaker.failed(now, 0.0) for _ in range(3)] == [False, False, True]
    assert breaker.opens_up_at() == now + 0.5


def test_failures_of_attempts_from_before_do_not_prolong_the_pause() -> None:
    """A hundred calls that end with one broken link are one event."""
    breaker = opened()
    assert not breaker.failed(100.2, 0.0)
    assert breaker.opens_up_at() == 100.5


def test_a_policy_without_a_limit_never_opens() -> None:
    """It is switched off."""
    breaker = make(None)
    assert not any(breaker.failed(100.0, 0.5) for _ in range(1000))
    assert breaker.allows(100.0)


def test_calls_through_a_closed_breaker_are_no_tries() -> None:
    """They must not block one another."""
    breaker = make()
    breaker.sent(100.0)
    assert breaker.allows(100.0)
