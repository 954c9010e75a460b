"""The life of one link of a client: connect, hello, ready, over.

A link is one socket with one connection (``reliable.protocol.events``). It may carry calls only after its hello was
answered, because only then is it known which life of which broker is at the other end, and from which moment
deadlines are counted (``reliable.wire.extension``, "Session time").

    Opening ──opened──▶ Greeting ──200──▶ Ready ──broke, or closed by us──▶ Over
       └──never came up──▶ Over ◀──501, silence, broke──┘  │  ▲
                                                           ▼  │
                                                        Checking

Every now and then a ready link asks where the broker's clock stands (``reliable.protocol.session``), and goes on
meanwhile. ``Checking`` is for one whose reckoning is so old that new calls wait for the answer, or for a bounded time.

A link never leaves ``Over``, and its number is never used again: after a reconnect there may be another process at the
same address, so nothing that was learned on the old link holds on the new one.

Spec: 7/MDP (the hello is an ordinary MDP/Client REQUEST), 8/MMI (``501`` is the only answer that says "I do not know
this service of yours"; silence says nothing).
"""

from __future__ import annotations

import enum
import math
from typing import TypeAlias, assert_never

import attrs

from reliable.config import ClientConfig
from reliable.errors import LocalProtocolError, RemoteProtocolError
from reliable.protocol import session
from reliable.protocol.events import (
    ClientEffect,
    CloseLink,
    LinkClosed,
    LinkEnd,
    LinkOpened,
    OpenLink,
    Send,
    Unsent,
)
from reliable.protocol.session import TIME_TAG, SessionTime
from reliable.types import Frames
from reliable.wire.extension import FEATURE_CALLS, HelloAnswer
from reliable.wire.mmi import FOUND, NOT_FOUND, NOT_IMPLEMENTED

__all__ = [
    "HELLO_TAG",
    "Checking",
    "CloseNow",
    "Fate",
    "Greeting",
    "HelloReply",
    "LinkEvent",
    "LinkState",
    "LinkTick",
    "Opening",
    "Over",
    "Ready",
    "TimeReply",
    "expiry",
    "open_link",
    "step",
]

HELLO_TAG = "hello"
"""``Send.tag`` of a hello."""
_SPARE_S = 1.0
"""What the transport may take beyond its own limits before a link that says nothing is given up."""
_VERSION = 1


class Fate(enum.Enum):
    """How a link ended, as far as the next try is concerned."""

    REFUSED = "refused"
    UNRESOLVED = "name not resolved"
    HANDSHAKE = "handshake failed"
    LOST = "connection lost"
    SILENT = "no answer"
    FOREIGN = "does not speak the extension"
    CLOSED = "closed by us"


_FATES = {
    LinkEnd.REFUSED: Fate.REFUSED,
    LinkEnd.UNRESOLVED: Fate.UNRESOLVED,
    LinkEnd.HANDSHAKE: Fate.HANDSHAKE,
    LinkEnd.LOST: Fate.LOST,
}


@attrs.frozen
class Opening:
    """The transport resolves and connects."""

    link: int
    address: str
    expires: float


@attrs.frozen
class Greeting:
    """Connected; the hello was sent at ``t0`` and is not answered yet."""

    link: int
    address: str
    t0: float
    expires: float


@attrs.frozen
class Ready:
    """Calls may be sent.

    Attributes:
        time: What times on this link are written against.
        peer: What the broker said about itself.
    """

    link: int
    address: str
    time: SessionTime
    peer: HelloAnswer


@attrs.frozen
class Checking:
    """It has been ready for so long without a look at the broker's clock that calls wait for one, until ``expires``."""

    link: int
    address: str
    time: SessionTime
    peer: HelloAnswer
    expires: float


@attrs.frozen
class Over:
    """Nothing is sent on it or taken from it any more."""

    link: int
    address: str
    fate: Fate
    detail: str = ""

    @property
    def reason(self) -> str:
        """For people."""
        if self.fate is Fate.CLOSED:
            return self.detail
        return f"{self.fate.value}: {self.detail}" if self.detail else self.fate.value


@attrs.frozen
class HelloReply:
    """A reply of service ``mmi.reliable`` came; ``body`` is its body, the MMI code first."""

    body: Frames


@attrs.frozen
class TimeReply:
    """A reply of service ``mmi.reliable.time`` came; ``body`` is its body, the MMI code first."""

    body: Frames


@attrs.frozen
class LinkTick:
    """Time went on."""


@attrs.frozen
class CloseNow:
    """We want no more of it."""

    detail: str
    linger: bool = False


LinkState: TypeAlias = Opening | Greeting | Ready | Checking | Over
LinkEvent: TypeAlias = LinkOpened | LinkClosed | HelloReply | TimeReply | Unsent | LinkTick | CloseNow
_Step: TypeAlias = tuple[LinkState, tuple[ClientEffect, ...]]


def open_link(link: int, address: str, config: ClientConfig, now: float) -> tuple[Opening, tuple[ClientEffect, ...]]:
    """A new link in its first state, and the effect that makes the shell open it."""
    limits = config.transport
    patience_s = limits.resolve_timeout_s + limits.connect_timeout_s + limits.handshake_timeout_s + _SPARE_S
    return Opening(link, address, now + patience_s), (OpenLink(link, address),)


def expiry(state: LinkState) -> float:
    """When a ``LinkTick`` is due."""
    if isinstance(state, Ready):
        return state.time.ask_at
    return math.inf if isinstance(state, Over) else state.expires


def step(state: LinkState, event: LinkEvent, hello: Frames, config: ClientConfig, now: float) -> _Step:
    """The next state and what to do.

    Args:
        hello: The frames of our hello, sent once when the link opens.

    Raises:
        LocalProtocolError: The shell reported an event that this state cannot see.
    """
    match state:
        case Opening():
            return _opening(state, event, hello, config, now)
        case Greeting():
            return _greeting(state, event, config, now)
        case Ready() | Checking():
            return _ready(state, event, config, now)
        case Over():
            return state, ()
        case _:
            assert_never(state)


def _opening(state: Opening, event: LinkEvent, hello: Frames, config: ClientConfig, now: float) -> _Step:
    match event:
        case LinkOpened():
            greeting = Greeting(state.link, state.address, now, now + config.hello_timeout_s)
            return greeting, (Send(state.link, hello, HELLO_TAG),)
        case LinkClosed():
            return _broke(state, event)
        case LinkTick():
            if now < state.expires:
                return state, ()
            return _close(state, Fate.REFUSED, "the connection came to nothing and the transport did not say so")
        case CloseNow():
            return _close(state, Fate.CLOSED, event.detail, event.linger)
        case HelloReply() | TimeReply():
            # A peer may talk before it is asked, and the transport may read that before it reports the handshake.
            return state, ()
        case Unsent():
            raise LocalProtocolError(f"link {state.link} is not open yet, so nothing can have been sent on it")
        case _:
            assert_never(event)


def _greeting(state: Greeting, event: LinkEvent, config: ClientConfig, now: float) -> _Step:
    match event:
        case LinkOpened():
            raise LocalProtocolError(f"link {state.link} was opened twice")
        case LinkClosed():
            return _broke(state, event)
        case HelloReply():
            return _answered(state, event.body, config, now)
        case TimeReply():
            return state, ()
        case Unsent():
            return _close(state, Fate.LOST, "the socket did not take the hello")
        case LinkTick():
            if now < state.expires:
                return state, ()
            # Silence is no answer: the peer may be stalled, overloaded or no broker at all. It does not downgrade.
            return _close(state, Fate.SILENT, f"no answer to the hello within {now - state.t0:.2f} s")
        case CloseNow():
            return _close(state, Fate.CLOSED, event.detail, event.linger)
        case _:
            assert_never(event)


def _ready(state: Ready | Checking, event: LinkEvent, config: ClientConfig, now: float) -> _Step:
    match event:
        case LinkOpened():
            raise LocalProtocolError(f"link {state.link} was opened twice")
        case LinkClosed():
            return _broke(state, event)
        case CloseNow():
            return _close(state, Fate.CLOSED, event.detail, event.linger)
        case TimeReply():
            return _told_time(state, event.body, now)
        case LinkTick():
            return _time_passed(state, config, now)
        case HelloReply() | Unsent():
            # A second answer to the one hello changes nothing: the session's moments are fixed by the first.
            return state, ()
        case _:
            assert_never(event)


def _time_passed(state: Ready | Checking, config: ClientConfig, now: float) -> _Step:
    if isinstance(state, Checking):
        if now < state.expires:
            return state, ()
        # Silence about the time is no reason to give a link up: whoever still answers calls goes on as before.
        return Ready(state.link, state.address, state.time.in_vain(now), state.peer), ()
    every_s = config.transport.time_check_s
    if every_s is None or now < state.time.ask_at:
        return state, ()
    time, question = state.time.ask(now, every_s)
    send = Send(state.link, question, TIME_TAG)
    if time.waited or not time.old(now, every_s):
        return Ready(state.link, state.address, time, state.peer), (send,)
    return Checking(state.link, state.address, time, state.peer, now + config.hello_timeout_s), (send,)


def _told_time(state: Ready | Checking, body: Frames, now: float) -> _Step:
    if body[:1] == [NOT_FOUND] and state.time.asked_at is not None:
        return _close(state, Fate.LOST, "the broker has forgotten our hello, and so it drops our calls unread")
    time = state.time.answered(body, now)
    if time is state.time:
        return state, ()
    return Ready(state.link, state.address, time, state.peer), ()


def _answered(state: Greeting, body: Frames, config: ClientConfig, now: float) -> _Step:
    """8/MMI puts the code into the first body frame; only a plain 501 proves a peer without the extension."""
    code = body[0] if body else b""
    if code == NOT_IMPLEMENTED:
        return _close(state, Fate.FOREIGN, "answered the hello with 501")
    if code != FOUND:
        return _close(state, Fate.SILENT, f"answered the hello with {code[:16]!r}")
    try:
        peer = HelloAnswer.decode(body[1:])
    except RemoteProtocolError as error:
        return _close(state, Fate.SILENT, f"answered the hello with something else: {error}")
    if not (peer.version_min <= _VERSION <= peer.version_max and peer.features & FEATURE_CALLS):
        return _close(state, Fate.FOREIGN, f"speaks versions {peer.version_min} to {peer.version_max} of the extension")
    time = session.begin(state.t0, now, config.transport.time_check_s)
    return Ready(state.link, state.address, time, peer), ()


def _broke(state: Opening | Greeting | Ready | Checking, event: LinkClosed) -> _Step:
    return Over(state.link, state.address, _FATES[event.end], event.detail), ()


def _close(state: Opening | Greeting | Ready | Checking, fate: Fate, detail: str, linger: bool = False) -> _Step:
    return Over(state.link, state.address, fate, detail), (CloseLink(state.link, linger),)
