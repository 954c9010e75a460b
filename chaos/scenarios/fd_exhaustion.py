"""The broker may open nothing more: every connection that it has stays, none is added."""

from __future__ import annotations

from chaos.running.faults import Descriptors
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="fd-exhaustion",
    title="the broker runs out of file descriptors while new clients keep coming",
    promise="who is connected is served on, newcomers end with an error in time, and are let in again afterwards",
    topology=Topology(
        clients=(
            Clients(rate=20),
            Clients(shell="blocking", rate=10),
            Clients(rate=4, timeout_s=2.0, mix=((Kind.NEWCOMER, 1),)),
        ),
    ),
    faults=(Descriptors(at_s=1.5, for_s=6.0),),
    demands=Demands(recovery_s=6.0, answered_min=0.7, no_worker_lost=True),
    short_factor=0.4,
)
