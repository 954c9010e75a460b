"""A Paranoid Pirate queue (6/PPP) dies under its clients and workers, which have nothing but silence to go by."""

from __future__ import annotations

from chaos.running.faults import Kill
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="pirate-queue",
    title="a Paranoid Pirate queue is killed and started again, and a worker of it is killed at work",
    promise="workers come back by themselves, and calls, which may all be repeated, get their reply or end in time",
    topology=Topology(
        brokers=0,
        queue=True,
        concurrency=1,
        clients=(
            Clients(dialect="ppp", rate=15, mix=((Kind.SAFE, 1),)),
            Clients(dialect="ppp", shell="blocking", rate=5, mix=((Kind.SAFE, 1),)),
        ),
    ),
    faults=(
        Kill(at_s=1.5, for_s=0.7, target="queue 1"),
        Kill(at_s=5.0, for_s=1.0, target="worker ?"),
        Kill(at_s=7.5, for_s=1.5, target="queue 1"),
    ),
    demands=Demands(recovery_s=8.0, answered_min=0.5),
    short_factor=0.3,
)
