"""Packets vanish in one direction only: each side has another idea of who is alive."""

from __future__ import annotations

from chaos.running.faults import CLIENTS, WORKERS, Partition
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="one-way-partition",
    title="packets vanish one way: from workers to broker, then from broker to clients",
    promise="nothing runs twice that must not, and both sides agree again soon after",
    topology=Topology(clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(
        Partition(at_s=1.5, for_s=4.0, link=WORKERS, to="broker"),
        Partition(at_s=7.0, for_s=4.0, link=CLIENTS, to="clients"),
    ),
    demands=Demands(recovery_s=6.0),
    control=True,
    short_factor=0.2,
)
