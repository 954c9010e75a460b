"""When hedges go out, what they may cost, and what is remembered of them."""

from __future__ import annotations

import pytest

from reliable.config import HedgePolicy, RetryBudget
from reliable.engine.hedging import Hedges, Pair, decides
from reliable.errors import Outcome, RequestError, WorkerFailed, WorkerLost
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_facts import Call, Past
from reliable.protocol.events import Submit

P95 = HedgePolicy(percentile=95.0)


def call(number: int, service: bytes = b"echo") -> Call:
    call_id = b"c%d" % number
    return Call.from_submit(Submit(call_id=call_id.ljust(16, b"."), service=service, body=[], deadline=9.0), 5.0)


def plan(hedges: Hedges, number: int, policy: HedgePolicy, service: bytes = b"echo") -> tuple[float | None, Pair]:
    """What was planned, and the pair."""
    one = call(number, service)
    hedge_id = one.call_id[:-1] + b"'"
    delay_s = hedges.plan(one, hedge_id, policy)
    pair = hedges.get(hedge_id)
    assert pair is not None and pair is hedges.get(one.call_id)
    assert pair.other(hedge_id) == one.call_id and pair.other(one.call_id) == hedge_id
    return delay_s, pair


def measure(hedges: Hedges, seconds: list[float], service: bytes = b"echo") -> None:
    for number, one in enumerate(seconds):
        _, pair = plan(hedges, number, P95, service)
        hedges.measured(pair, one)
        hedges.drop(pair)


def test_a_fixed_delay_needs_no_measuring() -> None:
    """The user knows."""
    assert plan(Hedges(), 1, HedgePolicy(delay_s=0.3))[0] == 0.3


def test_the_percentile_is_of_the_newest_calls_of_the_same_service() -> None:
    """A service that is slow by nature must not set the time of a quick one, nor last week that of today."""
    hedges = Hedges()
    measure(hedges, [float(number) for number in range(1, 97)])
    measure(hedges, [1000.0] * 30, b"slow")
    assert plan(hedges, 1, P95)[0] == 92.0
    measure(hedges, [0.5] * 600)
    assert plan(hedges, 2, P95)[0] == 0.5


def test_twenty_calls_must_be_measured_before_the_first_hedge() -> None:
    """Percentiles of a handful are noise."""
    hedges = Hedges()
    measure(hedges, [0.1] * 19)
    assert plan(hedges, 1, P95)[0] is None
    measure(hedges, [0.1])
    assert plan(hedges, 2, P95)[0] == 0.1


def test_each_policy_has_a_budget_of_its_own() -> None:
    """One part of a program must not spend what another part was given."""
    hedges = Hedges()
    poor = HedgePolicy(delay_s=0.1, budget=RetryBudget(ratio=0.0, tokens_max=1.0))
    rich = HedgePolicy(delay_s=0.1, budget=RetryBudget(ratio=0.0, tokens_max=3.0))
    _, pair = plan(hedges, 1, poor)
    assert [hedges.pay(pair) for _ in range(2)] == [True, False]
    _, other = plan(hedges, 2, rich)
    assert [hedges.pay(other) for _ in range(4)] == [True, True, True, False]


def test_a_pair_that_is_over_is_forgotten_under_both_ids() -> None:
    """A client that runs for months."""
    hedges = Hedges()
    _, pair = plan(hedges, 1, P95)
    assert len(hedges) == 2
    hedges.drop(pair)
    hedges.drop(pair)
    assert len(hedges) == 0


def test_what_is_remembered_of_services_and_policies_is_bounded() -> None:
    """Service names may come from outside, and policies may be made per call."""
    hedges = Hedges()
    for number in range(3000):
        policy = HedgePolicy(percentile=50.0 + number / 100)
        _, pair = plan(hedges, number, policy, b"s%d" % number)
        hedges.measured(pair, 0.1)
        hedges.drop(pair)
    assert len(hedges._windows) <= 1000 and len(hedges._budgets) <= 64


@pytest.mark.parametrize(
    ("result", "outcome", "final"),
    [
        ([b"reply"], Outcome.EXECUTED, True),
        (WorkerFailed("x"), Outcome.EXECUTED, True),
        (WorkerFailed("x"), Outcome.NOT_EXECUTED, False),
        (WorkerFailed("x"), Outcome.UNKNOWN, False),
        (WorkerLost("x"), Outcome.UNKNOWN, False),
        (RequestError("x", outcome=Outcome.EXECUTED), Outcome.EXECUTED, False),
    ],
)
def test_a_reply_or_the_error_of_a_handler_that_ran_decides(
    result: list[bytes] | RequestError, outcome: Outcome, final: bool
) -> None:
    """Everything else leaves hope for the other one."""
    assert decides(Ended(Past(), result, outcome)) is final
