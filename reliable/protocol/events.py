"""The vocabulary between shells and engines: what happened (events) and what to do (effects).

A shell feeds events into ``engine.handle(event, now)`` and carries out what ``engine.effects()`` gives it, in order.
A *link* is one socket with one connection; its number is given out by the engine and never used twice. A link that was
closed, by either side, is over: no event about it is delivered any more, and the engine opens another one.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from reliable.config import HedgePolicy
from reliable.errors import Outcome, RequestError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag
from reliable.wire.values import value

__all__ = [
    "AbandonAll",
    "CallFinished",
    "CallProgress",
    "CancelCall",
    "CancelJob",
    "ClientEffect",
    "ClientEvent",
    "CloseLink",
    "Drain",
    "JobError",
    "JobFinished",
    "JobPartial",
    "JobProgress",
    "LinkClosed",
    "LinkEnd",
    "LinkOpened",
    "OpenLink",
    "Received",
    "Send",
    "StartJob",
    "Submit",
    "Unsent",
    "WorkerEffect",
    "WorkerEvent",
    "WorkerStopped",
]


class LinkEnd(enum.Enum):
    """Why a link is over."""

    REFUSED = "refused"
    """Nothing was ever connected: refused, timed out, or no such address."""
    UNRESOLVED = "unresolved"
    """The host name could not be turned into an address."""
    HANDSHAKE = "handshake failed"
    """Connected, but the other side does not speak ZMTP, or not with our keys."""
    LOST = "lost"
    """It was open and broke. Everything that had arrived was delivered as ``Received`` before this."""


# --- events about links, for clients and workers --------------------------------------------------


@value
class LinkOpened:
    """The ZMTP handshake of this link succeeded; from here on it can be sent to."""

    link: int


@value
class LinkClosed:
    """The link broke or never came up. Not raised for a link that the engine closed."""

    link: int
    end: LinkEnd
    detail: str = ""


@value
class Received:
    """One message."""

    link: int
    frames: Frames


@value
class Unsent:
    """The socket did not take this message (its pipe is full, or the link is gone): it never left this process."""

    link: int
    tag: object
    """``Send.tag`` of the message."""


# --- events of a client ---------------------------------------------------------------------------


@value(kw_only=True)
class Submit:
    """The user makes a call. The engine ends it with exactly one ``CallFinished``."""

    call_id: bytes
    """16 bytes, fresh from the shell's id source."""
    service: bytes
    body: Frames
    deadline: float | None
    """Absolute; None only if the user wrote it."""
    idempotent: bool | None = None
    """None: the caller did not say; the service's declaration decides."""
    fail_fast: bool = False
    """End with ``ServiceNotFound`` at once if no broker knows a worker, instead of waiting for one."""
    wants_progress: bool = False
    trace: bytes = b""
    one_way: bool = False
    """End well as soon as a broker has it, and have no reply sent."""
    hedge: HedgePolicy | None = None
    """Only for a call that is declared idempotent."""
    hedge_id: bytes = b""
    """A second fresh id; needed if ``hedge`` is set."""


@value
class CancelCall:
    """The user gives up on a call; it ends with ``RequestAbandoned`` in this same step."""

    call_id: bytes


@value
class AbandonAll:
    """The client is being closed: every open call ends with ``RequestAbandoned``, every link is closed."""


# --- events of a worker ---------------------------------------------------------------------------


@value
class JobError:
    """How a handler failed."""

    type_name: str
    message: str
    executed: bool = True
    """False if the handler was never entered."""
    status: Status = Status.HANDLER_ERROR
    """``TOO_LARGE`` or ``REPLY_EVICTED`` if it ran well and only its reply cannot be had; ``WORKER_LOST`` if it did not
    come to an end of its own: its process died or was killed, or it goes on although it was answered for."""


@value
class JobFinished:
    """The handler of a job returned frames or failed. Exactly one per ``StartJob``."""

    job: int
    result: Frames | JobError


@value
class JobPartial:
    """The handler of a job gave one part of a streamed reply."""

    job: int
    body: Frames


@value
class JobProgress:
    """The handler of a job says how far it is."""

    job: int
    body: Frames


@value
class Drain:
    """Stop taking requests, finish what runs until ``deadline``, say goodbye; ends with ``WorkerStopped``."""

    deadline: float


# --- effects --------------------------------------------------------------------------------------


@value
class OpenLink:
    """Open a socket, resolve and connect to ``address``; report ``LinkOpened`` or ``LinkClosed``."""

    link: int
    address: str


@value
class CloseLink:
    """Close the socket. With ``linger`` it may take ``TransportConfig.linger_s`` to send what it holds, else 0."""

    link: int
    linger: bool = False


@value
class Send:
    """Send without blocking; if the socket does not take it, report ``Unsent`` with the same tag."""

    link: int
    frames: Frames
    tag: object = None


@value
class CallFinished:
    """The call is over. ``result`` is the reply's body or the error to raise."""

    call_id: bytes
    result: Frames | RequestError
    outcome: Outcome = Outcome.EXECUTED


@value
class CallProgress:
    """A part of a streamed reply (``partial``), or the handler's own news."""

    call_id: bytes
    body: Frames
    partial: bool


@value(kw_only=True)
class StartJob:
    """Run the handler of ``service`` on ``body``, outside the loop that pumps the engine."""

    job: int
    service: bytes
    body: Frames
    deadline: float | None
    """Absolute, on the worker's clock."""
    flags: CallFlag = CallFlag.NONE
    call_id: bytes = b""
    """Empty for a request of a peer that is not ours."""
    attempt: int = 1
    delivery: int = 1
    trace: bytes = b""


@value
class CancelJob:
    """Nobody waits for this job any more: tell its handler. It still ends with ``JobFinished``."""

    job: int


@value
class WorkerStopped:
    """The drain is over and every link is closed.

    Attributes:
        unfinished: Handlers that were still running at the deadline.
    """

    unfinished: int = 0


ClientEvent: TypeAlias = LinkOpened | LinkClosed | Received | Unsent | Submit | CancelCall | AbandonAll
WorkerEvent: TypeAlias = LinkOpened | LinkClosed | Received | Unsent | JobFinished | JobPartial | JobProgress | Drain
ClientEffect: TypeAlias = OpenLink | CloseLink | Send | CallFinished | CallProgress
WorkerEffect: TypeAlias = OpenLink | CloseLink | Send | StartJob | CancelJob | WorkerStopped
