"""What a worker shows of itself: counters and a frozen view."""

from __future__ import annotations

import attrs

__all__ = ["BrokerLinkSnapshot", "WorkerCounters", "WorkerSnapshot"]


@attrs.define(kw_only=True)
class WorkerCounters:
    """What a worker did since it was made; plain integers that only grow."""

    deliveries: int = 0
    """Requests that brokers handed over."""
    jobs_started: int = 0
    jobs_ok: int = 0
    jobs_failed: int = 0
    handler_timeouts: int = 0
    """Runs that took longer than their service allows."""
    processes_started: int = 0
    """Child processes for handlers."""
    processes_crashed: int = 0
    """Of those: ended by themselves, or by a signal that was not ours."""
    processes_killed: int = 0
    """Of those: killed here, since a handler was overdue or did not heed its cancellation."""
    joined: int = 0
    """Deliveries of a call that was queued or running here already."""
    replayed: int = 0
    """Deliveries that were answered from a kept reply."""
    conflicts: int = 0
    """Deliveries whose call id was in use for another request."""
    evicted_asked: int = 0
    """Deliveries of a call that ran here, or may have, and whose reply is no longer kept."""
    given_back: int = 0
    """Deliveries that ended unstarted, for whatever reason."""
    expired: int = 0
    """Of those: because the deadline came first."""
    cancelled: int = 0
    """Deliveries that the broker called off, started or not."""
    replies_sent: int = 0
    """Final reports handed to a socket."""
    replies_too_large: int = 0
    replies_resent: int = 0
    """Final reports said again on the next link, since the one before broke soon after them."""
    replies_dropped: int = 0
    """Deliveries that ended without a report, since whoever waits for it can no longer be reached."""
    unsent: int = 0
    """Messages that the socket did not take."""
    links_opened: int = 0
    links_refused: int = 0
    """Links that never came up."""
    links_lost: int = 0
    """Links that broke after they were open."""
    hellos_unanswered: int = 0
    downgrades: int = 0
    """Links closed because the broker does not speak the extension."""
    registrations: int = 0
    disconnects_received: int = 0
    brokers_silent: int = 0
    brokers_restarted: int = 0
    heartbeats_sent: int = 0
    dropped: int = 0
    """Messages of brokers that were not acted on."""
    stalls: int = 0
    """Times this process did not run for longer than a heartbeat interval."""


@attrs.frozen(kw_only=True)
class BrokerLinkSnapshot:
    """One broker as this worker sees it."""

    address: str
    state: str
    """``waiting``, ``opening``, ``asking``, ``registered`` or ``closed``."""
    life: bytes
    """The broker's, when the worker was last registered; empty if it never was, or if the broker is not ours."""
    foreign: bool
    """Registered by plain 7/MDP."""
    credit: int
    """How many requests at once this broker may hand over."""
    tokens: int
    """Deliveries of this broker that still need their final report."""
    last_heard_s: float | None
    """Seconds between the last sign of life and the worker's last event; None unless registered."""


@attrs.frozen(kw_only=True)
class WorkerSnapshot:
    """A frozen view of a worker."""

    brokers: tuple[BrokerLinkSnapshot, ...]
    running: int
    """Handlers that run."""
    overrunning: int
    """Of those: handlers past the timeout of their service, answered for and not ended."""
    queued: int
    """Jobs that wait for a free slot."""
    replies_kept: int
    replies_kept_bytes: int
    draining: bool
    stopped: bool

    @property
    def registered(self) -> int:
        """With how many brokers the worker is registered."""
        return sum(broker.state == "registered" for broker in self.brokers)
