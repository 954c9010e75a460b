"""The brokers of a client: which one next, which one not yet, and what is known of each.

The client stays with the broker that answers. It moves on to the next in the list when a link to that broker comes to
nothing, is lost or turns silent, or when its breaker opens. Once in a while it looks whether an earlier broker of the
list is back, and returns to it if so. A broker that failed is left alone for a backoff of its own, so that a list of
dead brokers costs a few tries per second and no more; one that is slow to come up is waited for only so long before the
next one is tried beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import attrs

from reliable.config import ClientConfig
from reliable.engine.breaker import Breaker

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
    breaker: Breaker
    life: bytes = b""
    """The one that last answered a hello there."""
    link: int | None = None
    """The link to it, in whichever state; there is at most one."""
    opened_at: float = -math.inf
    """When that link was begun."""
    ready: bool = False
    """That link may carry calls."""
    returning: bool = False
    """The link was opened to see whether this broker is back."""
    failures: int = 0
    """Tries in a row that came to nothing. Only an answer about a call sets it back: a broker that takes connections
    and then drops them is not well."""
    not_before: float = -math.inf
    foreign_until: float = -math.inf
    trouble: str = ""
    """Why the last try failed."""
    bound: dict[bytes, None] = attrs.Factory(dict)
    """Calls that wait for this broker and no other, in order."""

    def takes(self, now: float) -> bool:
        """Whether a call may be sent to it now."""
        return self.ready and (self.breaker.closed or self.breaker.allows(now))

    def describe(self) -> str:
        """For an error message."""
        state = "ready" if self.ready else self.trouble or ("connecting" if self.link is not None else "not tried")
        if self.ready and not self.breaker.closed:
            why = f"after {self.breaker.failures} failures in a row"
            state = "it is about to go" if self.breaker.resting else f"its breaker is open {why}"
        return f"{self.address}: {state}" + (f" ({self.failures} times)" if self.failures > 1 else "")


class Brokers:
    """All of them, and the one that is preferred now.

    Raises:
        ValueError: No address, or one twice.
    """

    def __init__(self, addresses: Sequence[str], config: ClientConfig) -> None:
        if not addresses or len(set(addresses)) != len(addresses):
            raise ValueError("a client needs at least one broker, and each only once")
        trial_s = config.retry.attempt_timeout_s
        self.all = [Broker(address, index, Breaker(config.breaker, trial_s)) for index, address in enumerate(addresses)]
        self._by_address = {broker.address: broker for broker in self.all}
        self._preferred = 0
        self._backoff = config.reconnect
        self._stagger_s = config.stagger_s
        self._return_after_s = config.return_after_s
        self.return_at = math.inf
        """When to look whether an earlier broker is back; infinity if that is not wanted now."""

    def __iter__(self) -> Iterator[Broker]:
        return iter(self.all)

    def __getitem__(self, address: str) -> Broker:
        return self._by_address[address]

    @property
    def preferred(self) -> Broker:
        """Where calls go while it answers."""
        return self.all[self._preferred]

    def in_order(self) -> Iterator[Broker]:
        """All, beginning with the preferred one."""
        size = len(self.all)
        return (self.all[(self._preferred + step) % size] for step in range(size))

    def ready(self, now: float, avoid: Collection[str] = ()) -> Broker | None:
        """The first one that may be sent to now."""
        preferred = self.all[self._preferred]
        if preferred.ready and preferred.breaker.closed and not avoid:
            return preferred
        return next((broker for broker in self.in_order() if broker.takes(now) and broker.address not in avoid), None)

    def other(self, avoid: Collection[str], now: float) -> Broker | None:
        """One that did not refuse and is not known to be out of reach: ready, or not in trouble so far."""
        ready = self.ready(now, avoid)
        if ready is not None:
            return ready
        untroubled = (
            broker
            for broker in self.in_order()
            if broker.address not in avoid
            and not broker.ready
            and broker.failures == 0
            and broker.foreign_until <= now
            and broker.breaker.closed
        )
        return next(untroubled, None)

    def next_to_try(self, now: float) -> Broker | None:
        """The one to open a link to for calls that any broker may serve; None to wait, for time or for a link.

        A link that some call needs to a broker further down the list is no reason to wait: that broker may be the one
        that was just lost. Nor is a link whose breaker is open, or one that has been coming up for too long.
        """
        for broker in self.in_order():
            if broker.link is None:
                if self.free_at(broker) <= now:
                    return broker
            elif broker.breaker.closed and (broker.ready or now < broker.opened_at + self._stagger_s):
                return None
        return None

    def next_try_at(self, now: float) -> float:
        """When a call that waits for any broker may be helped by time alone."""
        when = math.inf
        for broker in self.in_order():
            if broker.link is None:
                free_at = self.free_at(broker)
                when = min(when, free_at) if free_at > now else when
            elif broker.ready:
                if broker.breaker.closed:
                    break
                when = min(when, broker.breaker.opens_up_at())
            elif now < broker.opened_at + self._stagger_s:
                when = min(when, broker.opened_at + self._stagger_s)
                if broker.breaker.closed:
                    break
        return when

    def return_now(self, now: float) -> Broker | None:
        """It is time to look: the broker to open a link to, if any; one that is ready already is preferred at once."""
        self.return_at = math.inf if self._return_after_s is None else now + self._return_after_s
        if self._preferred == 0 or not self.preferred.ready:
            self.return_at = math.inf
            return None
        for broker in self.all[: self._preferred]:
            if broker.takes(now):
                self._prefer(broker, now)
                return None
            if broker.link is None and self.free_at(broker) <= now:
                broker.returning = True
                return broker
        return None

    def _prefer(self, broker: Broker, now: float) -> None:
        self._preferred = broker.index
        wanted = broker.index > 0 and self._return_after_s is not None
        self.return_at = now + (self._return_after_s or 0.0) if wanted else math.inf

    def free_at(self, broker: Broker) -> float:
        """When this one may be tried."""
        return max(broker.not_before, broker.foreign_until)

    def all_foreign(self, now: float) -> bool:
        """Whether every one of them said lately that it does not speak the extension."""
        return all(broker.foreign_until > now for broker in self.all)

    def found(self, broker: Broker, life: bytes, now: float) -> bool:
        """It answered the hello; returns whether it had another life before."""
        restarted = bool(broker.life) and broker.life != life
        broker.life, broker.ready, broker.trouble = life, True, ""
        broker.foreign_until = -math.inf
        preferred = self.preferred
        # An earlier one that was only slower than the one tried beside it has done nothing to be passed over for.
        earlier = broker.index < preferred.index and (broker.returning or not broker.failures)
        if not preferred.ready or (earlier and self._return_after_s is not None):
            self._prefer(broker, now)
        broker.returning = False
        if restarted:
            # What the one before did is no fault of this one.
            broker.breaker.begin_anew()
        return restarted

    def checking(self, broker: Broker, now: float) -> None:
        """New calls wait for a word about its clock, as they do for a link that is coming up."""
        broker.ready, broker.opened_at = False, now

    def checked(self, broker: Broker, now: float) -> None:
        """They need not wait any longer."""
        broker.ready = True
        if self._preferred == broker.index:
            # The look for an earlier one may have come to nothing meanwhile.
            self._prefer(broker, now)

    def failed(self, broker: Broker, why: str, now: float, u: float) -> None:
        """Its link is over. One that had done its work is tried again at once, others after a backoff."""
        worked = broker.ready and broker.failures == 0
        broker.link, broker.ready, broker.returning, broker.trouble = None, False, False, why
        broker.failures += 1
        wait_s = 0.0 if worked else max(_WAIT_S_MIN, self._backoff.delay_s(broker.failures, u))
        broker.not_before = now + wait_s
        if self._preferred == broker.index:
            # Whichever comes up first after this one; a later choice of an earlier broker waits for its time.
            following = [self.all[(broker.index + step) % len(self.all)] for step in range(1, len(self.all) + 1)]
            self._prefer(next((other for other in following if other.ready), following[0]), now)

    def foreign(self, broker: Broker, why: str, now: float) -> None:
        """It answered 501: not ours, and not worth asking for a while."""
        self.failed(broker, why, now, 0.0)
        broker.foreign_until = now + FOREIGN_S

    def describe(self) -> str:
        """What is the matter with each, for an error message."""
        return "; ".join(broker.describe() for broker in self.all)
