"""What the broker counts."""

from __future__ import annotations

import attrs

__all__ = ["BrokerCounters"]


@attrs.define
class BrokerCounters:
    """Plain integers that only grow."""

    requests: int = 0
    """Calls and plain requests taken in: queued or handed over. Repetitions and refusals are not among them."""
    dispatched: int = 0
    """Hand-overs to workers."""
    redelivered: int = 0
    """Hand-overs of a request that another worker had before."""
    replies: int = 0
    """Final replies sent to clients, handler errors included."""
    repeated_reports: int = 0
    """Final reports that workers of ours said again after a link broke, and that had arrived the first time."""
    partials: int = 0
    """Partial replies forwarded."""
    handler_errors: int = 0
    replayed: int = 0
    """Answers given again from the record of a finished call."""
    joined: int = 0
    """Repetitions of a call that was in flight."""
    attached: int = 0
    """Questions after a call that found its record."""
    fenced: int = 0
    """Promises that a call not seen will not run."""
    fence_hits: int = 0
    """First copies that came after such a promise and were refused."""
    stale_attempts: int = 0
    """Attempts overtaken by a later attempt of the same call."""
    unknown_calls: int = 0
    """Answers UNKNOWN_CALL."""
    wrong_life: int = 0
    id_conflicts: int = 0
    no_service: int = 0
    too_large: int = 0
    overloaded: int = 0
    """Requests refused by a limit; those of plain clients are dropped."""
    expired: int = 0
    cancelled: int = 0
    probes: int = 0
    """Rounds of heartbeats to all workers, since some connection ended and nobody said whose."""
    worker_lost: int = 0
    """Calls ended since their worker was."""
    quarantined: int = 0
    """Those among them that reached the delivery cap."""
    unanswered: int = 0
    """Requests of plain clients that ended without a reply, since MDP has no word for it."""
    one_way_ended: int = 0
    """One-way calls that ended after they were accepted, whichever way: their clients are told nothing more."""
    given_back: int = 0
    delivery_timeouts: int = 0
    late_replies: int = 0
    undeliverable_replies: int = 0
    """Messages to clients that could not be sent."""
    replies_evicted: int = 0
    calls_forgotten: int = 0
    """Finished calls and fences dropped before their time; each moves the horizon."""
    limbo_entered: int = 0
    limbo_recovered: int = 0
    never_arrived: int = 0
    """Hand-overs on a connection that broke, of which the worker's next READY proves that they did not reach it."""
    workers_registered: int = 0
    workers_gone: int = 0
    """Of those, how many are no longer; for any reason."""
    workers_expired: int = 0
    """Foreign workers gone by silence."""
    workers_stuck: int = 0
    """How often a worker was found stuck."""
    unreachable: int = 0
    """Sends that found the peer gone."""
    blocked: int = 0
    """Sends that found the peer's pipe full."""
    heartbeats_sent: int = 0
    disconnects_sent: int = 0
    dropped_invalid: int = 0
    """Messages that were malformed, or of a peer that may not send them."""
    dropped_told: int = 0
    """Messages of peers that had been sent DISCONNECT."""
    management: int = 0
    """8/MMI questions answered."""
    hellos: int = 0
    stalls: int = 0
