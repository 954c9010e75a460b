"""When what happens: faults as steps in time, and the calls of a client as a plan. Pure, and fixed by the seed."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Sequence

import attrs

from chaos.running.faults import Fault
from chaos.running.model import Clients

__all__ = ["PlannedCall", "Step", "What", "calls_of", "steps_of"]


class What(enum.Enum):
    """Which end of a fault."""

    BEGIN = "begin"
    END = "end"


@attrs.frozen
class Step:
    """One thing to do."""

    at_s: float
    what: What
    number: int
    """Of the fault, in the order of the scenario."""
    fault: Fault


@attrs.frozen
class PlannedCall:
    """One call to make."""

    after_s: float
    """Since the one before it, at the ordinary load."""
    kind: str


def steps_of(faults: Sequence[Fault]) -> tuple[Step, ...]:
    """All beginnings and ends in order of time; at the same moment an end comes before a beginning."""
    steps = []
    for number, fault in enumerate(faults):
        steps.append(Step(fault.at_s, What.BEGIN, number, fault))
        steps.append(Step(fault.at_s + fault.for_s, What.END, number, fault))
    return tuple(sorted(steps, key=lambda step: (step.at_s, step.what is What.BEGIN, step.number)))


def calls_of(clients: Clients, seed: str) -> Iterator[PlannedCall]:
    """Calls without end: kinds by their weights, at random intervals that give the wanted rate."""
    chance = random.Random(seed)
    kinds = [kind for kind, _ in clients.mix]
    weights = [weight for _, weight in clients.mix]
    while True:
        (kind,) = chance.choices(kinds, weights)
        # Evenly spread calls would meet a short fault always or never.
        yield PlannedCall(chance.uniform(0.5, 1.5) / clients.rate, kind)
