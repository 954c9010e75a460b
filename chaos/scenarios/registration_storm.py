"""Many workers come at once, and come again at once when the broker was away."""

from __future__ import annotations

from chaos.running.faults import Kill, Storm
from chaos.running.model import Demands, Scenario

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="registration-storm",
    title="sixty more workers register at once, the broker is restarted under them, then all of them are killed",
    promise="all are in service soon, calls go on meanwhile, and none is taken for lost while it lives",
    faults=(
        Storm(at_s=1.0, for_s=9.0, workers=60),
        Kill(at_s=5.0, for_s=0.5, target="broker 1"),
    ),
    demands=Demands(recovery_s=8.0, answered_min=0.4),
    short_factor=0.22,
)
