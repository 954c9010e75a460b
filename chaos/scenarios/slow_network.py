"""Replies come late, in drops, and in slices; the link of the workers is slow as well."""

from __future__ import annotations

from chaos.running.faults import WORKERS, Toxics
from chaos.running.model import Demands, Scenario
from chaos.toxi.toxics import Bandwidth, Direction, Latency, Slicer

__all__ = ["SCENARIO"]

_BOTH = (Direction.TO_CLIENT, Direction.TO_SERVER)

SCENARIO = Scenario(
    name="slow-network",
    title="latency with jitter, little bandwidth and sliced packets, on one link after the other",
    promise="slow is not dead: no worker is taken for lost, and calls are answered",
    faults=(
        Toxics(at_s=1.5, for_s=3.0, toxics=(Latency(latency_s=0.15, jitter_s=0.05),), directions=_BOTH),
        Toxics(
            at_s=5.0,
            for_s=2.5,
            toxics=(Bandwidth(bytes_per_s=20_000), Slicer(average_bytes=64, delay_s=0.001)),
            directions=_BOTH,
        ),
        Toxics(at_s=8.0, for_s=3.0, link=WORKERS, toxics=(Latency(latency_s=0.1, jitter_s=0.05),), directions=_BOTH),
    ),
    demands=Demands(answered_min=0.9, no_worker_lost=True),
    control=True,
    short_factor=0.22,
)
