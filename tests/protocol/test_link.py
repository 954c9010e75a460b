"""The hello machine of one link: every state against every event."""

from __future__ import annotations

import math

import attrs
import pytest

from reliable.config import ClientConfig, TransportConfig
from reliable.errors import LocalProtocolError
from reliable.protocol import session
from reliable.protocol.events import ClientEffect, CloseLink, LinkClosed, LinkEnd, LinkOpened, OpenLink, Send, Unsent
from reliable.protocol.link import (
    HELLO_TAG,
    Checking,
    CloseNow,
    Fate,
    Greeting,
    HelloReply,
    LinkEvent,
    LinkState,
    LinkTick,
    Opening,
    Over,
    Ready,
    TimeReply,
    expiry,
    open_link,
    step,
)
from reliable.protocol.session import TIME_TAG, SessionTime
from reliable.types import Frames
from reliable.wire.extension import HelloAnswer
from reliable.wire.mmi import time_answer, time_query


def stamp(number: int) -> bytes:
    """What comes back with the answer to the question of that number."""
    return number.to_bytes(8, "big")


CONFIG = ClientConfig()
HELLO = [b"", b"MDPC01", b"mmi.reliable", b"hello"]
PEER = HelloAnswer(b"life-one", 4096)
NOW = 10.0

OPENING = Opening(7, "a", expires=12.0)
GREETING = Greeting(7, "a", t0=9.5, expires=10.5)
READY = Ready(7, "a", session.begin(9.0, 9.1, 60.0), PEER)
CHECKING = Checking(7, "a", attrs.evolve(READY.time, asked_at=9.95, questions=1), PEER, expires=10.5)
OVER = Over(7, "a", Fate.LOST)
STATES: dict[str, LinkState] = {
    "opening": OPENING,
    "greeting": GREETING,
    "ready": READY,
    "checking": CHECKING,
    "over": OVER,
}

EVENTS: dict[str, LinkEvent] = {
    "opened": LinkOpened(7),
    "lost": LinkClosed(7, LinkEnd.LOST, "reset"),
    "refused": LinkClosed(7, LinkEnd.REFUSED),
    "unresolved": LinkClosed(7, LinkEnd.UNRESOLVED),
    "handshake": LinkClosed(7, LinkEnd.HANDSHAKE),
    "yes": HelloReply([b"200", *PEER.encode()]),
    "foreign": HelloReply([b"501"]),
    "not found": HelloReply([b"404"]),
    "junk": HelloReply([b"200", b"junk"]),
    "nothing": HelloReply([]),
    "other version": HelloReply([b"200", *HelloAnswer(b"life-one", version_min=2, version_max=3).encode()]),
    "no calls": HelloReply([b"200", *HelloAnswer(b"life-one", features=0).encode()]),
    "time": TimeReply([b"200", *time_answer(stamp(1), 600)]),
    "time of another": TimeReply([b"200", *time_answer(stamp(2), 600)]),
    "time unknown": TimeReply([b"501"]),
    "time forgotten": TimeReply([b"404"]),
    "time junk": TimeReply([b"200", b"junk"]),
    "time nothing": TimeReply([]),
    "unsent": Unsent(7, HELLO_TAG),
    "tick": LinkTick(),
    "close": CloseNow("enough"),
}

SAME = "same"
WRONG = "wrong"
# What each pair comes to: the same state, misuse, the next state, or how the link ends.
EXPECTED: dict[str, dict[str, object]] = {
    "opening": {
        "opened": Greeting(7, "a", NOW, NOW + CONFIG.hello_timeout_s),
        "lost": Fate.LOST,
        "refused": Fate.REFUSED,
        "unresolved": Fate.UNRESOLVED,
        "handshake": Fate.HANDSHAKE,
        "unsent": WRONG,
        "close": Fate.CLOSED,
    },
    "greeting": {
        "opened": WRONG,
        "lost": Fate.LOST,
        "refused": Fate.REFUSED,
        "unresolved": Fate.UNRESOLVED,
        "handshake": Fate.HANDSHAKE,
        "yes": Ready(7, "a", session.begin(9.5, NOW, 60.0), PEER),
        "foreign": Fate.FOREIGN,
        "not found": Fate.SILENT,
        "junk": Fate.SILENT,
        "nothing": Fate.SILENT,
        "other version": Fate.FOREIGN,
        "no calls": Fate.FOREIGN,
        "unsent": Fate.LOST,
        "close": Fate.CLOSED,
    },
    "ready": {
        "opened": WRONG,
        "lost": Fate.LOST,
        "refused": Fate.REFUSED,
        "unresolved": Fate.UNRESOLVED,
        "handshake": Fate.HANDSHAKE,
        "close": Fate.CLOSED,
    },
    "over": {},
}
TOLD = SessionTime(9.95 - 0.6 - 0.001, NOW - 0.6 + 0.05 * 0.005, 9.95, READY.time.ask_at, questions=1)
EXPECTED["checking"] = {
    **EXPECTED["ready"],
    "time": Ready(7, "a", TOLD, PEER),
    "time unknown": Ready(7, "a", attrs.evolve(READY.time, questions=1, ask_at=math.inf), PEER),
    "time forgotten": Fate.LOST,
}


def go(
    state: LinkState, event: LinkEvent, now: float = NOW, config: ClientConfig = CONFIG
) -> tuple[LinkState, list[ClientEffect]]:
    new, effects = step(state, event, HELLO, config, now)
    return new, list(effects)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_state_has_an_answer_to_every_event(state: str, event: str) -> None:
    """A pair that nobody thought of is where links leak."""
    expected = EXPECTED[state].get(event, SAME)
    before = STATES[state]
    if expected is WRONG:
        with pytest.raises(LocalProtocolError):
            go(before, EVENTS[event])
        return
    after, effects = go(before, EVENTS[event])
    if expected is SAME:
        assert after is before and effects == []
    elif isinstance(expected, Fate):
        assert isinstance(after, Over)
        assert (after.link, after.address, after.fate) == (7, "a", expected)
        closed_by_peer = isinstance(EVENTS[event], LinkClosed)
        assert effects == ([] if closed_by_peer else [CloseLink(7)]), "the shell closes what it did not report closed"
    else:
        assert after == expected


def test_a_new_link_is_opened_with_a_bound_on_the_transport() -> None:
    """The bound holds even if the transport never reports anything."""
    state, effects = open_link(7, "a", CONFIG, NOW)
    limits = CONFIG.transport
    assert effects == (OpenLink(7, "a"),)
    assert state.expires > NOW + limits.resolve_timeout_s + limits.connect_timeout_s + limits.handshake_timeout_s


def test_the_hello_is_sent_once_and_when_the_link_opens() -> None:
    """Its moment is the zero of all deadlines on this link."""
    after, effects = go(OPENING, EVENTS["opened"])
    assert effects == [Send(7, HELLO, HELLO_TAG)]
    assert isinstance(after, Greeting) and after.t0 == NOW


@pytest.mark.parametrize(("state", "fate"), [(OPENING, Fate.REFUSED), (GREETING, Fate.SILENT)])
def test_silence_ends_a_link_that_is_not_ready(state: Opening | Greeting, fate: Fate) -> None:
    """Nobody waits for ever for a connection or for an answer to the hello."""
    assert go(state, LinkTick(), state.expires - 0.001) == (state, [])
    after, effects = go(state, LinkTick(), state.expires)
    assert isinstance(after, Over) and after.fate is fate
    assert effects == [CloseLink(7)]


def test_a_ready_link_may_stay_silent() -> None:
    """A client with nothing to ask hears nothing; the transport watches the connection."""
    never = Ready(7, "a", session.begin(9.0, 9.1, None), PEER)
    config = ClientConfig(transport=TransportConfig(time_check_s=None))
    assert expiry(never) == math.inf
    assert go(never, LinkTick(), NOW + 1e6, config) == (never, [])
    assert go(READY, LinkTick(), READY.time.ask_at - 0.01) == (READY, [])


def test_the_time_is_asked_while_everything_goes_on() -> None:
    """A link that is never idle could not wait for it."""
    due = expiry(READY)
    assert due == 9.1 + 60.0
    after, effects = go(READY, LinkTick(), due)
    assert effects == [Send(7, time_query(stamp(1)), TIME_TAG)]
    assert isinstance(after, Ready) and expiry(after) == due + 60.0
    assert (after.time.t0, after.time.t1) == (READY.time.t0, READY.time.t1), "until then the old reckoning goes on"
    told, effects = go(after, TimeReply([b"200", *time_answer(stamp(1), 60_500)]), due + 0.02)
    assert isinstance(told, Ready) and effects == []
    assert (told.time.t0, told.time.t1) == pytest.approx((due - 60.501, due - 60.48), abs=0.0002)
    assert expiry(told) == due + 60.0


def test_a_broker_that_does_not_answer_the_time_is_asked_again_and_otherwise_left_in_peace() -> None:
    """It may just be slow; calls go on by the old reckoning."""
    after, now = READY, expiry(READY)
    for number in (1, 2, 3):
        ready, effects = go(after, LinkTick(), now)
        assert effects == [Send(7, time_query(stamp(number)), TIME_TAG)]
        if isinstance(ready, Checking):
            assert number == 2, "calls wait for it once"
            assert expiry(ready) == now + CONFIG.hello_timeout_s
            assert go(ready, LinkTick(), expiry(ready) - 0.01) == (ready, [])
            ready, effects = go(ready, LinkTick(), expiry(ready))
            assert effects == []
        assert isinstance(ready, Ready) and (ready.time.t0, ready.time.t1) == (9.0, 9.1)
        after, now = ready, expiry(ready)
    late, _ = go(after, TimeReply([b"200", *time_answer(stamp(3), 1000)]), now - 59.9)
    assert isinstance(late, Ready) and not late.time.waited, "once it has answered, calls may wait for it again"


def test_a_broker_that_does_not_know_the_question_is_not_asked_again() -> None:
    """Brokers of earlier versions answer 501, as 8/MMI wants it."""
    asked, _ = go(READY, LinkTick(), expiry(READY))
    after, effects = go(asked, TimeReply([b"501"]), expiry(READY) + 0.1)
    assert isinstance(after, Ready) and effects == []
    assert expiry(after) == math.inf
    assert (after.time.t0, after.time.t1) == (9.0, 9.1)


def test_a_broker_that_has_forgotten_our_hello_is_greeted_anew() -> None:
    """It drops whatever we ask on this link, without a word."""
    asked, _ = go(READY, LinkTick(), expiry(READY))
    after, effects = go(asked, TimeReply([b"404"]), expiry(READY) + 0.1)
    assert isinstance(after, Over) and after.fate is Fate.LOST
    assert effects == [CloseLink(7)]
    assert go(READY, TimeReply([b"404"])) == (READY, []), "nobody asked"


def test_after_a_long_time_in_which_nobody_looked_calls_wait_for_the_time() -> None:
    """The reckoning of a blocking client that made no call for a day may be seconds off."""
    now = NOW + 86_400.0
    after, effects = go(READY, LinkTick(), now)
    assert isinstance(after, Checking)
    assert effects == [Send(7, time_query(stamp(1)), TIME_TAG)]
    ready, _ = go(after, TimeReply([b"200", *time_answer(stamp(1), 86_401_000)]), now + 0.1)
    assert isinstance(ready, Ready)
    assert expiry(ready) == now + 60.0


def test_closing_may_linger() -> None:
    """Cancels that were just sent should get out."""
    assert go(READY, CloseNow("goodbye", linger=True))[1] == [CloseLink(7, linger=True)]


@pytest.mark.parametrize("body", [[b"501"], [b"501", b"and more"]])
def test_only_a_501_downgrades(body: Frames) -> None:
    """Every other answer, and silence, may come from a broker of ours that is in trouble."""
    after, _ = go(GREETING, HelloReply(body))
    assert isinstance(after, Over) and after.fate is Fate.FOREIGN
