"""The circuit breaker of one broker: closed, open, half-open.

    closed ──failures in a row──▶ open ──its pause is over──▶ half-open ──a good answer──▶ closed
                                   ▲                              │
                                   └───── the one call failed ────┘

A failure is an attempt that ends in silence, with its link or with "overloaded". A connection that cannot be made is
none: trying to connect is harmless and has a backoff of its own (``reliable.engine.brokers``). Any answer about a call
that says something better than "overloaded" is a success.

An open breaker keeps calls away; it never fails them. They go to another broker or wait, as their deadline allows.
Asking what became of a call (``ATTACH``) passes it: that costs the broker next to nothing.

A broker that is about to go says so (``rest``): that opens it at once, until the time that it named or until another
life answers there.
"""

from __future__ import annotations

import math

from reliable.config import BreakerPolicy

__all__ = ["Breaker"]


class Breaker:
    """Mutable, one per broker; changes of ``state`` are the caller's to notice.

    Args:
        policy: When it opens, and for how long.
        trial_s: How long the one call of a half-open breaker may stay without a verdict before another one is let
            through: it may have been cancelled by its caller.
    """

    __slots__ = ("_openings", "_policy", "_trial_s", "_trying_until", "_until", "closed", "failures", "resting")

    def __init__(self, policy: BreakerPolicy, trial_s: float) -> None:
        self._policy = policy
        self._trial_s = trial_s
        self.closed = True
        self.failures = 0
        """In a row."""
        self.resting = False
        """It is open by the broker's own word, so that answers about earlier calls do not close it."""
        self._openings = 0
        self._until = -math.inf
        self._trying_until = -math.inf

    def state(self, now: float) -> str:
        """``closed``, ``open`` or ``half-open``."""
        if self.closed:
            return "closed"
        return "half-open" if now >= self._until else "open"

    def allows(self, now: float) -> bool:
        """Whether a call may go to this broker."""
        return self.closed or (now >= self._until and now >= self._trying_until)

    def opens_up_at(self) -> float:
        """When ``allows`` may become true by time alone; minus infinity if it is closed."""
        return -math.inf if self.closed else max(self._until, self._trying_until)

    def sent(self, now: float) -> None:
        """A call went out; if it is the one that tries, no other may follow before its verdict."""
        if not self.closed:
            self._trying_until = now + self._trial_s
            self.resting = False

    def succeeded(self) -> bool:
        """A good answer came. Returns whether that closed it."""
        self.failures = 0
        if self.closed or self.resting:
            return False
        self.closed = True
        self._openings = 0
        self._until = self._trying_until = -math.inf
        return True

    def rest(self, until: float) -> None:
        """The broker said that it takes no calls until then; also if failures would never open it."""
        self.closed = False
        self.resting = True
        self._until = max(self._until, until)

    def begin_anew(self) -> None:
        """Another life of the broker: nothing of the one before counts."""
        self.resting = False
        self.succeeded()

    def failed(self, now: float, u: float) -> bool:
        """An attempt failed. Returns whether that opened it, for the first time or again."""
        limit = self._policy.failures
        self.failures += 1
        if limit is None:
            return False
        if self.closed:
            if self.failures < limit:
                return False
        elif now < self._until:
            # Attempts from before it opened come to their ends; they say nothing new.
            return False
        self.closed = False
        self._openings += 1
        # At least half of the bound: a pause of nothing would be no pause.
        self._until = now + self._policy.pause.delay_s(self._openings, 0.5 + u / 2)
        self._trying_until = -math.inf
        return True
