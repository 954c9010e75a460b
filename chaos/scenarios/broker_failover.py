"""The broker in use dies; there is another one."""

from __future__ import annotations

from chaos.running.faults import Kill
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="broker-failover",
    title="two brokers; the one in use is killed, comes back, and the other one is killed",
    promise="calls go on at the other broker; what may have run and must not run twice ends with UNKNOWN",
    topology=Topology(brokers=2, clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(
        Kill(at_s=2.0, for_s=3.0, target="broker 1"),
        Kill(at_s=7.0, for_s=2.0, target="broker 2"),
    ),
    demands=Demands(recovery_s=6.0, answered_min=0.75),
)
