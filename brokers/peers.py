"""Who is on the other end of the ROUTER: clients, greeted peers, registered workers, and those told to go away.

A peer is known by its routing id. Our clients may share one connection behind a proxy; then the addresses that the
proxies put in front belong to the key, so that each has a session of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from brokers.wheel import Timed
from reliable.types import Frames
from reliable.wire.extension import Hello, Role
from reliable.wire.mdp import FINAL_OPENING, Version

if TYPE_CHECKING:
    from brokers.records import HandOver
    from brokers.services import Service

__all__ = [
    "BeatTimer",
    "ClientPeer",
    "LeaveTimer",
    "PeerKey",
    "PeerTable",
    "ProbeTimer",
    "Tombstones",
    "WatchTimer",
    "Worker",
    "WorkerTimer",
    "peer_key",
]

PeerKey: TypeAlias = bytes | tuple[bytes, ...]


def peer_key(peer: bytes, addresses: Frames) -> PeerKey:
    """The key of a client at routing id ``peer`` behind these proxies, of which there is usually none."""
    return (peer, *addresses) if addresses else peer


class ClientPeer:
    """A peer that said hello, or a plain client. Its version is fixed by its first request."""

    __slots__ = ("gone", "greeted_at", "hello", "routing_id", "version")

    def __init__(self) -> None:
        self.routing_id = b""
        """Of its connection. Each message brings it along anew; its calls keep this one, and not one each."""
        self.version: Version | None = None
        self.hello: Hello | None = None
        self.greeted_at = 0.0
        """When its newest hello arrived; deadlines are reckoned from here."""
        self.gone = False
        """A send found it unreachable: what it asked for in plain MDP can be answered to nobody."""

    def too_large(self, size: int) -> bool:
        """Whether it said that it does not take messages of this size."""
        return self.hello is not None and 0 < self.hello.max_message_bytes < size


class PeerTable:
    """Clients and greeted peers, bounded; who was silent for longest is forgotten first.

    Two generations instead of one ordered table: being heard costs one look-up, and at least half of ``maximum`` of the
    newest peers are always known.
    """

    def __init__(self, maximum: int) -> None:
        self._half = maximum // 2
        self._young: dict[PeerKey, ClientPeer] = {}
        self._old: dict[PeerKey, ClientPeer] = {}

    def get(self, key: PeerKey) -> ClientPeer | None:
        """The peer, which counts as heard."""
        peer = self._young.get(key)
        if peer is None and self._old:
            peer = self._old.pop(key, None)
            if peer is not None:
                self._add(key, peer)
        return peer

    def make(self, key: PeerKey) -> ClientPeer:
        """The peer, made if it is not known."""
        peer = self.get(key)
        if peer is None:
            peer = ClientPeer()
            self._add(key, peer)
        return peer

    def _add(self, key: PeerKey, peer: ClientPeer) -> None:
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = peer

    def clients(self) -> Iterator[tuple[PeerKey, ClientPeer]]:
        """Those of ours, by their hello."""
        for generation in (self._young, self._old):
            for key, peer in generation.items():
                if peer.hello is not None and peer.hello.role is Role.CLIENT:
                    yield key, peer

    def lost(self, key: PeerKey) -> None:
        """A send found this routing id gone: forget it."""
        peer = self._young.pop(key, None) or self._old.pop(key, None)
        if peer is not None:
            peer.gone = True

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


class Tombstones:
    """Peers that were sent DISCONNECT, for one heartbeat timeout each; bounded, the oldest go first."""

    def __init__(self, maximum: int, lifetime_s: float) -> None:
        self._maximum = maximum
        self._lifetime_s = lifetime_s
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, peer: bytes, now: float) -> None:
        """It was told now."""
        self._until.pop(peer, None)
        self._until[peer] = now + self._lifetime_s
        while len(self._until) > self._maximum:
            self._until.popitem(last=False)

    def has(self, peer: bytes, now: float) -> bool:
        """Whether it was told lately."""
        if not self._until:
            return False
        until = self._until.get(peer)
        if until is None:
            return False
        if until > now:
            return True
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return False

    def remove(self, peer: bytes) -> None:
        """It begins a new session, or is gone."""
        self._until.pop(peer, None)

    def __len__(self) -> int:
        return len(self._until)


class WorkerTimer(Timed):
    """One of the two standing deadlines of a worker."""

    __slots__ = ("worker",)

    def __init__(self, worker: Worker) -> None:
        self.bucket = -1
        self.worker = worker


class BeatTimer(WorkerTimer):
    """When to send it a heartbeat, unless something was sent meanwhile."""

    __slots__ = ()


class ProbeTimer(Timed):
    """When every worker is sent a heartbeat, to find out which of them is gone."""

    __slots__ = ("looks",)

    def __init__(self) -> None:
        self.bucket = -1
        self.looks = 0
        """How many are still to come."""


class LeaveTimer(Timed):
    """When to look whether a broker that leaves may go."""

    __slots__ = ()


class WatchTimer(WorkerTimer):
    """When its silence is judged, unless it was heard meanwhile."""

    __slots__ = ()


class Worker:
    """A registered worker."""

    __slots__ = (
        "back_at",
        "beat",
        "beats_while_busy",
        "closed_tokens",
        "credit",
        "greeted_at",
        "held_back",
        "in_hand",
        "instance",
        "last_heard",
        "last_sent",
        "max_message_bytes",
        "ours",
        "peer",
        "result_at",
        "result_opening",
        "rooms",
        "services",
        "shelf",
        "stands",
        "stuck",
        "turn",
        "version",
        "watch",
    )

    def __init__(
        self,
        peer: bytes,
        version: Version,
        now: float,
        *,
        instance: bytes = b"",
        credit: int = 1,
        greeted_at: float = 0.0,
        max_message_bytes: int = 0,
    ) -> None:
        self.peer = peer
        self.version = version
        self.result_opening = FINAL_OPENING[version]
        """What its results begin with, and behind it and the routing id the place of the address in them."""
        self.result_at = 1 + len(self.result_opening)
        self.instance = instance
        self.ours = bool(instance)
        self.credit = credit
        self.greeted_at = greeted_at
        self.max_message_bytes = max_message_bytes
        self.services: list[Service] = []
        self.turn = 0
        """Index of the service that is served next, so that none of them starves behind another."""
        self.closed_tokens: set[bytes] = set()
        """Named in its READY although they are reported: one more final report of each is no breach."""
        self.in_hand: dict[bytes, HandOver] = {}
        """What occupies its slots, by token."""
        self.last_heard = now
        self.last_sent = now
        self.back_at = now
        """Since when it has been heard without a gap."""
        self.beats_while_busy = False
        """It has sent a heartbeat with a request in hand: then its silence with one in hand means something."""
        self.stuck = False
        self.held_back = False
        """No new work until it is heard again: its pipe is full, it just refused work, or a newer connection of the
        same process makes it doubtful."""
        self.shelf = -1
        self.rooms: dict[bytes, int] | None = None
        """How many requests of a service it runs at once, for those where that is less than its credit. More of them
        would only wait with it, in slots that other services could use."""
        self.stands: dict[Service, int] = {}
        """The shelf at each service, if it has ``rooms``."""
        self.beat = BeatTimer(self)
        self.watch = WatchTimer(self)

    def live(self) -> bool:
        """Whether a request can be expected to reach it, now or once it has finished what it holds."""
        return not self.stuck and self.credit > 0

    def right_shelf(self) -> int:
        """The shelf that it belongs on."""
        load = len(self.in_hand)
        return load if load < self.credit and not (self.stuck or self.held_back) else -1

    def reshelve(self) -> None:
        """Stand where load and state say, behind those already there."""
        new = self.right_shelf()
        if self.rooms is not None:
            self._reshelve_each(new)
        elif new != self.shelf:
            for service in self.services:
                service.shelve(self, self.shelf, new)
            self.shelf = new

    def has_room(self, service: Service) -> bool:
        """Whether it runs one more of this service at once, as far as the service's own limit goes."""
        room = None if self.rooms is None else self.rooms.get(service.name)
        return room is None or sum(held.call.service.name == service.name for held in self.in_hand.values()) < room

    def _reshelve_each(self, new: int) -> None:
        for service in self.services:
            right = new if new >= 0 and self.has_room(service) else -1
            old = self.stands.get(service, -1)
            if right != old:
                service.shelve(self, old, right)
                self.stands[service] = right
        self.shelf = new

    def leave(self, service: Service) -> None:
        """Stand there no longer, and do not come back."""
        shelf = self.shelf if self.rooms is None else self.stands.pop(service, -1)
        if shelf >= 0:
            service.shelve(self, shelf, -1)
        self.services.remove(service)
        service.withdraw(self)
