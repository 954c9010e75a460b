"""Faults as values, and schedules of them drawn from a seed.

A schedule is data: it can be printed, cut down to the smallest one that still fails, and kept as a regression.
Times are seconds since the schedule was started; every fault that lasts ends by itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

import attrs

__all__ = [
    "Clog",
    "Cut",
    "Fault",
    "Freeze",
    "Kill",
    "Part",
    "Stall",
    "Stop",
    "end_of",
    "random_schedule",
]


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


Fault: TypeAlias = Kill | Stop | Freeze | Stall | Cut | Part | Clog


def end_of(fault: Fault) -> float:
    """When nothing of a fault is left."""
    match fault:
        case Kill(down_s=rest) | Stop(down_s=rest):
            return fault.at_s + rest
        case Freeze(for_s=rest) | Stall(for_s=rest) | Part(for_s=rest) | Clog(for_s=rest):
            return fault.at_s + rest
        case Cut():
            return fault.at_s


def random_schedule(
    rng: random.Random,
    *,
    brokers: Sequence[str],
    workers: Sequence[str],
    clients: Sequence[str],
    count: int,
    over_s: float,
) -> list[Fault]:
    """``count`` faults that begin within ``over_s`` and hit anything.

    Args:
        rng: The seed's generator.
        brokers: Names of the brokers.
        workers: Names of the workers.
        clients: Names of the clients.
        count: How many.
        over_s: Length of the time in which they begin.
    """
    processes = [*brokers, *workers, *workers]
    peers = [*workers, *clients]
    faults = []
    for _ in range(count):
        at_s = round(rng.uniform(0.0, over_s), 3)
        target, peer, broker = rng.choice(processes), rng.choice(peers), rng.choice(brokers)
        last_s = round(rng.choice((0.01, 0.1, 0.5, 1.0, 2.0, 5.0)) * rng.uniform(0.5, 1.5), 3)
        faults.append(_one(rng, at_s, target, peer, broker, last_s))
    return sorted(faults, key=lambda fault: (fault.at_s, repr(fault)))


def _one(rng: random.Random, at_s: float, target: str, peer: str, broker: str, last_s: float) -> Fault:
    kind = rng.randrange(10)
    if kind < 2:
        return Kill(at_s, target, last_s)
    if kind == 2:
        return Stop(at_s, target, last_s)
    if kind == 3:
        return Freeze(at_s, target, last_s)
    if kind == 4:
        return Stall(at_s, target, last_s)
    if kind < 7:
        return Cut(at_s, peer, broker)
    if kind == 7:
        return Cut(at_s, peer, broker, silent=True, ways=rng.choice(("up", "down", "both ways")))
    if kind == 8:
        return Part(at_s, peer, broker, last_s)
    return Clog(at_s, peer, broker, last_s)
