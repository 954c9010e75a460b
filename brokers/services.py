"""Services: who waits, who can take work, and in which order.

Queue of one service: what was handed out before and came back goes first; else the clients take turns, and each
client's own requests keep their order (7/MDP: clients are served fairly). The queue is skipped whenever a worker is
free, so its cost is paid only by those who wait.

Workers of one service stand on shelves by how many requests they hold. The lowest shelf that is not empty gives the
next one: with a credit of one that is least recently used, beyond it least loaded. OrderedDicts let go of any entry at
once. (A deque with validity flags takes a third of the time per step, but a worker of several services leaves stale
entries on all shelves but one, and the gain is below one percent of a request.)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.peers import Worker
    from brokers.records import Call

__all__ = ["FairQueue", "Service", "ServiceTable"]


class FairQueue:
    """Requests of one service that wait for a worker."""

    __slots__ = ("_by_client", "_urgent", "length")

    def __init__(self) -> None:
        self._urgent: OrderedDict[Call, None] = OrderedDict()
        self._by_client: OrderedDict[bytes, OrderedDict[Call, None]] = OrderedDict()
        self.length = 0

    def push(self, call: Call) -> None:
        """Put a request at the end of its client's line, or in front of everything if it is urgent."""
        self.length += 1
        if call.urgent:
            self._urgent[call] = None
            return
        line = self._by_client.get(call.client_key)
        if line is None:
            line = self._by_client[call.client_key] = OrderedDict()
        line[call] = None

    def pop(self) -> Call:
        """Take out the next one; the queue must not be empty."""
        self.length -= 1
        if self._urgent:
            return self._urgent.popitem(last=False)[0]
        key, line = next(iter(self._by_client.items()))
        call, _ = line.popitem(last=False)
        if line:
            self._by_client.move_to_end(key)
        else:
            del self._by_client[key]
        return call

    def remove(self, call: Call) -> None:
        """Take out this one, which must be in."""
        self.length -= 1
        if call.urgent:
            del self._urgent[call]
            return
        line = self._by_client[call.client_key]
        del line[call]
        if not line:
            del self._by_client[call.client_key]

    def __len__(self) -> int:
        return self.length


class Service:
    """One service name."""

    __slots__ = ("_lowest", "_shelves", "idempotent", "name", "offers", "queue")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.queue = FairQueue()
        self.offers: dict[Worker, bool | None] = {}
        """Registered workers, and whether each declares the service idempotent."""
        self.idempotent: bool | None = None
        """What the workers declare: False if any does, else True if any does. Kept when the last one leaves, since a
        request that it left behind must still be judged by it."""
        self._shelves: list[OrderedDict[Worker, None]] = [OrderedDict()]
        self._lowest = 0

    def offer(self, worker: Worker, idempotent: bool | None) -> None:
        """A worker registers."""
        self.offers[worker] = idempotent
        self._declare()

    def withdraw(self, worker: Worker) -> None:
        """A worker leaves; it must be off the shelves."""
        del self.offers[worker]
        if self.offers:
            self._declare()

    def _declare(self) -> None:
        said = self.offers.values()
        self.idempotent = False if False in said else True if True in said else None

    def has_live_worker(self) -> bool:
        """Whether a registered worker can be expected to take requests: neither stuck nor leaving."""
        return any(worker.live() for worker in self.offers)

    def shelve(self, worker: Worker, old: int, new: int) -> None:
        """Move a worker from shelf ``old`` to the end of shelf ``new``; -1 stands for none."""
        if old >= 0:
            del self._shelves[old][worker]
        if new >= 0:
            while len(self._shelves) <= new:
                self._shelves.append(OrderedDict())
            self._shelves[new][worker] = None
            if new < self._lowest:
                self._lowest = new

    def pick(self) -> Worker | None:
        """The worker to take the next request, or None if nobody is free; it stays on its shelf."""
        shelves = self._shelves
        index = self._lowest
        last = len(shelves) - 1
        while not shelves[index]:
            if index == last:
                return None
            index += 1
        self._lowest = index
        return next(iter(shelves[index]))

    def pick_beside(self, client: bytes, digest: bytes) -> Worker | None:
        """A free worker that holds no call of this client with this digest: the first of two attempts may be there."""
        return next(
            (
                worker
                for shelf in self._shelves[self._lowest :]
                for worker in shelf
                if not any(
                    held.call.digest == digest and held.call.instance == client for held in worker.in_hand.values()
                )
            ),
            None,
        )


class ServiceTable:
    """All services by name, bounded.

    A service that no worker has offered lives as long as somebody waits for it. One that had workers is kept after they
    left, for its declaration, until the table is full.
    """

    def __init__(self, *, offered_max: int, unknown_max: int) -> None:
        self.by_name: dict[bytes, Service] = {}
        self._unknown: dict[bytes, Service] = {}
        self._dormant: OrderedDict[bytes, Service] = OrderedDict()
        self._offered_max = offered_max
        self._unknown_max = unknown_max

    def get(self, name: bytes) -> Service | None:
        """The service, if it is known."""
        return self.by_name.get(name)

    def ask(self, name: bytes, *, must: bool = False) -> Service | None:
        """The service a client asks for, made if needed; None if too many unknown names are waited for.

        ``must`` is for a request that was accepted before and comes back: it goes before the bound.
        """
        service = self.by_name.get(name)
        if service is None:
            if len(self._unknown) >= self._unknown_max and not must:
                return None
            service = self.by_name[name] = self._unknown[name] = Service(name)
        elif not service.offers:
            self._dormant.pop(name, None)
        return service

    def room_for(self, names: list[bytes]) -> bool:
        """Whether a worker may offer these."""
        new = sum(1 for name in names if name not in self.by_name or name in self._unknown or name in self._dormant)
        offered = len(self.by_name) - len(self._unknown) - len(self._dormant)
        return offered + new <= self._offered_max

    def offer(self, name: bytes) -> Service:
        """The service a worker offers, made if needed."""
        service = self.by_name.get(name)
        if service is None:
            service = self.by_name[name] = Service(name)
        self._unknown.pop(name, None)
        self._dormant.pop(name, None)
        while self._dormant and len(self.by_name) - len(self._unknown) > self._offered_max:
            oldest, _ = self._dormant.popitem(last=False)
            del self.by_name[oldest]
        return service

    def unknown(self, service: Service) -> bool:
        """Whether no worker has offered it."""
        return service.name in self._unknown

    def settle(self, service: Service) -> None:
        """Forget it, or put it to rest, if nobody offers it and nobody waits for it."""
        if service.offers or service.queue.length or self.by_name.get(service.name) is not service:
            return
        if self._unknown.pop(service.name, None) is not None:
            del self.by_name[service.name]
        else:
            self._dormant[service.name] = service
