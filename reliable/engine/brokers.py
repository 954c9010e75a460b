"""The brokers of a client: which one next, which one not yet, and what is known of each.

The client stays with the broker that answers. It moves on to the next in the list when a link to that broker comes to
nothing, is lost or turns silent, and does not move back by itself: all brokers of a list are equal. A broker that
failed is left alone for a backoff of its own, so that a list of dead brokers costs a few tries per second and no more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import attrs

from reliable.config import Backoff

__all__ = ["FOREIGN_S", "Broker", "Brokers"]

FOREIGN_S: Final = 60.0
"""How long a broker that answered 501 is not asked again."""
_WAIT_S_MIN: Final = 0.01
"""Full jitter may come out as nothing; then a refusing address would be tried in a tight loop."""


@attrs.define
class Broker:
    """One address of the list."""

    address: str
    index: int
    life: bytes = b""
    """The one that last answered a hello there."""
    link: int | None = None
    """The link to it, in whichever state; there is at most one."""
    ready: bool = False
    """That link may carry calls."""
    failures: int = 0
    """Tries in a row that came to nothing. Only an answer about a call sets it back: a broker that takes connections
    and then drops them is not well."""
    not_before: float = -math.inf
    foreign_until: float = -math.inf
    trouble: str = ""
    """Why the last try failed."""
    bound: dict[bytes, None] = attrs.Factory(dict)
    """Calls that wait for this broker and no other, in order."""

    def describe(self) -> str:
        """For an error message."""
        state = "ready" if self.ready else self.trouble or ("connecting" if self.link is not None else "not tried")
        return f"{self.address}: {state}" + (f" ({self.failures} times)" if self.failures > 1 else "")


class Brokers:
    """All of them, and the one that is preferred now.

    Raises:
        ValueError: No address, or one twice.
    """

    def __init__(self, addresses: Sequence[str], backoff: Backoff) -> None:
        if not addresses or len(set(addresses)) != len(addresses):
            raise ValueError("a client needs at least one broker, and each only once")
        self._list = [Broker(address, index) for index, address in enumerate(addresses)]
        self._by_address = {broker.address: broker for broker in self._list}
        self._preferred = 0
        self._backoff = backoff

    def __iter__(self) -> Iterator[Broker]:
        return iter(self._list)

    def __getitem__(self, address: str) -> Broker:
        return self._by_address[address]

    @property
    def preferred(self) -> Broker:
        """Where calls go while it answers."""
        return self._list[self._preferred]

    def in_order(self) -> Iterator[Broker]:
        """All, beginning with the preferred one."""
        size = len(self._list)
        return (self._list[(self._preferred + step) % size] for step in range(size))

    def ready(self, avoid: Collection[str] = ()) -> Broker | None:
        """The first one that may be sent to now."""
        preferred = self._list[self._preferred]
        if preferred.ready and not avoid:
            return preferred
        return next((broker for broker in self.in_order() if broker.ready and broker.address not in avoid), None)

    def other(self, avoid: Collection[str], now: float) -> Broker | None:
        """One that did not refuse and is not known to be out of reach: ready, or not in trouble so far."""
        ready = self.ready(avoid)
        if ready is not None:
            return ready
        untroubled = (
            broker
            for broker in self.in_order()
            if broker.address not in avoid and broker.failures == 0 and broker.foreign_until <= now
        )
        return next(untroubled, None)

    def next_to_try(self, now: float) -> Broker | None:
        """The one to open a link to for calls that any broker may serve; None to wait, for time or for a link.

        A link that some call needs to a broker further down the list is no reason to wait: that broker may be the one
        that was just lost.
        """
        for broker in self.in_order():
            if broker.link is not None:
                return None
            if self.free_at(broker) <= now:
                return broker
        return None

    def next_try_at(self) -> float:
        """When the first one without a link may be tried."""
        return min((self.free_at(broker) for broker in self._list if broker.link is None), default=math.inf)

    def free_at(self, broker: Broker) -> float:
        """When this one may be tried."""
        return max(broker.not_before, broker.foreign_until)

    def all_foreign(self, now: float) -> bool:
        """Whether every one of them said lately that it does not speak the extension."""
        return all(broker.foreign_until > now for broker in self._list)

    def found(self, broker: Broker, life: bytes) -> bool:
        """It answered the hello; returns whether it had another life before."""
        restarted = bool(broker.life) and broker.life != life
        broker.life, broker.ready, broker.trouble = life, True, ""
        broker.foreign_until = -math.inf
        if not self.preferred.ready:
            self._preferred = broker.index
        return restarted

    def answered(self, broker: Broker) -> None:
        """It said something about a call."""
        broker.failures = 0

    def failed(self, broker: Broker, why: str, now: float, u: float) -> None:
        """Its link is over. One that had done its work is tried again at once, others after a backoff."""
        worked = broker.ready and broker.failures == 0
        broker.link, broker.ready, broker.trouble = None, False, why
        broker.failures += 1
        wait_s = 0.0 if worked else max(_WAIT_S_MIN, self._backoff.delay_s(broker.failures, u))
        broker.not_before = now + wait_s
        if self._preferred == broker.index:
            self._preferred = (broker.index + 1) % len(self._list)

    def foreign(self, broker: Broker, why: str, now: float) -> None:
        """It answered 501: not ours, and not worth asking for a while."""
        self.failed(broker, why, now, 0.0)
        broker.foreign_until = now + FOREIGN_S

    def describe(self) -> str:
        """What is the matter with each, for an error message."""
        return "; ".join(broker.describe() for broker in self._list)
