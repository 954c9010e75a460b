"""What the demo breaks, and when: a pure function of the seed and the number of calls."""

from __future__ import annotations

import enum
import random
from typing import Final

import attrs

__all__ = ["WORKERS", "Fault", "FaultKind", "plan_faults"]

WORKERS: Final = 4


class FaultKind(enum.Enum):
    """What is done to a process."""

    KILL_WORKER = "kill worker"
    FREEZE_WORKER = "freeze worker"
    THAW_WORKER = "thaw worker"
    KILL_BROKER = "kill broker"
    """The one that the client uses at that moment."""
    RESTART_BROKER = "restart broker"
    """The one that was killed last, on the same port."""


@attrs.frozen
class Fault:
    """One step of the plan."""

    after_calls: int
    """It happens once so many calls have ended."""
    kind: FaultKind
    worker: int | None = None
    """1 to ``WORKERS``, for what is done to a worker."""


_STEPS: Final = (
    (0.08, FaultKind.KILL_WORKER),
    (0.18, FaultKind.FREEZE_WORKER),
    (0.30, FaultKind.KILL_WORKER),
    (0.42, FaultKind.KILL_BROKER),
    (0.52, FaultKind.RESTART_BROKER),
    (0.62, FaultKind.THAW_WORKER),
    (0.71, FaultKind.KILL_WORKER),
    (0.80, FaultKind.KILL_BROKER),
    (0.89, FaultKind.RESTART_BROKER),
)
"""The share of the calls after which each step comes. A broker is back well before the other one dies."""
_SHIFT: Final = 0.03
"""Each share moves by up to so much with the seed: less than half a step, so that the order holds."""


def plan_faults(seed: int, calls: int) -> tuple[Fault, ...]:
    """The steps for a run of ``calls`` calls, in the order in which they happen; the same seed gives the same plan."""
    rng = random.Random(seed)
    plan: list[Fault] = []
    frozen: int | None = None
    for share, kind in _STEPS:
        after = round((share + rng.uniform(-_SHIFT, _SHIFT)) * calls)
        worker = None
        if kind is FaultKind.THAW_WORKER:
            worker, frozen = frozen, None
        elif kind in (FaultKind.KILL_WORKER, FaultKind.FREEZE_WORKER):
            worker = rng.choice([number for number in range(1, WORKERS + 1) if number != frozen])
            frozen = worker if kind is FaultKind.FREEZE_WORKER else frozen
        plan.append(Fault(after, kind, worker))
    return tuple(plan)
