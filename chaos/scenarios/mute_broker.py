"""Something takes connections and never says a word: a process that hangs, a wrong port, a firewall's trap."""

from __future__ import annotations

from chaos.running.faults import Freeze, Mute
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="mute-broker",
    title="the first broker in the list accepts and stays mute, then the second one freezes",
    promise="clients find the broker that answers",
    topology=Topology(brokers=2, clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(
        Mute(at_s=0.5, for_s=2.5),
        Freeze(at_s=4.0, for_s=4.0, target="broker 1"),
    ),
    demands=Demands(recovery_s=6.0, answered_min=0.6),
)
