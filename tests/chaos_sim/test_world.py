"""The world: production engines as processes that are called, killed, frozen and stalled, all from one seed."""

from __future__ import annotations

import pytest

from chaos.history import End
from chaos.sim.actors import Job, Run
from chaos.sim.faults import Cut, Freeze, Kill, Part, Stall, Stop
from chaos.sim.process import WorldError
from chaos.sim.world import World, address_of, takes
from reliable.config import WorkerConfig
from reliable.errors import Outcome
from reliable.protocol.events import JobError, Send
from reliable.wire.extension import ServiceOffer


def small_world(seed: int = 1) -> World:
    """One broker and one worker whose handler takes 0.1 s."""
    world = World(seed)
    world.broker("b1")
    world.worker("w1", takes(0.1))
    return world


def test_a_call_goes_through_all_three_engines_and_leaves_its_history() -> None:
    """The smallest complete run: everything else is built on it."""
    world = small_world()
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0)
    assert world.ended(call)
    assert call.ending is not None and call.ending.end is End.OK and call.ending.reply == (b"k1", b"done")
    (run,) = world.history.runs_of(b"k1")
    assert run.worker == "w1#1"
    assert run.finished_s is not None and run.finished_s - run.started_s == pytest.approx(0.1)
    assert world.problems() == []


def test_a_handler_may_fail() -> None:
    """Its failure is an end that says EXECUTED."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", lambda job: Run(0.1, JobError("ValueError", job.key.decode())))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0)
    assert world.ended(call)
    assert call.ending is not None
    assert (call.ending.end, call.ending.outcome, call.ending.error) == (End.FAILED, Outcome.EXECUTED, "WorkerFailed")


def test_a_killed_worker_ends_its_runs_and_starts_again_as_another_process() -> None:
    """Executions without an end are how checkers know what a kill interrupted."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(5.0))
    world.client("c1").submit(b"k1", "echo", timeout_s=3.0)
    assert world.run_until(lambda: bool(world.history.executions), within_s=5.0)
    world.kill("w1")
    world.run(10.0)
    (run,) = world.history.executions
    assert (run.finished_s, run.ended_s) == (None, world.clock() - 10.0)
    world.start("w1")
    assert world.history.capacity == {"w1#1": 1, "w1#2": 1}


@pytest.mark.parametrize("still", ["freeze", "stall"])
def test_a_handler_of_a_process_that_stands_still_returns_when_it_goes_on(still: str) -> None:
    """Nothing of a stopped process runs, neither its loop nor its threads."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(1.0))
    world.client("c1").submit(b"k1", "echo", timeout_s=20.0)
    assert world.run_until(lambda: bool(world.history.executions), within_s=5.0)
    getattr(world, still)("w1")
    world.run(4.0)
    (run,) = world.history.executions
    assert run.ended_s is None
    getattr(world, {"freeze": "thaw", "stall": "unstall"}[still])("w1")
    world.run(0.5)
    assert run.finished_s is not None and run.finished_s - run.started_s >= 4.0


def test_a_frozen_worker_loses_its_connection_and_a_stalled_one_does_not() -> None:
    """The whole difference between gone and stuck."""
    for still, connections in [("freeze", 0), ("stall", 1)]:
        world = small_world()
        world.run(1.0)
        getattr(world, still)("w1")
        world.run(6.0)
        assert world.network.connections("w1", address_of("b1")) == connections, still


def test_a_restarted_broker_has_another_life() -> None:
    """And the engine of the former one is gone with all it knew."""
    world = small_world()
    world.run(1.0)
    first = world.broker_engine("b1")
    world.kill("b1")
    assert world.snapshot("b1") is None
    world.start("b1")
    assert world.broker_engine("b1").life != first.life
    world.run(5.0)
    snapshot = world.snapshot("b1")
    assert snapshot is not None and len(snapshot.workers) == 1


def test_a_stopped_broker_says_goodbye_and_a_stopped_worker_drains() -> None:
    """SIGTERM in contrast to SIGKILL: nobody has to wait for a timeout to learn of it."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(1.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=20.0)
    assert world.run_until(lambda: bool(world.history.executions), within_s=5.0)
    world.schedule([Stop(0.0, "w1", 30.0)])
    assert world.ended(call)
    assert call.ending is not None and call.ending.end is End.OK, "a drain finishes what runs"
    world.schedule([Stop(0.0, "b1", 30.0)])
    world.run(1.0)
    assert world.snapshot("b1") is None


def test_every_fault_of_a_schedule_is_over_at_its_end() -> None:
    """Otherwise progress could not be demanded after the last one."""
    world = small_world()
    world.run(1.0)
    world.schedule(
        [
            Freeze(0.1, "w1", 0.5),
            Stall(1.0, "b1", 0.5),
            Cut(2.0, "w1", "b1", silent=True, ways="up"),
            Part(3.0, "c1", "b1", 0.5),
            Kill(4.0, "b1", 0.5),
        ]
    )
    call = None
    client = world.client("c1")
    world.run(12.0)
    call = client.submit(b"k1", "echo", timeout_s=5.0)
    assert world.ended(call)
    assert call.ending is not None and call.ending.end is End.OK
    assert len(world.trace.matching("fault")) == 5


def test_services_tell_the_checkers_what_may_be_repeated() -> None:
    """A worker's declaration counts for every call of the service."""
    world = World(1)
    world.broker("b1")
    services = (ServiceOffer(b"pure", True), ServiceOffer(b"pay", False), ServiceOffer(b"echo"))
    world.worker("w1", takes(0.1), services=services, config=WorkerConfig(concurrency=3))
    assert (world.history.declared, world.history.vetoed) == ({"pure"}, {"pay"})
    assert world.history.capacity == {"w1#1": 3}


def test_an_engine_that_would_make_a_shell_spin_is_found() -> None:
    """After its timers ran, its next deadline must lie in the future."""
    world = small_world()
    engine = world.broker_engine("b1")
    engine.next_deadline = lambda: world.clock()  # type: ignore[method-assign]
    with pytest.raises(WorldError, match="would spin"):
        world.run(1.0)


def test_an_engine_that_sends_on_a_link_that_is_over_is_found() -> None:
    """In a shell that is a socket which was closed."""
    world = small_world()
    client = world.client("c1")
    client.engine.effects = lambda: [Send(99, [b"x"])]  # type: ignore[method-assign]
    with pytest.raises(WorldError, match="which is over"):
        client.submit(b"k1", "echo", timeout_s=1.0)
        world.run(1.0)


def test_handlers_get_to_know_what_they_run() -> None:
    """Scripts decide by call, delivery and time."""
    seen: list[Job] = []

    def handler(job: Job) -> Run:
        seen.append(job)
        return Run(0.0)

    world = World(1)
    world.broker("b1")
    world.worker("w1", handler)
    assert world.ended(world.client("c1").submit(b"k1", "echo", timeout_s=5.0, idempotent=True))
    (job,) = seen
    assert (job.key, job.worker, job.start.delivery, job.start.service) == (b"k1", "w1", 1, b"echo")


def test_a_cancelled_call_ends_at_once_and_a_killed_client_leaves_its_calls_open() -> None:
    """Two ways in which nobody waits any more."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(None))
    client, victim = world.client("c1"), world.client("c2")
    call = client.submit(b"k1", "echo", timeout_s=20.0)
    orphan = victim.submit(b"k2", "echo", timeout_s=20.0)
    world.run(1.0)
    client.cancel(b"k1")
    victim.kill()
    world.run(0.1)
    assert call.ending is not None and call.ending.error == "RequestAbandoned"
    assert orphan.abandoned and not orphan.endings
    world.run(30.0)
    assert world.problems() == []
