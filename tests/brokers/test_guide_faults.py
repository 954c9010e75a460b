"""Faults of well-known Majordomo brokers, one test each: ours must not have them.

They were found by running or reading the example brokers of the ZeroMQ Guide and their descendants; what they do is in
each docstring, so that nobody takes a test for pedantry.
"""

from __future__ import annotations

from typing import Final

import pytest

from brokers.config import BrokerConfig
from reliable.config import Heartbeat
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag
from reliable.wire.mdp import Version, WorkerDisconnect, WorkerHeartbeat, WorkerReply, WorkerRequest
from reliable.wire.mmi import FOUND, NOT_FOUND, NOT_IMPLEMENTED
from tests.support.broker_bench import (
    LIFE,
    OTHER_LIFE,
    SLACK_S,
    START,
    Bench,
    ForeignClient,
    ForeignWorker,
    OurClient,
    OurWorker,
    Peer,
)

V1: Final = Version.MDP01
V2: Final = Version.MDP02
both_versions = pytest.mark.parametrize("version", [V1, V2], ids=["0.1", "0.2"])

JUNK: Final[dict[str, Frames]] = {
    "no frames": [],
    "no empty frame": [b"MDPC01", b"echo", b"x"],
    "a single empty frame": [b""],
    "two frames": [b"", b"MDPC01"],
    "client request without body": [b"", b"MDPC01", b"echo"],
    "worker header only": [b"", b"MDPW01"],
    "READY without service": [b"", b"MDPW01", b"\1"],
    "unknown command": [b"", b"MDPW01", b"\7", b"x"],
    "REPLY without delimiter": [b"", b"MDPW01", b"\3", b"client", b"body"],
    "one byte": [b"\0"],
    "only empty frames": [b"", b"", b"", b""],
    "deep stack": [b"x"] * 40 + [b"", b"MDPC01", b"echo", b"x"],
    "0.2 header only": [b"MDPW02"],
    "0.2 client header only": [b"MDPC02"],
    "a broken call frame": [b"RLX\x01", b"", b"MDPC02", b"\1", b"echo", b"x"],
}


@pytest.mark.parametrize("shape", JUNK)
@pytest.mark.parametrize("sender", ["stranger", "client", "idle worker", "busy worker"])
def test_junk_of_any_shape_does_not_crash_the_broker(shape: str, sender: str) -> None:
    """mdbroker dies of each of these with an exception or an assertion, and takes everybody's requests with it."""
    bench = Bench()
    peer: Peer = Peer(bench, b"stranger")
    if sender == "client":
        peer = ForeignClient(bench, b"junk-client")
        peer.request(b"nobody", b"x")
    elif "worker" in sender:
        peer = ForeignWorker(bench, b"junk-worker", V1, b"junk").ready()
        if sender == "busy worker":
            ForeignClient(bench, b"junk-asker").request(b"junk")
    peer.send(*JUNK[shape])
    bench.engine.receive([], bench.now)
    bench.engine.receive([b""], bench.now)
    bench.pump()
    _echo_is_served(bench)


def _echo_is_served(bench: Bench) -> None:
    client, worker = ForeignClient(bench, b"judge"), ForeignWorker(bench, b"judges-worker", V2, b"judged").ready()
    client.request(b"judged", b"?")
    worker.send_reply(worker.request().address, b"!")
    assert [reply.body for reply in client.replies()] == [[b"!"]]


def test_unknown_command_followed_by_reply_does_not_crash() -> None:
    """mdbroker drops the worker on the first and dereferences it on the second."""
    bench = Bench()
    worker = ForeignWorker(bench).ready()
    client = ForeignClient(bench)
    client.request(b"echo")
    address = worker.request().address
    worker.send(b"", b"MDPW01", b"\7")
    worker.send_reply(address, b"late")
    assert worker.disconnects() == 1 and client.replies() == []
    _echo_is_served(bench)


def test_dead_workers_behind_a_live_head_are_expired() -> None:
    """mdbroker's scan stops at the first live worker of a list that heartbeats do not reorder, and hides the rest."""
    bench = Bench()
    head = ForeignWorker(bench, b"head").ready()
    dead = [ForeignWorker(bench, b"dead%d" % number).ready() for number in range(3)]
    bench.keep_alive(head)
    bench.advance(bench.expiry_s + SLACK_S)
    assert [bench.state(worker) for worker in dead] == [None, None, None]
    client = ForeignClient(bench)
    for number in range(3):
        client.request(b"echo", b"%d" % number)
    assert all(worker.requests() == [] for worker in dead)
    assert head.request().body == [b"0"]


@both_versions
def test_request_of_a_busy_worker_that_dies_is_redispatched(version: Version) -> None:
    """mdbroker forgets what it gave to whom: a killed busy worker takes its request along."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w1", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"work")
    worker.request()
    bench.notice_death(worker)
    rescuer = ForeignWorker(bench, b"w2", version).ready()
    rescuer.send_reply(rescuer.request().address, b"done")
    assert [reply.body for reply in client.replies()] == [[b"done"]]


def test_busy_worker_that_dies_is_not_counted_as_present() -> None:
    """mdbroker keeps answering 200 for it for ever."""
    bench = Bench()
    worker = ForeignWorker(bench).ready()
    ForeignClient(bench).request(b"echo")
    assert bench.mmi(b"echo") == FOUND
    bench.notice_death(worker)
    assert bench.mmi(b"echo") == NOT_FOUND


@both_versions
def test_busy_workers_are_heartbeated(version: Version) -> None:
    """mdbroker heartbeats idle workers only (none in seven intervals), so strict workers give up while they work."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    ForeignClient(bench, b"c").request(b"echo")
    bench.advance(7 * bench.heartbeat_s + SLACK_S)
    assert worker.heartbeats() >= 6


@both_versions
def test_silent_busy_worker_in_the_guides_manner_is_not_expired(version: Version) -> None:
    """The guide's single-threaded worker is silent while it works: judging it by silence kills every long handler."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo")
    address = worker.request().address
    bench.advance(10 * bench.expiry_s)
    assert worker.disconnects() == 0
    worker.send_reply(address, b"took long")
    assert [reply.body for reply in client.replies()] == [[b"took long"]]


@both_versions
def test_worker_gets_a_fresh_expiry_when_it_becomes_idle(version: Version) -> None:
    """A worker that was rightly silent for long must not be expired at the moment it replies."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo")
    bench.advance(5 * bench.expiry_s)
    worker.send_reply(worker.request().address)
    bench.advance(bench.expiry_s - SLACK_S)
    client.request(b"echo", b"next")
    assert worker.request().body == [b"next"]


def test_own_stall_does_not_purge_everybody() -> None:
    """mdbroker, paused for two seconds while six workers kept heartbeating, purged all six: a self-made storm."""
    bench = Bench(BrokerConfig(heartbeat=Heartbeat(interval_s=0.3, timeout_s=0.9)))
    workers = [ForeignWorker(bench, b"w%d" % number).ready() for number in range(6)]
    bench.now += 2.0
    for worker in workers:
        worker.heartbeat()
    bench.engine.stalled(2.0, bench.now)
    bench.tick()
    assert [bench.state(worker) for worker in workers] == ["idle"] * 6
    assert all(worker.disconnects() == 0 for worker in workers)


def test_late_timers_alone_do_not_expire_a_worker_that_was_just_heard() -> None:
    """Input that was read before the timers ran counts, whatever the clock says."""
    bench = Bench()
    worker = ForeignWorker(bench).ready()
    bench.now += 60.0
    worker.heartbeat()
    bench.tick()
    assert bench.state(worker) == "idle"


@both_versions
def test_disconnect_of_a_busy_worker_does_not_crash(version: Version) -> None:
    """mdbroker removes the worker from a list it is not in."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    ForeignClient(bench, b"c").request(b"echo", b"work")
    worker.disconnect()
    assert bench.state(worker) is None
    assert ForeignWorker(bench, b"w2", version).ready().request().body == [b"work"]


@both_versions
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_second_ready_does_not_crash_nor_list_the_worker_twice(version: Version, busy: bool) -> None:
    """mdbroker crashes on it from a busy worker and leaves a ghost of an idle one."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    if busy:
        ForeignClient(bench, b"c").request(b"echo", b"work")
    worker.ready()
    assert worker.disconnects() == 1 and bench.state(worker) is None
    worker.ready()
    worker.unread()
    assert bench.state(worker) == ("working" if busy else "idle") or bench.state(worker) == "unverified"
    asker = ForeignClient(bench, b"c2")
    asker.request(b"echo", b"1")
    asker.request(b"echo", b"2")
    row = bench.view(worker)
    assert row is not None and row.in_hand == 1


@both_versions
def test_no_ghost_is_heartbeated_after_disconnect(version: Version) -> None:
    """mdbroker keeps a DISCONNECTed worker in a broker-wide list, heartbeats it, and crashes when the ghost expires."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    worker.disconnect()
    bench.advance(3 * bench.expiry_s)
    assert worker.mail == []
    _echo_is_served(bench)


@both_versions
def test_unsolicited_reply_does_not_list_the_worker_twice(version: Version) -> None:
    """mdbroker forwards it and queues the worker once more, so that it gets two requests at once."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    victim = ForeignClient(bench, b"victim", version)
    worker.send_reply(victim.id, b"surprise")
    client.request(b"echo", b"1")
    client.request(b"echo", b"2")
    assert victim.replies() == [] and worker.requests() == [] and worker.disconnects() == 1


@both_versions
def test_forged_reply_reaches_nobody(version: Version) -> None:
    """Any worker can address any client in mdbroker, of whatever service."""
    bench = Bench()
    victim = ForeignClient(bench, b"victim", version)
    victim.request(b"echo", b"secret")
    rightful = ForeignWorker(bench, b"rightful", version).ready()
    address = rightful.request().address
    forger = ForeignWorker(bench, b"forger", version, b"other").ready()
    forger_client = ForeignClient(bench, b"fc", version)
    forger_client.request(b"other", b"x")
    forger.send_reply(victim.id, b"forged")
    ForeignWorker(bench, b"forger2", version, b"other").ready().send_reply(address, b"forged with the right address")
    assert victim.replies() == []
    rightful.send_reply(address, b"true")
    assert [reply.body for reply in victim.replies()] == [[b"true"]]


@both_versions
def test_reply_of_an_earlier_life_does_not_reach_the_heir_of_a_routing_id(version: Version) -> None:
    """libzmq hands the same ids out again after a restart: the guide's queue gives B the answer to A's request."""
    former = Bench(life=LIFE)
    ForeignClient(former, b"\x00\x6b\x8b\x45\x67", version).request(b"echo", b"A asks")
    address = ForeignWorker(former, b"w", version).ready().request().address

    restarted = Bench(life=OTHER_LIFE, now=START + 1)
    heir = ForeignClient(restarted, b"\x00\x6b\x8b\x45\x67", version)
    heir.request(b"echo", b"B asks")
    worker = ForeignWorker(restarted, b"w", version)
    worker.send_reply(address, b"answer to A")
    assert heir.replies() == [] and worker.disconnects() == 1


@both_versions
def test_stale_reply_of_a_busy_worker_is_told_from_its_new_one(version: Version) -> None:
    """The same worker under the same id may hold the heir's request when it answers the former one's."""
    former, restarted = Bench(life=LIFE), Bench(life=OTHER_LIFE)
    stale = b""
    for bench in (former, restarted):
        client = ForeignClient(bench, b"same", version)
        worker = ForeignWorker(bench, b"w", version).ready()
        client.request(b"echo", b"work")
        address = worker.request().address
        assert address != stale, "two lives gave out the same token"
        if bench is restarted:
            worker.send_reply(stale, b"answer of the former life")
            assert client.replies() == []
        stale = address


def test_tokens_of_two_lives_never_meet() -> None:
    """A counter alone would begin again at one."""
    seen = []
    for life in (LIFE, OTHER_LIFE):
        bench = Bench(life=life)
        client = ForeignClient(bench)
        worker = ForeignWorker(bench).ready()
        for _ in range(20):
            client.request(b"echo")
            address = worker.request().address
            seen.append(address)
            worker.send_reply(address)
    assert len(set(seen)) == 40


@both_versions
def test_worker_may_not_register_a_reserved_name(version: Version) -> None:
    """mdbroker.c looks for the prefix in the sender's id instead of the name, so that anyone can serve mmi.* there."""
    bench = Bench()
    for name in (b"mmi.service", b"mmi.evil", b"mmi."):
        worker = ForeignWorker(bench, b"w" + name, version, name).ready()
        assert worker.disconnects() == 1
    assert bench.mmi(b"mmi.evil") == NOT_FOUND


def test_worker_whose_routing_id_looks_reserved_is_welcome() -> None:
    """The other half of the same mistake: the sender's id has nothing to do with it."""
    bench = Bench()
    worker = ForeignWorker(bench, b"mmi.evil").ready()
    assert bench.state(worker) == "idle"


def test_mmi_does_not_find_a_name_that_was_only_mentioned() -> None:
    """mdbroker answers 200 for any name ever uttered, and callers send into the void."""
    bench = Bench()
    ForeignClient(bench).request(b"wanted", b"x")
    assert bench.mmi(b"wanted") == NOT_FOUND
    assert bench.mmi(b"wanted") == NOT_FOUND


@both_versions
def test_mmi_question_of_several_frames_is_answered_with_one(version: Version) -> None:
    """mdbroker takes the last frame for the name and sends the others back in front of the code."""
    bench = Bench()
    ForeignWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"mmi.service", b"echo", b"nobody")
    client.request(b"mmi.service", b"nobody", b"echo")
    assert [reply.body for reply in client.replies()] == [[NOT_IMPLEMENTED], [NOT_IMPLEMENTED]]


def test_service_records_do_not_leak() -> None:
    """mdbroker creates a service for any name any client utters, and keeps it."""
    config = BrokerConfig(unknown_services_max=10, queued_per_unknown_service_max=2)
    bench = Bench(config)
    client = ForeignClient(bench)
    for number in range(1000):
        client.request(b"name %d" % number, b"x")
    assert len(bench.snapshot().services) <= 10
    bench.advance(config.plain_request_expiry_s + SLACK_S)
    bench.advance(config.plain_request_expiry_s)
    assert bench.snapshot().services == ()


def test_queue_of_an_unknown_service_is_bounded() -> None:
    """One client must not fill the broker's memory through a typo."""
    bench = Bench(BrokerConfig(queued_per_unknown_service_max=5))
    client = ForeignClient(bench)
    for number in range(50):
        client.request(b"typo", b"%d" % number)
    assert bench.count("overloaded") == 45
    worker = ForeignWorker(bench, b"w", V1, b"typo").ready()
    bodies = []
    for _ in range(5):
        request = worker.request()
        bodies.append(request.body[0])
        worker.send_reply(request.address)
    assert worker.requests() == [] and bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_zombie_requests_of_a_client_that_gave_up_are_not_executed() -> None:
    """One call that gave up after three attempts was executed three times by a worker that came later."""
    bench = Bench(BrokerConfig(plain_request_expiry_s=5.0))
    for attempt in range(3):
        ForeignClient(bench, b"socket %d" % attempt).request(b"echo", b"same")
        bench.advance(2.5)
    bench.advance(5.0)
    assert ForeignWorker(bench).ready().requests() == []


@both_versions
def test_poison_request_does_not_empty_the_pool(version: Version) -> None:
    """Resending without a bound lets one bad request kill worker after worker."""
    bench = Bench()
    workers = [ForeignWorker(bench, b"w%d" % number, version).ready() for number in range(6)]
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"poison")
    for worker in workers:
        if worker.requests():
            worker.disconnect()
    survivors = [worker for worker in workers if bench.state(worker) == "idle"]
    assert len(survivors) == 6 - bench.config.delivery_cap
    assert bench.count("quarantined") == 1


@both_versions
def test_redelivery_goes_to_the_front_with_its_first_deadline(version: Version) -> None:
    """At the back of a long queue, and with a fresh deadline each time, a request could circle for ever."""
    bench = Bench(BrokerConfig(plain_request_expiry_s=10.0))
    first = ForeignWorker(bench, b"w1", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"oldest")
    for number in range(3):
        client.request(b"echo", b"younger %d" % number)
    bench.advance(6.0)
    first.disconnect()
    second = ForeignWorker(bench, b"w2", version).ready()
    assert second.request().body == [b"oldest"]
    second.disconnect()
    bench.advance(4.0 + SLACK_S)
    assert ForeignWorker(bench, b"w3", version).ready().requests() == []


@both_versions
def test_request_command_from_a_worker_ends_its_session(version: Version) -> None:
    """mdbroker logs it and keeps the sender registered."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    worker.send(*WorkerRequest(version, b"victim", [b"x"]).encode())
    assert worker.disconnects() == 1 and bench.state(worker) is None


def test_peer_that_switches_its_version_is_not_answered_in_the_new_one() -> None:
    """A 0.2 answer to a REQ client closes that socket for good: libzmq never reconnects it."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c", V1)
    client.request(b"echo")
    worker.send_reply(worker.request().address)
    client.send(b"MDPC02", b"\1", b"echo", b"x")
    assert all(frames[0] == b"" for frames in client.mail)
    assert worker.requests() == []


def test_client_that_turns_worker_is_dropped() -> None:
    """A peer has one role for the life of its connection."""
    bench = Bench()
    client = ForeignClient(bench, b"c")
    client.request(b"elsewhere", b"x")
    client.send(b"", b"MDPW01", b"\1", b"echo")
    assert client.mail == [] and bench.mmi(b"echo") == NOT_FOUND


def test_request_id_of_req_correlate_is_kept_and_restored() -> None:
    """mdbroker.py dies of it, mdbroker.c ignores it; and a REQ_CORRELATE socket accepts no reply without its id."""
    bench = Bench()
    client = ForeignClient(bench, b"c")
    worker = ForeignWorker(bench, b"w").ready()
    client.request(b"echo", b"x", stack=[b"\x80\0\0\1"])
    worker.send_reply(worker.request().address, b"y")
    assert client.mail == [[b"\x80\0\0\1", b"", b"MDPC01", b"echo", b"y"]]


def test_stack_of_addresses_of_proxied_clients_is_kept_and_restored() -> None:
    """Two clients behind one proxy share a routing id: only their own frames tell them apart."""
    bench = Bench()
    proxy = ForeignClient(bench, b"proxy")
    workers = [ForeignWorker(bench, b"w%d" % number).ready() for number in range(2)]
    proxy.request(b"echo", b"a", stack=[b"hop", b"alice"])
    proxy.request(b"echo", b"b", stack=[b"hop", b"bob"])
    for worker in reversed(workers):
        request = worker.request()
        worker.send_reply(request.address, b"to " + request.body[0])
    assert [(reply.stack, reply.body) for reply in proxy.replies()] == [
        ([b"hop", b"bob"], [b"to b"]),
        ([b"hop", b"alice"], [b"to a"]),
    ]


def test_mmi_answer_restores_the_stack_too() -> None:
    """Otherwise a correlating REQ client waits for ever for its answer."""
    bench = Bench()
    client = ForeignClient(bench, b"c")
    client.request(b"mmi.service", b"echo", stack=[b"\x80\0\0\7"])
    assert client.mail == [[b"\x80\0\0\7", b"", b"MDPC01", b"mmi.service", NOT_FOUND]]


def test_probe_router_message_is_accepted_and_ignored() -> None:
    """mdbroker.py raises IndexError on it."""
    bench = Bench()
    for worker in (ForeignWorker(bench, b"w1", V1), ForeignWorker(bench, b"w2", V2)):
        worker.send(b"")
        worker.ready()
        worker.send(b"")
        assert bench.state(worker) == "idle" and worker.mail == []
    assert bench.count("dropped_invalid") == 0


def test_request_that_could_not_be_sent_goes_to_the_next_worker_at_once() -> None:
    """A ROUTER drops silently what it cannot deliver; one that must say so gives the broker the chance to try again."""
    bench = Bench()
    dead, live = ForeignWorker(bench, b"dead").ready(), ForeignWorker(bench, b"live").ready()
    bench.kill(dead)
    client = ForeignClient(bench)
    client.request(b"echo", b"work")
    assert live.request().body == [b"work"]
    assert bench.state(dead) is None and bench.count("unreachable") >= 1


def test_full_pipe_of_a_worker_does_not_lose_the_request() -> None:
    """EAGAIN is not delivery: the request goes to the next worker, and the slow one is not dead."""
    bench = Bench()
    slow, quick = ForeignWorker(bench, b"slow").ready(), ForeignWorker(bench, b"quick").ready()
    bench.full.add(slow.id)
    ForeignClient(bench).request(b"echo", b"work")
    assert quick.request().body == [b"work"]
    assert bench.state(slow) is not None and slow.requests() == []


def test_full_pipe_of_the_only_worker_neither_loses_the_request_nor_spins() -> None:
    """It waits until the worker takes messages again."""
    bench = Bench()
    worker = ForeignWorker(bench, b"slow").ready()
    bench.full.add(worker.id)
    client = ForeignClient(bench)
    client.request(b"echo", b"work")
    bench.advance(1.0)
    bench.full.clear()
    for _ in range(3):
        worker.heartbeat()
        bench.advance(bench.heartbeat_s)
    assert worker.request().body == [b"work"]


def test_reply_that_cannot_be_sent_is_counted_and_frees_the_worker() -> None:
    """The client is gone; its worker must not stay busy for it."""
    bench = Bench()
    worker = ForeignWorker(bench).ready()
    client = ForeignClient(bench, b"gone")
    client.request(b"echo", b"1")
    bench.kill(client)
    worker.send_reply(worker.request().address)
    assert bench.count("undeliverable_replies") == 1
    other = ForeignClient(bench, b"next")
    other.request(b"echo", b"2")
    assert worker.request().body == [b"2"]


def test_part_that_cannot_be_sent_ends_the_stream_without_a_hole() -> None:
    """A dropped PARTIAL is a hole that FINAL hides: nothing more of that reply may be forwarded."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo")
    address = worker.request().address
    worker.send_reply(address, b"1", final=False)
    bench.full.add(client.id)
    worker.send_reply(address, b"2", final=False)
    bench.full.clear()
    worker.send_reply(address, b"3", final=False)
    worker.send_reply(address, b"end")
    assert [reply.body for reply in client.replies()] == [[b"1"]]
    assert bench.state(worker) == "idle"


def test_stopping_broker_says_goodbye_so_that_workers_reconnect_at_once() -> None:
    """mdbroker.py's own destroy() fails on Python 3, and its workers find out by their own liveness."""
    bench = Bench()
    workers = [ForeignWorker(bench, b"w1", V1).ready(), OurWorker(bench, b"w2").ready()]
    client = OurClient(bench, b"c")
    running = client.submit(flags=CallFlag.IDEMPOTENT)
    queued = [client.submit(b"absent", [b"x"]), client.submit(b"absent", [b"y"])]
    client.answers()
    bench.engine.stop(bench.now)
    bench.pump()
    assert [worker.disconnects() for worker in workers] == [1, 1]
    answers = {answer.frame.call_id: answer for answer in client.answers()}
    assert set(answers) == {running, *queued}
    assert answers[running].outcome is Outcome.UNKNOWN
    assert {answers[call].outcome for call in queued} == {Outcome.NOT_EXECUTED}
    assert all(answer.final for answer in answers.values())
    client.submit()
    late = client.answer()
    assert (late.status, late.outcome) == (Status.OVERLOADED, Outcome.NOT_EXECUTED)


def test_worker_that_was_removed_for_a_foul_can_register_again() -> None:
    """A ban without an end would turn one bad message into a lost worker."""
    bench = Bench()
    worker = ForeignWorker(bench).ready()
    worker.send(b"junk")
    assert worker.disconnects() == 1
    worker.ready()
    assert bench.state(worker) == "idle"


def test_late_reply_to_a_request_past_its_deadline_is_not_forwarded() -> None:
    """The client has long asked again: the late reply would answer its next call."""
    bench = Bench(BrokerConfig(plain_request_expiry_s=2.0))
    worker = ForeignWorker(bench).ready()
    client = ForeignClient(bench)
    client.request(b"echo", b"slow")
    address = worker.request().address
    bench.advance(2.0 + SLACK_S)
    worker.send_reply(address, b"too late")
    assert client.replies() == []


def test_foreign_worker_past_its_deadline_and_grace_is_disconnected_and_gets_nothing_new() -> None:
    """A lost REQUEST or REPLY must not strand a worker as busy for ever, nor may it be double-booked."""
    bench = Bench(BrokerConfig(plain_request_expiry_s=2.0, grace_s=3.0))
    worker = ForeignWorker(bench).ready()
    client = ForeignClient(bench)
    client.request(b"echo", b"lost")
    bench.advance(2.0 + SLACK_S)
    client.request(b"echo", b"next")
    assert [request.body for request in worker.requests()] == [[b"lost"]]
    bench.advance(3.0 + SLACK_S)
    commands = [type(command) for command in worker.new(object) if not isinstance(command, WorkerHeartbeat)]
    assert commands == [WorkerRequest, WorkerDisconnect]
    assert bench.state(worker) is None


@both_versions
def test_replies_are_matched_when_one_worker_serves_many_clients(version: Version) -> None:
    """Each reply goes to the client whose request it answers, whatever the order of events."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    clients = [ForeignClient(bench, b"c%d" % number, version) for number in range(5)]
    for client in clients:
        client.request(b"echo", client.id)
    for _ in clients:
        request = worker.request()
        worker.send(*WorkerReply(version, request.address, [b"re: " + request.body[0]]).encode())
    assert [[reply.body for reply in client.replies()] for client in clients] == [[[b"re: " + c.id]] for c in clients]
