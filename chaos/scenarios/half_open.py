"""Connections stay open while nothing passes: the other side is gone and nobody said so."""

from __future__ import annotations

from chaos.running.faults import WORKERS, Toxics
from chaos.running.model import Demands, Scenario
from chaos.toxi.toxics import Blackhole, Direction

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="half-open",
    title="connections stay open and carry nothing, both ways: first of the clients, then of the workers",
    promise="heartbeats find out; calls end by their deadline, workers come back into service",
    faults=(
        Toxics(at_s=1.5, for_s=4.0, toxics=(Blackhole(),), directions=(Direction.TO_CLIENT, Direction.TO_SERVER)),
        Toxics(
            at_s=7.0,
            for_s=4.0,
            link=WORKERS,
            toxics=(Blackhole(),),
            directions=(Direction.TO_CLIENT, Direction.TO_SERVER),
        ),
    ),
    demands=Demands(recovery_s=6.0),
    control=True,
    short_factor=0.2,
)
