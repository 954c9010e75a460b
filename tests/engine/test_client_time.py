"""Links that live for days, between clocks that go apart: what a client writes into its frames, and when calls wait."""

from __future__ import annotations

import pytest

from reliable.config import ClientConfig, TransportConfig
from reliable.protocol.events import AbandonAll, LinkOpened, Received
from reliable.status import Status
from reliable.wire.mdp import ClientReply, Version
from reliable.wire.mmi import TIME_QUERY
from tests.support.client_desk import Desk, hello_frames

DAY_S = 86_400.0
FAST = 1.0002
"""The rate of a broker's clock that is 17 s ahead after a day."""
HELLO_S = 0.25


def greeted(*brokers: str, config: ClientConfig | None = None) -> Desk:
    """A client whose first broker got its hello at 100.0 and answered a quarter second later; nothing is asked."""
    desk = Desk(*brokers, config=config)
    desk.submit("first")
    desk.feed(LinkOpened(1))
    desk.now += HELLO_S
    desk.feed(Received(1, hello_frames()))
    desk.answer(1, name="first")
    desk.trace()
    return desk


def since_hello(desk: Desk) -> float:
    """What the broker's clock shows, counted from the hello, if messages take no time."""
    return (desk.now - 100.0) * FAST


def for_a_day(desk: Desk) -> None:
    """The loop runs, the broker answers, nobody calls."""
    end = desk.now + DAY_S
    while desk.now < end:
        desk.sleep(60.0)
        if "time 1" in desk.trace():
            desk.tell_time(1, since_hello(desk))


def test_after_a_day_deadlines_are_as_near_as_after_a_minute() -> None:
    """They would be 17 s early by now, so that a call with a short timeout failed at once."""
    desk = greeted()
    for_a_day(desk)
    desk.submit("c", timeout=2.0)
    assert desk.trace() == ["submit 1 c#1"]
    left_s = desk.last_call_frame().deadline_ms / 1000 - since_hello(desk)
    assert left_s == pytest.approx(2.0 - 0.1, abs=0.03)


def test_without_the_question_the_clocks_are_seconds_apart_after_a_day() -> None:
    """Shows that the test above shows something."""
    desk = greeted(config=ClientConfig(transport=TransportConfig(time_check_s=None)))
    for_a_day(desk)
    desk.submit("c", timeout=2.0)
    left_s = desk.last_call_frame().deadline_ms / 1000 - since_hello(desk)
    assert left_s < -15.0


def test_after_a_day_the_first_sending_is_still_written_too_early_and_only_a_little() -> None:
    """Too late, and a forgotten call may run twice. Minutes too early, and a busy broker that forgets calls within
    minutes takes each new call for one that it may have forgotten, and refuses it."""
    desk = greeted()
    for_a_day(desk)
    desk.submit("c", idempotent=False)
    written_s = desk.last_call_frame().first_sent_ms / 1000
    assert since_hello(desk) - 0.7 < written_s <= since_hello(desk)


def test_a_link_that_is_never_idle_is_asked_like_any_other() -> None:
    """A call goes out while the question is open, and means what it meant before."""
    desk = greeted()
    desk.sleep(59.9)
    desk.submit("a")
    before = desk.last_call_frame().deadline_ms
    desk.sleep(0.1)
    assert desk.trace() == ["submit 1 a#1", "time 1"]
    desk.submit("b")
    assert desk.trace() == ["submit 1 b#1"]
    assert desk.last_call_frame().deadline_ms - before == pytest.approx(100, abs=1)
    desk.now += 0.002
    desk.tell_time(1, since_hello(desk))
    desk.answer(1, name="a")
    desk.answer(1, name="b")
    assert desk.trace() == ["end a ok", "end b ok"]


def test_a_call_that_was_sent_before_the_answer_is_asked_after_by_the_new_reckoning() -> None:
    """The moment of its first sending stays what it was, whatever is known of the clocks by now."""
    desk = greeted()
    desk.sleep(59.0)
    desk.submit("c", idempotent=False)
    sent_s = since_hello(desk)
    first = desk.last_call_frame().first_sent_ms / 1000
    desk.sleep(1.0)
    assert desk.trace() == ["submit 1 c#1", "time 1"]
    desk.tell_time(1, since_hello(desk))
    desk.sleep(1.5)
    assert desk.trace() == ["attach 1 c#2"]
    again = desk.last_call_frame().first_sent_ms / 1000
    assert first <= sent_s and again <= sent_s
    assert again == pytest.approx(sent_s, abs=0.02)


def test_the_first_call_after_a_long_pause_of_a_blocking_client_waits_for_the_time() -> None:
    """Nobody ran the loop meanwhile, so nobody asked."""
    desk = greeted("a", "b")
    desk.now += DAY_S
    desk.feed()
    desk.submit("c", timeout=2.0)
    assert desk.trace() == ["time 1"], "it neither goes out nor elsewhere"
    desk.now += 0.002
    desk.tell_time(1, since_hello(desk))
    assert desk.trace() == ["submit 1 c#1"]
    left_s = desk.last_call_frame().deadline_ms / 1000 - since_hello(desk)
    assert left_s == pytest.approx(2.0 - 0.1, abs=0.03)


def test_an_answer_that_nobody_read_during_the_pause_is_asked_for_again() -> None:
    """It is as old as the pause."""
    desk = greeted()
    desk.sleep(60.0)
    assert desk.trace() == ["time 1"]
    old = since_hello(desk)
    desk.now += DAY_S
    desk.tell_time(1, old)
    assert desk.trace() == ["time 1"]
    desk.submit("c")
    assert desk.trace() == []
    desk.tell_time(1, since_hello(desk))
    assert desk.trace() == ["submit 1 c#1"]


def test_a_broker_that_says_nothing_about_the_time_holds_calls_up_once() -> None:
    """One that is slow, or of another make: the hello's reckoning goes on."""
    desk = greeted()
    desk.now += DAY_S
    desk.feed()
    desk.submit("c", timeout=30.0)
    desk.sleep(0.99)
    assert desk.trace() == ["time 1"]
    desk.sleep(0.02)
    assert desk.trace() == ["submit 1 c#1"]
    desk.answer(1)
    desk.now += DAY_S
    desk.feed()
    assert desk.trace() == ["end c ok", "time 1"]
    desk.submit("d")
    assert desk.trace() == ["submit 1 d#1"], "never again, before it has answered once"


def test_a_call_that_waits_for_the_time_too_long_goes_to_the_next_broker() -> None:
    """Just as for a broker that is slow to come up."""
    desk = greeted("a", "b")
    desk.now += DAY_S
    desk.feed()
    desk.submit("c")
    desk.sleep(0.26)
    assert desk.trace() == ["time 1", "open 2 b"]
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#1"]


def test_a_link_that_breaks_while_calls_wait_for_the_time_sends_them_on() -> None:
    """They were not sent, so they may go anywhere."""
    desk = greeted("a", "b")
    desk.now += DAY_S
    desk.feed()
    desk.submit("c", idempotent=False)
    desk.close(1)
    assert desk.trace() == ["time 1", "open 2 b"]
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#1"]


def test_a_client_that_is_closed_while_calls_wait_for_the_time_says_so_of_each() -> None:
    """None of them was sent."""
    desk = greeted()
    desk.now += DAY_S
    desk.feed()
    desk.submit("c")
    desk.feed(AbandonAll())
    assert desk.trace() == ["time 1", "end c RequestAbandoned NOT_EXECUTED", "close 1 linger"]


def test_an_older_broker_is_asked_once() -> None:
    """It answers 501, as 8/MMI has it for questions that it does not know."""
    desk = greeted()
    desk.sleep(60.0)
    desk.feed(Received(1, ClientReply(Version.MDP01, TIME_QUERY, [b"501"]).encode()))
    desk.sleep(DAY_S)
    assert desk.trace() == ["time 1"]
    desk.submit("c")
    assert desk.trace() == ["submit 1 c#1"]


def test_a_broker_that_has_forgotten_the_hello_is_greeted_anew_and_asked_what_became_of_the_calls() -> None:
    """It drops what comes on this link without a word; waiting for its answers would cost all the time there is."""
    desk = greeted()
    desk.sleep(59.5)
    desk.submit("c", idempotent=False)
    desk.sleep(0.5)
    desk.trace()
    desk.feed(Received(1, ClientReply(Version.MDP01, TIME_QUERY, [b"404"]).encode()))
    assert desk.trace() == ["close 1", "open 2 a"]
    desk.open(2)
    assert desk.trace() == ["hello 2", "attach 2 c#2"]
    desk.answer(2, Status.OK, attempt=2)
    assert desk.trace() == ["end c ok"]
