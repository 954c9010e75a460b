"""The link goes down and up and down again, faster than anyone can settle."""

from __future__ import annotations

from chaos.running.faults import WORKERS, LinkDown
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="flapping-link",
    title="the link of the clients, then that of the workers, is cut and mended again and again",
    promise="each loss costs what was in flight at most; nothing runs twice that must not",
    topology=Topology(clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(
        *(LinkDown(at_s=1.5 + 1.2 * number, for_s=0.5) for number in range(4)),
        *(LinkDown(at_s=6.5 + 1.2 * number, for_s=0.5, link=WORKERS) for number in range(3)),
    ),
    demands=Demands(recovery_s=6.0, answered_min=0.5),
    control=True,
)
