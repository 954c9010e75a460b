"""``bench mesh``: nodes that all send to each other, in four ways, over the number of nodes."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from typing import Any, Final

import attrs

from reliable.bench.children import Child
from reliable.bench.figures import Spread, ratios, spread_of
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns

__all__ = ["NODES_MAX", "WAYS", "MeshPlan", "measure", "sawtooth"]

NODES_MAX: Final = 10
WAYS: Final = {
    "connect": "a new connection per message, JSON over netstrings",
    "persistent": "persistent connections, request and reply, JSON over netstrings",
    "passing": "message passing, DEALER and ROUTER, many under way",
    "ours": "this library: all nodes are services of one broker, many under way",
}
_CONTROL: Final = "persistent again"
_SLACK_S: Final = 60.0


@attrs.frozen(kw_only=True)
class MeshPlan:
    """What ``bench mesh`` measures."""

    nodes: Sequence[int] = tuple(range(2, NODES_MAX + 1))
    ways: Sequence[str] = tuple(WAYS)
    body_bytes: int = 64
    in_flight: int = 16
    """Messages that one node has under way at once, where the way allows that."""
    turn_s: float = 0.25
    bounds: Bounds


def sawtooth(rates: Sequence[float]) -> float:
    """How much a curve goes up and down: the mean deviation of each inner point from the line between its neighbours.

    Args:
        rates: Over cluster sizes in their order.

    Returns:
        As a share of the mean rate; positive if points at odd places lie above their neighbours, negative if those at
        even places do, and near 0 if the curve is smooth or its ups and downs do not alternate.
    """
    inner = [rates[at] - (rates[at - 1] + rates[at + 1]) / 2 for at in range(1, len(rates) - 1)]
    if not inner:
        return 0.0
    signed = [deviation if at % 2 == 0 else -deviation for at, deviation in enumerate(inner)]
    return statistics.fmean(signed) / statistics.fmean(rates)


def measure(plan: MeshPlan, command: str, say: Say) -> Report:
    """Run it. All nodes are started once; a smaller mesh is some of them, and the others stand by.

    Raises:
        ChildFailed: A process could not do its part.
    """
    machine = about_machine()
    contestants = [*plan.ways, *([_CONTROL] if "persistent" in plan.ways else [])]
    found: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    wanted = [(way, nodes) for nodes in plan.nodes for way in contestants]
    with contextlib.ExitStack() as stack:
        say("progress", f"starting {max(plan.nodes)} nodes")
        broker = stack.enter_context(Child("broker")).url
        members = [
            stack.enter_context(Child("mesh-node", name=f"node-{number}", broker=broker, body_bytes=plan.body_bytes))
            for number in range(max(plan.nodes))
        ]
        facts = [member.ready() for member in members]
        for number in plan.bounds.numbers():
            for way, nodes in turns(wanted, number):
                say("progress", f"round {number + 1} of {plan.bounds.rounds}: {nodes} nodes, {way}")
                rate, cpu_us = _turn(members[:nodes], facts[:nodes], way, plan)
                found.setdefault((way, nodes), []).append(rate)
                cpu.setdefault((way, nodes), []).append(cpu_us)
    return _report(plan, contestants, found, cpu, machine, command)


def _turn(members: Sequence[Child], facts: Sequence[dict[str, Any]], way: str, plan: MeshPlan) -> tuple[float, float]:
    for number, member in enumerate(members):
        # Each begins with its next neighbour, not all with the first node.
        peers = [*facts[number + 1 :], *facts[:number]]
        real = "persistent" if way == _CONTROL else way
        member.tell(way=real, peers=peers, in_flight=plan.in_flight, seconds=plan.turn_s)
    answers = [member.answer(plan.turn_s + _SLACK_S) for member in members]
    messages = sum(answer["messages"] for answer in answers)
    rate = sum(answer["messages"] / answer["whole_ns"] * 1e9 for answer in answers)
    return rate, sum(answer["cpu_ns"] for answer in answers) / messages / 1000


def _report(
    plan: MeshPlan,
    contestants: Sequence[str],
    found: dict[tuple[str, int], list[float]],
    cpu: dict[tuple[str, int], list[float]],
    machine: dict[str, object],
    command: str,
) -> Report:
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    rows = [[str(nodes), *(f"{medians[way, nodes]:,.0f}" for way in contestants)] for nodes in plan.nodes]
    cpu_rows = [
        [str(nodes), *(f"{statistics.median(cpu[way, nodes]):,.0f}" for way in contestants)] for nodes in plan.nodes
    ]
    head = ["nodes", *contestants]
    noise = _noise(found, plan.nodes) if _CONTROL in contestants else None
    teeth = {way: sawtooth([medians[way, nodes] for nodes in plan.nodes]) for way in contestants}
    notes = [f"{way}: {WAYS[way]}" for way in plan.ways]
    notes.append(
        f"Medians of {max(map(len, found.values()))} rounds, interleaved; {plan.in_flight} under way per node."
    )
    if noise is not None:
        notes.append(f"Noise: persistent connections twice differ by {noise.text()}.")
    notes.append(
        "Up and down from one number of nodes to the next, as a share of the rate: "
        + ", ".join(f"{way} {share:+.1%}" for way, share in teeth.items())
    )
    return Report(
        name="mesh",
        command=command,
        machine=machine,
        tables=[
            Table(head, rows, "messages acknowledged per second, all nodes together"),
            Table(
                head,
                cpu_rows,
                "processor time of all nodes per message; the broker of ours is not in it",
            ),
        ],
        notes=notes,
        data={
            "plan": attrs.asdict(plan),
            "per_second": {way: {str(nodes): found[way, nodes] for nodes in plan.nodes} for way in contestants},
            "cpu_us": {way: {str(nodes): cpu[way, nodes] for nodes in plan.nodes} for way in contestants},
            "sawtooth": teeth,
            "noise": attrs.asdict(noise) if noise is not None else None,
        },
    )


def _noise(found: dict[tuple[str, int], list[float]], sizes: Sequence[int]) -> Spread:
    pairs = [ratios(found[_CONTROL, nodes], found["persistent", nodes]).median for nodes in sizes]
    return spread_of(pairs)
