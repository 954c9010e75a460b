"""A worker stands still in the middle of its work, and goes on as if nothing had happened."""

from __future__ import annotations

from chaos.running.faults import Freeze
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="worker-freeze",
    title="a worker is stopped, and goes on seconds later with what it had in its hands",
    promise="its late replies harm nobody, and what it held is worked on elsewhere where that is allowed",
    topology=Topology(clients=(Clients(rate=30, work_s=0.05),)),
    faults=(
        Freeze(at_s=1.5, for_s=4.0, target="worker ?"),
        Freeze(at_s=7.0, for_s=1.0, target="worker ?"),
    ),
    demands=Demands(answered_min=0.7),
)
