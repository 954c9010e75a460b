"""Requests vanish on their way: nothing runs, and the caller cannot know that either."""

from __future__ import annotations

from chaos.running.faults import Toxics
from chaos.running.model import Demands, Scenario
from chaos.toxi.toxics import Blackhole, Direction

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="request-lost",
    title="requests vanish between clients and broker while the connection stays open",
    promise="every call ends by its deadline, and runs again only where that is allowed",
    faults=(Toxics(at_s=2.0, for_s=4.0, toxics=(Blackhole(),), directions=(Direction.TO_SERVER,)),),
    demands=Demands(recovery_s=5.0),
    control=True,
)
