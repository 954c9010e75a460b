"""What only 18/MDP has (numbers of MDP2 that 7/MDP lacks), and both versions on one socket (BR-n).

The rest is in ``test_mdp_conformance.py``.
"""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from reliable.wire.mdp import (
    Version,
    WorkerHeartbeat,
    WorkerRequest,
)
from reliable.wire.mmi import FOUND
from tests.support.broker_bench import (
    SLACK_S,
    Bench,
    ForeignClient,
    ForeignWorker,
    OurWorker,
    Peer,
)

V1: Final = Version.MDP01
V2: Final = Version.MDP02
both_versions = pytest.mark.parametrize("version", [V1, V2], ids=["0.1", "0.2"])


# --- only in 18/MDP ---------------------------------------------------------------------------------------


def test_nothing_reaches_the_client_after_final() -> None:
    """MDP2-49: a PARTIAL or second FINAL after FINAL is not forwarded, and the worker is disconnected."""
    for final in (True, False):
        bench = Bench()
        worker = ForeignWorker(bench, b"w", V2).ready()
        client = ForeignClient(bench, b"c", V2)
        client.request(b"echo")
        address = worker.request().address
        worker.send_reply(address, b"the end")
        worker.send_reply(address, b"more", final=final)
        assert [reply.body for reply in client.replies()] == [[b"the end"]]
        assert worker.disconnects() == 1


def test_partials_arrive_in_order_and_before_the_final() -> None:
    """MDP2-52: a stream without order is no stream."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo")
    address = worker.request().address
    for number in range(1000):
        worker.send_reply(address, b"%d" % number, final=False)
    worker.send_reply(address, b"end")
    replies = client.replies()
    assert [reply.body[0] for reply in replies] == [*(b"%d" % number for number in range(1000)), b"end"]
    assert [reply.final for reply in replies] == [False] * 1000 + [True]


@pytest.mark.parametrize("final", [False, True], ids=["PARTIAL", "FINAL"])
@pytest.mark.parametrize("state", ["before READY", "idle", "for another address"])
def test_partial_or_final_out_of_place_is_unexpected(final: bool, state: str) -> None:
    """MDP2-53: exactly one DISCONNECT."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2)
    client = ForeignClient(bench, b"c", V2)
    if state != "before READY":
        worker.ready()
    if state == "for another address":
        client.request(b"echo")
        worker.request()
    worker.send_reply(b"c", b"x", final=final)
    assert worker.disconnects() == 1 and client.replies() == []


def test_partial_counts_as_a_heartbeat() -> None:
    """MDP2-54: a worker that streams for longer than the expiry lives."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo")
    address = worker.request().address
    bench.beat_while_busy(worker)
    for _ in range(10):
        bench.advance(bench.expiry_s * 0.8)
        worker.send_reply(address, b"part", final=False)
    worker.send_reply(address, b"end")
    assert len(client.replies()) == 11 and worker.disconnects() == 0


def test_partial_does_not_free_the_worker() -> None:
    """MDP2-55: no REQUEST before FINAL."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo", b"1")
    client.request(b"echo", b"2")
    address = worker.request().address
    worker.send_reply(address, b"part", final=False)
    assert worker.requests() == []
    worker.send_reply(address, b"end")
    assert worker.request().body == [b"2"]


def test_partial_resets_the_processing_timeout() -> None:
    """MDP2-56: whoever streams is at work; one of our workers that says nothing at all loses the request in time."""
    for streams in (True, False):
        bench = Bench()
        worker, spare = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
        bench.keep_alive(worker, spare)
        client = ForeignClient(bench, b"c", V2)
        client.request(b"echo")
        token = worker.job().token
        if streams:
            worker.partial(token, b"part")
        bench.advance(2 * bench.config.delivery_timeout_s)
        assert len(spare.jobs()) == int(not streams)


def test_request_is_not_replayed_after_a_partial_was_forwarded() -> None:
    """MDP2-57: the client would see the beginning twice without a mark."""
    bench = Bench()
    first = ForeignWorker(bench, b"w1", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo")
    first.send_reply(first.request().address, b"part 1", final=False)
    second = ForeignWorker(bench, b"w2", V2).ready()
    bench.keep_alive(second)
    bench.notice_death(first)
    bench.advance(5.0)
    assert second.requests() == []
    assert [reply.body for reply in client.replies()] == [[b"part 1"]]


# --- both versions on one socket ---


@pytest.mark.parametrize(
    ("client_version", "worker_version"),
    [(V1, V1), (V2, V2), (V2, V1), (V1, V2)],
    ids=["BR-1", "BR-2", "BR-3", "BR-4"],
)
def test_versions_are_bridged_with_all_frames(client_version: Version, worker_version: Version) -> None:
    """BR-1, BR-2, BR-3, BR-4: each client is served by each worker, bodies of several frames included."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", worker_version).ready()
    client = ForeignClient(bench, b"c", client_version)
    client.request(b"echo", b"a", b"", b"b")
    request = worker.request()
    assert request.body == [b"a", b"", b"b"]
    worker.send_reply(request.address, b"c", b"", b"d")
    (reply,) = client.replies()
    assert reply.final and reply.body == [b"c", b"", b"d"]


def test_partials_for_a_01_client_are_not_lost_silently() -> None:
    """BR-4: 0.1 has no PARTIAL, so they are collected into the one REPLY, in order; no frame before the FINAL."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V1)
    client.request(b"echo")
    address = worker.request().address
    worker.send_reply(address, b"1", b"2", final=False)
    worker.send_reply(address, b"3", final=False)
    assert client.replies() == []
    worker.send_reply(address, b"4")
    assert [reply.body for reply in client.replies()] == [[b"1", b"2", b"3", b"4"]]


@pytest.mark.parametrize(("first", "second"), [(V1, V2), (V2, V1)], ids=["0.1 to 0.2", "0.2 to 0.1"])
def test_version_switch_of_a_worker_is_a_protocol_error(first: Version, second: Version) -> None:
    """BR-5: answered with DISCONNECT in the version it registered with."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", first).ready()
    worker.send(*WorkerHeartbeat(second).encode())
    assert worker.disconnects() == 1 and bench.state(worker) is None


@pytest.mark.parametrize(("first", "second"), [(V1, V2), (V2, V1)], ids=["0.1 to 0.2", "0.2 to 0.1"])
def test_version_switch_of_a_client_is_dropped(first: Version, second: Version) -> None:
    """BR-5: an answer in the other version would close a REQ client's socket for good."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c", first)
    client.request(b"echo", b"1")
    worker.send_reply(worker.request().address)
    client.version = second
    client.request(b"echo", b"2")
    assert worker.requests() == []


def test_mmi_counts_workers_of_both_versions() -> None:
    """BR-6: one truth for both."""
    for worker_version, asker_version in itertools.product((V1, V2), repeat=2):
        bench = Bench()
        ForeignWorker(bench, b"w", worker_version).ready()
        assert bench.mmi(b"echo", version=asker_version) == FOUND


def test_heartbeat_and_disconnect_go_out_in_each_workers_own_codes() -> None:
    """BR-7: 04 is HEARTBEAT in one version and FINAL in the other."""
    bench = Bench()
    old, new = Peer(bench, b"old"), Peer(bench, b"new")
    old.send(b"", b"MDPW01", b"\1", b"echo")
    new.send(b"MDPW02", b"\1", b"echo")
    bench.advance(bench.heartbeat_s + SLACK_S)
    assert (old.unread(), new.unread()) == ([[b"", b"MDPW01", b"\4"]], [[b"MDPW02", b"\5"]])
    old.send(b"", b"MDPW01", b"\1", b"echo")
    new.send(b"MDPW02", b"\1", b"echo")
    assert (old.unread(), new.unread()) == ([[b"", b"MDPW01", b"\5"]], [[b"MDPW02", b"\6"]])


def test_least_recently_used_order_holds_across_versions() -> None:
    """BR-8: one idle list for both."""
    bench = Bench()
    workers = [
        ForeignWorker(bench, b"A", V2).ready(),
        ForeignWorker(bench, b"B", V1).ready(),
        OurWorker(bench, b"C").ready(),
        ForeignWorker(bench, b"D", V2).ready(),
    ]
    client = ForeignClient(bench, b"c")
    for number in range(4):
        client.request(b"echo", b"%d" % number)
    assert [worker.new(WorkerRequest)[0].body for worker in workers] == [[b"%d" % number] for number in range(4)]
