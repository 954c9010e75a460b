"""What a client engine shows of itself: counters and a frozen view."""

from __future__ import annotations

import attrs

from reliable.engine.brokers import Broker

__all__ = ["BrokerView", "ClientCounters", "ClientSnapshot", "LinkView"]


@attrs.define
class ClientCounters:
    """What a client did since it was made."""

    calls: int = 0
    ok: int = 0
    failed: int = 0
    attempts: int = 0
    """Requests handed to a socket, first ones included, ``attach`` included."""
    retries: int = 0
    """Attempts after the first that ask for the work again."""
    attaches: int = 0
    """Attempts that only ask what became of the call."""
    failovers: int = 0
    """Attempts that went to another broker than the one before."""
    cancels: int = 0
    hedges: int = 0
    """Second attempts beside the first; to the brokers they are calls of their own. Not among ``attempts``."""
    hedges_won: int = 0
    retries_refused: int = 0
    """Attempts that the retry budget or the hedge budget did not allow."""
    breakers_opened: int = 0
    late_replies: int = 0
    """Answers about calls that are over, or about a link or life that is."""
    dropped: int = 0
    """Messages that could not be read or do not fit what was asked."""
    unsent: int = 0
    """Messages that the socket did not take."""
    links_opened: int = 0
    links_lost: int = 0
    """Links that broke after they were open."""
    links_refused: int = 0
    """Links that never came up."""
    hellos_unanswered: int = 0
    brokers_restarted: int = 0


@attrs.frozen
class BrokerView:
    """One broker as the client sees it."""

    address: str
    state: str
    """``unknown``, ``usable``, ``unreachable`` or ``foreign`` (answered that it does not speak the extension)."""
    life: str
    """Hex; empty if it never answered."""
    failures: int
    """Tries in a row that failed."""
    breaker: str = "closed"
    """``closed``, ``open`` or ``half-open``."""

    @classmethod
    def of(cls, broker: Broker, now: float) -> BrokerView:
        """The view of a broker at ``now``."""
        if broker.ready:
            state = "usable"
        elif broker.foreign_until > now:
            state = "foreign"
        else:
            state = "unreachable" if broker.trouble else "unknown"
        return cls(broker.address, state, broker.life.hex(), broker.failures, broker.breaker.state(now))


@attrs.frozen
class LinkView:
    """One open link."""

    link: int
    address: str
    state: str
    """``opening``, ``greeting`` or ``ready``."""
    calls: int
    """Calls whose newest attempt is on it."""


@attrs.frozen
class ClientSnapshot:
    """What a client holds at one moment."""

    brokers: tuple[BrokerView, ...]
    links: tuple[LinkView, ...]
    calls: int
    """Open calls, all states together."""
    waiting: int
    """Of these, how many wait for a link or for a backoff to end."""
    asked: int
    """Of these, how many have an attempt that is being waited for."""
    next_deadline: float | None
