"""A call not declared idempotent runs at most once, and NOT_EXECUTED is never said of one that ran: trace by trace.

Each scenario makes one certain thing go wrong at one certain moment, on a network with fixed delays, and asserts both
what the caller was told and how often the handler ran.
"""

from __future__ import annotations

import attrs
import pytest

from brokers.config import BrokerConfig
from chaos.history import Call, End
from chaos.sim.network import Loss, NetworkModel
from chaos.sim.world import World, address_of, takes
from reliable.config import Limits, WorkerConfig
from reliable.errors import Outcome
from reliable.wire.extension import ServiceOffer

STEP_S = 0.01
"""One message, one way."""
FIXED = NetworkModel(delay_s=(STEP_S, STEP_S), notice_s=(STEP_S, STEP_S))
PURE = (ServiceOffer(b"pure", True),)


def fixed_world(*brokers: str, seed: int = 1) -> World:
    """A world whose delays are all alike, with its brokers running."""
    world = World(seed, model=FIXED)
    for broker in brokers or ("b1",):
        world.broker(broker)
    return world


def running(world: World, key: bytes) -> bool:
    return bool(world.history.runs_of(key))


def returned(world: World, key: bytes) -> bool:
    return any(run.finished_s is not None for run in world.history.runs_of(key))


def told(call: Call) -> tuple[End, Outcome, str]:
    """What the caller learned."""
    assert call.ending is not None, "the call never ended"
    return call.ending.end, call.ending.outcome, call.ending.error


OK = (End.OK, Outcome.EXECUTED, "")


def wait(world: World, key: bytes) -> None:
    """Until the handler runs it."""
    assert world.run_until(lambda: running(world, key), within_s=5.0)


# --- links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [Loss.ALL, Loss.NONE])
def test_a_link_flap_while_a_worker_runs_a_call_neither_repeats_nor_loses_it(lost: Loss) -> None:
    """The worker comes back to the same life with the token in hand: the call is still its own."""
    world = fixed_world()
    world.network.loss = lost
    for name in ("w1", "w2"):
        world.worker(name, takes(1.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    wait(world, b"k1")
    holder = world.history.runs_of(b"k1")[0].worker.split("#")[0]
    assert world.cut(holder, "b1") == 1

    assert world.ended(call)
    assert told(call) == OK
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []


def test_a_worker_found_gone_that_is_back_in_half_a_second_keeps_its_call() -> None:
    """The broker sends it another call and finds it unreachable: limbo, not yet lost."""
    world = World(1, model=attrs.evolve(FIXED, connect_timeout_s=0.05))
    world.broker("b1")
    world.worker("w1", takes(1.0), config=WorkerConfig(concurrency=2))
    client = world.client("c1")
    call = client.submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    wait(world, b"k1")
    world.cut("w1", "b1")
    world.network.part("w1", address_of("b1"))
    world.at(0.15, lambda: world.network.heal("w1", address_of("b1")))
    world.run(0.05)
    other = client.submit(b"k2", "echo", timeout_s=10.0, idempotent=False)

    assert world.ended(call) and world.ended(other)
    broker = world.broker_engine("b1")
    assert (broker.counters.limbo_entered, broker.counters.limbo_recovered) == (1, 1)
    assert [told(call), told(other)] == [OK, OK]
    assert world.problems() == []


def test_a_worker_that_comes_back_too_late_from_a_flap_does_not_make_the_call_run_elsewhere() -> None:
    """After limbo the caller hears that it may have run, not silence and not a second run."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(3.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    wait(world, b"k1")
    holder = world.history.runs_of(b"k1")[0].worker.split("#")[0]
    world.cut(holder, "b1")
    world.network.part(holder, address_of("b1"))
    world.at(2.0, lambda: world.network.heal(holder, address_of("b1")))

    assert world.ended(call)
    assert told(call) == (End.UNKNOWN, Outcome.UNKNOWN, "WorkerLost")
    world.run(10.0)
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []


def test_a_link_flap_of_the_client_while_its_call_runs_attaches_to_it() -> None:
    """The second attempt asks, it does not run: the same reply comes over the new link."""
    world = fixed_world()
    world.worker("w1", takes(1.0), config=WorkerConfig(concurrency=2))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    wait(world, b"k1")
    assert world.cut("c1", "b1") == 1

    assert world.ended(call)
    assert told(call) == OK
    assert len(world.history.runs_of(b"k1")) == 1


@pytest.mark.parametrize("idempotent", [False, None, True])
def test_a_lost_reply_is_given_again_from_the_record(idempotent: bool | None) -> None:
    """The work is done; asking again must not do it again, and must not end in an error either."""
    world = fixed_world()
    world.network.loss = Loss.ALL
    for name in ("w1", "w2"):
        world.worker(name, takes(0.2))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=idempotent)
    assert world.run_until(lambda: returned(world, b"k1"), within_s=5.0, step_s=0.001)
    world.run(1.5 * STEP_S)  # the broker has the reply, and sent its answer half a step ago
    assert world.cut("c1", "b1") == 1

    assert world.ended(call)
    assert told(call) == OK
    assert world.trace.matching("lost down", "c1/1", "1 lost down"), "the answer was not in flight when the link broke"
    assert len(world.history.runs_of(b"k1")) == 1


def test_a_reply_lost_on_its_way_to_the_broker_is_sent_again_over_the_new_link() -> None:
    """The worker keeps what it could not deliver, and the same life still waits for it."""
    world = fixed_world()
    world.network.loss = Loss.ALL
    world.worker("w1", takes(0.3))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    assert world.run_until(lambda: returned(world, b"k1"), within_s=5.0, step_s=0.001)
    world.run(0.2 * STEP_S)
    assert world.cut("w1", "b1") == 1

    assert world.ended(call)
    assert len(world.history.runs_of(b"k1")) == 1
    assert told(call) in (OK, (End.UNKNOWN, Outcome.UNKNOWN, "WorkerLost"))
    assert world.problems() == []


def test_a_first_copy_that_comes_after_the_promise_that_it_will_not_run_is_refused() -> None:
    """The client asks over a new link, is told "not seen, and fenced", runs it at another broker, and only then the
    first copy comes out of the network, to a broker with an idle worker."""
    world = fixed_world("b1", "b2")
    world.network.loss = Loss.NONE
    world.worker("w1", takes(0.1), brokers=["b1"])
    world.worker("w2", takes(0.1), brokers=["b2"], services=(ServiceOffer(b"echo"), ServiceOffer(b"there")))
    client = world.client("c1")
    assert world.ended(client.submit(b"k0", "there", timeout_s=5.0, fail_fast=True)), "links to both brokers"
    world.network.clog("c1", address_of("b1"), world.clock() + 8.0)
    call = client.submit(b"k1", "echo", timeout_s=15.0, idempotent=False)

    assert world.ended(call)
    assert told(call) == OK
    assert [run.worker for run in world.history.runs_of(b"k1")] == ["w2#1"]
    broker = world.broker_engine("b1")
    assert (broker.counters.fenced, broker.counters.fence_hits) == (1, 0)
    world.run(10.0)
    assert broker.counters.fence_hits >= 1, "the first copy never came"
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []


def test_a_call_that_was_given_up_as_not_executed_does_not_run_when_its_first_copy_arrives() -> None:
    """Here the caller goes away with NOT_EXECUTED, so not even one run is allowed."""
    world = fixed_world()
    world.network.loss = Loss.NONE
    world.worker("w1", takes(9.0))
    client = world.client("c1")
    warm = client.submit(b"kw", "echo", timeout_s=20.0, idempotent=False)
    assert world.ended(warm), "a link"
    world.client("c2").submit(b"k0", "echo", timeout_s=60.0, idempotent=False)
    wait(world, b"k0")
    world.network.clog("c1", address_of("b1"), world.clock() + 12.0)
    call = client.submit(b"k1", "echo", timeout_s=8.0, idempotent=False)

    assert world.ended(call)
    assert call.ending is not None and call.ending.outcome is Outcome.NOT_EXECUTED
    assert world.broker_engine("b1").counters.fenced == 1
    received = len(world.trace.matching("b1 <"))
    world.run(60.0)
    assert len(world.trace.matching("b1 <")) > received
    assert world.history.runs_of(b"k1") == []
    assert world.problems() == []


@pytest.mark.parametrize("after_s", [0.3, 2.0])
def test_a_worker_that_gets_a_call_from_two_brokers_runs_it_once(after_s: float) -> None:
    """The client failed over while it ran, or after: the second copy joins the run, or gets the kept reply."""
    world = fixed_world("b1", "b2")
    world.worker("w1", takes(1.0))
    client = world.client("c1")
    call = client.submit(b"k1", "echo", timeout_s=10.0, idempotent=True)
    wait(world, b"k1")
    world.network.part("c1", address_of("b1"))
    world.run(after_s)

    assert world.ended(call)
    assert told(call) == OK
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.broker_engine("b2").counters.dispatched == 1
    assert world.problems() == []


# --- outcomes ---------------------------------------------------------------------------------------


def test_the_outcome_is_joined_over_attempts_at_two_brokers() -> None:
    """The second broker knows of no run, and is right; the call as a whole may have run all the same."""
    world = fixed_world("b1", "b2")
    world.worker("w1", takes(30.0), services=PURE, brokers=["b1"])
    call = world.client("c1").submit(b"k1", "pure", timeout_s=6.0, idempotent=True)
    wait(world, b"k1")
    world.kill("b1")

    assert world.ended(call)
    assert world.broker_engine("b2").counters.requests >= 1, "the second broker was never asked"
    assert call.ending is not None and call.ending.end is End.UNKNOWN
    assert world.problems() == []


def test_a_call_that_only_waited_at_two_brokers_is_known_not_to_have_run() -> None:
    """The other side of joining: where every attempt is proven, the caller is told so."""
    world = fixed_world("b1", "b2")
    call = world.client("c1").submit(b"k1", "nobody", timeout_s=3.0, idempotent=False)
    assert world.ended(call)
    assert told(call)[:2] == (End.FAILED, Outcome.NOT_EXECUTED)
    assert told(call)[2] == "ServiceNotFound"
    assert world.problems() == []


def test_a_late_reply_after_the_token_expired_is_counted_and_not_punished() -> None:
    """The worker did nothing wrong: it keeps its registration and its slot is free again."""
    world = fixed_world()
    world.worker("w1", takes(2.0))
    client = world.client("c1")
    call = client.submit(b"k1", "echo", timeout_s=1.0, idempotent=False)
    assert world.ended(call)
    assert told(call) == (End.UNKNOWN, Outcome.UNKNOWN, "DeadlineExceeded")
    assert world.run_until(lambda: returned(world, b"k1"), within_s=5.0)
    world.run(0.5)

    broker = world.broker_engine("b1")
    assert broker.counters.late_replies == 1
    assert broker.counters.disconnects_sent == 0
    assert broker.counters.workers_registered == 1
    again = client.submit(b"k2", "echo", timeout_s=5.0, idempotent=False)
    assert world.ended(again)
    assert told(again) == OK
    assert world.problems() == []


def test_a_reply_of_a_worker_that_was_given_up_is_taken_and_not_punished() -> None:
    """Stuck, its idempotent call went elsewhere; its loop goes on and it answers: whoever is first ends the call."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(1.5), services=PURE)
    call = world.client("c1").submit(b"k1", "pure", timeout_s=30.0)
    wait(world, b"k1")
    holder = world.history.runs_of(b"k1")[0].worker.split("#")[0]
    world.stall(holder)
    assert world.run_until(lambda: len(world.history.runs_of(b"k1")) == 2, within_s=10.0)
    world.run(0.2)
    world.unstall(holder)

    assert world.ended(call, within_s=0.2), "the first worker's reply was there at once"
    assert told(call) == OK
    world.run(5.0)
    broker = world.broker_engine("b1")
    assert broker.counters.late_replies >= 1
    assert (broker.counters.disconnects_sent, broker.counters.workers_registered) == (0, 2)
    assert world.problems() == []


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_call_that_waits_in_a_workers_own_queue_goes_to_a_free_worker(idempotent: bool) -> None:
    """Two brokers each gave a worker of one slot a call; the second one asks for its own back, and nobody is blamed."""
    world = fixed_world("b1", "b2")
    world.worker("w1", takes(8.0))
    first = world.client("c1", brokers=["b1"]).submit(b"k1", "echo", timeout_s=30.0, idempotent=False)
    wait(world, b"k1")
    second = world.client("c2", brokers=["b2"]).submit(b"k2", "echo", timeout_s=30.0, idempotent=idempotent)
    world.run(1.0)
    world.worker("w2", takes(0.1), brokers=["b2"])

    assert world.ended(first) and world.ended(second)
    assert [told(first), told(second)] == [OK, OK]
    assert [run.worker for run in world.history.runs_of(b"k2")] == ["w2#1"]
    broker = world.broker_engine("b2")
    assert broker.counters.delivery_timeouts == 1
    assert (broker.counters.disconnects_sent, broker.counters.workers_registered) == (0, 2)
    assert world.problems() == []


# --- bounded memory ---------------------------------------------------------------------------------


def test_a_call_pushed_out_of_the_record_of_finished_calls_ends_unknown_and_is_not_run_again() -> None:
    """Caches fail closed: what the broker no longer knows, it must not take for new."""
    world = World(1, model=FIXED)
    world.broker("b1", BrokerConfig(finished_calls_max=2))
    world.network.loss = Loss.ALL
    world.worker("w1", takes(0.1), config=WorkerConfig(limits=Limits(replies_kept_max=1)))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=20.0, idempotent=False)
    assert world.run_until(lambda: returned(world, b"k1"), within_s=5.0, step_s=0.001)
    world.run(1.5 * STEP_S)
    world.cut("c1", "b1")
    world.network.part("c1", address_of("b1"))
    other = world.client("c2")
    for number in range(8):
        assert world.ended(other.submit(b"x%d" % number, "echo", timeout_s=5.0, idempotent=False))
    world.network.heal("c1", address_of("b1"))

    assert world.ended(call)
    assert told(call)[:2] == (End.UNKNOWN, Outcome.UNKNOWN)
    world.run(5.0)
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []


# --- processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_broker_restarted_with_the_same_routing_ids_gives_nobody_anothers_reply(seed: int) -> None:
    """Old replies meet new peers under old ids: only the life in each token and frame tells them apart."""
    world = World(seed)
    world.broker("b1")
    for name in ("w1", "w2"):
        world.worker(name, takes(1.2), config=WorkerConfig(concurrency=2))
    clients = [world.client(f"c{number}") for number in range(4)]
    world.run(0.5)
    calls = [
        client.submit(b"a%d" % number, "echo", timeout_s=6.0, idempotent=False) for number, client in enumerate(clients)
    ]
    world.run(world.rng.uniform(0.0, 1.3))
    world.kill("b1")
    world.run(world.rng.uniform(0.0, 0.3))
    world.start("b1")
    world.run(0.2)
    for number, client in enumerate(reversed(clients)):
        calls.append(client.submit(b"b%d" % number, "echo", timeout_s=6.0, idempotent=False))
    world.run(20.0)

    assert all(call.endings for call in calls)
    assert [told(call) for call in calls[4:]] == [OK] * 4, "the new life serves everybody"
    assert world.problems() == []


@pytest.mark.parametrize("seed", range(12))
def test_plain_peers_after_a_restart_with_the_same_routing_ids_get_nobody_elses_reply(seed: int) -> None:
    """They have no call id to compare: the broker alone stands between an old reply and a new request."""
    world = World(seed)
    world.broker("b1")
    for name in ("p1", "p2"):
        world.plain_worker(name, takes(1.2), "echo", "b1")
    clients = [world.plain_client(f"q{number}", "b1") for number in range(4)]
    world.run(0.5)
    for number, client in enumerate(clients):
        client.submit(b"a%d" % number, "echo", timeout_s=4.0)
    world.run(world.rng.uniform(0.0, 1.3))
    world.kill("b1")
    world.run(world.rng.uniform(0.0, 0.3))
    world.start("b1")
    for number, client in enumerate(clients):
        client.submit(b"b%d" % number, "echo", timeout_s=8.0)
    world.run(25.0)

    ends = [world.history.calls[b"b%d" % number].ending for number in range(4)]
    assert [end.reply if end else None for end in ends] == [(b"b%d" % number, b"done") for number in range(4)]
    assert world.problems() == []


def test_a_service_that_vetoes_repeating_is_not_repeated_for_a_plain_client_either() -> None:
    """7/MDP calls every service idempotent; the worker's own word goes before that."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(1.0), services=(ServiceOffer(b"pay", False),))
    call = world.plain_client("q1", "b1").submit(b"k1", "pay", timeout_s=10.0)
    wait(world, b"k1")
    world.kill(world.history.runs_of(b"k1")[0].worker.split("#")[0])

    assert world.ended(call)
    assert told(call) == (End.UNKNOWN, Outcome.UNKNOWN, "Silence")
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []


def test_a_call_in_the_old_lifes_queue_is_not_run_by_the_new_life() -> None:
    """A queued call died with its broker; the client cannot know, so it says unknown and nobody runs it later."""
    world = fixed_world()
    world.worker("w1", takes(1.0))
    client = world.client("c1")
    calls = [client.submit(b"k%d" % number, "echo", timeout_s=8.0, idempotent=False) for number in range(3)]
    wait(world, b"k0")
    world.run(0.1)
    world.kill("b1")
    world.start("b1")
    world.run(20.0)

    assert [told(call)[:2] for call in calls] == [(End.UNKNOWN, Outcome.UNKNOWN)] * 3
    assert [len(world.history.runs_of(call.key)) for call in calls] == [1, 0, 0]
    assert world.broker_engine("b1").counters.unknown_calls == 0, "the new life was not even asked"
    assert world.problems() == []


@pytest.mark.parametrize(("idempotent", "runs", "end"), [(False, 1, End.UNKNOWN), (True, 2, End.OK)])
def test_a_killed_worker_ends_a_call_or_hands_it_on(idempotent: bool, runs: int, end: End) -> None:
    """Without a declaration it ends with "may have run" at once, not at its deadline; with one it runs elsewhere."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(1.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=20.0, idempotent=idempotent)
    wait(world, b"k1")
    world.kill(world.history.runs_of(b"k1")[0].worker.split("#")[0])
    killed_s = world.clock()

    assert world.ended(call)
    assert told(call)[0] is end
    assert len(world.history.runs_of(b"k1")) == runs
    assert call.ending is not None and call.ending.at_s - killed_s < 2.5
    assert world.problems() == []


@pytest.mark.parametrize("for_s", [1.0, 2.5, 6.0, 12.0])
def test_a_worker_frozen_in_the_middle_and_continued_does_not_cause_a_second_run(for_s: float) -> None:
    """SIGSTOP: it is silent, it is cut off, and then it comes back with the work done."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(2.0))
    call = world.client("c1").submit(b"k1", "echo", timeout_s=15.0, idempotent=False)
    wait(world, b"k1")
    holder = world.history.runs_of(b"k1")[0].worker.split("#")[0]
    world.freeze(holder)
    world.at(for_s, lambda: world.thaw(holder))

    assert world.ended(call)
    world.run(20.0)
    assert len(world.history.runs_of(b"k1")) == 1
    assert told(call) == (OK if for_s < 3.0 else (End.UNKNOWN, Outcome.UNKNOWN, "WorkerLost"))
    again = world.client("c2").submit(b"k2", "echo", timeout_s=5.0)
    assert world.ended(again)
    assert told(again) == OK
    snapshot = world.snapshot("b1")
    assert snapshot is not None and [worker.in_hand for worker in snapshot.workers] == [0, 0]
    assert world.problems() == []


def test_a_stalled_worker_keeps_its_call_and_gets_no_new_one() -> None:
    """Its process answers ZMTP pings, so it is stuck, not gone: the running call waits for it, others go elsewhere."""
    world = fixed_world()
    for name in ("w1", "w2"):
        world.worker(name, takes(1.0))
    client = world.client("c1")
    call = client.submit(b"k1", "echo", timeout_s=30.0, idempotent=False)
    wait(world, b"k1")
    holder = world.history.runs_of(b"k1")[0].worker.split("#")[0]
    world.run(0.5)
    world.stall(holder)
    world.run(7.0)
    others = [client.submit(b"x%d" % number, "echo", timeout_s=5.0, idempotent=False) for number in range(3)]
    world.run(4.0)
    assert [told(other) for other in others] == [OK] * 3
    assert not call.endings
    world.unstall(holder)

    assert world.ended(call)
    assert told(call) == OK
    assert len(world.history.runs_of(b"k1")) == 1
    assert world.problems() == []
