"""The client engine, step by step: which messages go out, and how calls end."""

from __future__ import annotations

import pytest

from reliable.config import Backoff, ClientConfig, Limits, RetryPolicy
from reliable.engine.client import ClientEngine
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BrokerFound,
    CallEnded,
    CallStarted,
    FailedOver,
    LinkLost,
    MessageDropped,
    RetryScheduled,
)
from reliable.errors import LocalProtocolError, Outcome, QueueFull, WorkerFailed
from reliable.protocol.events import AbandonAll, LinkEnd, LinkOpened, Received, Submit, Unsent
from reliable.protocol.link import HELLO_TAG
from reliable.status import Status
from reliable.wire.extension import CallFlag, CallKind, Place
from tests.support.client_desk import CLIENT, Desk, answer_frames, hello_frames, life_id
from tests.support.engine_desk import call_id


def ready(*brokers: str, config: ClientConfig | None = None, **call: object) -> Desk:
    """A desk with call ``c`` sent to life L1 of the first broker on link 1."""
    desk = Desk(*brokers, config=config)
    desk.submit(**call)  # type: ignore[arg-type]
    desk.open(1)
    assert desk.trace() == [f"open 1 {brokers[0] if brokers else 'a'}", "hello 1", "submit 1 c#1"]
    return desk


# --- the plain way --------------------------------------------------------------------------------


def test_a_call_opens_a_link_says_hello_and_comes_back_with_its_reply() -> None:
    """The shortest way through, message by message: nothing is sent before the hello is answered."""
    desk = Desk()
    assert desk.engine.effects() == [] and desk.engine.next_deadline() is None
    desk.submit()
    assert desk.trace() == ["open 1 a"]
    desk.feed(LinkOpened(1))
    assert desk.trace() == ["hello 1"]
    desk.feed(Received(1, hello_frames()))
    assert desk.trace() == ["submit 1 c#1"]
    desk.answer(1, body=[b"x", b"y"])
    assert desk.trace() == ["end c x|y"]
    assert desk.ended["c"].outcome is Outcome.EXECUTED
    assert desk.nothing_awaited()


def test_a_second_call_uses_the_link_that_is_ready() -> None:
    """One connection carries all calls; a new one per call would cost a hello each."""
    desk = ready()
    desk.submit("d")
    assert desk.trace() == ["submit 1 d#1"]


def test_calls_that_wait_for_the_link_all_go_out_in_order_when_it_is_ready() -> None:
    """Nobody who came while the link was opened may be forgotten."""
    desk = Desk()
    for name in "abc":
        desk.submit(name)
    desk.open(1)
    assert desk.trace() == ["open 1 a", "hello 1", "submit 1 a#1", "submit 1 b#1", "submit 1 c#1"]


def test_the_call_frame_says_what_the_broker_must_know() -> None:
    """Deadline against the sending of the hello, first_sent against its answer, and the flags of the caller."""
    desk = Desk()
    desk.submit(timeout=10.0, idempotent=True, fail_fast=True, wants_progress=True)
    desk.now += 1.0
    desk.feed(LinkOpened(1))
    desk.now += 0.5
    desk.feed(Received(1, hello_frames()))
    frame = desk.last_call_frame()
    assert (frame.kind, frame.attempt, frame.call_id) == (CallKind.SUBMIT, 1, call_id("c"))
    assert (frame.client, frame.life) == (CLIENT, life_id("L1"))
    assert frame.flags == CallFlag.IDEMPOTENT | CallFlag.FAIL_FAST | CallFlag.WANTS_PROGRESS
    # 8.5 s are left, of which the margin is 0.1 s; the hello went out 9 s before our deadline.
    assert frame.deadline_ms == 8900
    assert frame.first_sent_ms == 0


def test_the_margin_of_a_short_deadline_is_a_share_of_it() -> None:
    """0.1 s would leave nothing of a call of 0.1 s; with too little the broker's verdict comes too late."""
    desk = Desk()
    desk.submit("z")
    desk.open(1)
    for name, timeout, margin_ms in (("a", 0.1, 25), ("b", 0.4, 75), ("c", 1.8, 90), ("d", 10.0, 100)):
        desk.submit(name, timeout=timeout)
        assert abs(desk.last_call_frame().deadline_ms - (timeout * 1000 - margin_ms)) <= 1


@pytest.mark.parametrize(
    ("idempotent", "flag"), [(None, CallFlag.NONE), (False, CallFlag.NOT_IDEMPOTENT), (True, CallFlag.IDEMPOTENT)]
)
def test_unsaid_is_told_apart_from_no(idempotent: bool | None, flag: CallFlag) -> None:
    """Only if the caller said nothing may the service's declaration decide at the broker."""
    desk = ready(idempotent=idempotent)
    assert desk.last_call_frame().flags == flag


def test_a_question_to_the_broker_itself_counts_as_idempotent() -> None:
    """mmi services only look, so they may be asked again anywhere."""
    desk = ready("a", "b", service=b"mmi.service")
    assert desk.last_call_frame().flags == CallFlag.IDEMPOTENT
    desk.close(1)
    desk.open(2, "M1")
    assert desk.trace() == ["open 2 b", "hello 2", "submit 2 c#2 repeat"]


def test_a_call_without_body_frames_is_sent_with_an_empty_one() -> None:
    """MDP knows no message without a body."""
    desk = ready(body=[])
    assert desk.frames[-1].frames[-2:] == [b"echo", b""]


# --- a link that comes to nothing -----------------------------------------------------------------


def test_the_only_broker_is_tried_again_after_a_backoff_until_the_deadline() -> None:
    """The broker may be started after its client."""
    desk = Desk(u=1.0)
    desk.submit(timeout=1.0)
    desk.close(1, LinkEnd.REFUSED)
    assert desk.trace() == ["open 1 a"], "not in the same instant"
    desk.sleep(0.1)
    assert desk.trace() == ["open 2 a"]
    desk.close(2, LinkEnd.REFUSED)
    desk.sleep(0.19)
    assert desk.trace() == []
    desk.sleep(0.02)
    assert desk.trace() == ["open 3 a"]
    desk.sleep(0.5)
    desk.close(3, LinkEnd.REFUSED)
    desk.sleep(0.3)
    assert desk.trace() == ["end c BrokerUnreachable NOT_EXECUTED"]
    assert "a: refused (3 times)" in str(desk.error())
    desk.sleep(60.0)
    assert desk.trace() == [], "no call, no reconnects"


def test_a_backoff_of_nothing_still_waits_a_moment() -> None:
    """With jitter 0 a refusing address would otherwise be tried in a tight loop."""
    desk = Desk(u=0.0)
    desk.submit()
    desk.close(1, LinkEnd.REFUSED)
    assert desk.trace() == ["open 1 a"]
    desk.sleep(0.01)
    assert desk.trace() == ["open 2 a"]


@pytest.mark.parametrize("end", [LinkEnd.REFUSED, LinkEnd.UNRESOLVED, LinkEnd.HANDSHAKE])
def test_the_next_broker_is_tried_at_once_when_one_is_out_of_reach(end: LinkEnd) -> None:
    """A dead broker at the head of the list must not cost its backoff."""
    desk = Desk("a", "b")
    desk.submit()
    desk.close(1, end)
    desk.open(2)
    assert desk.trace() == ["open 1 a", "open 2 b", "hello 2", "submit 2 c#1"]


def test_silence_to_the_hello_means_not_usable_and_never_a_downgrade() -> None:
    """A mute peer gets no request: only a received 501 says what it is."""
    desk = Desk("a", "b")
    desk.submit()
    desk.feed(LinkOpened(1))
    desk.sleep(1.0)
    assert desk.trace() == ["open 1 a", "hello 1", "open 2 b", "close 1"]
    assert desk.engine.counters.hellos_unanswered == 1


def test_a_link_that_reports_nothing_at_all_is_given_up() -> None:
    """The bound on connecting must not depend on the transport keeping its word."""
    desk = Desk()
    desk.submit(timeout=60.0)
    desk.sleep(7.0)
    assert desk.trace()[:2] == ["open 1 a", "close 1"]


def test_a_hello_that_the_socket_does_not_take_closes_the_link() -> None:
    """Otherwise the link would wait for an answer to something never asked."""
    desk = Desk("a", "b")
    desk.submit()
    desk.feed(LinkOpened(1))
    desk.feed(Unsent(1, HELLO_TAG))
    assert desk.trace() == ["open 1 a", "hello 1", "close 1", "open 2 b"]


def test_a_foreign_broker_ends_calls_at_once_and_is_not_asked_again_for_a_minute() -> None:
    """501 is a clear no; waiting for the deadline would help nobody."""
    desk = Desk()
    desk.submit()
    desk.feed(LinkOpened(1))
    desk.feed(Received(1, hello_frames(code=b"501")))
    assert desk.trace() == ["open 1 a", "hello 1", "close 1", "end c BrokerUnreachable NOT_EXECUTED"]
    assert "extension" in str(desk.error())
    desk.sleep(59.0)
    desk.submit("d")
    assert desk.trace() == ["end d BrokerUnreachable NOT_EXECUTED"]
    assert desk.engine.snapshot().brokers[0].state == "foreign"
    desk.sleep(2.0)
    desk.submit("e")
    assert desk.trace() == ["open 2 a"]


def test_a_foreign_broker_is_passed_over_if_there_is_another() -> None:
    """A mixed list works as long as one broker of ours is in it."""
    desk = Desk("a", "b")
    desk.submit()
    desk.feed(LinkOpened(1))
    desk.feed(Received(1, hello_frames(code=b"501")))
    desk.open(2)
    assert desk.trace() == ["open 1 a", "hello 1", "close 1", "open 2 b", "hello 2", "submit 2 c#1"]


# --- a link that is lost --------------------------------------------------------------------------


def test_a_lost_reply_is_fetched_by_attaching_over_a_new_link_to_the_same_life() -> None:
    """The call may have run and must not run twice; the record of the broker has its reply."""
    desk = ready()
    desk.close(1)
    desk.open(2)
    assert desk.trace() == ["open 2 a", "hello 2", "attach 2 c#2"]
    assert desk.last_call_frame().first_sent_ms < 0 or desk.last_call_frame().first_sent_ms == 0
    desk.answer(2, Status.OK, attempt=2)
    assert desk.trace() == ["end c ok"]
    assert desk.engine.counters.attaches == 1


def test_a_call_that_is_not_idempotent_never_goes_to_another_broker_after_a_loss() -> None:
    """The other broker cannot know what the first one did with it."""
    desk = ready("a", "b")
    desk.close(1)
    desk.open(2)
    assert desk.trace() == ["open 2 a", "hello 2", "attach 2 c#2"]


def test_a_restarted_broker_ends_the_call_as_unknown() -> None:
    """With the old life went the record: asking the new one could only start it a second time."""
    desk = ready("a", "b", idempotent=False)
    desk.close(1)
    desk.open(2, "L2")
    assert desk.trace() == ["open 2 a", "hello 2", "end c BrokerLost UNKNOWN"]
    assert desk.engine.counters.brokers_restarted == 1


def test_a_restarted_broker_is_left_to_find_out_what_the_service_declares() -> None:
    """If the caller said nothing the service's own word counts, and the client does not know it."""
    desk = ready("a", "b")
    desk.close(1)
    desk.open(2, "L2")
    assert desk.trace() == ["open 2 a", "hello 2", "submit 2 c#2 repeat"]
    desk.answer(2, Status.UNKNOWN_CALL, attempt=2, outcome=Outcome.UNKNOWN, life="L2")
    assert desk.trace() == ["end c BrokerLost UNKNOWN"]


def test_an_unknown_call_behind_a_fence_is_sent_again() -> None:
    """The broker proves that it never came and never will, so sending it again is the first time."""
    desk = ready()
    desk.close(1)
    desk.now += 3.0
    desk.open(2)
    desk.now += 1.0
    desk.answer(2, Status.UNKNOWN_CALL, attempt=2, outcome=Outcome.NOT_EXECUTED)
    assert desk.trace() == ["open 2 a", "hello 2", "attach 2 c#2", "submit 2 c#3"]
    # The proof wipes out the first sending: before the horizon it would be refused for something that never was.
    # Half a percent too early, since two clocks never run quite alike.
    assert desk.last_call_frame().first_sent_ms == 995
    desk.answer(2, attempt=3)
    assert desk.trace() == ["end c ok"]


def test_an_unknown_call_without_proof_ends_as_unknown() -> None:
    """The broker may have dropped the record of a call that ran."""
    desk = ready()
    desk.close(1)
    desk.open(2)
    desk.answer(2, Status.UNKNOWN_CALL, attempt=2, outcome=Outcome.UNKNOWN)
    assert desk.trace()[-1] == "end c BrokerLost UNKNOWN"


def test_an_idempotent_call_goes_to_the_next_broker_at_once() -> None:
    """Failover costs one connection, not a timeout; the flag tells the other broker that it may be a repeat."""
    desk = ready("a", "b", idempotent=True)
    desk.close(1)
    desk.open(2, "M1")
    assert desk.trace() == ["open 2 b", "hello 2", "submit 2 c#2 repeat"]
    assert desk.engine.counters.failovers == 1
    assert desk.engine.counters.retries == 1


def test_an_idempotent_call_joins_at_the_same_life_without_the_repeat_flag() -> None:
    """The same life has the record and needs no warning; a restarted one does."""
    desk = ready(idempotent=True)
    desk.close(1)
    desk.open(2)
    assert desk.trace() == ["open 2 a", "hello 2", "submit 2 c#2"]
    desk.close(2)
    desk.sleep(1.0)
    desk.open(3, "L2")
    assert desk.trace() == ["open 3 a", "hello 3", "submit 3 c#3 repeat"]


def test_a_flapping_broker_is_not_reconnected_to_in_a_tight_loop() -> None:
    """One that takes the hello and then hangs up has done no work; the second time it has to wait."""
    desk = ready(config=ClientConfig(retry=RetryPolicy(attempts=None)))
    desk.close(1)
    assert desk.trace() == ["open 2 a"]
    desk.open(2)
    desk.close(2)
    assert desk.trace() == ["hello 2", "attach 2 c#2"]
    desk.sleep(0.5)
    assert desk.trace() == ["open 3 a"]


def test_a_broker_that_works_between_its_losses_is_reconnected_to_at_once() -> None:
    """An answer about a call proves that it is well; a bad link is not its fault."""
    desk = ready()
    for link in range(2, 6):
        desk.close(link - 1)
        desk.open(link)
        desk.answer(link, Status.STARTED, attempt=link)
        assert desk.trace() == [f"open {link} a", f"hello {link}", f"attach {link} c#{link}"]


def test_a_broker_that_cannot_be_reached_again_ends_the_call_after_as_many_tries_as_the_policy_has() -> None:
    """Attaching is bound to one broker, and no other can help."""
    desk = ready("a", "b", idempotent=False)
    desk.close(1)
    for link in range(2, 7):
        desk.close(link, LinkEnd.REFUSED)
        desk.sleep(2.0)
    assert desk.trace() == ["open 2 a", "open 3 a", "open 4 a", "open 5 a", "open 6 a", "end c BrokerLost UNKNOWN"]


def test_a_call_of_which_nobody_said_anything_goes_on_at_the_next_broker_then() -> None:
    """There the service's declaration decides; with one broker alone there is nobody to ask."""
    desk = ready("a", "b")
    desk.close(1)
    for link in range(2, 7):
        desk.close(link, LinkEnd.REFUSED)
        desk.sleep(2.0)
    assert desk.trace() == ["open 2 a", "open 3 a", "open 4 a", "open 5 a", "open 6 a", "open 7 b"]
    desk.open(7, "M1")
    assert desk.trace() == ["hello 7", "submit 7 c#2 repeat"]
    alone = ready("a")
    alone.close(1)
    for link in range(2, 7):
        alone.close(link, LinkEnd.REFUSED)
        alone.sleep(2.0)
    assert alone.trace()[-1] == "end c BrokerLost UNKNOWN"


def test_a_foreign_broker_at_the_old_address_ends_a_call_that_may_have_run() -> None:
    """Something else lives there now, so the broker that knew is gone."""
    desk = ready()
    desk.close(1)
    desk.feed(LinkOpened(2))
    desk.feed(Received(2, hello_frames(code=b"501")))
    assert desk.trace() == ["open 2 a", "hello 2", "close 2", "end c BrokerLost UNKNOWN"]


def test_everything_on_a_lost_link_is_treated_in_one_step() -> None:
    """No call may be left waiting for a link that is gone."""
    desk = Desk("a", "b")
    for name in ("m", "n"):
        desk.submit(name, idempotent=True)
    desk.submit("o")
    desk.open(1)
    desk.trace()
    desk.close(1)
    assert desk.engine.snapshot().asked == 0
    assert desk.trace() == ["open 2 a", "open 3 b"], "one has to attach where it was, the others go on at once"
    desk.open(3, "M1")
    assert desk.trace() == ["hello 3", "submit 3 m#2 repeat", "submit 3 n#2 repeat"]
    desk.open(2)
    assert desk.trace() == ["hello 2", "attach 2 o#2"]


def test_the_second_retry_waits_for_its_backoff() -> None:
    """A request that kills each broker it meets must not do so at full speed."""
    config = ClientConfig(retry=RetryPolicy(backoff=Backoff(initial_s=1.0, delay_s_max=4.0)))
    desk = ready("a", "b", idempotent=True, config=config)
    desk.close(1)
    desk.open(2, "M1")
    desk.close(2)
    desk.trace()
    desk.sleep(0.4)
    assert desk.trace() == []
    desk.sleep(0.2)
    assert desk.trace() == ["open 3 a"]


# --- silence --------------------------------------------------------------------------------------


def test_silence_is_first_asked_about_on_the_same_link() -> None:
    """A long run is the usual reason; the broker answers for it and nothing is torn down."""
    desk = ready("a", "b")
    desk.sleep(2.5)
    assert desk.trace() == ["attach 1 c#2"]
    for attempt in range(2, 10):
        desk.answer(1, Status.STARTED, attempt=attempt, place=Place.RUNNING)
        desk.sleep(2.4)
        assert desk.trace() == []
        desk.sleep(0.1)
        assert desk.trace() == [f"attach 1 c#{attempt + 1}"]
    desk.answer(1, attempt=10)
    assert desk.trace() == ["end c ok"]


def test_a_link_that_stays_silent_is_closed_and_an_idempotent_call_moves_on() -> None:
    """A broker whose process lives and whose loop is stuck says nothing and closes nothing."""
    desk = ready("a", "b", idempotent=True)
    desk.sleep(3.5)
    assert desk.trace() == ["attach 1 c#2", "close 1", "open 2 b"]
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#3 repeat"]


def test_a_link_that_stays_silent_is_replaced_to_the_same_broker_for_other_calls() -> None:
    """The call may have run there and only there can it be asked about."""
    desk = ready("a", "b")
    desk.sleep(3.5)
    desk.open(2)
    assert desk.trace() == ["attach 1 c#2", "close 1", "open 2 a", "hello 2", "attach 2 c#3"]


def test_a_link_on_which_others_are_answered_is_not_torn_down() -> None:
    """One silent call must not cost a thousand healthy ones their link."""
    desk = ready()
    desk.submit("d", idempotent=True)
    desk.sleep(2.5)
    assert desk.trace() == ["submit 1 d#1", "attach 1 c#2", "attach 1 d#2"]
    desk.sleep(0.5)
    desk.answer(1, name="d")
    desk.sleep(0.5)
    assert desk.trace() == ["end d ok", "attach 1 c#3"]
    desk.sleep(1.0)
    assert desk.trace() == ["close 1", "open 2 a"]


def test_a_call_that_alone_stays_silent_gives_up_after_the_policy() -> None:
    """The broker is there and drops this call: a defect, and the caller must not wait for it for ever."""
    desk = ready(timeout=None)
    desk.sleep(2.5)
    for number in range(5):
        desk.sleep(0.5)
        desk.submit(f"d{number}")
        desk.answer(1, name=f"d{number}")
        desk.sleep(0.5)
    assert desk.trace()[-1] == "end c AttemptsExhausted UNKNOWN"


def test_a_policy_of_one_attempt_stays_silent_until_the_deadline() -> None:
    """RetryPolicy.never() says: send once, then wait."""
    desk = ready(config=ClientConfig(retry=RetryPolicy.never()))
    desk.sleep(29.9)
    assert desk.trace() == []
    desk.sleep(0.2)
    assert desk.trace() == ["end c DeadlineExceeded UNKNOWN"]


# --- refusals -------------------------------------------------------------------------------------


def test_an_overloaded_broker_is_asked_again_when_it_said() -> None:
    """Its own advice goes before our backoff."""
    desk = ready(config=ClientConfig(retry=RetryPolicy(attempt_timeout_s=60.0)))
    desk.answer(1, Status.OVERLOADED, retry_after_ms=4000)
    desk.sleep(3.9)
    assert desk.trace() == []
    desk.sleep(0.1)
    assert desk.trace() == ["submit 1 c#2"], "idempotent or not: the refusal is proof"


def test_an_overloaded_broker_is_left_for_another_at_once() -> None:
    """Others first, backoff later."""
    desk = ready("a", "b")
    desk.answer(1, Status.OVERLOADED, retry_after_ms=4000)
    desk.open(2, "M1")
    assert desk.trace() == ["open 2 b", "hello 2", "submit 2 c#2"]
    desk.answer(2, Status.OVERLOADED, life="M1", attempt=2)
    assert desk.trace() == []
    desk.sleep(0.1)
    assert desk.trace() == ["submit 1 c#3"]


def test_a_wait_that_does_not_fit_ends_the_call_at_once() -> None:
    """Sitting out the rest of the time for a certain refusal helps nobody."""
    desk = ready(timeout=3.0)
    desk.answer(1, Status.OVERLOADED, retry_after_ms=4000)
    assert desk.trace() == ["end c QueueFull NOT_EXECUTED"]
    assert desk.error().retry_after_s == 4.0


def test_refusals_use_up_the_policy() -> None:
    """A broker that is full for good ends the call with the reason, not with a timeout."""
    desk = ready()
    for attempt in range(1, 6):
        desk.answer(1, Status.OVERLOADED, attempt=attempt)
        desk.sleep(2.0)
    assert desk.trace()[-1] == "end c QueueFull NOT_EXECUTED"
    assert desk.error().attempts == 5


def test_fail_fast_ends_only_after_every_broker_said_no() -> None:
    """The worker may be registered with the other broker alone."""
    desk = ready("a", "b", fail_fast=True)
    desk.answer(1, Status.NO_SERVICE)
    desk.open(2, "M1")
    assert desk.trace() == ["open 2 b", "hello 2", "submit 2 c#2"]
    desk.answer(2, Status.NO_SERVICE, life="M1", attempt=2)
    assert desk.trace() == ["end c ServiceNotFound NOT_EXECUTED"]


def test_fail_fast_counts_a_broker_that_cannot_be_reached_as_a_no() -> None:
    """Fast means fast: a dead second broker does not keep the caller waiting."""
    desk = ready("a", "b", fail_fast=True)
    desk.answer(1, Status.NO_SERVICE)
    desk.close(2, LinkEnd.REFUSED)
    assert desk.trace() == ["open 2 b", "end c ServiceNotFound NOT_EXECUTED"]


def test_without_fail_fast_the_client_waits_for_a_worker_until_the_deadline() -> None:
    """Workers may start later; the reason is told when time is up."""
    desk = ready(timeout=10.0)
    for attempt in range(1, 5):
        desk.answer(1, Status.ACCEPTED, attempt=attempt, place=Place.QUEUED_NO_WORKER)
        desk.sleep(2.5 if attempt < 4 else 2.4)
    assert desk.trace() == ["attach 1 c#2", "attach 1 c#3", "attach 1 c#4"]
    desk.answer(1, Status.NO_SERVICE, attempt=4, place=Place.ENDED)
    assert desk.trace() == ["end c ServiceNotFound NOT_EXECUTED"]


# --- ends -----------------------------------------------------------------------------------------


def test_every_call_ends_at_its_deadline_and_not_before() -> None:
    """The first promise."""
    desk = ready(timeout=1.0)
    desk.sleep(0.99)
    assert desk.trace() == []
    desk.sleep(0.01)
    assert desk.trace() == ["end c DeadlineExceeded UNKNOWN"]
    assert "asked once" in str(desk.error()) and desk.error().elapsed_s == pytest.approx(1.0)


def test_a_call_whose_time_is_over_before_it_begins_ends_at_once() -> None:
    """Nothing was sent, so it is proven that nothing ran."""
    desk = Desk()
    desk.submit(timeout=0.0)
    assert desk.trace() == ["end c DeadlineExceeded NOT_EXECUTED"]


def test_a_call_without_deadline_tells_the_broker_a_far_one() -> None:
    """None is allowed if written out, but the broker needs some bound for its records."""
    desk = ready(timeout=None)
    assert desk.last_call_frame().deadline_ms > 300 * 86400 * 1000


def test_a_queued_call_that_expires_at_the_broker_did_not_run() -> None:
    """The margin lets the broker's verdict arrive first, and that verdict knows more than our clock."""
    desk = ready(timeout=2.0)
    desk.sleep(1.95)
    desk.answer(1, Status.EXPIRED, outcome=Outcome.NOT_EXECUTED)
    assert desk.trace() == ["end c DeadlineExceeded NOT_EXECUTED"]


def test_outcomes_are_joined_over_attempts_at_two_brokers() -> None:
    """The second broker can only speak for itself: the first copy may have run."""
    desk = ready("a", "b", idempotent=True)
    desk.close(1)
    desk.open(2, "M1")
    desk.answer(2, Status.EXPIRED, life="M1", attempt=2, outcome=Outcome.NOT_EXECUTED)
    assert desk.trace()[-1] == "end c DeadlineExceeded UNKNOWN"


def test_a_refused_first_attempt_does_not_spoil_the_outcome() -> None:
    """Every attempt is proven, so the call is."""
    desk = ready("a", "b", idempotent=True)
    desk.answer(1, Status.OVERLOADED)
    desk.open(2, "M1")
    desk.answer(2, Status.EXPIRED, life="M1", attempt=2, outcome=Outcome.NOT_EXECUTED)
    assert desk.trace()[-1] == "end c DeadlineExceeded NOT_EXECUTED"


def test_a_handler_error_reaches_the_caller_with_name_and_text() -> None:
    """The remote failure is the answer, not a reason to try again."""
    desk = ready("a", "b", idempotent=True)
    desk.answer(1, Status.HANDLER_ERROR, body=[b"KeyError", b"'x'"])
    assert desk.trace() == ["end c WorkerFailed EXECUTED"]
    error = desk.error()
    assert isinstance(error, WorkerFailed)
    assert (error.remote_type, error.remote_message) == ("KeyError", "'x'")


def test_a_handler_that_was_never_entered_is_not_executed() -> None:
    """Arguments that do not fit fail before the handler; the caller may rely on that."""
    desk = ready()
    desk.answer(1, Status.HANDLER_ERROR, outcome=Outcome.NOT_EXECUTED, body=[b"TypeError", b"takes 1"])
    assert desk.trace() == ["end c WorkerFailed NOT_EXECUTED"]


def test_a_request_above_our_own_limit_is_never_sent() -> None:
    """It would be cut off by the peer, and with it the link and everybody on it."""
    desk = Desk(config=ClientConfig(limits=Limits(message_bytes_max=2048)))
    desk.submit(body=[b"x" * 2048])
    assert desk.trace() == ["end c MessageTooLarge NOT_EXECUTED"]


def test_a_request_above_the_brokers_limit_is_never_sent() -> None:
    """The hello says what the broker takes."""
    desk = Desk()
    desk.submit(body=[b"x" * 2048])
    desk.open(1, max_message_bytes=2048)
    assert desk.trace() == ["open 1 a", "hello 1", "end c MessageTooLarge NOT_EXECUTED"]


def test_a_client_holds_no_more_calls_than_it_may() -> None:
    """The queue in front of a dead broker is bounded."""
    desk = Desk(config=ClientConfig(limits=Limits(calls_in_flight_max=2)))
    for name in "abc":
        desk.submit(name)
    assert desk.trace() == ["open 1 a", "end c QueueFull NOT_EXECUTED"]
    assert isinstance(desk.error(), QueueFull)


def test_a_message_that_never_left_is_sent_again_although_not_idempotent() -> None:
    """The socket's refusal proves that no broker saw it."""
    desk = ready()
    desk.unsent(1)
    desk.sleep(0.05)
    assert desk.trace() == ["submit 1 c#2"]
    assert desk.engine.counters.unsent == 1


def test_a_message_that_never_left_frees_a_call_that_waits_to_attach() -> None:
    """The news may come after that of the link's end, and it is proof all the same."""
    desk = ready("a", "b")
    desk.close(1)
    desk.close(2, LinkEnd.REFUSED)
    desk.trace()
    desk.unsent(1)
    desk.open(3, "M1")
    assert desk.trace() == ["open 3 b", "hello 3", "submit 3 c#2"]


def test_unsent_for_ever_ends_at_the_deadline_as_not_executed() -> None:
    """Nothing ever left, and the caller learns that."""
    desk = ready(timeout=1.0)
    attempt = 1
    while "c" not in desk.ended:
        desk.unsent(1, attempt=attempt)
        desk.sleep(0.3)
        attempt = max(attempt, desk.engine.counters.attempts)
    assert desk.trace()[-1] == "end c DeadlineExceeded NOT_EXECUTED"


def test_cancel_ends_the_call_at_once_and_tells_the_broker() -> None:
    """The caller does not wait for anybody; the broker may still spare a worker the work."""
    desk = ready()
    desk.cancel()
    assert desk.trace() == ["cancel 1 c#1", "end c RequestAbandoned UNKNOWN"]
    desk.cancel()
    desk.answer(1)
    assert desk.trace() == []
    assert desk.engine.counters.late_replies == 1


def test_cancel_before_the_call_was_sent_proves_that_it_did_not_run() -> None:
    """Nothing was sent, and nothing will be."""
    desk = Desk()
    desk.submit()
    desk.cancel()
    desk.open(1)
    assert desk.trace() == ["open 1 a", "end c RequestAbandoned NOT_EXECUTED", "hello 1"]


def test_closing_the_client_ends_every_call_and_every_link() -> None:
    """Whoever waits is told, whatever state the call is in."""
    desk = ready("a", "b")
    desk.submit("d", idempotent=True)
    desk.answer(1, Status.OVERLOADED, "d")
    desk.trace()
    desk.feed(AbandonAll())
    assert desk.trace() == [
        "cancel 1 c#1",
        "end c RequestAbandoned UNKNOWN",
        "end d RequestAbandoned NOT_EXECUTED",
        "close 1 linger",
        "close 2",
    ]
    assert desk.engine.next_deadline() is None
    desk.submit("e")
    assert desk.trace() == ["end e RequestAbandoned NOT_EXECUTED"]


# --- answers that are not for us ------------------------------------------------------------------


def test_a_late_reply_is_counted_and_never_delivered() -> None:
    """A reply that answers nobody must not answer somebody else."""
    desk = ready()
    desk.answer(1)
    desk.submit("d")
    desk.answer(1, body=[b"late"])
    assert desk.trace() == ["end c ok", "submit 1 d#1"]
    assert desk.engine.counters.late_replies == 1


def test_an_answer_of_another_life_is_dropped() -> None:
    """Ids are fresh, but a device in between may mix up whose answer it is."""
    desk = ready()
    desk.answer(1, life="L9")
    assert desk.trace() == []
    assert desk.engine.counters.dropped == 1


def test_an_answer_for_another_service_or_attempt_is_dropped() -> None:
    """It cannot be an answer to what was asked."""
    desk = ready()
    desk.answer(1, service=b"other")
    desk.answer(1, attempt=2)
    desk.answer(1, attempt=0)
    assert desk.trace() == []
    assert desk.engine.counters.dropped == 3


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"", b"MDPC01"],
        [b"junk"] * 5,
        [b"", b"MDPC01", b"echo", b"a reply without answer frame"],
        [b"RLX\x01short", b"", b"MDPC02", b"\x03", b"echo", b"body"],
        answer_frames("c", Status.OK)[1:],
        hello_frames(code=b"501"),
    ],
)
def test_junk_is_dropped_and_the_call_goes_on(frames: list[bytes]) -> None:
    """No peer can raise out of the engine."""
    desk = ready()
    desk.feed(Received(1, frames))
    assert desk.trace() == []
    desk.answer(1)
    assert desk.trace() == ["end c ok"]


def test_an_answer_before_the_hello_is_answered_is_dropped() -> None:
    """Nothing was asked on that link yet."""
    desk = Desk()
    desk.submit()
    desk.feed(Received(1, answer_frames("c", Status.OK)))
    desk.feed(LinkOpened(1))
    desk.feed(Received(1, answer_frames("c", Status.OK)))
    assert desk.trace() == ["open 1 a", "hello 1"]


def test_nothing_is_taken_from_a_link_that_is_over() -> None:
    """What was learned on it no longer holds."""
    desk = ready(idempotent=True)
    desk.close(1)
    desk.trace()
    desk.answer(1)
    desk.feed(LinkOpened(1))
    desk.close(1)
    assert desk.trace() == []


def test_a_late_ok_of_an_earlier_attempt_ends_an_idempotent_call() -> None:
    """Any copy's reply is the reply."""
    desk = ready("a", "b", idempotent=True)
    desk.answer(1, Status.OVERLOADED)
    desk.open(2, "M1")
    desk.answer(1, Status.OK)
    assert desk.trace() == ["open 2 b", "hello 2", "submit 2 c#2", "end c ok"]


def test_another_life_behind_the_same_link_costs_the_link() -> None:
    """A device between us and the broker hides its restart; only a new hello tells where we are."""
    desk = ready(idempotent=False)
    desk.submit("d", idempotent=True)
    desk.answer(1, Status.WRONG_LIFE, "d", "L2", outcome=Outcome.NOT_EXECUTED)
    desk.open(2, "L2")
    assert desk.trace() == [
        "submit 1 d#1",
        "close 1",
        "open 2 a",
        "hello 2",
        "end c BrokerLost UNKNOWN",
        "submit 2 d#2",
    ]


# --- streams and progress -------------------------------------------------------------------------


def test_parts_are_delivered_and_nothing_is_sent_again_after_one() -> None:
    """The caller has seen half of it; running it again would deliver that half twice."""
    desk = ready("a", "b", idempotent=True)
    desk.answer(1, Status.PARTIAL, body=[b"1"])
    desk.answer(1, Status.PARTIAL, body=[b"2"])
    desk.close(1)
    assert desk.trace() == ["partial c 1", "partial c 2", "end c BrokerLost UNKNOWN"]


def test_progress_reaches_only_a_caller_who_asked_for_it() -> None:
    """Others are not bothered, but their silence clock is reset."""
    desk = ready(wants_progress=True)
    desk.answer(1, Status.PROGRESS, body=[b"10 %"])
    assert desk.trace() == ["progress c 10 %"]
    quiet = ready()
    quiet.sleep(2.0)
    quiet.answer(1, Status.PROGRESS, body=[b"10 %"])
    quiet.sleep(2.0)
    assert quiet.trace() == []


# --- misuse, views, observations ------------------------------------------------------------------


def test_misuse_is_refused_before_anything_changes() -> None:
    """Programming errors must show, and must not end other people's calls."""
    desk = ready()
    for event in (
        Submit(call_id=call_id("c"), service=b"echo", body=[b""], deadline=None),
        Submit(call_id=b"short", service=b"echo", body=[b""], deadline=None),
        Submit(call_id=call_id("d"), service=b"", body=[b""], deadline=None),
        Submit(call_id=call_id("d"), service=b"s" * 256, body=[b""], deadline=None),
        Submit(call_id=call_id("d"), service=b"echo", body=[b""], deadline=None, trace=b"t" * 256),
        LinkOpened(1),
    ):
        with pytest.raises(LocalProtocolError):
            desk.engine.handle(event, desk.now)
    with pytest.raises(LocalProtocolError):
        desk.engine.timers(desk.now - 1.0)
    assert desk.engine.counters.calls == 1
    desk.answer(1)
    assert desk.trace() == ["end c ok"]


@pytest.mark.parametrize("brokers", [(), ("a", "a")])
def test_a_client_needs_brokers_each_once(brokers: tuple[str, ...]) -> None:
    """A list of nothing could only ever time out."""
    with pytest.raises(ValueError, match="at least one broker"):
        ClientEngine(brokers, ClientConfig(), client_id=CLIENT, jitter=lambda: 0.5)


def test_a_client_id_has_sixteen_bytes() -> None:
    """Another size would shift every frame behind it."""
    with pytest.raises(ValueError, match="16 bytes"):
        ClientEngine(["a"], ClientConfig(), client_id=b"short", jitter=lambda: 0.5)


def test_a_snapshot_says_where_everything_is() -> None:
    """Tests, logs and status commands read it."""
    desk = ready("a", "b")
    desk.submit("d")
    desk.answer(1, Status.OVERLOADED, "d")
    view = desk.engine.snapshot()
    assert (view.calls, view.waiting, view.asked) == (2, 1, 1)
    assert [(broker.address, broker.state) for broker in view.brokers] == [("a", "usable"), ("b", "unknown")]
    assert [(link.link, link.state, link.calls) for link in view.links] == [(1, "ready", 1), (2, "opening", 0)]
    assert view.next_deadline is not None
    desk.close(2, LinkEnd.REFUSED)
    assert desk.engine.snapshot().brokers[1].state == "unreachable"


def test_an_error_tells_the_story_of_its_call() -> None:
    """Whoever reads it must see what was tried, where and when."""
    desk = ready(timeout=4.0)
    desk.sleep(1.0)
    desk.close(1)
    desk.open(2)
    desk.answer(2, Status.STARTED, attempt=2, place=Place.RUNNING)
    desk.sleep(5.0)
    error = desk.error()
    assert "running" in str(error) and "asked 3 times" in str(error)
    assert [line.split("s  ")[1] for line in error.story] == [
        "sent (a)",
        "link lost: connection lost (a)",
        "asked what became of it (a)",
        "asked what became of it (a)",
    ]
    assert (error.service, error.call_id, error.attempts) == ("echo", call_id("c"), 3)


def test_observers_hear_of_each_decision() -> None:
    """Hooks and logs are built on these."""
    seen: list[object] = []
    desk = Desk("a", "b", observer=seen)
    desk.submit(idempotent=True)
    desk.open(1)
    desk.close(1)
    desk.open(2, "M1")
    desk.answer(2, Status.OVERLOADED, life="M1", attempt=2)
    desk.feed(Received(2, [b"junk"]))
    desk.sleep(0.2)
    desk.answer(2, life="M1", attempt=3)
    kinds = [type(observation) for observation in seen]
    assert kinds == [
        CallStarted,
        BrokerFound,
        AttemptStarted,
        LinkLost,
        AttemptEnded,
        BrokerFound,
        AttemptStarted,
        FailedOver,
        AttemptEnded,
        RetryScheduled,
        MessageDropped,
        AttemptStarted,
        CallEnded,
    ]


def test_nothing_is_left_when_all_calls_are_over() -> None:
    """A client that runs for months must not remember every call it made."""
    desk = ready("a", "b")
    desk.answer(1)
    for number in range(2000):
        name = f"n{number}"
        desk.submit(name, idempotent=bool(number % 2))
        desk.now += 0.001
        if number % 3:
            desk.answer(1, name=name)
        else:
            desk.cancel(name)
    engine = desk.engine
    assert engine.snapshot().calls == 0 and desk.nothing_awaited()
    assert len(engine._state.calls) == len(engine._state.free) == len(engine._state.alarms) == 0
    assert len(engine._state.alarms._heap) < 100
    assert not any(entry.asked for entry in engine._state.links.values())
    assert not any(broker.bound for broker in engine._state.brokers)
