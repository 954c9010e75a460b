"""The budget for extra attempts, shared by all calls of a client."""

from __future__ import annotations

from reliable.config import RetryBudget

__all__ = ["TokenBucket"]


class TokenBucket:
    """Each call puts a share of a token in, each extra attempt takes one out; with less than one there is none.

    Counted in calls instead of seconds: what it bounds is how many times the plain load a server in trouble sees, and
    that must not depend on how fast the calls come.

    Args:
        budget: None is no limit.
    """

    __slots__ = ("_max", "_ratio", "_tokens", "limited")

    def __init__(self, budget: RetryBudget | None) -> None:
        self.limited = budget is not None
        self._ratio = 0.0 if budget is None else budget.ratio
        self._max = 0.0 if budget is None else budget.tokens_max
        self._tokens = self._max

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tokens

    def deposit(self) -> None:
        """A call was made."""
        if self._tokens < self._max:
            self._tokens = min(self._max, self._tokens + self._ratio)

    def take(self) -> bool:
        """Whether one more extra attempt may be made; if so it is paid."""
        if not self.limited:
            return True
        # Shares like 0.1 do not add up to 1 exactly.
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True
