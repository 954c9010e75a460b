"""Looks at brokers: each sees what it is there for, and says nothing of a world in which all is well."""

from __future__ import annotations

import functools

import pytest

from brokers.config import BrokerConfig
from brokers.delivery import Dispatcher
from chaos.sim.actors import BrokerActor, ClientActor
from chaos.sim.probes import Probe, after_effects, beyond_budget, blamed, hoarded, reachable
from chaos.sim.world import World, takes
from reliable.config import ClientConfig, RetryBudget, RetryPolicy

BROKERS = {"b1": BrokerConfig()}


def looked_at(config: BrokerConfig = BROKERS["b1"]) -> tuple[World, Probe, ClientActor]:
    world = World(1)
    world.broker("b1", config)
    world.worker("w1", takes(0.1))
    probe = Probe(world, {"b1": config})
    return world, probe, world.client("c1")


def kinds(probe: Probe) -> set[str]:
    return {problem.split(":")[0] for problem in probe.problems}


def test_a_world_in_which_all_is_well_has_nothing_to_be_seen() -> None:
    """Also with a worker that is stuck, and one that is killed, as long as the broker finds out."""
    world, probe, client = looked_at()
    for number in range(20):
        world.at(number, functools.partial(client.submit, b"k%d" % number, "echo", timeout_s=5.0))
    world.at(3.0, lambda: world.stall("w1"))
    world.at(12.0, lambda: world.unstall("w1"))
    world.at(16.0, lambda: world.kill("w1"))
    world.run(30.0)
    assert probe.problems == []
    assert after_effects(world, BROKERS, [client]) == []
    assert beyond_budget([client]) == []


def test_a_call_that_is_kept_beside_an_idle_worker_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three looks, since one may fall between two messages."""
    world, probe, client = looked_at()
    world.run(1.0)
    monkeypatch.setattr(Dispatcher, "offer", lambda self, call, _worker: self._state.enqueue(call))
    client.submit(b"k1", "echo", timeout_s=20.0)
    world.run(2.0)
    assert probe.problems == []
    world.run(6.0)
    assert kinds(probe) == {"no progress"}
    assert len(probe.problems) == 1, "one line is enough"


def test_a_broker_that_leaves_messages_unread_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shell went to sleep on them."""
    world, probe, client = looked_at()
    world.run(1.5)
    monkeypatch.setattr(BrokerActor, "_read", lambda *_: None)
    client.submit(b"k1", "echo", timeout_s=2.0)
    world.run(6.0)
    assert "unread" in kinds(probe)
    assert any("unread messages" in line for line in after_effects(world, BROKERS, [client]))


def test_a_queue_beyond_its_bound_is_seen() -> None:
    """The look knows the settings of the broker that it looks at."""
    world, _, client = looked_at()
    strict = Probe(world, {"b1": BrokerConfig(queued_per_service_max=3)})
    for number in range(40):
        client.submit(b"k%d" % number, "echo", timeout_s=20.0)
    world.run(3.0)
    assert kinds(strict) == {"no bound"}


def test_calls_that_are_left_behind_are_seen() -> None:
    """At the end nobody may hold anything."""
    world, _, client = looked_at()
    client.submit(b"k1", "nobody", timeout_s=50.0)
    world.run(2.0)
    wrong = after_effects(world, BROKERS, [client])
    assert [line.split(":")[0] for line in wrong] == ["left behind", "left behind"]


def test_a_worker_that_was_blamed_is_seen() -> None:
    """Where a theme says that nobody was silent."""
    world, _, _ = looked_at()
    world.run(1.0)
    assert blamed(world, BROKERS) == []
    world.stall("w1")
    world.run(8.0)
    assert len(blamed(world, BROKERS)) == 1


def test_more_attempts_than_are_paid_for_are_seen() -> None:
    """Of a client with a budget; one without may ask as often as it likes."""
    world = World(1)
    world.broker("b1")
    budget = RetryBudget(ratio=0.0, tokens_max=2.0)
    paid = world.client("c1", config=ClientConfig(retry=RetryPolicy(budget=budget)))
    free = world.client("c2", config=ClientConfig(retry=RetryPolicy(budget=None)))
    for client in (paid, free):
        client.engine.counters.retries = 3
    assert [line.split(":")[0] for line in beyond_budget([paid, free])] == ["beyond the budget"]


def test_an_engine_that_keeps_much_when_there_is_nothing_to_do_is_seen() -> None:
    """Each call and each heartbeat may leave next to nothing behind, or a process that runs for months grows."""
    world, _, client = looked_at()
    for number in range(60):
        world.at(number * 0.2, functools.partial(client.submit, b"k%d" % number, "echo", timeout_s=5.0))
    world.run(13.0)
    assert [problem.split(" keeps ")[0] for problem in hoarded(world)] == ["hoard: b1", "hoard: w1"]
    world.run(60.0)
    client.submit(b"the worker sweeps up when it answers", "echo", timeout_s=5.0)
    world.run(60.0)
    assert hoarded(world) == []
    engine = world.broker_engine("b1")
    engine._leak = [object() for _ in range(500)]  # type: ignore[attr-defined]
    assert [problem.split(" keeps ")[0] for problem in hoarded(world)] == ["hoard: b1"]


def test_what_hangs_on_an_object_is_counted_once_and_code_is_not() -> None:
    """A number that depended on how often something is referred to would say nothing."""
    item = [b"x", b"y"]
    assert reachable([item, item, reachable, int]) == 4
    around = [item]
    around.append(around)  # type: ignore[arg-type]
    assert reachable(around) == 4
