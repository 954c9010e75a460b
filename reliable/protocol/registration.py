"""A worker's conversation with one broker, from the first connection to the goodbye.

    Waiting ──time──▶ Opening ──open──▶ Asking ──200──▶ Registered
       ▲                 │                │  │               │
       │                 │                │ 501              │
       │                 │                ▼  ▼               │
       │                 │        Opening (plain) ──open──▶ Plain
       └── backoff ◀─────┴── refused, lost, silent, DISCONNECT ┘          Over: after ``Leave``, for good

* One link is one socket, one connection, one hello, one READY. Whatever ends it, the next try uses a fresh link, so
  that nothing that was meant for one broker process ever reaches the next one on the same address.
* The hello is asked first on each link (``reliable.wire.extension``). ``200`` registers with the extension, in MDP 0.2.
  Only a received ``501`` leads to plain 7/MDP, and on a fresh link, since a strict broker may by now take the old one
  for a client. It counts for that one link: the next break asks again, since a broker of ours may stand there by then.
  Silence means "not usable": close, back off, ask again.
* 7/MDP: a worker that received DISCONNECT sends nothing more, closes its socket and reconnects on a new one.
* The backoff starts anew only after a sign of life behind READY. A broker that answers hellos and refuses each READY is
  backed off from.
* A broker is lost after ``Heartbeat.timeout_s`` of silence. One that speaks plain MDP is not judged while a request of
  its is in our hands, because most of those say nothing then, and gets a fresh window after the reply.

What is left out: the deliveries themselves, and what READY says about them. The owner composes READY when told so by
``Greeted``, sends its reports itself and tells this machine by ``Said`` that it did.

Spec: 7/MDP and 18/MDP, MDP/Worker and Heartbeating.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

import attrs

from reliable.config import Heartbeat, WorkerConfig
from reliable.errors import RemoteProtocolError
from reliable.protocol import session
from reliable.protocol.events import CloseLink, LinkClosed, LinkOpened, OpenLink, Send
from reliable.protocol.liveness import Liveness
from reliable.protocol.session import SessionTime
from reliable.types import Frames, Jitter
from reliable.wire.extension import HELLO_SERVICE, NO_LIFE, HelloAnswer
from reliable.wire.mdp import (
    ClientReply,
    Version,
    WorkerCommand,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
)
from reliable.wire.mmi import FOUND, NOT_IMPLEMENTED, TIME_QUERY
from reliable.wire.values import value

__all__ = [
    "PLAIN_TIMEOUT_S_MIN",
    "Asking",
    "Delivered",
    "Dropped",
    "EndCause",
    "Ended",
    "Event",
    "Greeted",
    "Heard",
    "JoinedPlain",
    "Leave",
    "Opening",
    "Output",
    "Over",
    "Past",
    "Plain",
    "Registered",
    "Said",
    "Stalled",
    "State",
    "Step",
    "Tag",
    "Terms",
    "Ticked",
    "Undelivered",
    "Waiting",
    "current_link",
    "deadline",
    "first",
    "step",
]

PLAIN_TIMEOUT_S_MIN: Final = 7.5
"""Least silence after which a broker that is not ours is lost: the reference programs beat every 2.5 s, three times."""


class Tag(enum.Enum):
    """``Send.tag`` of what this machine, or its owner at its word, sends."""

    HELLO = "hello"
    READY = "ready"
    HEARTBEAT = "heartbeat"
    DISCONNECT = "disconnect"
    TIME = "session time"


@attrs.frozen(kw_only=True)
class Terms:
    """What stays the same over all conversations with one broker."""

    address: str
    service: bytes
    """The one service offered to a broker that is not ours."""
    hello: Frames
    """The hello request as it is sent."""
    config: WorkerConfig
    jitter: Jitter
    fresh_link: Callable[[], int]
    """Gives a link number that was never used."""


# --- states ---------------------------------------------------------------------------------------


@value
class Past:
    """What outlives a link."""

    failures: int = 0
    """Links in a row that ended before any sign of life behind READY."""
    life: bytes = NO_LIFE
    """The broker life that the worker was last registered with."""


@value
class Waiting:
    """No link; the next one is opened at ``until``."""

    past: Past
    until: float


@value
class Opening:
    """The shell connects. ``plain`` if this link follows a 501."""

    past: Past
    link: int
    until: float
    plain: bool


@value
class Asking:
    """The hello is sent; its answer is due before ``until``."""

    past: Past
    link: int
    until: float


@value
class Registered:
    """The hello was answered and READY is sent. ``time``: what deadlines of deliveries are read against."""

    past: Past
    link: int
    broker: HelloAnswer
    time: SessionTime
    liveness: Liveness


@value
class Plain:
    """Registered by plain 7/MDP. ``holding``: a request of this broker is in our hands."""

    past: Past
    link: int
    liveness: Liveness
    holding: bool


@value
class Over:
    """The goodbye is said. Nothing happens any more."""


State: TypeAlias = Waiting | Opening | Asking | Registered | Plain | Over


# --- events, beside LinkOpened and LinkClosed -----------------------------------------------------


@value
class Heard:
    """A message that could be read."""

    command: WorkerCommand | ClientReply


@value
class Said:
    """The owner sent a report on the current link."""


@value
class Undelivered:
    """The socket did not take the hello or READY: this link is of no use."""


@value
class Ticked:
    """Time has passed."""


@value
class Stalled:
    """This process did not run for that long."""

    gap_s: float


@value
class Leave:
    """Say goodbye; ``back`` to register again on a fresh link after a backoff, else for good."""

    back: bool = False


Event: TypeAlias = LinkOpened | LinkClosed | Heard | Said | Undelivered | Ticked | Stalled | Leave


# --- outputs, beside OpenLink, CloseLink and Send -------------------------------------------------


class EndCause(enum.Enum):
    """Why a link to a broker is over."""

    CLOSED = "the link broke or never came up"
    NEVER_OPENED = "nobody said whether the link came up"
    HELLO_SILENT = "the hello was not answered"
    SILENT = "the broker was silent for too long"
    DISCONNECTED = "the broker said DISCONNECT"
    UNDELIVERED = "the socket took neither hello nor READY"
    NOT_OURS = "the broker does not speak the extension"
    LEFT = "we said goodbye"


@value
class Greeted:
    """Send READY now, on this link and before anything else. Tokens of another life than ``broker.life`` are void."""

    link: int
    broker: HelloAnswer
    last_life: bytes


@value
class JoinedPlain:
    """A plain READY was sent on this link. Tokens of any life of this broker are void."""

    link: int


@value
class Delivered:
    """The broker hands over a request."""

    link: int
    request: WorkerRequest


@value
class Dropped:
    """A message was not acted on."""

    reason: str


@value
class Ended:
    """A link is over; ``detail`` is for people."""

    link: int
    cause: EndCause
    detail: str = ""


Output: TypeAlias = OpenLink | CloseLink | Send | Greeted | JoinedPlain | Delivered | Dropped | Ended
Step: TypeAlias = tuple[State, list[Output]]


# --- the machine ----------------------------------------------------------------------------------


def first(now: float) -> State:
    """The state to begin with: the first link is due at once."""
    return Waiting(Past(), now)


def deadline(state: State) -> float | None:
    """When ``Ticked`` is due."""
    match state:
        case Registered():
            return min(state.liveness.beat_at, state.liveness.lost_at, state.time.ask_at)
        case Waiting() | Opening() | Asking():
            return state.until
        case Plain():
            return state.liveness.beat_at if state.holding else min(state.liveness.beat_at, state.liveness.lost_at)
        case Over():
            return None


def current_link(state: State) -> int | None:
    """The link that the state lives on, if there is one."""
    match state:
        case Registered() | Plain() | Opening() | Asking():
            return state.link
        case Waiting() | Over():
            return None


def step(state: State, event: Event, now: float, terms: Terms) -> Step:
    """Take in one event. Events about links must be about ``current_link(state)``; the owner sees to that."""
    match state:
        case Registered():
            return _registered(state, event, now, terms)
        case Plain():
            return _plain(state, event, now, terms)
        case Waiting():
            return _waiting(state, event, now, terms)
        case Opening():
            return _opening(state, event, now, terms)
        case Asking():
            return _asking(state, event, now, terms)
        case Over():
            return state, []


def _waiting(state: Waiting, event: Event, now: float, terms: Terms) -> Step:
    match event:
        case Ticked():
            return _open(state.past, now, terms, plain=False) if state.until <= now else (state, [])
        case Leave():
            return (state, []) if event.back else (Over(), [])
        case LinkOpened() | LinkClosed() | Heard() | Said() | Undelivered() | Stalled():
            return state, []
        case _:
            assert_never(event)


def _opening(state: Opening, event: Event, now: float, terms: Terms) -> Step:
    match event:
        case LinkOpened():
            return _join_plain(state, now, terms) if state.plain else _ask(state, now, terms)
        case LinkClosed():
            return _broken(state, event, now, terms)
        case Heard():
            return state, [Dropped("a message before the link was open")]
        case Ticked():
            return _close(state, EndCause.NEVER_OPENED, now, terms) if state.until <= now else (state, [])
        case Stalled():
            return Opening(state.past, state.link, state.until + event.gap_s, state.plain), []
        case Leave():
            return (state, []) if event.back else (Over(), _closing(state.link, EndCause.LEFT))
        case Said() | Undelivered():
            return state, []
        case _:
            assert_never(event)


def _asking(state: Asking, event: Event, now: float, terms: Terms) -> Step:
    match event:
        case Heard():
            return _answered(state, event.command, now, terms)
        case LinkClosed():
            return _broken(state, event, now, terms)
        case Undelivered():
            return _close(state, EndCause.UNDELIVERED, now, terms)
        case Ticked():
            return _close(state, EndCause.HELLO_SILENT, now, terms) if state.until <= now else (state, [])
        case Stalled():
            return Asking(state.past, state.link, state.until + event.gap_s), []
        case Leave():
            return (state, []) if event.back else (Over(), _closing(state.link, EndCause.LEFT))
        case LinkOpened() | Said():
            return state, []
        case _:
            assert_never(event)


def _registered(state: Registered, event: Event, now: float, terms: Terms) -> Step:
    match event:
        case Heard():
            return _told(state, event.command, now, terms)
        case Said():
            return _lived(state, state.liveness.after_saying(now)), []
        case Ticked():
            if state.liveness.lost(now):
                return _close(state, EndCause.SILENT, now, terms)
            if state.time.ask_at <= now:
                return _ask_time(state, now, terms)
            if not state.liveness.beat_due(now):
                return state, []
            beat = Send(state.link, WorkerHeartbeat(Version.MDP02).encode(), Tag.HEARTBEAT)
            return _lived(state, state.liveness.after_saying(now)), [beat]
        case LinkClosed():
            return _broken(state, event, now, terms)
        case Undelivered():
            return _close(state, EndCause.UNDELIVERED, now, terms)
        case Stalled():
            return _lived(state, state.liveness.excused(event.gap_s, now)), []
        case Leave():
            return _goodbye(state, Version.MDP02, event, now, terms)
        case LinkOpened():
            return state, []
        case _:
            assert_never(event)


def _plain(state: Plain, event: Event, now: float, terms: Terms) -> Step:
    match event:
        case Heard():
            return _told_plain(state, event.command, now, terms)
        case Said():
            # The only thing a plain worker reports is the reply: its hands are free, and the window starts afresh.
            return Plain(state.past, state.link, Liveness.begin(_plain_heartbeat(terms), now), False), []
        case Ticked():
            if not state.holding and state.liveness.lost(now):
                return _close(state, EndCause.SILENT, now, terms)
            if not state.liveness.beat_due(now):
                return state, []
            beat = Send(state.link, WorkerHeartbeat(Version.MDP01).encode(), Tag.HEARTBEAT)
            return Plain(state.past, state.link, state.liveness.after_saying(now), state.holding), [beat]
        case LinkClosed():
            return _broken(state, event, now, terms)
        case Undelivered():
            return _close(state, EndCause.UNDELIVERED, now, terms)
        case Stalled():
            return Plain(state.past, state.link, state.liveness.excused(event.gap_s, now), state.holding), []
        case Leave():
            return _goodbye(state, Version.MDP01, event, now, terms)
        case LinkOpened():
            return state, []
        case _:
            assert_never(event)


# --- what the broker said -------------------------------------------------------------------------


def _answered(state: Asking, command: WorkerCommand | ClientReply, now: float, terms: Terms) -> Step:
    if isinstance(command, WorkerDisconnect):
        return _close(state, EndCause.DISCONNECTED, now, terms)
    if not isinstance(command, ClientReply) or command.service != HELLO_SERVICE or command.stack:
        return state, [Dropped("not the answer to the hello")]
    if command.body[0] == NOT_IMPLEMENTED:
        after, outputs = _open(Past(state.past.failures), now, terms, plain=True)
        return after, [*_closing(state.link, EndCause.NOT_OURS), *outputs]
    if command.body[0] != FOUND:
        return state, [Dropped("the hello was answered with neither 200 nor 501")]
    try:
        answer = HelloAnswer.decode(command.body[1:])
    except RemoteProtocolError as error:
        return state, [Dropped(str(error))]
    if not answer.version_min <= 1 <= answer.version_max:
        return state, [Dropped("the broker speaks no version of the extension that we do")]
    past = Past(state.past.failures, answer.life)
    liveness = Liveness.begin(terms.config.heartbeat, now)
    greeted = Greeted(state.link, answer, state.past.life)
    config = terms.config
    # When the hello was sent, or rather later, if we stood still since.
    time = session.begin(min(state.until - config.hello_timeout_s, now), now, config.transport.time_check_s)
    return Registered(past, state.link, answer, time, liveness), [greeted]


def _told(state: Registered, command: WorkerCommand | ClientReply, now: float, terms: Terms) -> Step:
    if isinstance(command, ClientReply):
        return _told_time(state, command, now)
    if command.version is not Version.MDP02:
        return state, [Dropped("not a worker command of MDP 0.2")]
    match command:
        case WorkerRequest():
            return _heard(state, now), [Delivered(state.link, command)]
        case WorkerHeartbeat():
            return _heard(state, now), []
        case WorkerDisconnect():
            return _close(state, EndCause.DISCONNECTED, now, terms)
        case WorkerReady() | WorkerReply():
            return state, [Dropped("a command that only workers send")]
        case _:
            assert_never(command)


def _told_time(state: Registered, reply: ClientReply, now: float) -> Step:
    if reply.service != TIME_QUERY or reply.stack:
        return state, [Dropped("not a worker command of MDP 0.2")]
    heard = _heard(state, now)
    return Registered(heard.past, heard.link, heard.broker, state.time.answered(reply.body, now), heard.liveness), []


def _ask_time(state: Registered, now: float, terms: Terms) -> Step:
    time, question = state.time.ask(now, terms.config.transport.time_check_s or math.inf)
    asked = Registered(state.past, state.link, state.broker, time, state.liveness)
    return asked, [Send(state.link, question, Tag.TIME)]


def _told_plain(state: Plain, command: WorkerCommand | ClientReply, now: float, terms: Terms) -> Step:
    if isinstance(command, ClientReply) or command.version is not Version.MDP01:
        return state, [Dropped("not a worker command of MDP 0.1")]
    heard = Plain(_proven(state.past), state.link, state.liveness.after_hearing(now), state.holding)
    match command:
        case WorkerRequest():
            if state.holding:
                return heard, [Dropped("a second request while the first is in hand")]
            held = Plain(heard.past, heard.link, heard.liveness, True)
            return held, [Delivered(state.link, command)]
        case WorkerHeartbeat():
            return heard, []
        case WorkerDisconnect():
            return _close(state, EndCause.DISCONNECTED, now, terms)
        case WorkerReady() | WorkerReply():
            return state, [Dropped("a command that only workers send")]
        case _:
            assert_never(command)


# --- steps that several states share --------------------------------------------------------------


def _open(past: Past, now: float, terms: Terms, *, plain: bool) -> Step:
    link = terms.fresh_link()
    transport = terms.config.transport
    # The shell says how each link went. Should it ever not, this bound ends the wait all the same.
    bound_s = transport.resolve_timeout_s + transport.connect_timeout_s + transport.handshake_timeout_s
    until = now + bound_s + terms.config.hello_timeout_s
    return Opening(past, link, until, plain), [OpenLink(link, terms.address)]


def _ask(state: Opening, now: float, terms: Terms) -> Step:
    hello = Send(state.link, terms.hello, Tag.HELLO)
    return Asking(state.past, state.link, now + terms.config.hello_timeout_s), [hello]


def _join_plain(state: Opening, now: float, terms: Terms) -> Step:
    ready = Send(state.link, WorkerReady(Version.MDP01, terms.service).encode(), Tag.READY)
    liveness = Liveness.begin(_plain_heartbeat(terms), now)
    return Plain(state.past, state.link, liveness, False), [ready, JoinedPlain(state.link)]


def _plain_heartbeat(terms: Terms) -> Heartbeat:
    own = terms.config.heartbeat
    return Heartbeat(interval_s=own.interval_s, timeout_s=max(own.timeout_s, PLAIN_TIMEOUT_S_MIN))


def _lived(state: Registered, liveness: Liveness) -> Registered:
    return Registered(state.past, state.link, state.broker, state.time, liveness)


def _heard(state: Registered, now: float) -> Registered:
    liveness = state.liveness.after_hearing(now)
    return Registered(_proven(state.past), state.link, state.broker, state.time, liveness)


def _proven(past: Past) -> Past:
    return Past(0, past.life) if past.failures else past


def _broken(state: Opening | Asking | Registered | Plain, event: LinkClosed, now: float, terms: Terms) -> Step:
    text = f"{event.end.value}: {event.detail}" if event.detail else event.end.value
    return _back_off(state.past, now, terms), [Ended(state.link, EndCause.CLOSED, text)]


def _close(state: Opening | Asking | Registered | Plain, cause: EndCause, now: float, terms: Terms) -> Step:
    return _back_off(state.past, now, terms), _closing(state.link, cause)


def _closing(link: int, cause: EndCause) -> list[Output]:
    return [CloseLink(link), Ended(link, cause)]


def _goodbye(state: Registered | Plain, version: Version, event: Leave, now: float, terms: Terms) -> Step:
    outputs: list[Output] = [
        Send(state.link, WorkerDisconnect(version).encode(), Tag.DISCONNECT),
        CloseLink(state.link, linger=True),
        Ended(state.link, EndCause.LEFT),
    ]
    return _back_off(state.past, now, terms) if event.back else Over(), outputs


def _back_off(past: Past, now: float, terms: Terms) -> Waiting:
    failures = past.failures + 1
    delay_s = terms.config.reconnect.delay_s(failures, terms.jitter())
    return Waiting(Past(failures, past.life), now + delay_s)
