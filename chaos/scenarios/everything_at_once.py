"""All kinds of faults, on top of each other."""

from __future__ import annotations

from chaos.running.faults import WORKERS, Burst, Freeze, HoldGil, Kill, LinkDown, Loss, Poison, Toxics
from chaos.running.model import Clients, Demands, Scenario, Topology
from chaos.toxi.toxics import Blackhole, Direction, Latency

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="everything-at-once",
    title="kills, a freeze, a held GIL, a poison request, a burst, slow and cut links, lost packets, all at once",
    promise="every call ends by its deadline, nothing runs twice that must not, and all of it works again soon after",
    topology=Topology(
        brokers=2, workers=4, clients=(Clients(), Clients(shell="blocking", rate=10), Clients(rate=10, work_s=0.05))
    ),
    faults=(
        Toxics(at_s=1.5, for_s=6.0, toxics=(Latency(latency_s=0.05, jitter_s=0.05),)),
        HoldGil(at_s=1.6, for_s=2.0),
        Loss(at_s=2.0, for_s=7.0, link=WORKERS, share=0.1),
        Freeze(at_s=2.5, for_s=2.5, target="worker ?"),
        Burst(at_s=3.0, for_s=2.0, factor=4.0),
        Kill(at_s=3.5, for_s=2.0, target="broker 1"),
        Toxics(at_s=6.0, for_s=1.5, toxics=(Blackhole(),), directions=(Direction.TO_CLIENT,)),
        Kill(at_s=6.5, for_s=1.0, target="worker ?"),
        Poison(at_s=7.0, for_s=3.0),
        LinkDown(at_s=8.5, for_s=0.5),
        Kill(at_s=9.0, for_s=1.0, target="broker 2"),
    ),
    demands=Demands(recovery_s=10.0),
    short_factor=0.3,
)
