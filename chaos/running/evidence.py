"""Everything that is known of a run once it is over, for checks to judge. Times count from the start of the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from chaos.history import Call, Execution, History
from chaos.reporting.value import FaultLine
from chaos.running.model import Scenario

__all__ = ["CallFacts", "Evidence", "Queue"]


@attrs.frozen(kw_only=True)
class CallFacts:
    """What the history does not hold of a call."""

    call: Call
    kind: str
    lag_s: float = 0.0
    """How late this process itself was around the end of the call."""
    stood_s: float = 0.0
    """For how long this process itself stood still while the call was open."""
    parts: tuple[int, ...] = ()
    parts_wanted: int = 4
    part_runs: frozenset[str] = frozenset()
    """Runs of handlers that parts came from."""
    news: tuple[tuple[str, int], ...] = ()
    """Of progress: of which run, and which step."""
    surprise: str = ""


@attrs.frozen(kw_only=True)
class Queue:
    """One look at a broker."""

    at_s: float
    broker: str
    life: str
    queued: int
    over: tuple[str, ...] = ()
    workers: Mapping[str, str] = attrs.field(factory=dict)
    counters: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Evidence:
    """One run."""

    scenario: Scenario
    history: History
    calls: Sequence[CallFacts]
    faults: Sequence[FaultLine]
    samples: Sequence[Queue] = ()
    healed_s: float | None = None
    """When the last fault was mended."""
    recovered_s: float | None = None
    """When everything worked again; None if it never did."""
    missing: str = ""
    """What did not work again."""
    expected: Mapping[str, frozenset[str]] = attrs.field(factory=dict)
    """Incarnations of workers that must be in service at the end, by broker."""
    final: Mapping[str, Queue] = attrs.field(factory=dict)
    """The last look at each broker, after the last call."""
    ended_alone: Sequence[str] = ()
    """Processes that ended though nobody killed them."""
    left: Sequence[str] = ()
    """Processes that outlived the run."""

    @property
    def executions(self) -> list[Execution]:
        """All runs of handlers."""
        return self.history.executions
