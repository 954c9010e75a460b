"""Frozen observations: what engines tell hooks and logs about their own decisions."""

from __future__ import annotations

import attrs

from reliable.errors import Outcome
from reliable.status import Status

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BreakerChanged",
    "BrokerFound",
    "CallEnded",
    "CallStarted",
    "FailedOver",
    "HedgeStarted",
    "LinkLost",
    "MessageDropped",
    "RetryRefused",
    "RetryScheduled",
]


@attrs.frozen
class CallStarted:
    """The user made a call."""

    call_id: bytes
    service: bytes


@attrs.frozen
class AttemptStarted:
    """A call was sent; ``attach`` if only to ask for what became of it."""

    call_id: bytes
    attempt: int
    broker: str
    attach: bool


@attrs.frozen
class AttemptEnded:
    """An attempt ended without ending its call; ``status`` is None if nothing was heard."""

    call_id: bytes
    attempt: int
    broker: str
    status: Status | None
    outcome: Outcome
    reason: str


@attrs.frozen
class RetryScheduled:
    """The call will be sent again after ``delay_s``."""

    call_id: bytes
    attempt: int
    delay_s: float


@attrs.frozen
class RetryRefused:
    """The call could have been sent again, but the policy or the budget does not allow it."""

    call_id: bytes
    reason: str


@attrs.frozen
class HedgeStarted:
    """A second attempt was sent beside the first after ``delay_s``; to the broker it is a call of its own."""

    call_id: bytes
    hedge_id: bytes
    delay_s: float


@attrs.frozen
class BreakerChanged:
    """The breaker of a broker is now ``closed``, ``open`` or ``half-open``."""

    broker: str
    old: str
    new: str


@attrs.frozen
class FailedOver:
    """An attempt went to another broker than the one before it."""

    call_id: bytes
    old: str
    new: str


@attrs.frozen
class BrokerFound:
    """A broker answered the hello. ``restarted`` if it had another life when last seen."""

    broker: str
    life: bytes
    restarted: bool


@attrs.frozen
class LinkLost:
    """A link to a broker ended or never came up."""

    broker: str
    reason: str


@attrs.frozen
class MessageDropped:
    """A message from a peer was not acted on."""

    peer: str
    reason: str


@attrs.frozen
class CallEnded:
    """A call is over; ``error`` names the class of the error, or is empty."""

    call_id: bytes
    service: bytes
    outcome: Outcome
    error: str
    attempts: int
    elapsed_s: float
