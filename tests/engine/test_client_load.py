"""The client engine under load and in trouble: budgets, breakers, hedges, slow brokers, and the way back."""

from __future__ import annotations

import pytest

from reliable.config import Backoff, BreakerPolicy, ClientConfig, HedgePolicy, RetryBudget, RetryCause, RetryPolicy
from reliable.engine.observe import BreakerChanged, HedgeStarted, RetryRefused
from reliable.errors import LocalProtocolError, Outcome
from reliable.protocol.events import AbandonAll, LinkEnd, Submit
from reliable.status import Status
from reliable.wire.extension import CallFlag, Place
from tests.support.client_desk import Desk
from tests.support.engine_desk import call_id

FAST = Backoff(initial_s=0.1, delay_s_max=0.1)
NO_BREAKER = BreakerPolicy(failures=None)
HEDGE = HedgePolicy(delay_s=0.2)


def ready(config: ClientConfig, *brokers: str, observer: list[object] | None = None) -> Desk:
    """A desk whose first broker answered its hello on link 1, with no call open."""
    desk = Desk(*brokers, config=config, observer=observer)
    desk.submit("warm")
    desk.open(1)
    desk.answer(1, name="warm")
    desk.trace()
    return desk


# --- the retry budget -----------------------------------------------------------------------------


def budget(tokens: float, ratio: float = 0.0) -> ClientConfig:
    policy = RetryPolicy(backoff=FAST, budget=RetryBudget(ratio=ratio, tokens_max=tokens))
    return ClientConfig(retry=policy, breaker=NO_BREAKER)


def test_with_a_spent_budget_a_refused_call_ends_instead_of_being_sent_again() -> None:
    """A server in trouble must not be asked ever more because it is in trouble."""
    seen: list[object] = []
    desk = ready(budget(1.0), observer=seen)
    desk.submit("a")
    desk.answer(1, Status.OVERLOADED, "a")
    desk.sleep(0.2)
    assert desk.trace() == ["submit 1 a#1", "submit 1 a#2"]
    desk.answer(1, Status.OVERLOADED, "a", attempt=2)
    desk.sleep(0.2)
    assert desk.trace() == ["end a QueueFull NOT_EXECUTED"]
    assert "the retry budget is spent" in str(desk.error("a"))
    assert desk.engine.counters.retries_refused == 1
    assert RetryRefused(call_id("a"), "the retry budget is spent") in seen


def test_a_thousand_calls_to_a_server_that_always_fails_cause_a_tenth_more_attempts() -> None:
    """The promise of the budget, in figures."""
    desk = ready(budget(5.0, ratio=0.1))
    spent = 0
    for number in range(1200):
        name = f"n{number}"
        desk.submit(name)
        attempt = 0
        while name not in desk.ended:
            attempt += 1
            desk.answer(1, Status.OVERLOADED, name, attempt=attempt)
            desk.sleep(0.11)
        if number == 199:
            spent = desk.engine.counters.retries
    assert desk.engine.counters.retries - spent <= 100


def test_asking_what_became_of_a_call_costs_nothing() -> None:
    """An ATTACH runs nothing, and without it a call that must not run twice could only end UNKNOWN."""
    desk = ready(budget(0.5))
    desk.submit("a", idempotent=False)
    desk.close(1)
    desk.open(2)
    assert desk.trace() == ["submit 1 a#1", "open 2 a", "hello 2", "attach 2 a#2"]


def test_a_broken_link_is_one_failure_however_many_calls_were_on_it() -> None:
    """A restarted broker must not end nine calls of ten."""
    desk = ready(budget(1.0))
    for name in "abc":
        desk.submit(name, idempotent=True)
    desk.close(1)
    desk.open(2, "L2")
    assert [line for line in desk.trace() if " 2 " in line and "submit" in line] == [
        "submit 2 a#2 repeat",
        "submit 2 b#2 repeat",
        "submit 2 c#2 repeat",
    ]
    desk.answer(2, name="a", attempt=2, life="L2")
    desk.close(2)
    desk.sleep(0.2)
    desk.open(3, "L3")
    assert desk.trace()[-2:] == ["end b AttemptsExhausted UNKNOWN", "end c AttemptsExhausted UNKNOWN"]


def test_a_message_that_never_left_is_no_failure_of_the_server() -> None:
    """Nobody else has seen anything of it."""
    desk = ready(budget(0.5))
    desk.submit("a")
    desk.unsent(1, "a")
    desk.sleep(0.2)
    assert desk.trace() == ["submit 1 a#1", "submit 1 a#2"]


@pytest.mark.parametrize(
    ("cause", "ends"),
    [
        (RetryCause.LOST, "end a AttemptsExhausted UNKNOWN"),
        (RetryCause.OVERLOADED, "end a QueueFull NOT_EXECUTED"),
        (RetryCause.NO_SERVICE, "end a ServiceNotFound NOT_EXECUTED"),
        (RetryCause.SILENT, "end a AttemptsExhausted UNKNOWN"),
    ],
)
def test_a_policy_may_rule_out_each_cause_of_a_retry(cause: RetryCause, ends: str) -> None:
    """Some servers are better left alone after some failures, and their users know it."""
    policy = RetryPolicy(backoff=FAST, causes=frozenset(RetryCause) - {cause}, attempt_timeout_s=1.0)
    desk = ready(ClientConfig(retry=policy))
    desk.submit("a", idempotent=True)
    match cause:
        case RetryCause.LOST:
            desk.close(1)
        case RetryCause.OVERLOADED:
            desk.answer(1, Status.OVERLOADED, "a")
        case RetryCause.NO_SERVICE:
            desk.answer(1, Status.NO_SERVICE, "a")
        case RetryCause.SILENT:
            desk.sleep(2.5)
    assert ends in desk.trace()


# --- the circuit breaker --------------------------------------------------------------------------


def breaker(failures: int = 2) -> ClientConfig:
    policy = BreakerPolicy(failures=failures, pause=Backoff(initial_s=2.0, delay_s_max=8.0))
    return ClientConfig(retry=RetryPolicy(attempts=2, backoff=FAST, budget=None), breaker=policy)


def opened(*brokers: str, observer: list[object] | None = None) -> Desk:
    """A desk whose first broker has refused two calls, so that its breaker is open for 1.5 s."""
    desk = ready(breaker(), *brokers, observer=observer)
    for name in "xy":
        desk.submit(name, fail_fast=True, timeout=0.05)
    for name in "xy":
        desk.answer(1, Status.OVERLOADED, name)
    desk.sleep(0.05)
    desk.trace()
    return desk


def state_of(desk: Desk) -> str:
    return desk.engine.snapshot().brokers[0].breaker


def test_an_open_breaker_holds_calls_back_and_lets_one_try_after_its_pause() -> None:
    """A broker that comes back meets one call, not all that have gathered."""
    seen: list[object] = []
    desk = opened(observer=seen)
    assert state_of(desk) == "open"
    desk.submit("a")
    desk.submit("b")
    desk.sleep(1.0)
    assert desk.trace() == []
    desk.sleep(0.5)
    assert desk.trace() == ["submit 1 a#1"] and state_of(desk) == "half-open"
    desk.answer(1, name="a")
    assert desk.trace() == ["end a ok", "submit 1 b#1"] and state_of(desk) == "closed"
    changes = [(one.old, one.new) for one in seen if isinstance(one, BreakerChanged)]
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
    assert desk.engine.counters.breakers_opened == 1


def test_a_failed_try_opens_it_again_for_longer() -> None:
    """It is not well yet."""
    desk = opened()
    desk.submit("a", timeout=60.0)
    desk.submit("b", timeout=60.0)
    desk.sleep(1.5)
    desk.answer(1, Status.OVERLOADED, "a")
    assert state_of(desk) == "open"
    desk.sleep(2.9)
    assert desk.trace() == ["submit 1 a#1"]
    desk.sleep(0.2)
    assert len(desk.trace()) == 1


def test_calls_go_to_another_broker_while_a_breaker_is_open() -> None:
    """That is what the list is for."""
    desk = opened("a", "b")
    desk.submit("c")
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#1"]


def test_a_call_that_waits_for_a_breaker_ends_at_its_deadline_and_says_why() -> None:
    """The promise holds in this state too."""
    desk = opened()
    desk.submit("a", timeout=0.5)
    desk.sleep(0.5)
    assert desk.trace() == ["end a BrokerUnreachable NOT_EXECUTED"]
    assert "breaker is open after 2 failures in a row" in str(desk.error("a"))


def test_what_became_of_a_call_may_be_asked_through_an_open_breaker() -> None:
    """The call may have run, and nobody else knows."""
    desk = opened()
    desk.engine._state.brokers["a"].breaker.succeeded()
    desk.submit("a", idempotent=False)
    desk.trace()
    for name in "xy":
        desk.answer(1, Status.OVERLOADED, name)
    assert state_of(desk) == "open"
    desk.sleep(2.5)
    assert desk.trace() == ["attach 1 a#2"]


def test_broken_links_with_calls_on_them_and_silent_deadlines_count_as_failures() -> None:
    """Whatever way a broker fails, it is the same trouble."""
    desk = ready(breaker(failures=3))
    desk.submit("a")
    desk.close(1)
    assert desk.engine._state.brokers["a"].breaker.failures == 1
    desk.open(2)
    desk.answer(2, Status.UNKNOWN_CALL, "a", attempt=2)
    assert desk.engine._state.brokers["a"].breaker.failures == 0, "it answers"
    desk.answer(2, name="a", attempt=3)
    for _ in range(3):
        name = f"s{desk.now:.1f}"
        desk.submit(name, timeout=0.3)
        desk.sleep(0.3)
        assert name in desk.ended
    assert state_of(desk) == "open"


def test_a_link_that_breaks_while_nothing_is_asked_is_no_failure() -> None:
    """Idle connections are cut by all kinds of boxes."""
    desk = ready(breaker(failures=1))
    desk.close(1)
    assert state_of(desk) == "closed"


def test_a_deadline_that_the_broker_told_is_no_failure_of_the_broker() -> None:
    """The workers may be slow; it answers."""
    desk = ready(breaker(failures=1))
    desk.submit("a", timeout=1.0)
    desk.sleep(0.95)
    desk.answer(1, Status.EXPIRED, "a", outcome=Outcome.UNKNOWN)
    assert desk.trace() == ["submit 1 a#1", "end a DeadlineExceeded UNKNOWN"]
    assert state_of(desk) == "closed"


# --- hedging --------------------------------------------------------------------------------------


def hedged(*brokers: str, policy: HedgePolicy = HEDGE, observer: list[object] | None = None) -> Desk:
    """A desk with call ``c`` out on link 1 and its time for itself over, so that its hedge is out too."""
    desk = ready(ClientConfig(retry=RetryPolicy(backoff=FAST)), *brokers, observer=observer)
    desk.submit("c", idempotent=True, hedge=policy)
    desk.sleep(0.19)
    assert desk.trace() == ["submit 1 c#1"]
    desk.sleep(0.01)
    return desk


def test_a_hedge_goes_out_after_its_delay_as_a_call_of_its_own() -> None:
    """Same work, another id, and a flag that lets the broker choose another worker."""
    seen: list[object] = []
    desk = hedged(observer=seen)
    assert desk.trace() == ["submit 1 c'#1"]
    frame = desk.last_call_frame()
    assert frame.flags == CallFlag.IDEMPOTENT | CallFlag.HEDGE and frame.call_id == call_id("c'")
    assert desk.engine.counters.hedges == 1
    assert [one.delay_s for one in seen if isinstance(one, HedgeStarted)] == [pytest.approx(0.2)]


@pytest.mark.parametrize(("winner", "loser"), [("c", "c'"), ("c'", "c")])
def test_the_first_reply_wins_and_the_other_attempt_is_cancelled(winner: str, loser: str) -> None:
    """The user sees one call with one reply; the late one is counted and dropped."""
    desk = hedged()
    desk.trace()
    desk.answer(1, name=winner, body=[b"first"])
    assert desk.trace() == [f"cancel 1 {loser}#1", "end c first"]
    desk.answer(1, name=loser, body=[b"second"])
    assert desk.trace() == []
    counters = desk.engine.counters
    assert (counters.calls, counters.ok, counters.hedges_won) == (2, 2, winner == "c'")
    assert len(desk.engine._state.hedges) == 0 and desk.nothing_awaited()


def test_the_error_of_a_handler_wins_too() -> None:
    """The work ran; to wait for a second opinion is not what hedges are for."""
    desk = hedged()
    desk.trace()
    desk.answer(1, Status.HANDLER_ERROR, "c'", body=[b"ValueError", b"no"])
    assert desk.trace() == ["cancel 1 c#1", "end c WorkerFailed EXECUTED"]


def test_if_one_of_the_two_fails_the_other_is_still_waited_for() -> None:
    """That is half of what a hedge is good for."""
    desk = hedged()
    desk.trace()
    desk.answer(1, Status.WORKER_LOST, "c")
    assert desk.trace() == []
    desk.answer(1, name="c'")
    assert desk.trace() == ["end c ok"]


def test_if_both_fail_the_first_error_is_told_with_an_outcome_that_is_true_of_both() -> None:
    """The first is proven not to have run, the hedge is not: nothing may be promised."""
    desk = hedged()
    desk.trace()
    desk.answer(1, Status.NOT_AUTHORISED, "c")
    desk.answer(1, Status.WORKER_LOST, "c'")
    assert desk.trace() == ["end c NotAuthorised UNKNOWN"]


def test_a_hedge_goes_to_another_broker_if_one_is_ready() -> None:
    """The first one may be what is slow."""
    desk = ready(ClientConfig(), "a", "b")
    desk.submit("n", service=b"other")
    desk.answer(1, Status.NO_SERVICE, "n", service=b"other")
    desk.open(2, "M1")
    desk.answer(2, name="n", life="M1", attempt=2, service=b"other")
    desk.trace()
    desk.submit("c", idempotent=True, hedge=HEDGE)
    desk.sleep(0.2)
    assert desk.trace() == ["submit 1 c#1", "submit 2 c'#1"]
    desk.answer(2, name="c'", life="M1")
    assert desk.trace() == ["cancel 1 c#1", "end c ok"]


def test_no_hedge_goes_out_if_the_reply_was_quick_or_has_begun_or_nothing_was_sent() -> None:
    """Each of these would be work for nothing."""
    desk = ready(ClientConfig())
    desk.submit("quick", idempotent=True, hedge=HEDGE)
    desk.answer(1, name="quick")
    desk.submit("begun", idempotent=True, hedge=HEDGE)
    desk.answer(1, Status.PARTIAL, "begun", body=[b"1"])
    desk.sleep(1.0)
    desk.answer(1, name="begun")
    assert [line for line in desk.trace() if line.startswith("submit")] == ["submit 1 quick#1", "submit 1 begun#1"]
    cold = Desk()
    cold.submit("c", idempotent=True, hedge=HEDGE)
    cold.sleep(0.5)
    assert cold.trace() == ["open 1 a"]
    assert desk.engine.counters.hedges == cold.engine.counters.hedges == 0


def test_a_part_of_a_reply_decides_and_is_told_under_the_id_of_the_call() -> None:
    """Parts of two replies must not be mixed."""
    desk = hedged()
    desk.trace()
    desk.answer(1, Status.PARTIAL, "c'", body=[b"1"])
    desk.answer(1, Status.PARTIAL, "c", body=[b"other"])
    desk.answer(1, name="c'", body=[b"2"])
    assert desk.trace() == ["cancel 1 c#1", "partial c 1", "end c 2"]


def test_a_call_that_is_cancelled_takes_its_hedge_with_it() -> None:
    """In whichever state of the two."""
    desk = hedged()
    desk.trace()
    desk.cancel("c")
    assert desk.trace() == ["cancel 1 c#1", "cancel 1 c'#1", "end c RequestAbandoned UNKNOWN"]
    desk = hedged()
    desk.answer(1, Status.WORKER_LOST, "c")
    desk.trace()
    desk.cancel("c")
    assert desk.trace() == ["cancel 1 c'#1", "end c WorkerLost UNKNOWN"]
    desk = hedged()
    desk.trace()
    desk.feed(AbandonAll())
    assert "end c RequestAbandoned UNKNOWN" in desk.trace() and len(desk.engine._state.hedges) == 0


def test_both_end_at_the_deadline_as_one_call() -> None:
    """One call, one end, in time."""
    desk = hedged()
    desk.trace()
    desk.sleep(30.0)
    assert [line for line in desk.trace() if line.startswith("end")] == ["end c DeadlineExceeded UNKNOWN"]


def test_hedges_have_a_budget_of_their_own() -> None:
    """If everything is slow, doubling the load makes it slower."""
    policy = HedgePolicy(delay_s=0.2, budget=RetryBudget(ratio=0.1, tokens_max=1.0))
    desk = hedged(policy=policy)
    desk.answer(1, name="c")
    desk.trace()
    desk.submit("d", idempotent=True, hedge=policy)
    desk.sleep(0.3)
    assert desk.trace() == ["submit 1 d#1"]
    assert desk.engine.counters.retries_refused == 1


def test_a_percentile_hedges_only_when_enough_was_measured() -> None:
    """With nothing measured any delay would be a guess."""
    desk = ready(ClientConfig())
    policy = HedgePolicy(percentile=90.0)
    for number in range(20):
        desk.submit(f"n{number}", idempotent=True, hedge=policy)
        desk.sleep(0.5 if number % 10 == 9 else 0.01)
        desk.answer(1, name=f"n{number}")
    assert desk.engine.counters.hedges == 0
    desk.trace()
    desk.submit("c", idempotent=True, hedge=policy)
    desk.sleep(0.49)
    assert desk.trace() == ["submit 1 c#1"]
    desk.sleep(0.02)
    assert desk.trace() == ["submit 1 c'#1"]


def test_the_time_of_a_loser_is_measured_as_far_as_it_got() -> None:
    """Left out, only quick replies would count, and hedges would come ever earlier."""
    desk = ready(ClientConfig())
    policy = HedgePolicy(percentile=50.0, budget=RetryBudget(ratio=1.0, tokens_max=1000.0))
    for number in range(20):
        desk.submit(f"n{number}", idempotent=True, hedge=policy)
        desk.sleep(0.1)
        desk.answer(1, name=f"n{number}")
    for number in range(200):
        name = f"m{number}"
        desk.submit(name, idempotent=True, hedge=policy)
        desk.sleep(0.15)
        desk.answer(1, name=f"{name}'")
    desk.trace()
    desk.submit("c", idempotent=True, hedge=policy)
    desk.sleep(0.04)
    assert desk.trace() == ["submit 1 c#1"], "the delay has not shrunk to the time of the winners"


@pytest.mark.parametrize(("idempotent", "one_way"), [(None, False), (False, False), (True, True)])
def test_only_calls_declared_idempotent_that_want_their_reply_are_hedged(
    idempotent: bool | None, one_way: bool
) -> None:
    """Both attempts may run: that is for the caller to allow, in words."""
    desk = Desk()
    with pytest.raises(LocalProtocolError, match="hedged"):
        desk.submit("c", idempotent=idempotent, one_way=one_way, hedge=HEDGE)
    with pytest.raises(LocalProtocolError, match="call id of its own"):
        desk.feed(Submit(call_id=call_id("c"), service=b"e", body=[], deadline=None, idempotent=True, hedge=HEDGE))


# --- one-way calls --------------------------------------------------------------------------------


def test_a_one_way_call_ends_when_the_broker_says_that_it_has_it() -> None:
    """Whether it ran is left to the workers, and the caller does not wait for that."""
    desk = ready(ClientConfig())
    desk.submit("c", one_way=True)
    assert desk.last_call_frame().flags == CallFlag.ONE_WAY
    desk.answer(1, Status.ACCEPTED, place=Place.QUEUED)
    assert desk.trace() == ["submit 1 c#1", "end c "]
    assert desk.ended["c"].outcome is Outcome.UNKNOWN
    assert desk.engine.snapshot().calls == 0


def test_a_one_way_call_whose_word_was_lost_is_asked_after_and_never_run_twice() -> None:
    """At most once holds for it as for any other."""
    desk = ready(ClientConfig())
    desk.submit("c", one_way=True)
    desk.close(1)
    desk.open(2)
    assert desk.trace()[-1] == "attach 2 c#2"
    desk.answer(2, Status.STARTED, attempt=2, place=Place.RUNNING)
    assert desk.trace() == ["end c "]


def test_a_one_way_call_that_is_refused_fails_like_any_other() -> None:
    """Accepted is a promise, so a refusal is news."""
    desk = ready(ClientConfig(retry=RetryPolicy.never()))
    desk.submit("c", one_way=True)
    desk.answer(1, Status.OVERLOADED)
    assert desk.trace() == ["submit 1 c#1", "end c QueueFull NOT_EXECUTED"]


# --- slow brokers, and the way back ---------------------------------------------------------------


def test_a_broker_that_is_slow_to_come_up_delays_calls_by_the_stagger_only() -> None:
    """A name that does not resolve must not cost each caller seconds."""
    desk = Desk("a", "b")
    desk.submit()
    desk.sleep(0.24)
    assert desk.trace() == ["open 1 a"]
    desk.sleep(0.02)
    assert desk.trace() == ["open 2 b"]
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#1"]
    desk.answer(2, life="M1")
    desk.open(1)
    desk.submit("d")
    assert desk.trace() == ["end c ok", "hello 1", "submit 1 d#1"], "the first is preferred when it is there"


def test_after_a_failover_the_preferred_broker_is_looked_for_and_returned_to() -> None:
    """The order of the list is what the user wants; one blip must not undo it for ever."""
    patient = RetryPolicy(attempt_timeout_s=100.0)
    desk = ready(ClientConfig(return_after_s=10.0, retry=patient), "a", "b")
    desk.submit("c", idempotent=True, timeout=60.0)
    desk.close(1)
    desk.open(2, "M1")
    desk.trace()
    desk.sleep(10.0)
    assert "open 3 a" in desk.trace()
    desk.close(3, LinkEnd.REFUSED)
    desk.sleep(9.0)
    desk.trace()
    desk.sleep(1.1)
    assert "open 4 a" in desk.trace()
    desk.open(4, "L2")
    desk.submit("d")
    assert desk.trace()[-1] == "submit 4 d#1"


def test_nobody_looks_for_the_preferred_broker_while_there_is_no_call() -> None:
    """An idle client costs nothing."""
    desk = ready(ClientConfig(return_after_s=10.0), "a", "b")
    desk.submit("c", idempotent=True, timeout=60.0)
    desk.close(1)
    desk.open(2, "M1")
    desk.answer(2, life="M1", attempt=2)
    desk.trace()
    desk.sleep(50.0)
    assert desk.trace() == [] and desk.nothing_awaited()


def test_no_copy_goes_out_so_late_that_the_brokers_word_could_not_come_back() -> None:
    """It could only turn NOT_EXECUTED, which is proven as long as nothing was sent, into UNKNOWN."""
    desk = Desk()
    desk.submit("early", timeout=1.0)
    desk.submit("late", timeout=1.0)
    desk.sleep(0.9)
    desk.open(1)
    assert desk.trace()[-2:] == ["submit 1 early#1", "submit 1 late#1"]
    desk = Desk()
    desk.submit("late", timeout=1.0)
    desk.sleep(0.94)
    desk.open(1)
    desk.sleep(0.1)
    assert desk.trace()[-1] == "end late DeadlineExceeded NOT_EXECUTED"
