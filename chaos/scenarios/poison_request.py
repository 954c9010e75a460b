"""A request that kills whoever works on it, and that may be repeated."""

from __future__ import annotations

from chaos.running.faults import Poison
from chaos.running.model import Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="poison-request",
    title="idempotent requests kill each worker that touches them",
    promise="they are given to three workers at most, then to nobody; everybody else is served",
    topology=Topology(workers=4),
    faults=(Poison(at_s=1.5, for_s=7.0, count=2),),
    demands=Demands(recovery_s=8.0, answered_min=0.5),
    short_factor=0.28,
)
