"""How fast the simulator is: a pair of brokers, 10 workers and 20 clients, under three loads.

    python -m benchmarks.simulator [--rounds N] [--json FILE]
    python -m benchmarks.simulator --profile 2

"Times as fast" is simulated time over processor time, so other processes disturb it little. What it depends on most is
the load: a world in which nothing is asked for has heartbeats alone, and each call adds about thirteen things that
happen. The control, an integer loop, shows how much of a difference between two runs is the machine's.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.figures import Spread, about_machine, spread_of
from chaos.cli_sim import spare_collector
from chaos.sim.world import World, takes

__all__ = ["LOADS", "Load", "Taken", "build", "main", "measure"]

BROKERS: Final = 2
WORKERS: Final = 10
CLIENTS: Final = 20
_RUN_S: Final = 0.05
"""What a handler takes."""
_CONTROL_STEPS: Final = 300_000


@attrs.frozen
class Load:
    """Calls per second, of all clients together, and how long to simulate them."""

    per_s: int
    simulated_s: float


LOADS: Final = (Load(2, 100.0), Load(20, 30.0), Load(100, 8.0))


@attrs.frozen
class Taken:
    """One round under one load."""

    times_as_fast: float
    happenings_per_s: float
    """In a simulated second."""
    us_per_happening: float
    control_us: float
    """Of an integer loop that is always the same."""


def build(load: Load) -> World:
    """A world that has come to rest, and is called from now on."""
    world = World(1, keep_trace=False)
    for number in range(BROKERS):
        world.broker(f"b{number}")
    for number in range(WORKERS):
        world.worker(f"w{number}", takes(_RUN_S))
    clients = [world.client(f"c{number}") for number in range(CLIENTS)]
    world.run(1.0)
    made = 0
    until = world.clock() + load.simulated_s

    def call() -> None:
        nonlocal made
        if world.clock() >= until:
            return
        clients[made % CLIENTS].submit(b"k%d" % made, "echo", timeout_s=5.0)
        made += 1
        world.at(1.0 / load.per_s, call)

    world.at(0.0, call)
    return world


def measure(load: Load) -> Taken:
    """One round."""
    world = build(load)
    before = world.agenda.happened
    began = time.process_time()
    world.run(load.simulated_s)
    taken_s = time.process_time() - began
    happened = world.agenda.happened - before
    world.run(_RUN_S + 1.0)
    if world.problems():
        raise RuntimeError(f"the world that is measured has problems: {world.problems()[:3]}")
    return Taken(load.simulated_s / taken_s, happened / load.simulated_s, taken_s / happened * 1e6, _control_s() * 1e6)


def _control_s() -> float:
    began = time.process_time()
    total = 0
    for number in range(_CONTROL_STEPS):
        total += number & 7
    return time.process_time() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=int, metavar="PER_S", help="show where one round under this load goes")
    chosen = parser.parse_args(arguments)
    if chosen.profile:
        _profile(Load(chosen.profile, 10.0))
        return 0
    spare_collector()
    found = {load.per_s: [measure(load) for _ in range(chosen.rounds)] for load in LOADS}
    print(f"{BROKERS} brokers, {WORKERS} workers, {CLIENTS} clients; {chosen.rounds} rounds")
    for per_s, rounds in found.items():
        fast = _spread(rounds, "times_as_fast")
        best = max(one.times_as_fast for one in rounds)
        each = f"{rounds[0].happenings_per_s:.0f} happenings/s of {_spread(rounds, 'us_per_happening').text(' us', 1)}"
        print(f"  {per_s:4d} calls/s: {fast.text(' x real time', 0)}, best {best:.0f}; {each}")
    control = spread_of([one.control_us for rounds in found.values() for one in rounds])
    print(f"  control: {control.text(' us', 0)}  (noise)")
    if chosen.json:
        loads = {str(per_s): [attrs.asdict(one) for one in rounds] for per_s, rounds in found.items()}
        chosen.json.write_text(json.dumps({"machine": about_machine(), "loads": loads}, indent=1), encoding="utf-8")
    return 0


def _spread(rounds: Sequence[Taken], name: str) -> Spread:
    return spread_of([getattr(one, name) for one in rounds])


def _profile(load: Load) -> None:
    world = build(load)
    with cProfile.Profile(time.process_time) as profile:
        world.run(load.simulated_s)
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    sys.exit(main())
