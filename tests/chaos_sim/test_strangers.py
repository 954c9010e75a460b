"""Plain MDP peers in a world: the broker's other public."""

from __future__ import annotations

from chaos.history import End
from chaos.sim.world import World, address_of, takes


def test_a_plain_client_and_a_plain_worker_work_through_our_broker() -> None:
    """Neither knows anything of the extension."""
    world = World(1)
    world.broker("b1")
    world.plain_worker("p1", takes(0.5), "echo", "b1")
    client = world.plain_client("q1", "b1")
    calls = [client.submit(b"k%d" % number, "echo", timeout_s=5.0) for number in range(3)]
    world.run(5.0)
    assert [call.ending.reply if call.ending else None for call in calls] == [
        (b"k0", b"done"),
        (b"k1", b"done"),
        (b"k2", b"done"),
    ]
    assert world.problems() == [] and all(run.plain for run in world.history.executions)


def test_a_plain_client_serves_ours_and_ours_serve_a_plain_client() -> None:
    """Both kinds meet in one service's queue."""
    world = World(1)
    world.broker("b1")
    world.plain_worker("p1", takes(0.2), "echo", "b1")
    world.worker("w1", takes(0.2))
    plain, ours = world.plain_client("q1", "b1"), world.client("c1")
    world.run(0.5)
    for number in range(4):
        plain.submit(b"q%d" % number, "echo", timeout_s=5.0)
        ours.submit(b"k%d" % number, "echo", timeout_s=5.0)
    world.run(5.0)
    assert {run.worker for run in world.history.executions} == {"p1#1", "w1#1"}
    assert all(call.ending is not None and call.ending.end is End.OK for call in world.history.calls.values())
    assert world.problems() == []


def test_a_plain_request_without_an_answer_ends_in_silence_and_the_next_one_has_a_new_socket() -> None:
    """A late reply must find nobody."""
    world = World(1)
    world.broker("b1")
    world.plain_worker("p1", takes(2.0), "echo", "b1")
    client = world.plain_client("q1", "b1")
    first = client.submit(b"k0", "echo", timeout_s=1.0)
    second = client.submit(b"k1", "echo", timeout_s=6.0)
    world.run(8.0)
    assert first.ending is not None and (first.ending.end, first.ending.error) == (End.UNKNOWN, "Silence")
    assert second.ending is not None and second.ending.reply == (b"k1", b"done")
    assert world.problems() == []


def test_plain_peers_recover_from_cuts_and_from_a_restarted_broker() -> None:
    """The worker registers anew, the client opens a new socket."""
    world = World(1)
    world.broker("b1")
    world.plain_worker("p1", takes(0.1), "echo", "b1")
    client = world.plain_client("q1", "b1")
    world.run(1.0)
    world.cut("p1", "b1")
    world.cut("q1", "b1", silent=True)
    world.run(6.0)
    world.kill("b1")
    world.run(0.5)
    world.start("b1")
    world.run(4.0)
    call = client.submit(b"k1", "echo", timeout_s=3.0)
    assert world.ended(call)
    assert call.ending is not None and call.ending.end is End.OK
    assert world.network.connections("p1", address_of("b1")) == 1


def test_a_killed_plain_worker_leaves_a_run_without_an_end() -> None:
    """And a drained one says DISCONNECT first, so that nobody waits for it."""
    world = World(1)
    world.broker("b1")
    worker = world.plain_worker("p1", takes(5.0), "echo", "b1")
    world.plain_client("q1", "b1").submit(b"k1", "echo", timeout_s=3.0)
    world.run(1.0)
    worker.kill()
    (run,) = world.history.executions
    assert run.finished_s is None and run.ended_s == world.clock()
    worker.start()
    world.run(4.0)
    worker.drain(1.0)
    world.run(0.5)
    snapshot = world.snapshot("b1")
    assert snapshot is not None and len(snapshot.workers) == 0
    assert world.problems() == []


def test_a_frozen_plain_worker_replies_when_it_goes_on_if_its_session_lasts() -> None:
    """Frozen for less than the heartbeat timeout nothing is lost."""
    world = World(1)
    world.broker("b1")
    world.plain_worker("p1", takes(1.0), "echo", "b1")
    call = world.plain_client("q1", "b1").submit(b"k1", "echo", timeout_s=10.0)
    world.run(0.5)
    world.freeze("p1")
    world.run(2.0)
    assert not call.endings
    world.thaw("p1")
    world.run(0.5)
    assert call.ending is not None and call.ending.end is End.OK
