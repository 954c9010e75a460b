"""The engine of the dialects without request numbers, step by step: one request per link, attempts, failover, ends."""

from __future__ import annotations

import pytest

from reliable.config import Backoff, ClientConfig, Limits, RetryBudget, RetryCause, RetryPolicy
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    FailedOver,
    LinkLost,
    MessageDropped,
    RetryRefused,
    RetryScheduled,
)
from reliable.engine.plain import PlainEngine
from reliable.engine.plain_links import IDLE_MAX, LINKS_MAX, OPENING_MAX
from reliable.errors import LocalProtocolError, Outcome
from reliable.protocol.events import AbandonAll, LinkClosed, LinkEnd, LinkOpened, Received, Submit, Unsent
from tests.support.engine_desk import call_id
from tests.support.plain_desk import PlainDesk

# Attempts of 1 s; pauses of 0.5 s and 1 s with jitter 0.5.
CONFIG = ClientConfig(
    retry=RetryPolicy(attempts=3, attempt_timeout_s=1.0, backoff=Backoff(initial_s=1.0, delay_s_max=10.0)),
    reconnect=Backoff(initial_s=0.2, delay_s_max=0.2),
)


def asked(*servers: str, config: ClientConfig = CONFIG, dialect: str = "req", **call: object) -> PlainDesk:
    """A desk with call ``c`` sent on link 1 to the first server."""
    desk = PlainDesk(*servers, config=config, dialect=dialect)
    desk.submit(**call)  # type: ignore[arg-type]
    desk.open(1)
    assert len(desk.trace()) == 2
    return desk


# --- the plain way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "request_shown", "reply"),
    [
        ("req", "-|c", [b"", b"C"]),
        ("ppp", "-|c", [b"", b"C"]),
        ("mdp/0.1", "-|MDPC01|echo|c", [b"", b"MDPC01", b"echo", b"C"]),
        ("mdp/0.2", "MDPC02|<01>|echo|c", [b"MDPC02", b"\x03", b"echo", b"C"]),
    ],
)
def test_a_call_opens_a_link_and_comes_back_with_its_reply(
    dialect: str, request_shown: str, reply: list[bytes]
) -> None:
    """MDP1-9, MDP1-10, MDP1-11, MDP1-12, MDP2-9, MDP2-11, MDP2-12, RR-1: the shortest way through, with nothing of
    ours around it."""
    desk = PlainDesk(dialect=dialect)
    assert desk.engine.effects() == [] and desk.engine.next_deadline() is None
    desk.submit()
    assert desk.trace() == ["open 1 a"]
    desk.open(1)
    assert desk.trace() == [f"send 1 {request_shown}"]
    desk.receive(1, *reply)
    assert desk.trace() == ["end c C"]
    assert desk.ended["c"].outcome is Outcome.EXECUTED
    assert desk.engine.next_deadline() is None


def test_the_next_call_uses_the_same_link() -> None:
    """A connection per request would cost a handshake each."""
    desk = asked()
    desk.receive(1, b"", b"C")
    desk.submit("d")
    assert desk.trace() == ["end c C", "send 1 -|d"]


def test_calls_at_the_same_time_have_a_link_each() -> None:
    """MDP1-40: none of these dialects can tell two replies on one connection apart."""
    desk = PlainDesk()
    for name in "cde":
        desk.submit(name)
    desk.open(1, 2, 3)
    assert desk.trace() == ["open 1 a", "open 2 a", "open 3 a", "send 1 -|c", "send 2 -|d", "send 3 -|e"]
    desk.receive(2, b"", b"D")
    desk.receive(1, b"", b"C")
    assert desk.trace() == ["end d D", "end c C"]


def test_a_call_without_body_frames_is_sent_with_an_empty_one() -> None:
    """No dialect has a message without a body, and a REP server would never see one."""
    desk = asked(body=[])
    desk.receive(1, b"", b"")
    assert desk.trace() == ["end c -"]


def test_links_and_idle_links_have_a_bound() -> None:
    """Each link costs descriptors; a burst must not use up those of the process, nor keep what it used."""
    desk = PlainDesk()
    for number in range(LINKS_MAX + 5):
        desk.submit(f"c{number}")
    assert len(desk.trace()) == OPENING_MAX
    for link in range(1, LINKS_MAX + 1):
        desk.open(link)
    assert len(desk.engine.snapshot().links) == LINKS_MAX
    assert desk.engine.snapshot().waiting == 5
    for link in range(1, LINKS_MAX + 1):
        desk.receive(link, b"", b"x")
    for link in range(1, 6):
        desk.receive(link, b"", b"x")
    assert len(desk.ended) == LINKS_MAX + 5
    assert len(desk.engine.snapshot().links) == IDLE_MAX
    assert desk.engine.next_deadline() is None


# --- replies that do not belong -------------------------------------------------------------------


def test_a_second_reply_closes_its_link_and_answers_nobody() -> None:
    """LP-4, MDP1-41: the next call on that link would take it for its own."""
    desk = asked()
    desk.feed(Received(1, [b"", b"C"]), Received(1, [b"", b"C"]))
    assert desk.trace() == ["end c C", "close 1"]
    desk.submit("d")
    assert desk.trace() == ["open 2 a"]
    assert desk.engine.counters.late_replies == 1


def test_a_second_reply_does_not_answer_a_call_that_has_not_left_yet() -> None:
    """LP-4: the link was given to the next call in the same moment, but its request is still here."""
    desk = asked()
    desk.submit("d")
    desk.feed(Received(1, [b"", b"C"]), Received(1, [b"", b"C again"]))
    assert desk.trace() == ["open 2 a", "end c C", "close 1"]
    desk.open(2)
    assert desk.trace() == ["send 2 -|d"]
    assert desk.engine.counters.late_replies == 1 and desk.ended.keys() == {"c"}


def test_a_late_reply_has_no_link_to_come_on() -> None:
    """LP-2, LP-4: after a silence the link is closed, and another one carries the next attempt."""
    desk = asked(idempotent=True)
    desk.sleep(1.0)
    assert desk.trace() == ["close 1"]
    desk.receive(1, b"", b"late")
    desk.sleep(0.5)
    desk.open(2)
    assert desk.trace() == ["open 2 a", "send 2 -|c"]
    desk.receive(1, b"", b"later still")
    desk.receive(2, b"", b"C")
    assert desk.trace() == ["end c C"]
    assert desk.engine.counters.late_replies == 2


@pytest.mark.parametrize(
    ("dialect", "frames"),
    [
        ("req", [b"no delimiter"]),
        ("mdp/0.1", [b"", b"MDPC01", b"other", b"x"]),
        ("mdp/0.1", [b"", b"MDPW01", b"\x04"]),
        ("mdp/0.2", [b"MDPC02", b"\x03", b"other", b"x"]),
    ],
)
def test_garbage_is_dropped_and_the_call_waits_on(dialect: str, frames: list[bytes]) -> None:
    """MDP1-10, MDP1-18, MDP2-10: whoever sends it, the reply may still come."""
    seen: list[object] = []
    desk = PlainDesk(dialect=dialect, observer=seen)
    desk.submit()
    desk.open(1)
    desk.trace()
    desk.receive(1, *frames)
    assert desk.trace() == [] and desk.engine.counters.dropped == 1
    assert any(isinstance(one, MessageDropped) for one in seen)
    reply = {
        "req": [b"", b"C"],
        "mdp/0.1": [b"", b"MDPC01", b"echo", b"C"],
        "mdp/0.2": [b"MDPC02", b"\3", b"echo", b"C"],
    }
    desk.receive(1, *reply[dialect])
    assert desk.trace() == ["end c C"]


def test_a_server_that_talks_to_whoever_connects_is_not_connected_to_in_a_loop() -> None:
    """Each new link would bring the same message at once."""
    desk = PlainDesk(config=CONFIG, u=1.0)
    desk.submit()
    desk.feed(LinkOpened(1), Received(1, [b"", b"hello there"]))
    assert desk.trace() == ["open 1 a", "close 1"]
    desk.sleep(0.19)
    assert desk.trace() == []
    desk.sleep(0.02)
    desk.open(2)
    desk.receive(2, b"", b"C")
    assert desk.trace() == ["open 2 a", "send 2 -|c", "end c C"]


# --- attempts -------------------------------------------------------------------------------------


def test_the_attempts_are_as_many_as_the_policy_says() -> None:
    """LP-1, LP-2, LP-3, LP-5, LP-6, MDP1-13: exactly N, each on a new link, in N timeouts and the pauses between."""
    desk = asked(idempotent=True)
    desk.sleep(1.0)
    assert desk.trace() == ["close 1"]
    desk.sleep(0.49)
    assert desk.trace() == []
    desk.sleep(0.01)
    desk.open(2)
    assert desk.trace() == ["open 2 a", "send 2 -|c"]
    desk.sleep(1.0)
    assert desk.trace() == ["close 2"]
    desk.sleep(1.0)
    desk.open(3)
    assert desk.trace() == ["open 3 a", "send 3 -|c"]
    desk.sleep(0.99)
    assert desk.trace() == []
    desk.sleep(0.01)
    assert desk.trace() == ["close 3", "end c AttemptsExhausted UNKNOWN"]
    error = desk.error()
    assert (error.attempts, error.service, error.call_id) == (3, "echo", call_id("c"))
    assert error.elapsed_s == pytest.approx(4.5)
    assert error.brokers == ("a",) and error.last_state == "sent"
    assert [error.spent.unsent_s, error.spent.silent_s] == pytest.approx([1.5, 3.0])
    assert [line.split(" s  ")[1] for line in error.story] == ["sent (a)", "nothing was heard for 1.00 s (a)"] * 3
    assert "gave up after 3 attempts failed" in str(error)
    assert desk.engine.counters.attempts == 3 and desk.engine.counters.retries == 2


@pytest.mark.parametrize("idempotent", [None, False])
def test_a_call_that_is_not_declared_idempotent_is_sent_once(idempotent: bool | None) -> None:
    """It may have run, and nobody can be asked."""
    desk = asked(timeout=20.0, idempotent=idempotent)
    desk.sleep(19.9)
    assert desk.trace() == []
    desk.sleep(0.1)
    assert desk.trace() == ["close 1", "end c DeadlineExceeded UNKNOWN"]
    assert "asked once, the last time at a" in str(desk.error())


def test_a_call_that_is_not_declared_idempotent_ends_when_its_link_breaks() -> None:
    """Waiting on would bring nothing: the reply could only have come there."""
    desk = asked("a", "b")
    desk.close(1)
    assert desk.trace() == ["end c BrokerLost UNKNOWN"]
    assert "the link to a was lost: lost" in str(desk.error())


def test_an_idempotent_call_goes_on_elsewhere_when_its_link_breaks() -> None:
    """The next server in the list, after a pause that keeps a crowd of clients apart."""
    seen: list[object] = []
    desk = PlainDesk("a", "b", config=CONFIG, observer=seen)
    desk.submit(idempotent=True)
    desk.open(1)
    desk.close(1)
    desk.sleep(0.5)
    desk.open(2)
    desk.receive(2, b"", b"C")
    assert desk.trace() == ["open 1 a", "send 1 -|c", "open 2 b", "send 2 -|c", "end c C"]
    c = call_id("c")
    assert seen == [
        CallStarted(c, b"echo"),
        AttemptStarted(c, 1, "a", False),
        LinkLost("a", "lost"),
        AttemptEnded(c, 1, "a", None, Outcome.UNKNOWN, "link lost: lost"),
        RetryScheduled(c, 2, 0.5),
        FailedOver(c, "a", "b"),
        AttemptStarted(c, 2, "b", False),
        CallEnded(c, b"echo", Outcome.EXECUTED, "", 2, 0.5),
    ]
    assert desk.engine.counters.failovers == 1


@pytest.mark.parametrize("idempotent", [None, False, True])
def test_an_attempt_that_never_left_is_no_attempt(idempotent: bool | None) -> None:
    """LP-5: it cannot have run, so any call is sent again, and it does not count against the policy."""
    desk = asked(idempotent=idempotent, timeout=2.0)
    for link in (1, 2, 3, 4):
        desk.unsent(link)
        desk.sleep(0.2)
        desk.open(link + 1)
        assert desk.trace() == [f"close {link}", f"open {link + 1} a", f"send {link + 1} -|c"]
    desk.receive(5, b"", b"C")
    assert desk.trace() == ["end c C"]
    assert desk.engine.counters.unsent == 4 and desk.engine.counters.retries == 0


def test_a_call_of_which_nothing_left_did_not_run() -> None:
    """The proof holds to the end."""
    desk = asked(timeout=1.0)
    desk.unsent(1)
    desk.sleep(1.0)
    assert desk.trace()[-1] == "end c BrokerUnreachable NOT_EXECUTED"
    assert desk.error().attempts == 0


def test_a_request_that_is_still_here_when_its_link_breaks_never_left() -> None:
    """The break was read before the request was handed over, so it is certain."""
    desk = asked()
    desk.submit("d")
    desk.trace()
    desk.feed(Received(1, [b"", b"C"]), LinkClosed(1, LinkEnd.LOST))
    assert desk.trace() == ["end c C"]
    desk.open(2)
    assert desk.trace() == ["send 2 -|d"]


def test_unsent_about_a_link_that_is_over_changes_nothing() -> None:
    """The call has moved on; its newest attempt is elsewhere."""
    desk = asked("a", "b", idempotent=True)
    desk.close(1)
    desk.unsent(1)
    desk.feed(Unsent(7, "ping"))
    desk.sleep(0.5)
    desk.open(2)
    desk.receive(2, b"", b"C")
    assert desk.trace() == ["open 2 b", "send 2 -|c", "end c C"]


def test_one_attempt_may_stay_silent_until_the_deadline() -> None:
    """RetryPolicy.never(): there is nothing else to do with the time."""
    desk = asked(config=ClientConfig(retry=RetryPolicy.never()), idempotent=True, timeout=20.0)
    desk.sleep(19.0)
    assert desk.trace() == []
    desk.receive(1, b"", b"C")
    assert desk.trace() == ["end c C"]


def test_an_attempt_is_not_given_up_for_one_that_cannot_fit() -> None:
    """A retry that would start at the deadline brings nothing; the reply under way may."""
    desk = asked(idempotent=True, timeout=1.4)
    desk.sleep(1.3)
    assert desk.trace() == []
    desk.receive(1, b"", b"C")
    assert desk.trace() == ["end c C"]


def test_a_cause_that_is_not_in_the_policy_is_not_followed_by_an_attempt() -> None:
    """Silence then lasts to the deadline, a loss ends the call."""
    never_lost = RetryPolicy(attempts=3, attempt_timeout_s=1.0, causes=[RetryCause.SILENT])
    desk = asked(config=ClientConfig(retry=never_lost), idempotent=True)
    desk.close(1)
    assert desk.trace() == ["end c BrokerLost UNKNOWN"]
    never_silent = RetryPolicy(attempts=3, attempt_timeout_s=1.0, causes=[RetryCause.LOST])
    desk = asked(config=ClientConfig(retry=never_silent), idempotent=True, timeout=9.0)
    desk.sleep(9.0)
    assert desk.trace() == ["close 1", "end c DeadlineExceeded UNKNOWN"]


def test_an_empty_budget_ends_the_call() -> None:
    """A server in trouble is not asked ever more; the share of each call fills the bucket again."""
    seen: list[object] = []
    retry = RetryPolicy(attempts=9, attempt_timeout_s=1.0, budget=RetryBudget(ratio=0.5, tokens_max=1.0))
    desk = PlainDesk(config=ClientConfig(retry=retry), u=0.0, observer=seen)
    desk.submit(idempotent=True)
    desk.open(1)
    desk.sleep(1.0)
    desk.open(2)
    desk.sleep(1.0)
    assert desk.trace()[-1] == "end c AttemptsExhausted UNKNOWN"
    assert "the retry budget is used up" in str(desk.error())
    assert RetryRefused(call_id("c"), "budget") in seen
    assert desk.engine.counters.attempts == 2 and desk.engine.counters.retries_refused == 1


def test_a_pause_of_nothing_is_no_pause() -> None:
    """With jitter 0 the next attempt begins in the same moment."""
    desk = PlainDesk(config=CONFIG, u=0.0)
    desk.submit(idempotent=True)
    desk.open(1)
    desk.sleep(1.0)
    assert desk.trace() == ["open 1 a", "send 1 -|c", "close 1", "open 2 a"]


# --- parts of a reply -----------------------------------------------------------------------------


def test_parts_come_before_the_reply() -> None:
    """MDP2-48, MDP2-52: none, one or many, in order."""
    desk = asked(dialect="mdp/0.2", idempotent=True)
    for part in (b"1", b"2"):
        desk.receive(1, b"MDPC02", b"\x02", b"echo", part)
        desk.sleep(5.0)
    desk.receive(1, b"MDPC02", b"\x03", b"echo", b"3")
    assert desk.trace() == ["partial c 1", "partial c 2", "end c 3"]


def test_after_a_part_nothing_is_sent_again() -> None:
    """MDP2-57: the caller would see the beginning twice."""
    desk = asked(dialect="mdp/0.2", idempotent=True, timeout=20.0)
    desk.receive(1, b"MDPC02", b"\x02", b"echo", b"1")
    desk.close(1)
    assert desk.trace() == ["partial c 1", "end c BrokerLost UNKNOWN"]
    assert desk.error().last_state == "running"
    desk = asked(dialect="mdp/0.2", idempotent=True, timeout=20.0)
    desk.receive(1, b"MDPC02", b"\x02", b"echo", b"1")
    desk.sleep(20.0)
    assert desk.trace() == ["partial c 1", "close 1", "end c DeadlineExceeded UNKNOWN"]


def test_a_part_after_the_last_one_closes_the_link() -> None:
    """MDP2-49: the broker must not, and the next call must not get it."""
    desk = asked(dialect="mdp/0.2")
    desk.receive(1, b"MDPC02", b"\x03", b"echo", b"1")
    desk.receive(1, b"MDPC02", b"\x02", b"echo", b"2")
    assert desk.trace() == ["end c 1", "close 1"]


# --- management -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "again"), [("mdp/0.1", True), ("mdp/0.2", True), ("req", False)])
def test_a_question_to_a_broker_counts_as_idempotent(dialect: str, again: bool) -> None:
    """mmi services only look; elsewhere the name means nothing."""
    desk = asked(dialect=dialect, service=b"mmi.service")
    desk.sleep(1.5)
    assert desk.trace() == (["close 1", "open 2 a"] if again else [])


# --- servers --------------------------------------------------------------------------------------


def test_a_refused_link_leads_to_the_next_server_at_once() -> None:
    """Nothing was sent, so any call may go on."""
    desk = PlainDesk("a", "b", config=CONFIG)
    desk.submit()
    desk.close(1, LinkEnd.REFUSED)
    desk.open(2)
    assert desk.trace() == ["open 1 a", "open 2 b", "send 2 -|c"]


def test_a_server_that_is_slow_to_come_up_holds_nobody_up() -> None:
    """After stagger_s the next one is tried beside it; the first to come up gets the call."""
    desk = PlainDesk("a", "b", "c", config=CONFIG)
    desk.submit()
    desk.sleep(0.24)
    assert desk.trace() == ["open 1 a"]
    desk.sleep(0.01)
    assert desk.trace() == ["open 2 b"]
    desk.sleep(0.25)
    assert desk.trace() == ["open 3 c"]
    desk.open(2)
    desk.receive(2, b"", b"C")
    desk.open(1)
    desk.submit("d")
    assert desk.trace() == ["send 2 -|c", "end c C", "send 2 -|d"], "the one that answers is kept"


def test_a_silent_server_is_left_for_the_next_and_not_gone_back_to() -> None:
    """Sticky to a good one: going back would cost each call another silence."""
    desk = asked("a", "b", idempotent=True)
    desk.sleep(1.5)
    desk.open(2)
    desk.receive(2, b"", b"C")
    desk.submit("d")
    assert desk.trace() == ["close 1", "open 2 b", "send 2 -|c", "end c C", "send 2 -|d"]


def test_the_only_server_is_tried_again_after_a_backoff_until_the_deadline() -> None:
    """LP-2, FLP-14: it may be started after its client."""
    desk = PlainDesk(config=CONFIG, u=1.0)
    desk.submit(timeout=1.0)
    desk.close(1, LinkEnd.REFUSED)
    assert desk.trace() == ["open 1 a"]
    desk.sleep(0.2)
    assert desk.trace() == ["open 2 a"]
    desk.close(2, LinkEnd.UNRESOLVED)
    desk.sleep(0.2)
    desk.close(3, LinkEnd.REFUSED)
    desk.sleep(0.6)
    assert desk.trace() == ["open 3 a", "open 4 a", "end c BrokerUnreachable NOT_EXECUTED"]
    assert "no server could be reached within 1.00 s: a: connecting; before that: refused (3 times)" in str(
        desk.error()
    )
    assert desk.error().last_state == "not sent"


def test_links_that_fail_together_count_as_one_failure() -> None:
    """A crowd of calls at a dead server must not make its backoff jump to the end."""
    desk = PlainDesk(config=CONFIG)
    for name in "cde":
        desk.submit(name)
    for link in (1, 2, 3):
        desk.close(link, LinkEnd.REFUSED)
    assert desk.engine.snapshot().brokers[0].failures == 1
    desk.trace()
    desk.sleep(0.1)
    assert desk.trace() == ["open 4 a"], "one looks whether it is back"
    desk.open(4)
    assert desk.trace() == ["send 4 -|c", "open 5 a"]


def test_a_server_that_worked_is_connected_again_without_a_pause() -> None:
    """A restart between two calls is not noticed by the caller."""
    desk = asked()
    desk.receive(1, b"", b"C")
    desk.close(1)
    desk.submit("d")
    desk.open(2)
    assert desk.trace() == ["end c C", "open 2 a", "send 2 -|d"]
    assert desk.engine.counters.links_lost == 1 and desk.engine.counters.links_opened == 2


def test_a_server_that_is_lost_after_good_work_is_passed_over_for_the_next() -> None:
    """It may be on its way down; the next one in the list is as good."""
    desk = asked("a", "b")
    desk.receive(1, b"", b"C")
    desk.close(1)
    desk.submit("d")
    assert desk.trace() == ["end c C", "open 2 b"]


def test_a_server_that_takes_connections_and_drops_them_is_left_alone() -> None:
    """It never answered, so the next try has to wait its time."""
    desk = PlainDesk(config=CONFIG, u=1.0)
    desk.submit(idempotent=True)
    desk.open(1)
    desk.close(1)
    assert desk.trace() == ["open 1 a", "send 1 -|c"]
    desk.sleep(0.99)
    assert desk.trace() == []
    desk.sleep(0.02)
    assert desk.trace() == ["open 2 a"]


def test_a_transport_that_says_nothing_is_not_waited_for_for_ever() -> None:
    """Its own limits are 5 s in all; a second later the link is given up."""
    desk = PlainDesk(config=CONFIG)
    desk.submit()
    desk.sleep(6.2)
    assert desk.trace() == ["open 1 a", "close 1", "open 2 a"]
    assert desk.engine.counters.links_refused == 1


def test_when_all_links_are_in_use_the_next_server_helps_out() -> None:
    """Calls that hang at one server must not keep others from a server that is free."""
    desk = PlainDesk("a", "b")
    for number in range(LINKS_MAX):
        desk.submit(f"c{number}")
        desk.open(number + 1)
    desk.trace()
    desk.submit("d")
    assert desk.trace() == [f"open {LINKS_MAX + 1} b"]
    desk.open(LINKS_MAX + 1)
    assert desk.trace() == [f"send {LINKS_MAX + 1} -|d"]


def test_a_call_that_never_got_a_link_says_so() -> None:
    """Not unreachable, but busy: more links would not help a server that serves one after the other."""
    desk = PlainDesk()
    for number in range(LINKS_MAX):
        desk.submit(f"c{number}", timeout=None)
        desk.open(number + 1)
    desk.submit("d", timeout=1.0)
    desk.sleep(1.0)
    assert f"a: all {LINKS_MAX} links are in use" in str(desk.error("d"))
    assert desk.ended["d"].outcome is Outcome.NOT_EXECUTED


# --- ends -----------------------------------------------------------------------------------------


def test_a_cancelled_call_takes_its_link_with_it() -> None:
    """Its reply may still come, and must find nobody."""
    desk = asked()
    desk.cancel()
    assert desk.trace() == ["close 1", "end c RequestAbandoned UNKNOWN"]
    desk.submit("d")
    desk.cancel("d")
    desk.cancel("d")
    assert desk.trace() == ["open 2 a", "end d RequestAbandoned NOT_EXECUTED"]
    assert desk.engine.next_deadline() == 106.0, "only the link that is coming up is still watched"
    desk.open(2)
    desk.submit("e")
    assert desk.trace() == ["send 2 -|e"]


def test_closing_ends_every_call_and_closes_every_link() -> None:
    """Nothing is left, and nothing can be begun."""
    desk = PlainDesk()
    for name in "cde":
        desk.submit(name)
    desk.open(1, 2)
    desk.receive(2, b"", b"D")
    desk.submit("f")
    desk.trace()
    desk.feed(AbandonAll())
    assert desk.trace() == [
        "close 1",
        "end c RequestAbandoned UNKNOWN",
        "close 2",
        "end e RequestAbandoned UNKNOWN",
        "end f RequestAbandoned NOT_EXECUTED",
        "close 3",
    ]
    assert desk.engine.next_deadline() is None and desk.engine.snapshot().links == ()
    desk.submit("g")
    assert desk.trace() == ["end g RequestAbandoned NOT_EXECUTED"]


def test_limits_are_answered_at_once() -> None:
    """QueueFull and MessageTooLarge are proven not to have run."""
    desk = PlainDesk(config=ClientConfig(limits=Limits(calls_in_flight_max=1, message_bytes_max=1024)))
    desk.submit("c", body=[b"x" * 1024])
    assert desk.trace() == ["end c MessageTooLarge NOT_EXECUTED"]
    desk.submit("d")
    desk.submit("e")
    assert desk.trace() == ["open 1 a", "end e QueueFull NOT_EXECUTED"]


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_a_call_whose_time_is_over_is_not_sent(timeout: float) -> None:
    """A handler passes the rest of its own time on, and that may be nothing."""
    desk = PlainDesk()
    desk.submit(timeout=timeout)
    assert desk.trace() == ["end c DeadlineExceeded NOT_EXECUTED"]


def test_misuse_changes_nothing() -> None:
    """A programming error must not cost the calls that are open."""
    desk = asked()
    before = desk.engine.snapshot()
    again = Submit(call_id=call_id("c"), service=b"echo", body=[b"x"], deadline=None)
    with pytest.raises(LocalProtocolError, match="is in use"):
        desk.feed(again)
    with pytest.raises(LocalProtocolError, match="no one-way calls in dialect req"):
        desk.submit("d", one_way=True)
    with pytest.raises(LocalProtocolError, match="opened twice"):
        desk.open(1)
    with pytest.raises(LocalProtocolError, match="time went back"):
        desk.engine.handle(again, 99.0)
    desk.open(7)
    desk.close(7)
    assert desk.engine.snapshot() == before
    with pytest.raises(ValueError, match="client id"):
        PlainEngine(["a"], ClientConfig(), client_id=b"", jitter=lambda: 0.0)
    for servers in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="at least one server"):
            PlainEngine(servers, ClientConfig(), client_id=b"i" * 16, jitter=lambda: 0.0)


def test_a_snapshot_shows_servers_links_and_calls() -> None:
    """What tests and status pages see."""
    desk = PlainDesk("a", "b", config=CONFIG)
    desk.submit("c")
    desk.open(1)
    desk.submit("d")
    view = desk.engine.snapshot()
    assert [(broker.address, broker.state, broker.life) for broker in view.brokers] == [
        ("a", "usable", ""),
        ("b", "unknown", ""),
    ]
    assert [(link.link, link.address, link.state, link.calls) for link in view.links] == [
        (1, "a", "ready", 1),
        (2, "a", "opening", 0),
    ]
    assert (view.calls, view.waiting, view.asked) == (2, 1, 1)
    assert view.next_deadline == 100.25
    desk.close(2, LinkEnd.REFUSED)
    desk.close(1)
    assert desk.engine.snapshot().brokers[0].state == "unreachable"


def test_a_call_without_deadline_waits_for_ever() -> None:
    """None was written out."""
    desk = asked(timeout=None)
    assert desk.engine.next_deadline() is None
    desk.sleep(1e6)
    desk.receive(1, b"", b"C")
    assert desk.trace() == ["end c C"]


def test_the_story_of_a_long_call_is_cut_in_the_middle() -> None:
    """Memory is bounded also for a call that is repeated for days."""
    retry = RetryPolicy(attempts=None, attempt_timeout_s=1.0, backoff=Backoff(initial_s=1.0), budget=None)
    desk = PlainDesk(config=ClientConfig(retry=retry), u=0.0)
    desk.submit(idempotent=True, timeout=50.5)
    for link in range(1, 52):
        desk.open(link)
        desk.sleep(1.0)
    story = desk.error().story
    assert len(story) == 32 and story[0].startswith("   0.000 s  sent") and story[-1].startswith("  50.000 s  sent")
