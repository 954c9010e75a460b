"""A worker's brokers and the links to them: which conversation each message belongs to, and what is sent where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from reliable.engine.jobs import Handover
from reliable.engine.observe import LinkLost, MessageDropped
from reliable.engine.worker_view import BrokerLinkSnapshot, WorkerCounters
from reliable.errors import RemoteProtocolError
from reliable.protocol import registration
from reliable.protocol.events import CloseLink, LinkClosed, LinkOpened, OpenLink, Received, Send, WorkerEffect
from reliable.protocol.registration import (
    Asking,
    Delivered,
    Dropped,
    EndCause,
    Ended,
    Greeted,
    Heard,
    JoinedPlain,
    Opening,
    Over,
    Plain,
    Registered,
    Said,
    State,
    Tag,
    Terms,
    Waiting,
)
from reliable.types import Frames, Observer
from reliable.wire.mdp import decode_at_worker

__all__ = ["Links", "News", "Peer"]

_STATE_NAMES: dict[type[State], str] = {
    Waiting: "waiting",
    Opening: "opening",
    Asking: "asking",
    Registered: "registered",
    Plain: "registered",
    Over: "closed",
}

News = Delivered | Greeted | JoinedPlain | Ended
"""What a step tells those who look after deliveries."""


@attrs.define(eq=False)
class Peer:
    """One broker of the list."""

    index: int
    terms: Terms
    credit: int
    """How many requests at once it may hand over."""
    state: State = attrs.Factory(Over)
    life: bytes = b""
    """Of the newest registration; empty before one, and for a broker that is not ours."""
    message_bytes_max: int = 0
    """Of the newest registration; 0: no limit."""
    handovers: dict[bytes, Handover] = attrs.Factory(dict)
    """What still needs a final report, by token."""
    resend_at: float = math.inf
    """When to offer again what the socket did not take."""
    credit_seen: bool = False
    """The broker knows that the credit is gone, so that nothing crosses our goodbye."""


class Links:
    """Every broker's conversation, and the one list of effects."""

    def __init__(self, counters: WorkerCounters, observer: Observer | None) -> None:
        self.peers: Sequence[Peer] = ()
        self._by_link: dict[int, Peer] = {}
        self.numbers_given = 0
        self._counters = counters
        self._observer = observer
        self._effects: list[WorkerEffect] = []

    def fresh_number(self) -> int:
        """A link number that was never used."""
        self.numbers_given += 1
        return self.numbers_given

    def emit(self, effect: WorkerEffect) -> None:
        """Put one effect behind the others."""
        self._effects.append(effect)

    def take_effects(self) -> list[WorkerEffect]:
        """All effects since the last time."""
        effects, self._effects = self._effects, []
        return effects

    def observe(self, observation: object) -> None:
        """Tell the observer, if there is one."""
        if self._observer is not None:
            self._observer(observation)

    def peer_of(self, link: int) -> Peer | None:
        """The broker whose current link this is."""
        return self._by_link.get(link)

    def registered(self) -> int:
        """With how many brokers the worker is registered."""
        return sum(isinstance(peer.state, Registered | Plain) for peer in self.peers)

    def next_deadline(self) -> float:
        """When the next conversation wants to be ticked, or something offered again; infinite if never."""
        due = math.inf
        for peer in self.peers:
            peer_due = registration.deadline(peer.state)
            due = min(due, peer.resend_at, math.inf if peer_due is None else peer_due)
        return due

    def step(self, peer: Peer, event: registration.Event, now: float) -> list[News]:
        """One step of one conversation: carries out what concerns links, gives back what concerns deliveries."""
        peer.state, outputs = registration.step(peer.state, event, now, peer.terms)
        news: list[News] = []
        for output in outputs:
            match output:
                case Delivered() | Greeted() | JoinedPlain():
                    news.append(output)
                case Send():
                    self._counters.heartbeats_sent += output.tag is Tag.HEARTBEAT
                    self.emit(output)
                case OpenLink():
                    self._by_link[output.link] = peer
                    self.emit(output)
                case CloseLink():
                    self.emit(output)
                case Dropped():
                    self.drop(peer, output.reason)
                case Ended():
                    self._count_end(peer, output)
                    news.append(output)
        return news

    def received(self, peer: Peer, event: Received, now: float) -> list[News]:
        """Read a message; what cannot be read is counted and has no other effect."""
        try:
            command = decode_at_worker(event.frames)
        except RemoteProtocolError as error:
            self.drop(peer, str(error))
            return []
        return self.step(peer, Heard(command), now)

    def opened_or_closed(self, peer: Peer, event: LinkOpened | LinkClosed, now: float) -> list[News]:
        """The shell says how it went with a link."""
        if isinstance(event, LinkOpened):
            self._counters.links_opened += 1
        elif isinstance(peer.state, Opening):
            self._counters.links_refused += 1
        else:
            self._counters.links_lost += 1
        return self.step(peer, event, now)

    def report(self, peer: Peer, link: int, frames: Frames, tag: object, now: float) -> None:
        """Send on the current link of a broker that the worker is registered with."""
        self.emit(Send(link, frames, tag))
        self.step(peer, Said(), now)

    def drop(self, peer: Peer, reason: str) -> None:
        """Count a message that is not acted on."""
        self._counters.dropped += 1
        self.observe(MessageDropped(peer.terms.address, reason))

    def _count_end(self, peer: Peer, ended: Ended) -> None:
        del self._by_link[ended.link]
        peer.resend_at = math.inf
        self._counters.hellos_unanswered += ended.cause is EndCause.HELLO_SILENT
        self._counters.brokers_silent += ended.cause is EndCause.SILENT
        self._counters.disconnects_received += ended.cause is EndCause.DISCONNECTED
        self._counters.downgrades += ended.cause is EndCause.NOT_OURS
        self.observe(LinkLost(peer.terms.address, ended.detail or ended.cause.value))

    def snapshot(self, now: float, draining: bool) -> tuple[BrokerLinkSnapshot, ...]:
        """A frozen view of every broker."""
        return tuple(self._view(peer, now, draining) for peer in self.peers)

    def _view(self, peer: Peer, now: float, draining: bool) -> BrokerLinkSnapshot:
        state = peer.state
        return BrokerLinkSnapshot(
            address=peer.terms.address,
            state=_STATE_NAMES[type(state)],
            life=peer.life,
            foreign=isinstance(state, Plain),
            credit=0 if draining else peer.credit,
            tokens=len(peer.handovers),
            last_heard_s=state.liveness.silent_s(now) if isinstance(state, Registered | Plain) else None,
        )
