"""The first thing that goes wrong in every guide: the one server is killed while it works."""

from __future__ import annotations

from chaos.running.faults import Kill
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="server-dies",
    title="a REP server without a broker is killed, twice, and started again",
    promise="calls that may be repeated are, the others end with UNKNOWN; a REQ socket waits for ever",
    topology=Topology(
        brokers=0,
        workers=0,
        servers=1,
        clients=(Clients(dialect="req", shell="blocking", rate=15, mix=((Kind.SAFE, 2), (Kind.ONCE, 1))),),
    ),
    faults=(
        Kill(at_s=2.0, for_s=1.5, target="server 1"),
        Kill(at_s=6.0, for_s=1.0, target="server 1"),
    ),
    demands=Demands(recovery_s=6.0),
    control=True,
)
