"""What the pirate queues have in common: settings, counters, what the shell needs of an engine, what is shown of it."""

from __future__ import annotations

import enum
from typing import Any, Final, Protocol, TypeAlias

import attrs
from attrs import validators

from reliable.config import Heartbeat
from reliable.types import Frames

__all__ = [
    "Outgoing",
    "QueueConfig",
    "QueueCounters",
    "QueueEngine",
    "QueueSnapshot",
    "QueueWorkerView",
    "Side",
    "message_size",
]

_FRAME_BYTES: Final = 64
"""What a frame costs beside its bytes: a message of a million empty frames is not small."""


class Side(enum.Enum):
    """Which of the two ROUTERs."""

    FRONTEND = "frontend"
    """Where the clients are."""
    BACKEND = "backend"
    """Where the workers are."""


Outgoing: TypeAlias = tuple[Side, Frames]
"""A full ROUTER message, routing id first, and where to send it."""


def message_size(frames: Frames) -> int:
    """Bytes that a message is counted with."""
    return sum(map(len, frames)) + _FRAME_BYTES * len(frames)


def _positive(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


_at_least_one = validators.and_(validators.instance_of(int), validators.ge(1))


@attrs.frozen(kw_only=True)
class QueueConfig:
    """All settings of a pirate queue. The simple one has no heartbeats, no deadlines and no redelivery."""

    heartbeat: Heartbeat = attrs.field(factory=Heartbeat)
    """How often every worker hears from us, and after which silence it is gone; RFC 6 suggests 3 to 5 intervals."""
    expiry_s: float = attrs.field(default=60.0, validator=_positive)
    """How long after its receipt a request may still be answered; queueing and the run both fall under it. A worker
    that holds a request for longer is forgotten, and has to say READY again."""
    queue_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Requests that wait for a worker; one more is dropped, as REQ clients can be told nothing."""
    queue_bytes_max: int = attrs.field(default=256 * 1024 * 1024, validator=_at_least_one)
    """Bytes of all requests that wait or are held, with 64 for each frame."""
    redeliveries_max: int = attrs.field(
        default=3, validator=validators.and_(validators.instance_of(int), validators.ge(0))
    )
    """How often a request whose worker was lost is handed to another one; 0: never."""
    workers_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Registered workers."""
    message_bytes_max: int = attrs.field(
        default=64 * 1024 * 1024, validator=validators.and_(validators.instance_of(int), validators.ge(1024))
    )
    """Of one request or reply, all frames together."""


@attrs.define
class QueueCounters:
    """Plain integers that only grow. What ends without a reply ends in silence: neither protocol has a word for it."""

    requests: int = 0
    """Taken in."""
    replied: int = 0
    """Replies handed to the front socket."""
    dropped_full: int = 0
    """Requests refused for the count or the bytes of the queue."""
    dropped_too_large: int = 0
    """Requests and replies beyond ``message_bytes_max``."""
    expired: int = 0
    """Requests that waited too long."""
    overdue: int = 0
    """Requests that a worker held too long."""
    abandoned: int = 0
    """Requests whose workers were lost once too often."""
    unanswered: int = 0
    """Requests that were open when the queue stopped."""
    dispatched: int = 0
    """Hand-overs to workers, undone ones not counted."""
    redelivered: int = 0
    """Those among them of a request that another worker held before."""
    late_replies: int = 0
    """Replies of a worker that does not hold the request."""
    undeliverable: int = 0
    """Replies whose client was gone, or does not read."""
    dropped_invalid: int = 0
    """Malformed messages, from either side."""
    dropped_unknown: int = 0
    """Heartbeats of workers that are not registered."""
    workers_registered: int = 0
    workers_refused: int = 0
    """READYs beyond the limit; in the simple queue, workers given up to make room."""
    workers_gone: int = 0
    """No longer registered, for any reason."""
    workers_expired: int = 0
    """Of those, by silence."""
    workers_unreachable: int = 0
    """Of those, by a send that found them gone, or their pipe full."""
    workers_restarted: int = 0
    """READYs of a worker that held a request."""
    heartbeats_sent: int = 0
    stalls: int = 0
    """How often the queue itself stood still."""


@attrs.frozen(kw_only=True)
class QueueWorkerView:
    """One registered worker."""

    peer: str
    """Routing id in hex."""
    busy: bool
    silent_s: float
    """Seconds since it was last heard; 0 in the simple queue, which does not look."""


@attrs.frozen(kw_only=True)
class QueueSnapshot:
    """A frozen view at one moment."""

    queued: int
    held: int
    """Requests in workers' hands."""
    bytes: int
    """Of all of these."""
    workers: tuple[QueueWorkerView, ...]
    """Idle ones in the order in which they are used next, then busy ones."""
    counters: QueueCounters


class QueueEngine(Protocol):
    """What the shell needs to know of a queue."""

    @property
    def counters(self) -> QueueCounters:
        """What happened so far."""

    @property
    def wants_requests(self) -> bool:
        """Whether the front socket is to be read."""

    def receive_frontend(self, frames: Frames, now: float) -> None:
        """Take in one message of a client, routing id first. Never raises for what a peer sent."""

    def receive_backend(self, frames: Frames, now: float) -> None:
        """Take in one message of a worker, routing id first. Never raises for what a peer sent."""

    def take(self) -> Outgoing | None:
        """The next message to send, or None."""

    def unsent(self, side: Side, message: Frames, unreachable: bool, now: float) -> None:
        """A message was not sent; call it before the next one is taken."""

    def connection_ended(self, now: float) -> None:
        """Some worker's connection ended; ZeroMQ does not say whose."""

    def timers(self, now: float) -> None:
        """Carry out what is due."""

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest."""

    def stalled(self, gap_s: float, now: float) -> None:
        """This process stood still: nobody's silence meanwhile counts. Call after reading everything."""

    def stop(self, now: float) -> None:
        """Take nothing any more."""

    def snapshot(self, now: float) -> QueueSnapshot:
        """A frozen view."""
