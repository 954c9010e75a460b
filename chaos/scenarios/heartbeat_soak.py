"""Nothing breaks, and nothing may be taken for broken."""

from __future__ import annotations

from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="heartbeat-soak",
    title="much load and no fault at all",
    promise="no worker is taken for lost, no call fails",
    topology=Topology(
        workers=3, concurrency=2, clients=(Clients(rate=60, work_s=0.02), Clients(shell="blocking", rate=30))
    ),
    quiet_s=30.0,
    demands=Demands(no_worker_lost=True),
    short_factor=0.05,
)
