"""The words of the call machine (``reliable.protocol.call``): its states, what happens to it, and what it orders."""

from __future__ import annotations

import math
from typing import TypeAlias

from reliable.config import RetryCause
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_facts import Past
from reliable.types import Frames
from reliable.wire.extension import AnswerFrame, CallKind
from reliable.wire.values import value

__all__ = [
    "Answered",
    "Asked",
    "CallEvent",
    "CallState",
    "Deliver",
    "Denied",
    "GiveUp",
    "Grant",
    "Lost",
    "Missed",
    "NoBroker",
    "NotSent",
    "Only",
    "Order",
    "Suspect",
    "Tick",
    "Transmit",
    "Waiting",
]

# --- states ---------------------------------------------------------------------------------------


@value
class Only:
    """The one life that may be asked, and where it was last seen."""

    address: str
    life: bytes


@value
class Waiting:
    """Nothing that was sent can be waited for; it is sent when a link is there, not before ``not_before``.

    Attributes:
        only: Set if a copy may have run and the call is not safe: it is attached there or nowhere.
        avoid: Addresses that refused it in this round, while others have not been asked.
        extra: The next copy follows a failure, so that the retry budget pays for it.
    """

    past: Past
    not_before: float
    only: Only | None = None
    avoid: frozenset[str] = frozenset()
    extra: bool = False


@value
class Asked:
    """The newest attempt is out on ``link``.

    Attributes:
        asked_at: When it was sent.
        silent_at: When it counts as silent; each answer about the call moves it.
        heard: The broker has answered it, if only with "still queued" or "still running".
        probe: It is the question after a silence.
    """

    past: Past
    link: int
    address: str
    life: bytes
    kind: CallKind
    asked_at: float
    silent_at: float
    heard: bool = False
    probe: bool = False
    avoid: frozenset[str] = frozenset()


CallState: TypeAlias = Waiting | Asked | Ended

# --- events ---------------------------------------------------------------------------------------


@value
class Grant:
    """It may be sent on this link now. ``bytes_max`` is the largest message the broker takes, 0 for any."""

    link: int
    address: str
    life: bytes
    bytes_max: int = 0


@value
class Answered:
    """The broker said something about it.

    Attributes:
        life: The life that the link was opened to.
        elsewhere: Whether another broker that has not refused this call could be asked.
    """

    life: bytes
    answer: AnswerFrame
    body: Frames
    elsewhere: bool = False


@value
class NotSent:
    """The socket did not take this attempt."""

    attempt: int


@value
class Lost:
    """A link is over; what was outstanding on it may have run."""

    link: int
    why: str
    cause: RetryCause = RetryCause.LOST


@value
class Missed:
    """A try to reach ``address`` failed. ``foreign``: something answers there, but it is no broker of ours."""

    address: str
    why: str
    foreign: bool = False
    elsewhere: bool = False


@value
class NoBroker:
    """There is no broker in the list that could take any call."""

    reach: str


@value
class Denied:
    """The retry budget is spent."""

    why: str


@value
class Tick:
    """Time went on. ``link_heard`` is when the link that it is on last carried an answer about any call."""

    link_heard: float = -math.inf
    reach: str = ""


@value
class GiveUp:
    """The caller cancels it."""

    why: str


CallEvent: TypeAlias = Grant | Answered | NotSent | Lost | Missed | NoBroker | Denied | Tick | GiveUp

# --- orders ---------------------------------------------------------------------------------------


@value
class Transmit:
    """Send this about the call. ``repeat`` sets the flag of that name."""

    link: int
    kind: CallKind
    attempt: int
    repeat: bool = False


@value
class Suspect:
    """Nothing can be expected of this link any more: close it and report it as lost to every call on it."""

    link: int
    why: str


@value
class Deliver:
    """Give this to the caller although the call goes on."""

    body: Frames
    partial: bool


Order: TypeAlias = Transmit | Suspect | Deliver
