"""The world: production engines as processes that are called, killed, frozen and stalled, all from one seed."""

from __future__ import annotations

import pytest

from chaos.history import End
from chaos.sim.actors import Job, Run
from chaos.sim.faults import Cut, Freeze, Kill, Leave, Part, Stall, Stop
from chaos.sim.network import NetworkModel
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


def test_a_broker_that_leaves_lets_its_workers_end_what_they_hold() -> None:
    """A stop without a drain would end this call as one that may have run."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(1.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0, idempotent=False)
    assert world.run_until(lambda: bool(world.history.executions), within_s=2.0)
    world.schedule([Leave(0.0, "b1", 3.0, 0.5)])
    assert world.ended(call)
    assert call.ending is not None and call.ending.end is End.OK
    world.run(0.5)
    assert world.snapshot("b1") is None
    world.run(10.0)
    assert world.broker_actor("b1").incarnation == 2 and world.snapshot("b1") is not None


def test_a_broker_that_leaves_does_not_wait_for_longer_than_it_may() -> None:
    """A handler that never returns must not keep it."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(None))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=30.0, idempotent=False)
    assert world.run_until(lambda: bool(world.history.executions), within_s=2.0)
    world.schedule([Leave(0.0, "b1", 2.0, 60.0)])
    world.run(1.9)
    assert world.snapshot("b1") is not None and not call.endings
    world.run(0.5)
    assert world.snapshot("b1") is None
    assert call.ending is not None and call.ending.outcome is Outcome.UNKNOWN


def test_a_handler_may_say_how_far_it_is() -> None:
    """Only who asks hears of it, word by word and in order."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", lambda _job: Run(0.5, news=3))
    client = world.client("c1")
    asked = client.submit(b"k1", "echo", timeout_s=5.0, wants_progress=True)
    assert world.ended(asked)
    not_asked = client.submit(b"k2", "echo", timeout_s=5.0)
    assert world.ended(not_asked)
    assert [word[0::3] for word in asked.news] == [(b"k1", b"0"), (b"k1", b"1"), (b"k1", b"2")]
    assert not_asked.news == [] and world.problems() == []


def test_a_handler_may_obey_when_it_is_told_that_nobody_waits() -> None:
    """Those that do end in another way than those that run on."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", lambda _job: Run(None, obeys_after_s=0.1))
    client = world.client("c1")
    client.submit(b"k1", "echo", timeout_s=5.0)
    assert world.run_until(lambda: bool(world.history.executions), within_s=2.0)
    client.cancel(b"k1")
    (run,) = world.history.executions
    assert world.run_until(lambda: run.ended_s is not None, within_s=2.0)
    assert run.told_s is not None and run.ended_s == pytest.approx(run.told_s + 0.1)
    world.run(1.0)
    snapshot = world.snapshot("b1")
    assert snapshot is not None and [worker.state for worker in snapshot.workers] == ["idle"]


def test_what_fails_before_the_handler_is_entered_is_no_execution() -> None:
    """NOT_EXECUTED is said of it, and has to be true."""
    world = World(1)
    world.broker("b1")
    refusal = JobError("ImportError", "no such module", executed=False)
    world.worker("w1", lambda _job: Run(0.0, refusal, enters=False))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0, idempotent=False)
    assert world.ended(call)
    assert call.ending is not None and call.ending.outcome is Outcome.NOT_EXECUTED
    assert world.history.executions == [] and world.problems() == []


def test_a_call_may_have_all_the_time_there_is() -> None:
    """It ends when it is answered."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(100.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=None)
    assert call.deadline_s is None
    assert world.ended(call, within_s=200.0)
    assert call.ending is not None and call.ending.end is End.OK and world.problems() == []


def test_a_caller_reckons_its_deadline_by_its_own_clock() -> None:
    """A clock that goes wrong makes a call of an hour seconds longer, and that is nobody's fault."""
    world = World(3, drift=0.002)
    world.broker("b1")
    client = world.client("c1")
    call = client.submit(b"k1", "nobody", timeout_s=3600.0)
    assert call.deadline_s is not None and abs(call.deadline_s - world.clock() - 3600.0) > 0.5
    world.run(3610.0)
    assert world.problems() == []


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


def test_clocks_that_go_wrong_shift_what_each_process_does_and_no_promise() -> None:
    """A timeout of five seconds lasts a little longer on a slow clock; nothing spins for a rounding of it."""
    world = World(3, drift=0.05)
    world.broker("b1")
    world.worker("w1", takes(0.1))
    client = world.client("c1")
    rate = world._rate_of("c1")
    assert rate != 1.0 and world._rate_of("c1") == rate != world._rate_of("w1")
    world.run(1.0)
    began = world.clock()
    call = client.submit(b"k1", "nobody", timeout_s=5.0)
    assert world.ended(call)
    assert call.ending is not None
    lasted_s = call.ending.at_s - began
    assert lasted_s == pytest.approx(5.0 / rate, abs=0.3)
    assert client.now() - world.started_s == pytest.approx((world.clock() - world.started_s) * rate)
    assert world.ended(client.submit(b"k2", "echo", timeout_s=5.0))
    world.run(60.0)
    assert world.agenda.happened < 3000


def test_a_closed_client_ends_its_calls_and_can_start_anew() -> None:
    """In contrast to a killed one, which can tell nobody."""
    world = small_world()
    client = world.client("c1")
    world.run(1.0)
    call = client.submit(b"k1", "nobody", timeout_s=20.0)
    world.run(0.5)
    world.schedule([Stop(0.0, "c1", 1.0)])
    world.run(0.1)
    assert call.ending is not None and call.ending.error == "RequestAbandoned"
    assert client.incarnation == 1
    world.run(5.0)
    assert client.incarnation == 2
    again = client.submit(b"k2", "echo", timeout_s=5.0)
    assert world.ended(again)
    assert again.ending is not None and again.ending.end is End.OK
    assert world.problems() == []


def test_a_frozen_client_is_not_blamed_for_a_deadline_that_passed_meanwhile() -> None:
    """It ends the call as soon as it runs again, and the history says why it could not before."""
    world = small_world()
    client = world.client("c1")
    world.run(1.0)
    call = client.submit(b"k1", "nobody", timeout_s=2.0)
    world.run(1.0)
    world.freeze("c1")
    world.run(6.0)
    assert not call.endings
    world.thaw("c1")
    world.run(0.2)
    assert call.ending is not None
    assert [pause.to_s - pause.from_s for pause in world.history.pauses["c1"]] == [pytest.approx(6.0)]
    assert world.problems() == []


def test_a_streamed_reply_comes_in_parts() -> None:
    """Key, who ran it, and which part it is: what the checker of their order looks at."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", lambda _job: Run(0.4, parts=3))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0)
    assert world.ended(call)
    assert call.parts == [(b"k1", b"part", b"w1#1/1", b"%d" % number) for number in range(3)]
    assert call.ending is not None and call.ending.reply == (b"k1", b"done", b"3")


def test_what_workers_wait_and_whom_brokers_send_away_is_noted() -> None:
    """The history shows what no call shows: backoffs and DISCONNECTs."""
    world = small_world()
    world.run(1.0)
    world.cut("w1", "b1")
    world.run(3.0)
    (wait,) = world.history.waits
    assert wait.process == "w1#1" and 0.0 <= wait.seconds <= 0.1
    assert world.history.dismissals == []
    world.schedule([Stop(0.0, "b1", 1.0)])
    world.run(0.5)
    (told,) = world.history.dismissals
    assert told.broker == "b1#1" and not told.ours, "a broker that stops may say so"


def test_a_handler_that_is_told_to_stop_is_noted() -> None:
    """With the moment, so that a checker can say whether it was in time."""
    world = World(1)
    world.broker("b1")
    world.worker("w1", takes(5.0))
    client = world.client("c1")
    client.submit(b"k1", "echo", timeout_s=20.0)
    world.run(1.0)
    client.cancel(b"k1")
    world.run(1.0)
    (run,) = world.history.executions
    assert run.told_s is not None and run.told_s - world.started_s == pytest.approx(1.0, abs=0.1)


def test_a_monitored_broker_hears_that_a_connection_ended() -> None:
    """As from the socket monitor of the real shell: it looks at once, and need not wait for a heartbeat to fail."""
    for monitored, probes in [(True, 2), (False, 0)]:
        world = World(1, model=NetworkModel(monitored=monitored))
        world.broker("b1")
        world.worker("w1", takes(0.1))
        world.worker("w2", takes(0.1))
        world.run(1.05)
        world.kill("w1")
        world.run(0.5)
        assert world.broker_engine("b1").counters.probes == probes
