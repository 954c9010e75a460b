"""Requests arrive and are worked on, replies vanish: the work is done, and the caller cannot know."""

from __future__ import annotations

from chaos.running.faults import Toxics
from chaos.running.model import Demands, Scenario, Topology
from chaos.toxi.toxics import Blackhole, Direction

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="reply-lost",
    title="replies vanish between broker and clients while the connection stays open",
    promise="nothing that must not be repeated runs twice; who gets no reply hears UNKNOWN by the deadline",
    topology=Topology(),
    faults=(Toxics(at_s=2.0, for_s=4.0, toxics=(Blackhole(),), directions=(Direction.TO_CLIENT,)),),
    demands=Demands(recovery_s=5.0),
    control=True,
)
