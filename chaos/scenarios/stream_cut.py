"""Replies in many parts, cut in their middle."""

from __future__ import annotations

from chaos.running.faults import WORKERS, Kill, LinkDown
from chaos.running.model import Clients, Demands, Kind, Scenario, Topology

__all__ = ["SCENARIO"]

SCENARIO = Scenario(
    name="stream-cut",
    title="streams and words of progress while the links of clients and workers are cut, and a worker is killed",
    promise="no part or word of progress twice, out of order, or of another run; no stream with a hole ends well",
    topology=Topology(
        concurrency=8,
        clients=(
            Clients(rate=5, work_s=0.04, parts=20, mix=((Kind.STREAM, 2), (Kind.STREAM_AGAIN, 2), (Kind.PROGRESS, 2))),
            Clients(
                shell="blocking",
                rate=2,
                work_s=0.04,
                parts=20,
                mix=((Kind.STREAM, 1), (Kind.STREAM_AGAIN, 1), (Kind.PROGRESS, 1)),
            ),
        ),
    ),
    faults=(
        LinkDown(at_s=2.0, for_s=1.0),
        LinkDown(at_s=5.0, for_s=0.6, link=WORKERS),
        Kill(at_s=8.0, for_s=1.0, target="worker ?"),
        LinkDown(at_s=11.0, for_s=2.5, link=WORKERS),
    ),
    demands=Demands(recovery_s=6.0, streams_cut=True),
    short_factor=0.35,
)
