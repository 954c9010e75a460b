"""The tables of one client engine, shared by its parts; no decisions here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from reliable.config import ClientConfig
from reliable.engine.alarms import Alarms
from reliable.engine.brokers import Broker, Brokers
from reliable.engine.budget import TokenBucket
from reliable.engine.client_views import ClientCounters
from reliable.engine.client_watch import ClientWatch
from reliable.engine.hedging import Hedges
from reliable.protocol import link
from reliable.protocol.call_events import CallState, Grant
from reliable.protocol.call_facts import Call, Session
from reliable.protocol.events import ClientEffect
from reliable.types import Jitter, Observer
from reliable.wire.extension import Hello, Role
from reliable.wire.mmi import hello_request

__all__ = ["ClientState", "LinkEntry", "OpenCall"]


@attrs.define
class LinkEntry:
    """One link, whose it is, and the calls whose newest attempt is on it."""

    state: link.LinkState
    broker: Broker
    session: Session | None = None
    grant: Grant | None = None
    """What a call is told that may be sent on it; None until its broker is known."""
    due: float = math.inf
    """When its machine wants to be ticked."""
    heard_at: float = -math.inf
    asked: dict[bytes, None] = attrs.Factory(dict)


@attrs.define
class OpenCall:
    """One open call, and the queue in which it waits, if in one."""

    call: Call
    state: CallState
    began: float
    queue: dict[bytes, None] | None = None
    prepaid: bool = False
    """The next extra attempt is paid already: one broken link is one failure, however many calls were on it."""
    muted: bool = False
    """The user's call has ended by the other one of a pair; nobody waits for this one's end."""

    def unqueue(self) -> None:
        """Take it out of the queue in which it waits."""
        if self.queue is not None:
            self.queue.pop(self.call.call_id, None)
            self.queue = None


class ClientState:
    """Everything a client knows."""

    def __init__(
        self, brokers: Sequence[str], config: ClientConfig, client_id: bytes, jitter: Jitter, observer: Observer | None
    ) -> None:
        self.config = config
        self.client_id = client_id
        self.jitter = jitter
        self.watch = ClientWatch(observer)
        self.counters = ClientCounters()
        self.hello = hello_request(Hello(Role.CLIENT, client_id, config.limits.message_bytes_max).encode())
        self.brokers = Brokers(brokers, config)
        self.budget = TokenBucket(config.retry.budget)
        self.hedges = Hedges()
        self.links: dict[int, LinkEntry] = {}
        self.calls: dict[bytes, OpenCall] = {}
        self.free: dict[bytes, None] = {}
        """Calls that any broker may serve and none can now."""
        self.alarms = Alarms()
        self.out: list[ClientEffect] = []
        self.now = -math.inf
        """The moment of the event that is being handled."""

    def breaker_failed(self, broker: Broker) -> None:
        """An attempt at this broker failed."""
        old = broker.breaker.state(self.now)
        if broker.breaker.failed(self.now, self.jitter()):
            self.counters.breakers_opened += 1
            self.watch.breaker(broker.address, old, "open")

    def broker_rests(self, broker: Broker, until: float) -> None:
        """It said that it takes no calls for a while."""
        old = broker.breaker.state(self.now)
        broker.breaker.rest(until)
        if old != "open":
            self.watch.breaker(broker.address, old, "open")

    def breaker_succeeded(self, broker: Broker) -> None:
        """It said something good about a call."""
        old = broker.breaker.state(self.now)
        if broker.breaker.succeeded():
            self.watch.breaker(broker.address, old, "closed")
