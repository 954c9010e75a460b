"""Settings of the Majordomo broker: one frozen value, checked when it is built.

Conventions as in ``reliable.config``: durations are float seconds and end in ``_s``, sizes end in ``_bytes`` before a
``_max``, and ``None`` means no limit. Every table of the broker has a bound here.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import validators

from reliable.config import Heartbeat

__all__ = ["BrokerConfig"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


def _positive_or_none(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _positive(_, attribute, value)


def _not_negative_seconds(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be finite and not negative, not {value!r}")


_at_least_one = validators.and_(validators.instance_of(int), validators.ge(1))
_not_negative = validators.and_(validators.instance_of(int), validators.ge(0))


@attrs.frozen(kw_only=True)
class BrokerConfig:
    """All settings of a Majordomo broker."""

    heartbeat: Heartbeat = attrs.field(factory=Heartbeat)
    """How often a silent worker hears from us, and after which silence it is no longer taken for live. A worker of ours
    is called stuck two intervals later than that; see ``brokers.majordomo``."""

    # --- how long requests live ---
    plain_request_expiry_s: float = attrs.field(default=60.0, validator=_positive)
    """Deadline of a request whose client cannot name one (plain MDP), counted from its receipt; queueing and the run
    both fall under it."""
    delivery_timeout_s: float = attrs.field(default=5.0, validator=_positive)
    """One of our workers that heartbeats, but has neither started nor answered a request after this long, does not
    have it: the request goes elsewhere or ends. Foreign workers cannot say that they started, so it is not theirs."""
    delivery_cap: int = attrs.field(default=3, validator=_at_least_one)
    """How many workers may be lost while they hold the same request; then it is given to nobody any more."""
    hand_overs_max: int = attrs.field(default=20, validator=_at_least_one)
    """How often one request is handed to workers at all, counting those that gave it back unstarted."""
    limbo_s: float = attrs.field(default=0.5, validator=_positive)
    """How long a request that must not be repeated waits for its vanished worker to come back on a new connection."""
    grace_s: float = attrs.field(default=5.0, validator=_positive)
    """How long after its deadline a call is remembered, and a foreign worker may still hold its request before it gets
    DISCONNECT. Must be longer than a hello may take, since clients reckon deadlines from theirs."""
    overdue_slot_s: float | None = attrs.field(default=60.0, validator=_positive_or_none)
    """One of our workers that goes on with a request after its deadline or cancellation gets its slot back when it
    reports, or after this long. None: only when it reports."""

    drain_s: float = attrs.field(default=10.0, validator=_not_negative_seconds)
    """How long a broker that is told to stop waits for what is in workers' hands; 0: not at all."""

    # --- queues: what does not fit is refused, never silently kept ---
    queued_per_client_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Queued requests of one client, over all services."""
    queued_per_service_max: int = attrs.field(default=50_000, validator=_at_least_one)
    """Queued requests of one service that has, or had, a worker."""
    queued_per_unknown_service_max: int = attrs.field(default=1_000, validator=_at_least_one)
    """Queued requests of one service that no worker has offered yet."""
    unknown_services_max: int = attrs.field(default=1_000, validator=_at_least_one)
    """Names with queued requests that no worker has offered yet."""
    queued_max: int = attrs.field(default=100_000, validator=_at_least_one)
    """Queued requests of all services together."""
    held_bytes_max: int = attrs.field(default=512 * 1024 * 1024, validator=_at_least_one)
    """Bodies of all requests that are queued or in workers' hands."""
    retry_after_s: float = attrs.field(default=0.25, validator=validators.and_(_positive, validators.le(86_400.0)))
    """What a refused client of ours is told to wait; at most a day."""

    # --- what is remembered of finished calls of our clients ---
    finished_calls_max: int = attrs.field(default=200_000, validator=_at_least_one)
    """Beyond it the oldest are forgotten, and a repeated call that was first sent before them is not run again unless
    it is idempotent."""
    reply_cache_bytes_max: int = attrs.field(default=64 * 1024 * 1024, validator=_not_negative)
    """Bodies of replies kept for clients that ask again; beyond it the oldest bodies go, the ids stay."""
    fences_max: int = attrs.field(default=100_000, validator=_at_least_one)
    """Remembered promises that a call the broker has not seen will not be run."""
    late_tokens_max: int = attrs.field(default=20_000, validator=_at_least_one)
    """Deliveries that are taken from a worker and whose late reply is still understood."""

    # --- peers ---
    sessions_max: int = attrs.field(
        default=100_000, validator=validators.and_(validators.instance_of(int), validators.ge(2))
    )
    """Clients and greeted workers that are remembered; those silent for longest are forgotten first."""
    workers_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Registered workers; one more gets DISCONNECT."""
    services_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Services that have, or had, a worker; a READY that would add one more gets DISCONNECT."""
    credit_max: int = attrs.field(default=1_000, validator=_at_least_one)
    """How many requests one worker may hold at once, whatever it asks for."""
    tombstones_max: int = attrs.field(default=10_000, validator=_at_least_one)
    """Peers that were sent DISCONNECT and are ignored for one heartbeat timeout, so that none is told twice."""

    # --- sizes ---
    message_bytes_max: int = attrs.field(
        default=64 * 1024 * 1024, validator=validators.and_(validators.instance_of(int), validators.ge(1024))
    )
    """Body of one request, all frames together."""
    collected_bytes_max: int = attrs.field(default=16 * 1024 * 1024, validator=_at_least_one)
    """Partial replies gathered for a client of MDP 0.1, which has no partial replies."""
