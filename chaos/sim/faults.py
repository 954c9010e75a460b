"""Faults as values, and schedules of them drawn from a seed.

A schedule is data: it can be printed, cut down to the smallest one that still fails, and kept as a regression.
Times are seconds since the schedule was started; every fault that lasts ends by itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

__all__ = [
    "KINDS",
    "LASTING_S",
    "Clog",
    "Cut",
    "Fault",
    "Freeze",
    "Kill",
    "Leave",
    "Part",
    "Stall",
    "Stop",
    "end_of",
    "random_schedule",
]

KINDS: Final = ("kill", "kill", "stop", "leave", "freeze", "stall", "cut", "cut", "silent cut", "part", "clog")
"""Kinds of faults, as often as they are usually drawn."""
LASTING_S: Final = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0)
"""How long they usually last, give or take a half."""


@attrs.frozen
class Kill:
    """SIGKILL a process; it is started again ``down_s`` later."""

    at_s: float
    target: str
    down_s: float


@attrs.frozen
class Stop:
    """SIGTERM a process; it is started again ``down_s`` later."""

    at_s: float
    target: str
    down_s: float


@attrs.frozen
class Leave:
    """SIGTERM a broker that may take ``drain_s`` to leave; it is started again ``down_s`` after it has gone."""

    at_s: float
    target: str
    drain_s: float
    down_s: float


@attrs.frozen
class Freeze:
    """SIGSTOP, and SIGCONT after ``for_s``."""

    at_s: float
    target: str
    for_s: float


@attrs.frozen
class Stall:
    """The loop of a process stands still for ``for_s``, its ZMTP heartbeats go on."""

    at_s: float
    target: str
    for_s: float


@attrs.frozen
class Cut:
    """Break the connections between a client or worker and a broker, at once or in silence (``ways``)."""

    at_s: float
    peer: str
    broker: str
    silent: bool = False
    ways: str = "both ways"


@attrs.frozen
class Part:
    """No packet passes between a client or worker and a broker for ``for_s``."""

    at_s: float
    peer: str
    broker: str
    for_s: float


@attrs.frozen
class Clog:
    """Packets between a client or worker and a broker are late by up to ``for_s``; none is lost."""

    at_s: float
    peer: str
    broker: str
    for_s: float


Fault: TypeAlias = Kill | Stop | Leave | Freeze | Stall | Cut | Part | Clog


def end_of(fault: Fault) -> float:
    """When nothing of a fault is left."""
    match fault:
        case Kill(down_s=rest) | Stop(down_s=rest):
            return fault.at_s + rest
        case Leave(drain_s=drain_s, down_s=rest):
            return fault.at_s + drain_s + rest
        case Freeze(for_s=rest) | Stall(for_s=rest) | Part(for_s=rest) | Clog(for_s=rest):
            return fault.at_s + rest
        case Cut():
            return fault.at_s


def random_schedule(
    rng: random.Random,
    *,
    brokers: Sequence[str],
    processes: Sequence[str],
    peers: Sequence[str],
    count: int,
    over_s: float,
    last_s: Sequence[float] = LASTING_S,
    kinds: Sequence[str] = KINDS,
) -> list[Fault]:
    """``count`` faults that begin within ``over_s`` and hit anything.

    Args:
        rng: The seed's generator.
        brokers: Names of the brokers.
        processes: Who is killed, stopped, frozen and stalled; who stands there twice, twice as often.
        peers: Workers and clients that lose connections.
        count: How many.
        over_s: Length of the time in which they begin.
        last_s: How long they last, give or take a half.
        kinds: Drawn from; what stands in it twice comes twice as often.
    """
    faults = []
    for _ in range(count):
        at_s = round(rng.uniform(0.0, over_s), 3)
        target, peer, broker = rng.choice(processes), rng.choice(peers), rng.choice(brokers)
        length_s = round(rng.choice(last_s) * rng.uniform(0.5, 1.5), 3)
        faults.append(_one(rng, rng.choice(kinds), at_s, target, peer, broker, length_s))
    return sorted(faults, key=lambda fault: (fault.at_s, repr(fault)))


def _one(rng: random.Random, kind: str, at_s: float, target: str, peer: str, broker: str, last_s: float) -> Fault:
    match kind:
        case "kill":
            return Kill(at_s, target, last_s)
        case "stop":
            return Stop(at_s, target, last_s)
        case "leave":
            return Leave(at_s, broker, last_s, round(last_s * rng.random(), 3))
        case "freeze":
            return Freeze(at_s, target, last_s)
        case "stall":
            return Stall(at_s, target, last_s)
        case "cut":
            return Cut(at_s, peer, broker)
        case "silent cut":
            return Cut(at_s, peer, broker, silent=True, ways=rng.choice(("up", "down", "both ways")))
        case "part":
            return Part(at_s, peer, broker, last_s)
        case "clog":
            return Clog(at_s, peer, broker, last_s)
    raise ValueError(f"no such fault: {kind}")
