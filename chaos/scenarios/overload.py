"""More is asked than can be done, for a while."""

from __future__ import annotations

from chaos.running.faults import Burst
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="overload",
    title="clients call many times as often as the workers can serve",
    promise="queues stay bounded, calls end by their deadline as NOT_EXECUTED, and service resumes at once",
    topology=Topology(
        workers=2,
        concurrency=1,
        clients=(Clients(count=2, rate=10, work_s=0.03, timeout_s=2.5, mix=((Kind.SAFE, 3), (Kind.ONCE, 1))),),
    ),
    faults=(Burst(at_s=1.5, for_s=4.0, factor=30.0),),
    demands=Demands(queued_max=900),
)
