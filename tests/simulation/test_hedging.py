"""What hedging is worth: the slowest replies of workers that are slow now and then, in virtual time."""

from __future__ import annotations

import functools

import attrs

from chaos.sim.actors import Job, Run
from chaos.sim.network import NetworkModel
from chaos.sim.world import World
from reliable.config import ClientConfig, HedgePolicy
from reliable.wire.extension import ServiceOffer

WORKERS = 8
NORMAL_S = 0.01
SLOW_S = 20 * NORMAL_S
SLOW_SHARE = 0.02
CALLS = 6000
HEDGED = HedgePolicy(percentile=95.0)


@attrs.frozen
class Figures:
    """Of one run."""

    p50_s: float
    p99_s: float
    executions: int
    ok: int


def measure(hedge: HedgePolicy | None, seed: int = 1) -> Figures:
    """Open arrivals at a third of what the workers can do, all calls idempotent."""
    world = World(seed, model=NetworkModel(delay_s=(0.0001, 0.0003)))
    world.broker("b1")

    def handler(job: Job) -> Run:
        return Run(SLOW_S if world.rng.random() < SLOW_SHARE else NORMAL_S)

    for number in range(WORKERS):
        world.worker(f"w{number}", handler, services=[ServiceOffer(b"echo", True)], brokers=["b1"])
    client = world.client("c1", brokers=["b1"], config=ClientConfig())
    world.run(1.0)
    mean_s = NORMAL_S * (1 - SLOW_SHARE) + SLOW_S * SLOW_SHARE
    rate = WORKERS / mean_s / 3
    at_s = 0.0
    calls = []

    def call(key: bytes) -> None:
        calls.append(client.submit(key, "echo", timeout_s=5.0, idempotent=True, hedge=hedge))

    for number in range(CALLS):
        at_s += world.rng.expovariate(rate)
        world.at(at_s, functools.partial(call, b"k%d" % number))
    world.run(at_s + 6.0)
    assert world.problems() == []
    took = sorted(end.at_s - one.invoked_s for one in calls if (end := one.ending) is not None and not end.error)
    return Figures(took[len(took) // 2], took[int(len(took) * 0.99)], len(world.history.executions), len(took))


def test_hedging_cuts_the_slowest_replies_fivefold_for_a_tenth_more_work() -> None:
    """The figures that the documentation promises; with one seed they are the same each time."""
    plain, hedged = measure(None), measure(HEDGED)
    assert plain.ok == hedged.ok == CALLS == plain.executions
    assert hedged.p99_s * 5 <= plain.p99_s, (plain, hedged)
    assert hedged.executions <= 1.1 * CALLS, (plain, hedged)
    assert hedged.p50_s <= 1.05 * plain.p50_s
