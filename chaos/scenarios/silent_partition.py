"""All packets vanish both ways and nobody is told: what a pulled cable, or a firewall, looks like."""

from __future__ import annotations

from chaos.running.faults import Partition
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="silent-partition",
    title="all packets between clients and broker vanish, both ways",
    promise="calls end by their deadline, and new ones succeed soon after the cut is mended",
    topology=Topology(clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(Partition(at_s=2.0, for_s=5.0),),
    demands=Demands(recovery_s=6.0),
    control=True,
)
