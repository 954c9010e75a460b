"""50 of 100 packets vanish between clients and broker, either way."""

from __future__ import annotations

from chaos.running.faults import Loss
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="packet-loss-50",
    title="50 % of all packets between clients and broker vanish",
    promise="every call ends by its deadline; no more can be asked",
    topology=Topology(
        clients=(Clients(rate=15, timeout_s=6.0), Clients(shell="blocking", rate=5, timeout_s=6.0)),
        heartbeat_s=1.0,
        attempt_timeout_s=2.5,
    ),
    faults=(Loss(at_s=1.5, for_s=8.0, share=0.5),),
    demands=Demands(recovery_s=10.0, answered_min=0.0),
    control=True,
    short_factor=0.25,
)
