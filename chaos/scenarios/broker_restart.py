"""The only broker is killed and comes back as another life of itself, which knows nothing."""

from __future__ import annotations

from chaos.running.faults import Kill
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="broker-restart",
    title="the only broker is killed and started again, twice",
    promise="workers register anew, calls that may be repeated go on, the others end with UNKNOWN",
    topology=Topology(
        clients=(
            Clients(),
            Clients(shell="blocking", rate=10),
            # Long enough that some of these are always being worked on when the broker dies.
            Clients(rate=4, timeout_s=15, work_s=0.3, mix=((Kind.ONCE, 2), (Kind.CAREFUL, 1))),
        ),
    ),
    faults=(
        Kill(at_s=1.5, for_s=0.5, target="broker 1"),
        Kill(at_s=5.0, for_s=1.5, target="broker 1"),
    ),
    demands=Demands(recovery_s=8.0),
)
