"""Now and then a reply takes long; who may ask twice need not wait for it."""

from __future__ import annotations

from chaos.running.faults import SlowReplies
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="hedged-tail",
    title="one reply in five takes 0.8 s longer; one client hedges, the other does not",
    promise="hedged calls are rarely slow, the slower of a pair is stopped, and what must not run twice runs once",
    topology=Topology(
        workers=4,
        concurrency=4,
        clients=(
            Clients(rate=40, mix=((Kind.HEDGED, 6), (Kind.HEDGED_ONCE, 1), (Kind.ONCE, 1))),
            Clients(rate=30, mix=((Kind.SAFE, 1),)),
        ),
    ),
    faults=(SlowReplies(at_s=1.5, for_s=8.0, every=5, by_s=0.8),),
    demands=Demands(answered_min=0.98, no_worker_lost=True),
    short_factor=0.35,
)
