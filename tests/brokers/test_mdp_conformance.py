"""The rules of 7/MDP, 18/MDP and 8/MMI that a broker's engine can show, one test per rule.

The ids are those of the conformance table in ``docs/reference``: MDP1-n for 7/MDP, MDP2-n for 18/MDP (the same number
means the same rule under the other version's frames), BR-n for both versions on one socket, MMI-n for 8/MMI. Each test
names in its docstring the ids it shows; what only a worker, a client or a socket can show is listed in ``ELSEWHERE``,
and a test at the end checks that no id is missing. What 18/MDP adds is in ``test_mdp02_conformance.py``, 8/MMI in
``test_mmi_conformance.py``.
"""

from __future__ import annotations

import re
from typing import Final

import pytest

from reliable.types import Frames
from reliable.wire.extension import is_extension
from reliable.wire.mdp import (
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
    decode_at_worker,
)
from reliable.wire.mmi import FOUND, NOT_FOUND
from tests.brokers import test_mdp02_conformance, test_mmi_conformance
from tests.support.broker_bench import (
    LIFE,
    OTHER_LIFE,
    SLACK_S,
    START,
    Bench,
    ForeignClient,
    ForeignWorker,
    Peer,
)

V1: Final = Version.MDP01
V2: Final = Version.MDP02
both_versions = pytest.mark.parametrize("version", [V1, V2], ids=["0.1", "0.2"])

ELSEWHERE: Final = (
    ("MDP1-1", "the ROUTER socket is the shell's: tests/loopback"),
    ("MDP1-11", "a plain REQ socket is a socket's matter: tests/loopback"),
    ("MDP1-13", "a client's recovery: tests/engine/test_client.py"),
    ("MDP1-17", "a worker's socket: tests/engine/test_worker.py"),
    ("MDP1-22", "a worker's assumption: tests/engine/test_worker.py"),
    ("MDP1-28", "a worker's duty: tests/engine/test_worker.py"),
    ("MDP1-37", "a worker's duty: tests/engine/test_worker.py"),
    ("MDP1-40", "a synchronous client's duty; the broker bounds each client's queue: MDP1-44"),
    ("MDP1-46", "a worker's back-off: tests/engine/test_worker.py"),
    ("MDP1-47", "random frame lists: tests/brokers/test_majordomo_fuzz.py"),
    ("MDP2-1", "as MDP1-1"),
    ("MDP2-13", "as MDP1-13"),
    ("MDP2-17", "as MDP1-17"),
    ("MDP2-22", "as MDP1-22"),
    ("MDP2-28", "as MDP1-28"),
    ("MDP2-37", "as MDP1-37"),
    ("MDP2-40", "as MDP1-40"),
    ("MDP2-46", "as MDP1-46"),
    ("MDP2-47", "as MDP1-47"),
    ("MDP2-48", "a client's duty: tests/engine/test_client.py"),
    ("MDP2-50", "a worker's duty: tests/engine/test_worker.py"),
)


def _vectors(text: str) -> list[tuple[str, Frames]]:
    rows = []
    for line in text.strip().splitlines():
        name, *frames = line.split()
        rows.append((name, [b"" if frame == "-" else bytes.fromhex(frame) for frame in frames]))
    return rows


# --- topology and distribution ---


@both_versions
def test_clients_and_workers_share_one_endpoint(version: Version) -> None:
    """MDP1-2, MDP2-2: both sub-protocols are told apart on one socket."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"hello")
    worker.send_reply(worker.request().address, b"world")
    assert [reply.body for reply in client.replies()] == [[b"world"]]


@both_versions
def test_client_with_many_requests_does_not_starve_one_with_a_single_request(version: Version) -> None:
    """MDP1-3, MDP2-3: fairness is between clients, not between messages."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    flood = ForeignClient(bench, b"flood", version)
    single = ForeignClient(bench, b"single", version)
    for number in range(100):
        flood.request(b"echo", b"flood %d" % number)
    single.request(b"echo", b"single")
    served = []
    for _ in range(4):
        request = worker.request()
        served.append(request.body[0])
        worker.send_reply(request.address)
    assert b"single" in served, f"the first four were {served}"
    assert [body for body in served if body != b"single"] == [b"flood 0", b"flood 1", b"flood 2"]


@both_versions
def test_requests_go_to_the_worker_that_is_idle_for_longest(version: Version) -> None:
    """MDP1-4, MDP2-4: the order is least recently used, and heartbeats do not change it."""
    bench = Bench()
    workers = [ForeignWorker(bench, name, version).ready() for name in (b"A", b"B", b"C")]
    workers[0].heartbeat()
    client = ForeignClient(bench, b"c", version)
    for number in range(3):
        client.request(b"echo", b"%d" % number)
    assert [worker.request().body for worker in workers] == [[b"0"], [b"1"], [b"2"]]


@both_versions
def test_one_queue_per_service_with_many_writers_and_readers(version: Version) -> None:
    """MDP1-5, MDP2-5: any worker of a service takes any client's request of that service, and of no other."""
    bench = Bench()
    clients = [ForeignClient(bench, b"c%d" % number, version) for number in range(4)]
    for client in clients:
        client.request(b"echo", client.id)
    other = ForeignWorker(bench, b"other", version, b"other").ready()
    workers = [ForeignWorker(bench, b"w%d" % number, version).ready() for number in range(2)]
    for _ in range(2):
        for worker in workers:
            request = worker.request()
            worker.send_reply(request.address, request.body[0])
    assert [[reply.body for reply in client.replies()] for client in clients] == [[[c.id]] for c in clients]
    assert other.requests() == []


@both_versions
def test_worker_has_at_most_one_request_at_a_time(version: Version) -> None:
    """MDP1-6, MDP2-6: no second REQUEST before the REPLY to the first."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"1")
    client.request(b"echo", b"2")
    worker.heartbeat()
    bench.keep_alive(worker)
    bench.advance(2 * bench.heartbeat_s)
    first = worker.request()
    assert first.body == [b"1"]
    worker.send_reply(first.address)
    assert worker.request().body == [b"2"]


@both_versions
def test_request_of_a_dead_worker_is_executed_again(version: Version) -> None:
    """MDP1-7, MDP2-7: workers are idempotent, so the broker may hand a plain request over more than once."""
    bench = Bench()
    first = ForeignWorker(bench, b"w1", version).ready()
    ForeignClient(bench, b"c", version).request(b"echo", b"again")
    first.request()
    second = ForeignWorker(bench, b"w2", version).ready()
    bench.notice_death(first)
    assert second.request().body == [b"again"]


@both_versions
def test_broker_answers_services_of_its_own(version: Version) -> None:
    """MDP1-8, MDP2-8: it may implement services itself; ours are those under ``mmi.``."""
    bench = Bench()
    assert bench.mmi(b"echo", version=version) == NOT_FOUND


# --- client ---

_BODIES: Final = ([b"hello"], [b"hello", b"", b"\x00\xff"], [b""], [b"", b""], [b"", b"MDPC01", b"x"], [b"MDPW02"])


@pytest.mark.parametrize("body", _BODIES)
@both_versions
def test_body_frames_of_a_request_reach_the_worker_unchanged(version: Version, body: Frames) -> None:
    """MDP1-9, MDP2-9: also empty ones, and ones that look like the protocol's own."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    ForeignClient(bench, b"c", version).request(b"echo", *body)
    assert worker.request().body == body


def test_02_request_without_command_byte_is_invalid() -> None:
    """MDP2-9: a body under the 0.2 header in the manner of 0.1 must not be served by guessing."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.send(b"MDPC02", b"echo", b"hello")
    assert worker.requests() == [] and client.replies() == []


@pytest.mark.parametrize("body", _BODIES)
@both_versions
def test_reply_names_the_requested_service_and_carries_the_body_unchanged(version: Version, body: Frames) -> None:
    """MDP1-10, MDP2-10: what the worker said arrives as it is, under the service that was asked."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"?")
    worker.send_reply(worker.request().address, *body)
    (reply,) = client.replies()
    assert (reply.service, reply.body, reply.final) == (b"echo", body, True)


def test_golden_bytes_of_an_exchange_in_01() -> None:
    """MDP1-9, MDP1-10, MDP1-19, MDP1-30: the frames as the RFC prints them, byte for byte."""
    bench = Bench()
    worker, client = Peer(bench, bytes.fromhex("006b8b4568")), Peer(bench, bytes.fromhex("006b8b4567"))
    worker.send(b"", b"MDPW01", b"\1", b"echo")
    client.send(b"", b"MDPC01", b"echo", b"hello", b"", b"\x00\xff")
    ((empty, header, code, address, delimiter, *body),) = worker.unread()
    assert (empty, header, code, delimiter, body) == (b"", b"MDPW01", b"\2", b"", [b"hello", b"", b"\x00\xff"])
    worker.send(b"", b"MDPW01", b"\3", address, b"", b"world")
    assert client.unread() == [[b"", b"MDPC01", b"echo", b"world"]]


def test_golden_bytes_of_an_exchange_in_02() -> None:
    """MDP2-9, MDP2-10, MDP2-11, MDP2-12, MDP2-19, MDP2-30: no empty frame in front of anything."""
    bench = Bench()
    worker, client = Peer(bench, bytes.fromhex("006b8b4568")), Peer(bench, bytes.fromhex("006b8b4567"))
    worker.send(b"MDPW02", b"\1", b"echo")
    client.send(b"MDPC02", b"\1", b"echo", b"hello")
    ((header, code, address, delimiter, *body),) = worker.unread()
    assert (header, code, delimiter, body) == (b"MDPW02", b"\2", b"", [b"hello"])
    worker.send(b"MDPW02", b"\3", address, b"", b"wor")
    worker.send(b"MDPW02", b"\4", address, b"", b"ld")
    assert client.unread() == [[b"MDPC02", b"\2", b"echo", b"wor"], [b"MDPC02", b"\3", b"echo", b"ld"]]


def test_01_request_without_empty_frame_is_not_served() -> None:
    """MDP1-12: a DEALER writes the empty frame itself; a header in its place is invalid, not close enough."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c")
    client.send(b"MDPC01", b"echo", b"hello")
    assert worker.requests() == [] and client.replies() == []


def test_02_answers_carry_no_empty_frame() -> None:
    """MDP2-11, MDP2-12: every command of ours in 0.2 starts with the header."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V2).ready()
    client = ForeignClient(bench, b"c", V2)
    client.request(b"echo")
    worker.send_reply(worker.request().address)
    bench.mmi(b"echo", version=V2, asker=b"asker")
    bench.advance(bench.heartbeat_s + SLACK_S)
    worker.ready()
    first_frames = {frames[0] for peer in (worker, client, bench.peers[b"asker"]) for frames in peer.mail}
    assert first_frames == {b"MDPW02", b"MDPC02"}
    assert {type(decode_at_worker(frames)) for frames in worker.mail} == {
        WorkerRequest,
        WorkerHeartbeat,
        WorkerDisconnect,
    }


@both_versions
def test_service_names_match_byte_for_byte(version: Version) -> None:
    """MDP1-14, MDP2-14: no case folding, no trimming."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version, b"Echo").ready()
    client = ForeignClient(bench, b"c", version)
    for name in (b"echo", b"Echo ", b" Echo", b"Echo\0", b"Ech"):
        client.request(name)
    assert worker.requests() == []
    client.request(b"Echo")
    assert len(worker.requests()) == 1


@both_versions
def test_request_sent_before_its_worker_exists_is_answered(version: Version) -> None:
    """MDP1-15, MDP2-15: start order does not matter."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"early")
    bench.advance(1.0)
    worker = ForeignWorker(bench, b"w", version).ready()
    worker.send_reply(worker.request().address, b"late")
    assert [reply.body for reply in client.replies()] == [[b"late"]]


@both_versions
def test_request_for_an_absent_service_expires(version: Version) -> None:
    """MDP1-16, MDP2-16: after the expiry a new worker gets nothing; nobody is told, since MDP has no word for it."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"zombie")
    bench.advance(bench.config.plain_request_expiry_s + SLACK_S)
    assert ForeignWorker(bench, b"w", version).ready().requests() == []
    assert client.replies() == []
    assert bench.count("expired") == 1


# --- worker connection ---


@both_versions
def test_message_with_a_wrong_header_is_not_acted_on(version: Version) -> None:
    """MDP1-18, MDP2-18: READY under a header of another protocol registers nobody."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version)
    for header in (b"MDPW03", b"MDPC09", b"mdpw01", b"MDPW0", b""):
        worker.send(*([b""] if version is V1 else []), header, b"\1", b"echo")
    assert bench.mmi(b"echo") == NOT_FOUND and worker.mail == []


@both_versions
def test_many_workers_may_offer_one_service(version: Version) -> None:
    """MDP1-19, MDP2-19: each READY is one more worker."""
    bench = Bench()
    workers = [ForeignWorker(bench, b"w%d" % number, version).ready() for number in range(5)]
    client = ForeignClient(bench, b"c", version)
    for _ in workers:
        client.request(b"echo")
    assert all(len(worker.requests()) == 1 for worker in workers)


@both_versions
def test_second_ready_is_answered_with_disconnect(version: Version) -> None:
    """MDP1-20, MDP2-20: a session has one READY."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    worker.ready()
    assert [type(command) for command in worker.new(object)] == [WorkerDisconnect]
    assert bench.mmi(b"echo") == NOT_FOUND


@both_versions
def test_ready_is_not_answered(version: Version) -> None:
    """MDP1-21, MDP2-21: the next thing a worker sees is HEARTBEAT, REQUEST or DISCONNECT."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    assert worker.mail == []
    bench.advance(bench.heartbeat_s + SLACK_S)
    assert [type(command) for command in worker.new(object)] == [WorkerHeartbeat]


@both_versions
def test_disconnect_before_ready_is_survived_and_not_answered(version: Version) -> None:
    """MDP1-23, MDP2-23: a worker may leave at any time."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version)
    worker.disconnect()
    assert worker.mail == []
    worker.ready()
    assert bench.mmi(b"echo") == FOUND


@both_versions
def test_nothing_is_sent_to_a_worker_after_its_disconnect(version: Version) -> None:
    """MDP1-24, MDP2-24: no heartbeat and no request, idle or busy."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    busy = ForeignWorker(bench, b"busy", version).ready()
    client.request(b"echo")
    busy.request()
    idle = ForeignWorker(bench, b"idle", version).ready()
    idle.disconnect()
    busy.disconnect()
    for worker in (idle, busy):
        worker.unread()
    client.request(b"echo")
    bench.advance(3 * bench.heartbeat_s + SLACK_S)
    assert idle.unread() == [] and busy.unread() == []


@both_versions
def test_stopping_broker_disconnects_its_workers(version: Version) -> None:
    """MDP1-25, MDP2-25: it may do so at any time, and then sends no more."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    workers = [ForeignWorker(bench, b"w%d" % number, version).ready() for number in range(2)]
    client.request(b"echo")
    bench.engine.stop(bench.now)
    bench.pump()
    client.request(b"echo")
    bench.advance(3 * bench.heartbeat_s)
    for worker in workers:
        commands = [type(command) for command in worker.new(object) if not isinstance(command, WorkerRequest)]
        assert commands == [WorkerDisconnect]


def _unexpected_commands(version: Version) -> dict[str, list[Frames]]:
    """What a worker sends, one message after another, so that the last one is valid and out of place."""
    ready = WorkerReady(version, b"echo").encode()
    forged = WorkerReply(version, b"somebody", [b"x"]).encode()
    return {
        "HEARTBEAT before READY": [WorkerHeartbeat(version).encode()],
        "REPLY before READY": [forged],
        "second READY": [ready, ready],
        "REPLY while idle": [ready, forged],
        "REQUEST from a worker": [ready, WorkerRequest(version, b"somebody", [b"x"]).encode()],
        "REQUEST before READY": [WorkerRequest(version, b"somebody", [b"x"]).encode()],
    }


@pytest.mark.parametrize("case", _unexpected_commands(V1))
@both_versions
def test_unexpected_command_is_answered_with_exactly_one_disconnect(version: Version, case: str) -> None:
    """MDP1-26, MDP2-26: and then nothing more is sent to that worker."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version)
    for frames in _unexpected_commands(version)[case]:
        worker.send(*frames)
    worker.heartbeat()
    ForeignClient(bench, b"c", version).request(b"echo")
    bench.advance(2 * bench.heartbeat_s)
    assert [type(command) for command in worker.new(object)] == [WorkerDisconnect]


@pytest.mark.parametrize("ready_first", [False, True], ids=["busy with an own request", "second READY while busy"])
@both_versions
def test_unexpected_command_of_a_busy_worker_frees_its_request(version: Version, ready_first: bool) -> None:
    """MDP1-26, MDP2-26, MDP2-53: a reply for another address, or READY again, ends the session; the request goes on."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"precious")
    address = worker.request().address
    if ready_first:
        worker.ready()
    else:
        worker.send_reply(bytes(reversed(address)), b"forged")
    assert worker.disconnects() == 1 and client.replies() == []
    assert ForeignWorker(bench, b"w2", version).ready().request().body == [b"precious"]


BAD: Final = _vectors(
    """
BAD.probe                 -
BAD.two                   - 4d4450433031
BAD.nobody                - 4d4450433031 6563686f
BAD.noempty.01            4d4450433031 6563686f 68656c6c6f
BAD.empty.02              - 4d4450433032 01 6563686f 68656c6c6f
BAD.nocmd.02              4d4450433032 6563686f 68656c6c6f
BAD.header                - 4d4450433039 6563686f 68656c6c6f
BAD.w.nocmd               - 4d4450573031
BAD.w.cmd0                - 4d4450573031 -
BAD.w.cmd2bytes           - 4d4450573031 0101 6563686f
BAD.w.cmd9                - 4d4450573031 09
BAD.w.ready.noservice     - 4d4450573031 01
BAD.w.ready.emptyservice  - 4d4450573031 01 -
BAD.w.ready.extra         - 4d4450573031 01 6563686f 00
BAD.w.heartbeat.extra     - 4d4450573031 04 00
BAD.w.disconnect.extra    - 4d4450573031 05 00
BAD.w.reply.noaddr        - 4d4450573031 03
BAD.w.reply.nodelim       - 4d4450573031 03 006b8b4567 68656c6c6f
BAD.w.reply.nobody        - 4d4450573031 03 006b8b4567 -
BAD.w.hb02under01code     4d4450573032 04
BAD.c.emptyservice        - 4d4450433031 - 68656c6c6f
BAD.c.noframes
BAD.w.02.nocmd            4d4450573032
BAD.w.02.ready.noservice  4d4450573032 01
BAD.w.02.ready.extra      4d4450573032 01 6563686f 00
BAD.w.02.final.nodelim    4d4450573032 04 006b8b4567 68656c6c6f
BAD.c.02.emptyservice     4d4450433032 01 - 68656c6c6f
BAD.c.02.nobody           4d4450433032 01 6563686f
"""
)


@pytest.mark.parametrize(("name", "frames"), BAD, ids=[name for name, _ in BAD])
def test_invalid_message_is_dropped_and_others_are_unaffected(name: str, frames: Frames) -> None:
    """MDP1-27, MDP2-27: each alone from a fresh peer; the broker answers nothing, stays up and serves the others."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c")
    client.request(b"echo", b"before")
    stranger = Peer(bench, b"stranger")
    stranger.send(*frames)
    assert stranger.mail == []
    worker.send_reply(worker.request().address, b"served")
    assert [reply.body for reply in client.replies()] == [[b"served"]]
    assert worker.mail[1:] == [], "the worker of somebody else was bothered"
    assert bench.count("dropped_invalid") == (0 if name == "BAD.probe" else 1)


@pytest.mark.parametrize(("name", "frames"), BAD[1:], ids=[name for name, _ in BAD[1:]])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_invalid_message_ends_the_registration_of_its_sender(name: str, frames: Frames, busy: bool) -> None:
    """MDP1-27, MDP2-27: a worker that sends it is invalid from then on, and its request goes to another one."""
    bench = Bench()
    version = V2 if "02" in name and "under" not in name else V1
    worker = ForeignWorker(bench, b"w", version).ready()
    if busy:
        ForeignClient(bench, b"c").request(b"echo", b"precious")
        worker.request()
    worker.send(*frames)
    assert worker.disconnects() == 1
    assert bench.state(worker) is None
    spare = ForeignWorker(bench, b"spare").ready()
    assert [request.body for request in spare.requests()] == ([[b"precious"]] if busy else [])


@both_versions
def test_worker_of_a_former_life_is_told_to_register_again(version: Version) -> None:
    """MDP1-29, MDP2-29: after a restart the first heartbeat gets the DISCONNECT that makes the worker re-register."""
    Bench(life=LIFE)
    restarted = Bench(life=OTHER_LIFE, now=START + 5)
    worker = ForeignWorker(restarted, b"w", version)
    worker.heartbeat()
    assert worker.disconnects() == 1
    worker.ready()
    assert restarted.mmi(b"echo") == FOUND


# --- requests and replies ---


@both_versions
def test_request_has_exactly_one_address_frame_and_an_empty_one(version: Version) -> None:
    """MDP1-30, MDP2-30, MDP2-51: also for a client whose requests have a stack of addresses."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    ForeignClient(bench, b"c", V1).request(b"echo", b"x", stack=[b"proxy", b"req-id"])
    (frames,) = worker.unread()
    start = 3 if version is V1 else 2
    assert frames[start] != b"" and not is_extension(frames[start])
    assert frames[start + 1 :] == [b"", b"x"]


@both_versions
def test_address_comes_back_verbatim_or_the_reply_is_refused(version: Version) -> None:
    """MDP1-31, MDP2-31: the address is opaque to the worker, and whatever it made up itself reaches nobody."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo")
    worker.send_reply(worker.request().address + b"\0", b"altered")
    assert client.replies() == [] and worker.disconnects() == 1


# --- heartbeats ---


@both_versions
def test_heartbeat_is_valid_at_any_time_after_ready(version: Version) -> None:
    """MDP1-32, MDP2-32: idle and busy; it neither ends the session nor makes a busy worker ready."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    worker.heartbeat()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"1")
    client.request(b"echo", b"2")
    address = worker.request().address
    worker.heartbeat()
    assert worker.requests() == [] and worker.disconnects() == 0
    worker.send_reply(address, b"one")
    assert [reply.body for reply in client.replies()] == [[b"one"]]


@both_versions
def test_worker_that_only_replies_is_never_expired(version: Version) -> None:
    """MDP1-33, MDP2-33: any command but DISCONNECT counts as a heartbeat."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    for _ in range(20):
        bench.advance(bench.heartbeat_s * 0.9)
        client.request(b"echo")
        worker.send_reply(worker.request().address)
    assert len(client.replies()) == 20 and bench.mmi(b"echo") == FOUND


@both_versions
def test_no_heartbeat_while_other_commands_are_sent(version: Version) -> None:
    """MDP1-34, MDP2-34: heartbeats fill silence and nothing else."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    for _ in range(20):
        bench.advance(bench.heartbeat_s * 0.5)
        client.request(b"echo")
        worker.send_reply(worker.request().address)
    assert worker.heartbeats() == 0


@both_versions
def test_broker_heartbeats_idle_and_busy_workers(version: Version) -> None:
    """MDP1-35, MDP2-35: a strict worker gives up on a broker that is silent while it works."""
    bench = Bench()
    busy = ForeignWorker(bench, b"busy", version).ready()
    ForeignClient(bench, b"c", version).request(b"echo")
    idle = ForeignWorker(bench, b"idle", version).ready()
    bench.keep_alive(idle)
    bench.advance(5 * bench.heartbeat_s + SLACK_S)
    assert busy.heartbeats() in (4, 5) and idle.heartbeats() in (4, 5)


@both_versions
def test_silent_idle_worker_is_dropped_after_the_agreed_multiple_and_not_before(version: Version) -> None:
    """MDP1-36, MDP2-36: 3 to 5 intervals of silence."""
    bench = Bench()
    assert 3 <= bench.expiry_s / bench.heartbeat_s <= 5
    ForeignWorker(bench, b"w", version).ready()
    bench.advance(bench.expiry_s - SLACK_S)
    assert bench.mmi(b"echo") == FOUND
    bench.advance(2 * SLACK_S)
    assert bench.mmi(b"echo") == NOT_FOUND


@both_versions
def test_lost_worker_is_sent_nothing(version: Version) -> None:
    """MDP1-38, MDP2-38: also no DISCONNECT."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    bench.advance(bench.expiry_s + SLACK_S)
    worker.unread()
    ForeignClient(bench, b"c", version).request(b"echo")
    bench.advance(2 * bench.expiry_s)
    assert worker.unread() == []


@pytest.mark.parametrize("death", ["killed", "closed without a word", "frozen after heartbeats", "says DISCONNECT"])
@both_versions
def test_request_of_a_lost_worker_goes_to_another_one(version: Version, death: str) -> None:
    """MDP1-39, MDP2-39: whichever way it was lost, and the client gets one reply."""
    bench = Bench()
    first = ForeignWorker(bench, b"w1", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"work")
    first.request()
    second = ForeignWorker(bench, b"w2", version).ready()
    bench.keep_alive(second)
    if death == "says DISCONNECT":
        first.disconnect()
    elif death == "frozen after heartbeats":
        bench.beat_while_busy(first)
        bench.advance(bench.expiry_s + SLACK_S)
    else:
        bench.notice_death(first)
    second.send_reply(second.request().address, b"saved")
    assert [reply.body for reply in client.replies()] == [[b"saved"]]


# --- derived ---


@both_versions
def test_client_gets_at_most_one_reply_per_request(version: Version) -> None:
    """MDP1-41, MDP2-41: although it was executed twice."""
    bench = Bench()
    first = ForeignWorker(bench, b"w1", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo")
    address = first.request().address
    bench.beat_while_busy(first)
    bench.advance(bench.expiry_s + SLACK_S)
    second = ForeignWorker(bench, b"w2", version).ready()
    second.send_reply(second.request().address, b"second")
    first.send_reply(address, b"first")
    assert [reply.body for reply in client.replies()] == [[b"second"]]


@both_versions
def test_late_reply_of_an_expired_worker_is_not_forwarded(version: Version) -> None:
    """MDP1-42, MDP2-42: it is answered with the DISCONNECT that makes the worker register again."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo")
    address = worker.request().address
    bench.beat_while_busy(worker)
    bench.advance(bench.expiry_s + SLACK_S)
    worker.send_reply(address, b"late")
    assert client.replies() == [] and worker.disconnects() == 1


@both_versions
def test_poison_request_kills_only_so_many_workers(version: Version) -> None:
    """MDP1-43, MDP2-43: redelivery is bounded, or one request empties the pool."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    client.request(b"echo", b"poison")
    killed = 0
    for number in range(10):
        worker = ForeignWorker(bench, b"w%d" % number, version).ready()
        if worker.requests():
            killed += 1
            bench.notice_death(worker)
    assert killed == bench.config.delivery_cap
    assert client.replies() == []


def test_silent_expiry_of_requests_bounds_the_queue_in_time() -> None:
    """MDP1-44, MDP2-44: records of services that only clients named do not outlive their requests."""
    bench = Bench()
    for number in range(50):
        ForeignClient(bench, b"c%d" % number).request(b"service %d" % number)
    bench.advance(bench.config.plain_request_expiry_s + SLACK_S)
    bench.advance(bench.config.plain_request_expiry_s)
    assert bench.snapshot().services == ()


@pytest.mark.parametrize("stall_s", [4.0, 60.0])
def test_own_stall_costs_no_worker_that_kept_heartbeating(stall_s: float) -> None:
    """MDP1-45, MDP2-45: a broker that was itself stalled must not take its own silence for that of everybody else."""
    bench = Bench()
    workers = [ForeignWorker(bench, b"w%d" % number, version).ready() for number, version in enumerate([V1, V2] * 3)]
    bench.now += stall_s
    bench.engine.stalled(stall_s, bench.now)
    bench.tick()
    for worker in workers:
        worker.heartbeat()
        assert worker.disconnects() == 0 and bench.state(worker) == "idle"


def test_stall_forgives_only_itself() -> None:
    """MDP1-45: a worker that stays silent after the stall is still expired, one timeout later at most."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w").ready()
    bench.now += 10.0
    bench.engine.stalled(10.0, bench.now)
    bench.tick()
    assert bench.state(worker) == "idle"
    bench.advance(bench.expiry_s + SLACK_S)
    assert bench.state(worker) is None


# --- the list ---


def test_every_rule_is_shown_here_or_elsewhere() -> None:
    """A conformance list with holes is no list."""
    shown = set()
    modules = [globals(), vars(test_mdp02_conformance), vars(test_mmi_conformance)]
    for name, function in [item for module in modules for item in module.items()]:
        if name.startswith("test_") and name != "test_every_rule_is_shown_here_or_elsewhere":
            shown |= set(re.findall(r"\b(?:MDP1|MDP2|BR|MMI)-\d+\b", function.__doc__ or ""))
    elsewhere = {rule for rule, _ in ELSEWHERE}
    rules = {f"MDP1-{number}" for number in range(1, 48)} | {f"MDP2-{number}" for number in range(1, 58)}
    rules |= {f"BR-{number}" for number in range(1, 9)} | {f"MMI-{number}" for number in range(1, 11)}
    assert rules - shown - elsewhere == set()
    assert (shown | elsewhere) - rules == set()
    assert shown & elsewhere == set()
