"""Workers are killed while they work, one after the other."""

from __future__ import annotations

from chaos.running.faults import Kill
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="worker-crash",
    title="workers are killed in the middle of their work",
    promise="idempotent calls are worked on elsewhere, the others end with UNKNOWN at once",
    topology=Topology(
        workers=4,
        # Much of it must not be repeated, and takes so long that each kill finds some of it in the victim's hands.
        clients=(
            Clients(
                rate=25,
                work_s=0.15,
                mix=((Kind.ONCE, 4), (Kind.SAFE, 3), (Kind.CAREFUL, 2), (Kind.DECLARED, 1), (Kind.STREAM, 1)),
            ),
            Clients(shell="blocking", rate=10),
            # Plain 18/MDP: no call ids, and no word from the broker if a call is lost.
            Clients(dialect="mdp/0.2", rate=5, mix=((Kind.SAFE, 2), (Kind.ONCE, 1))),
        ),
    ),
    faults=(
        Kill(at_s=1.5, for_s=0.5, target="worker ?"),
        Kill(at_s=4.0, for_s=0.5, target="worker ?"),
        Kill(at_s=6.5, for_s=0.5, target="worker ?"),
    ),
    demands=Demands(answered_min=0.5),
)
