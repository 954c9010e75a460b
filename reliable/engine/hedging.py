"""Hedges: when a second attempt is sent beside the first, and which of the two counts.

To the brokers a hedge is a call of its own, with the same body and another id: so each of the two is run at most as
often as any call, is joined, cancelled and answered by its own id, and no broker or worker needs a rule for it but one:
the flag HEDGE lets a broker choose a worker that has nothing else in hand. It is sent to another broker if one is
ready.

The first of the two that gets a reply, or the error of a handler that ran, ends the user's call, and the other is
cancelled. If one fails otherwise the other is still waited for. Only if both failed does the call, with the error of
the first and an outcome that is true of both.

When to hedge: after a fixed time, or after the time within which so many percent of the service's calls were answered
lately. A loser that is cancelled counts with the time it had taken until then: left out, only the quick ones would be
measured, and the hedges would come ever earlier.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

import attrs

from reliable.config import HedgePolicy
from reliable.engine.budget import TokenBucket
from reliable.errors import Outcome, RequestError, WorkerFailed
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_facts import Call

__all__ = ["Hedges", "Pair", "decides"]

_SAMPLES_MIN: Final = 20
_SAMPLES_MAX: Final = 512
_FRESH_EVERY: Final = 16
"""Samples after which the percentile is computed anew."""
_SERVICES_MAX: Final = 1_000
_POLICIES_MAX: Final = 64


def decides(ended: Ended) -> bool:
    """Whether this end is the end of the user's call, whatever becomes of the other of the two."""
    failed_in_the_run = isinstance(ended.result, WorkerFailed) and ended.outcome is Outcome.EXECUTED
    return not isinstance(ended.result, RequestError) or failed_in_the_run


@attrs.define(eq=False)
class Pair:
    """A call that may be hedged, and its hedge."""

    call: Call
    """As the user made it."""
    hedge_id: bytes
    policy: HedgePolicy
    lost: Ended | None = None
    """How the one of the two that failed first did."""
    lost_first: bool = True
    """That one was the user's call and not the hedge."""

    def other(self, call_id: bytes) -> bytes:
        """The id of the other one."""
        return self.hedge_id if call_id == self.call.call_id else self.call.call_id


class _Window:
    """The newest durations of one service."""

    __slots__ = ("_fresh", "_known", "_samples")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES_MAX)
        self._known: dict[float, float] = {}
        self._fresh = 0

    def add(self, seconds: float) -> None:
        self._samples.append(seconds)
        self._fresh += 1
        if self._fresh >= _FRESH_EVERY:
            self._known.clear()
            self._fresh = 0

    def percentile(self, percent: float) -> float | None:
        if len(self._samples) < _SAMPLES_MIN:
            return None
        found = self._known.get(percent)
        if found is None:
            ordered = sorted(self._samples)
            found = self._known[percent] = ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]
        return found


class Hedges:
    """All pairs of one client, what was measured, and what may still be spent."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, Pair] = {}
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()
        self._budgets: OrderedDict[HedgePolicy, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pairs)

    def plan(self, call: Call, hedge_id: bytes, policy: HedgePolicy) -> float | None:
        """Take note of a call; returns the seconds after which to hedge it, or None for not at all."""
        self._pairs[call.call_id] = self._pairs[hedge_id] = Pair(call, hedge_id, policy)
        self._budget(policy).deposit()
        if policy.percentile is None:
            return policy.delay_s
        return self._window(call.service).percentile(policy.percentile)

    def get(self, call_id: bytes) -> Pair | None:
        """The pair to which an id belongs."""
        return self._pairs.get(call_id)

    def pay(self, pair: Pair) -> bool:
        """Whether the budget allows the hedge."""
        return self._budget(pair.policy).take()

    def drop(self, pair: Pair) -> None:
        """The user's call is over."""
        self._pairs.pop(pair.call.call_id, None)
        self._pairs.pop(pair.hedge_id, None)

    def measured(self, pair: Pair, seconds: float) -> None:
        """One of the two took so long, or at least so long."""
        if pair.policy.percentile is not None:
            self._window(pair.call.service).add(seconds)

    def _budget(self, policy: HedgePolicy) -> TokenBucket:
        budget = self._budgets.get(policy)
        if budget is None:
            budget = self._budgets[policy] = TokenBucket(policy.budget)
            if len(self._budgets) > _POLICIES_MAX:
                self._budgets.popitem(last=False)
        return budget

    def _window(self, service: bytes) -> _Window:
        window = self._windows.get(service)
        if window is None:
            window = self._windows[service] = _Window()
            if len(self._windows) > _SERVICES_MAX:
                self._windows.popitem(last=False)
        return window
