"""The budget for extra attempts."""

from __future__ import annotations

from reliable.config import RetryBudget
from reliable.engine.budget import TokenBucket


def test_a_spent_bucket_gives_one_token_for_ten_calls() -> None:
    """A server that always fails must see at most the calls and a tenth more."""
    bucket = TokenBucket(RetryBudget(ratio=0.1, tokens_max=5.0))
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    taken = 0
    for _ in range(1000):
        bucket.deposit()
        taken += bucket.take()
    assert taken == 100


def test_a_bucket_holds_no_more_than_its_bound() -> None:
    """A quiet month must not pay for a storm."""
    bucket = TokenBucket(RetryBudget(ratio=1.0, tokens_max=3.0))
    for _ in range(100):
        bucket.deposit()
    assert bucket.tokens == 3.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_no_budget_is_no_limit() -> None:
    """Who writes None has other means."""
    bucket = TokenBucket(None)
    assert all(bucket.take() for _ in range(1000))
    assert not bucket.limited


def test_a_ratio_of_nothing_never_refills() -> None:
    """The start is all there is."""
    bucket = TokenBucket(RetryBudget(ratio=0.0, tokens_max=1.0))
    assert bucket.take()
    for _ in range(100):
        bucket.deposit()
    assert not bucket.take()
