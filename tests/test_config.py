"""Settings: bad ones are refused when built, and the arithmetic on them is exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.config import (
    Backoff,
    BreakerPolicy,
    ClientConfig,
    Dialect,
    Freelance,
    Heartbeat,
    HedgePolicy,
    Limits,
    RetryBudget,
    RetryCause,
    RetryPolicy,
    TransportConfig,
    WorkerConfig,
)

ALL = [
    Backoff,
    BreakerPolicy,
    ClientConfig,
    Freelance,
    Heartbeat,
    Limits,
    RetryBudget,
    RetryPolicy,
    TransportConfig,
    WorkerConfig,
]


OFF = {"hedge", "process_requests_max", "process_memory_bytes_max"}
"""What there is none of unless it is asked for; everything else has a limit."""


@pytest.mark.parametrize(
    ("attempt", "u", "delay_s"),
    [(1, 0.5, 0.05), (2, 0.5, 0.1), (3, 0.5, 0.2), (4, 0.5, 0.25), (5, 0.5, 0.25), (1, 0.0, 0.0), (3, 0.25, 0.1)],
)
def test_a_backoff_doubles_up_to_its_bound_and_the_jitter_takes_a_share_of_it(
    attempt: int, u: float, delay_s: float
) -> None:
    """Full jitter: anywhere between nothing and the bound."""
    assert Backoff(initial_s=0.1, delay_s_max=0.5).delay_s(attempt, u) == pytest.approx(delay_s)


@given(
    st.integers(-5, 10**9),
    st.floats(0, 1, exclude_max=True),
    st.floats(1, 1000),
    st.floats(0, 1e300, exclude_min=True, allow_subnormal=False),
)
def test_no_attempt_number_makes_a_backoff_overflow_or_exceed_its_bound(
    attempt: int, u: float, factor: float, initial_s: float
) -> None:
    """A client that retries for a week reaches large exponents, and an exception there would end it."""
    delay_s = Backoff(initial_s=initial_s, factor=factor, delay_s_max=30.0).delay_s(attempt, u)
    assert 0.0 <= delay_s <= 30.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: Backoff(initial_s=0.0),
        lambda: RetryBudget(ratio=-0.1),
        lambda: RetryBudget(tokens_max=0.0),
        lambda: HedgePolicy(),
        lambda: HedgePolicy(delay_s=0.1, percentile=95.0),
        lambda: HedgePolicy(delay_s=0.0),
        lambda: HedgePolicy(percentile=100.0),
        lambda: BreakerPolicy(failures=0),
        lambda: Freelance(ping_interval_s=1.0, ping_timeout_s=1.5),
        lambda: ClientConfig(dialect="mdp/0.3"),
        lambda: ClientConfig(return_after_s=0.0),
        lambda: Backoff(initial_s=-1.0),
        lambda: Backoff(initial_s=math.nan),
        lambda: Backoff(delay_s_max=math.inf),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(factor=math.nan),
        lambda: Backoff(factor=math.inf),
        lambda: Backoff(factor=1e9),
        lambda: RetryPolicy(attempts=0),
        lambda: RetryPolicy(attempt_timeout_s=0.0),
        lambda: Heartbeat(interval_s=0.0),
        lambda: Heartbeat(interval_s=2.0, timeout_s=3.9),
        lambda: Limits(calls_in_flight_max=0),
        lambda: Limits(message_bytes_max=1023),
        lambda: Limits(replies_kept_bytes_max=-1),
        lambda: Limits(replies_kept_max=0),
        lambda: TransportConfig(linger_s=-0.1),
        lambda: TransportConfig(linger_s=math.inf),
        lambda: TransportConfig(heartbeat_interval_s=0.0),
        lambda: TransportConfig(resolve_timeout_s=math.nan),
        lambda: ClientConfig(timeout_s=0.0),
        lambda: ClientConfig(timeout_s=math.inf),
        lambda: ClientConfig(hello_timeout_s=-1.0),
        lambda: WorkerConfig(concurrency=0),
        lambda: WorkerConfig(concurrency=10_001),
        lambda: WorkerConfig(started_after_s=0.0),
        lambda: WorkerConfig(drain_timeout_s=math.inf),
        lambda: WorkerConfig(replies_kept_s=0.0),
    ],
)
def test_a_setting_out_of_range_is_refused_when_built(build: Callable[[], object]) -> None:
    """Not at its first use, which may be during an outage."""
    with pytest.raises(ValueError, match=r"must be|factor|attempts|_max|concurrency"):
        build()


def test_none_means_no_limit_where_it_is_allowed() -> None:
    """It has to be written out by the caller."""
    assert ClientConfig(timeout_s=None).timeout_s is None
    assert RetryPolicy(attempts=None).attempts is None


def test_linger_may_be_zero() -> None:
    """Zero is a meaning of its own there: drop what was not sent."""
    assert TransportConfig(linger_s=0.0).linger_s == 0.0


@pytest.mark.parametrize("kind", ALL)
def test_every_default_is_accepted_and_every_timeout_among_them_is_finite(kind: type) -> None:
    """A default must never make anybody wait for ever."""
    settings = kind()
    for name in (field.name for field in attrs.fields(kind)):
        value = getattr(settings, name)
        assert value is not None or name in OFF, name
        if name.endswith(("_s", "_s_max")):
            assert math.isfinite(value) and value > 0, name


@pytest.mark.parametrize("kind", ALL)
def test_settings_are_frozen_and_keyword_only(kind: type) -> None:
    """They are shared between threads and engines, and positions would freeze their order for ever."""
    field = attrs.fields(kind)[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(kind(), field, 1)
    with pytest.raises(TypeError):
        kind(1)


def test_never_retry_is_one_attempt() -> None:
    """The named constructor says what it does."""
    assert RetryPolicy.never().attempts == 1


def test_an_attempt_fits_into_the_default_timeout_of_a_call() -> None:
    """Otherwise no call with default settings would ever be retried."""
    config = ClientConfig()
    assert config.timeout_s is not None and config.retry.attempts is not None
    assert config.retry.attempts * config.retry.attempt_timeout_s < config.timeout_s


def test_a_dialect_may_be_written_as_text_and_a_wrong_one_names_those_there_are() -> None:
    """Nobody remembers the spelling."""
    assert ClientConfig(dialect="req").dialect is Dialect.REQ
    with pytest.raises(ValueError, match=r"one of 'mdp', 'mdp/0\.1'"):
        ClientConfig(dialect="majordomo")


def test_causes_may_be_any_collection() -> None:
    """A policy is hashable all the same."""
    assert RetryPolicy(causes=[RetryCause.LOST]).causes == frozenset({RetryCause.LOST})
    assert hash(HedgePolicy(delay_s=0.1)) == hash(HedgePolicy(delay_s=0.1))
