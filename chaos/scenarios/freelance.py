"""No broker: a client and three servers that answer PING (10/FLP)."""

from __future__ import annotations

from chaos.running.faults import Freeze, Kill
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="freelance",
    title="three servers without a broker; one after the other is killed or stopped, and comes back",
    promise="calls that may be repeated go on at the next server, the others end with UNKNOWN or their reply",
    topology=Topology(
        brokers=0,
        workers=0,
        servers=3,
        clients=(
            Clients(dialect="freelance", rate=15, mix=((Kind.SAFE, 2), (Kind.ONCE, 1))),
            Clients(dialect="freelance", shell="blocking", rate=8, mix=((Kind.SAFE, 2), (Kind.ONCE, 1))),
        ),
    ),
    faults=(
        Kill(at_s=1.5, for_s=2.5, target="server 1"),
        Kill(at_s=3.0, for_s=2.5, target="server 2"),
        Freeze(at_s=6.5, for_s=3.0, target="server 3"),
        Kill(at_s=7.5, for_s=1.0, target="server 1"),
    ),
    demands=Demands(recovery_s=5.0, answered_min=0.6),
    short_factor=0.3,
)
