"""Calls without a reply, while brokers, workers and links die under them."""

from __future__ import annotations

from chaos.running.faults import Kill, LinkDown
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="one-way-sends",
    title="one-way calls while a worker is killed, the link is cut and the broker is killed",
    promise="each is accepted or refused by its deadline and runs at most once; later on what is accepted runs",
    topology=Topology(
        clients=(
            Clients(mix=((Kind.ONE_WAY, 4), (Kind.SAFE, 1))),
            Clients(shell="blocking", rate=10, mix=((Kind.ONE_WAY, 1),)),
        ),
    ),
    faults=(
        Kill(at_s=1.5, for_s=1.0, target="worker ?"),
        LinkDown(at_s=4.0, for_s=1.0),
        Kill(at_s=6.5, for_s=1.0, target="broker 1"),
    ),
    demands=Demands(recovery_s=6.0, answered_min=0.4),
    short_factor=0.25,
)
