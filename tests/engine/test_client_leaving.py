"""A broker says that it is about to go: the client sends its calls elsewhere, or waits for the next life."""

from __future__ import annotations

from reliable.config import BreakerPolicy, ClientConfig
from reliable.engine.observe import BreakerChanged
from reliable.errors import Outcome
from reliable.protocol.events import Received
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import HELLO_SERVICE, AnswerFrame
from reliable.wire.mdp import ClientReply, Version
from tests.support.client_desk import Desk, life_id


def leaving(life: str = "L1", pause_ms: int = 10_000) -> Frames:
    """What ``brokers.answers.leaving`` gives, as it arrives."""
    answer = AnswerFrame(Status.OVERLOADED, 0, bytes(16), life_id(life), Outcome.NOT_EXECUTED, retry_after_ms=pause_ms)
    return ClientReply(Version.MDP02, HELLO_SERVICE, [b""], [answer.encode()]).encode()


def greeted(*brokers: str, config: ClientConfig | None = None, observer: list[object] | None = None) -> Desk:
    """A desk that was answered by its first broker on link 1."""
    desk = Desk(*brokers, config=config, observer=observer)
    desk.submit("warm")
    desk.open(1)
    desk.answer(1, name="warm")
    desk.trace()
    return desk


def test_calls_made_after_the_word_go_to_the_next_broker_without_being_refused_first() -> None:
    """Each refusal would cost a token of the retry budget, and one sent too late the proof that it did not run."""
    desk = greeted("a", "b")
    desk.feed(Received(1, leaving()))
    desk.submit("c")
    assert desk.trace() == ["open 2 b"]
    desk.open(2, "M1")
    assert desk.trace() == ["hello 2", "submit 2 c#1"]
    assert desk.engine.counters.dropped == 0 and desk.engine.counters.late_replies == 0


def test_calls_in_flight_stay_and_their_answers_do_not_let_new_ones_in() -> None:
    """The broker waits for them; what it says of them is no sign that it takes others."""
    desk = greeted("a", "b")
    desk.submit("held")
    desk.submit("held too")
    desk.trace()
    desk.feed(Received(1, leaving()))
    desk.answer(1, name="held")
    assert desk.trace() == ["end held hi"] or desk.ended["held"].outcome is Outcome.EXECUTED
    desk.submit("c")
    assert desk.trace() == ["open 2 b"]
    desk.answer(1, name="held too")
    assert desk.ended["held too"].outcome is Outcome.EXECUTED


def test_with_one_broker_alone_calls_wait_for_its_next_life() -> None:
    """They neither fail nor use up attempts, and go out the moment it is back."""
    desk = greeted("a")
    desk.feed(Received(1, leaving(pause_ms=60_000)))
    desk.submit("c")
    desk.sleep(1.0)
    assert desk.trace() == []
    desk.close(1)
    desk.open(2, "L2")
    assert desk.trace() == ["open 2 a", "hello 2", "submit 2 c#1"]


def test_the_word_holds_for_the_time_that_it_names() -> None:
    """A broker that thought better of it, or whose end was never seen, is tried again by one call."""
    desk = greeted("a")
    desk.feed(Received(1, leaving(pause_ms=3000)))
    desk.submit("c")
    desk.submit("d")
    desk.sleep(2.9)
    assert desk.trace() == []
    desk.sleep(0.2)
    assert desk.trace() == ["submit 1 c#1"]
    desk.answer(1, name="c")
    assert "submit 1 d#1" in desk.trace()


def test_the_word_counts_also_where_failures_never_open_the_breaker() -> None:
    """It is no guess of ours, but what the broker itself says; observers hear of it once."""
    seen: list[object] = []
    desk = greeted("a", "b", config=ClientConfig(breaker=BreakerPolicy(failures=None)), observer=seen)
    desk.feed(Received(1, leaving()))
    desk.feed(Received(1, leaving()))
    desk.submit("c")
    assert desk.trace() == ["open 2 b"]
    assert [event for event in seen if isinstance(event, BreakerChanged)] == [BreakerChanged("a", "closed", "open")]
    assert "it is about to go" in desk.engine._state.brokers["a"].describe()


def test_a_word_of_another_life_counts_for_nothing() -> None:
    """It would shut out a broker that has just come up."""
    desk = greeted("a", "b")
    desk.feed(Received(1, leaving("L0")))
    desk.submit("c")
    assert desk.trace() == ["submit 1 c#1"]
