"""A handler holds the interpreter lock: the process lives, its loop is silent."""

from __future__ import annotations

from chaos.running.faults import HoldGil
from chaos.running.model import Clients, Demands, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="gil-holder",
    title="a handler holds the interpreter lock of its worker for seconds",
    promise="the worker is called stuck, not dead; it gets no new work, and its caller gets the reply",
    topology=Topology(clients=(Clients(rate=20),)),
    faults=(HoldGil(at_s=1.5, for_s=4.0),),
    demands=Demands(answered_min=0.7, no_worker_lost=True),
)
