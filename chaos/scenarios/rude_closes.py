"""Connections end as they should not: by a reset, in the middle of a message, or without a word for a while."""

from __future__ import annotations

from chaos.running.faults import WORKERS, LinkDown, Toxics
from chaos.running.model import Clients, Demands, Scenario, Topology
from chaos.toxi.toxics import Direction, LimitData, ResetPeer, SlowClose

__all__ = ["SCENARIO"]

_BOTH = (Direction.TO_CLIENT, Direction.TO_SERVER)

SCENARIO = Scenario(
    name="rude-closes",
    title="connections are reset, cut off within a message, or closed late, on one link after the other",
    promise="half a message is no message; calls go on over new connections, and nothing runs twice that must not",
    topology=Topology(clients=(Clients(body_bytes=2_000), Clients(shell="blocking", rate=10, body_bytes=2_000))),
    faults=(
        Toxics(at_s=1.5, for_s=1.0, toxics=(ResetPeer(after_s=0.1),), directions=_BOTH),
        Toxics(at_s=3.0, for_s=1.5, toxics=(LimitData(limit_bytes=9_000),), directions=_BOTH),
        Toxics(at_s=5.0, for_s=1.5, link=WORKERS, toxics=(LimitData(limit_bytes=9_000),), directions=_BOTH),
        Toxics(at_s=7.0, for_s=1.0, link=WORKERS, toxics=(ResetPeer(after_s=0.1),), directions=_BOTH),
        Toxics(at_s=8.5, for_s=2.0, toxics=(SlowClose(delay_s=1.0),), directions=_BOTH),
        LinkDown(at_s=9.0, for_s=0.5),
    ),
    demands=Demands(recovery_s=6.0, answered_min=0.3),
    short_factor=0.3,
)
