"""30 of 100 packets vanish between clients and broker, either way."""

from __future__ import annotations

from chaos.running.faults import Loss
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="packet-loss-30",
    title="30 % of all packets between clients and broker vanish",
    promise="most calls are answered within fifteen seconds; more than this TCP itself does not bear",
    topology=Topology(
        clients=(Clients(rate=15, timeout_s=15.0), Clients(shell="blocking", rate=5, timeout_s=15.0)),
        heartbeat_s=1.0,
        attempt_timeout_s=2.5,
    ),
    faults=(Loss(at_s=1.5, for_s=8.0, share=0.3),),
    demands=Demands(recovery_s=10.0, answered_min=0.7),
    control=True,
    short_factor=0.25,
)
