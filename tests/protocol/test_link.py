"""The hello machine of one link: every state against every event."""

from __future__ import annotations

import pytest

from reliable.config import ClientConfig
from reliable.errors import LocalProtocolError
from reliable.protocol.events import ClientEffect, CloseLink, LinkClosed, LinkEnd, LinkOpened, OpenLink, Send, Unsent
from reliable.protocol.link import (
    HELLO_TAG,
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
    open_link,
    step,
)
from reliable.types import Frames
from reliable.wire.extension import HelloAnswer

CONFIG = ClientConfig()
HELLO = [b"", b"MDPC01", b"mmi.reliable", b"hello"]
PEER = HelloAnswer(b"life-one", 4096)
NOW = 10.0

OPENING = Opening(7, "a", expires=12.0)
GREETING = Greeting(7, "a", t0=9.5, expires=10.5)
READY = Ready(7, "a", t0=9.0, t1=9.1, peer=PEER)
OVER = Over(7, "a", Fate.LOST)
STATES: dict[str, LinkState] = {"opening": OPENING, "greeting": GREETING, "ready": READY, "over": OVER}

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
        "yes": Ready(7, "a", t0=9.5, t1=NOW, peer=PEER),
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


def go(state: LinkState, event: LinkEvent, now: float = NOW) -> tuple[LinkState, list[ClientEffect]]:
    new, effects = step(state, event, HELLO, CONFIG, now)
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
    assert go(READY, LinkTick(), NOW + 1e6) == (READY, [])


def test_closing_may_linger() -> None:
    """Cancels that were just sent should get out."""
    assert go(READY, CloseNow("goodbye", linger=True))[1] == [CloseLink(7, linger=True)]


@pytest.mark.parametrize("body", [[b"501"], [b"501", b"and more"]])
def test_only_a_501_downgrades(body: Frames) -> None:
    """Every other answer, and silence, may come from a broker of ours that is in trouble."""
    after, _ = go(GREETING, HelloReply(body))
    assert isinstance(after, Over) and after.fate is Fate.FOREIGN
