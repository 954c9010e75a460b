"""Strangers at the broker's port: frames of impossible length, rubbish, and silence."""

from __future__ import annotations

from chaos.running.faults import Hostile
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="hostile-peers",
    title="strangers announce frames of up to 2**64 bytes to the broker, send rubbish, or say nothing",
    promise="each of them loses its own connection at most; the broker takes no memory for it and serves on",
    topology=Topology(clients=(Clients(), Clients(shell="blocking", rate=10))),
    faults=(
        Hostile(at_s=1.5, for_s=2.0, peers=30),
        Hostile(at_s=4.0, for_s=2.0, peers=90),
    ),
    demands=Demands(answered_min=0.98, no_worker_lost=True),
    short_factor=0.3,
)
