"""The rules of 8/MMI (MMI-n), by which a broker answers for itself; see ``test_mdp_conformance.py``."""

from __future__ import annotations

import json
from typing import Final

import pytest

from reliable.status import Status
from reliable.types import Frames
from reliable.wire.mdp import (
    Version,
    WorkerDisconnect,
)
from reliable.wire.mmi import FOUND, NOT_FOUND, NOT_IMPLEMENTED
from tests.support.broker_bench import (
    LIFE,
    SLACK_S,
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


# --- 8/MMI --------------------------------------------------------------------------------------------------


@both_versions
def test_reserved_names_never_leave_the_broker(version: Version) -> None:
    """MMI-1: never queued, never sent to a worker, whoever registered before or after."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version, b"mmi.custom").ready()
    client = ForeignClient(bench, b"c", version)
    client.request(b"mmi.custom", b"x")
    ForeignWorker(bench, b"w2", version, b"mmi.custom").ready()
    assert worker.requests() == []
    assert [reply.body for reply in client.replies()] == [[NOT_IMPLEMENTED]]


@both_versions
def test_worker_that_registers_a_reserved_name_is_disconnected(version: Version) -> None:
    """MMI-2: and the name stays unimplemented."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version, b"mmi.x").ready()
    assert [type(command) for command in worker.new(object)] == [WorkerDisconnect]
    client = ForeignClient(bench, b"c", version)
    client.request(b"mmi.x", b"?")
    assert [reply.body for reply in client.replies()] == [[NOT_IMPLEMENTED]]


@both_versions
def test_mmi_service_exists(version: Version) -> None:
    """MMI-3: it answers with a code of its own, not with 501."""
    assert Bench().mmi(b"anything", version=version) == NOT_FOUND


@both_versions
def test_mmi_finds_a_service_with_an_idle_or_a_busy_worker(version: Version) -> None:
    """MMI-4: registered is what counts."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    assert bench.mmi(b"echo", version=version) == FOUND
    ForeignClient(bench, b"c", version).request(b"echo")
    worker.request()
    assert bench.mmi(b"echo", version=version) == FOUND


@pytest.mark.parametrize("case", ["never seen", "only requests", "disconnected", "expired", "unreachable"])
@both_versions
def test_mmi_does_not_find_a_service_without_workers(version: Version, case: str) -> None:
    """MMI-5: whatever the reason."""
    bench = Bench()
    if case == "only requests":
        ForeignClient(bench, b"c", version).request(b"echo")
    elif case != "never seen":
        worker = ForeignWorker(bench, b"w", version).ready()
        if case == "disconnected":
            worker.disconnect()
        elif case == "expired":
            bench.advance(bench.expiry_s + SLACK_S)
        else:
            bench.notice_death(worker)
    assert bench.mmi(b"echo", version=version) == NOT_FOUND


@both_versions
def test_other_reserved_names_are_not_implemented(version: Version) -> None:
    """MMI-6: at once, also for an empty body."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    for name in (b"mmi.nosuch", b"mmi.filter", b"mmi.service.x"):
        client.request(name, b"")
    assert [(reply.service, reply.body) for reply in client.replies()] == [
        (b"mmi.nosuch", [NOT_IMPLEMENTED]),
        (b"mmi.filter", [NOT_IMPLEMENTED]),
        (b"mmi.service.x", [NOT_IMPLEMENTED]),
    ]


def test_golden_bytes_of_mmi_answers() -> None:
    """MMI-7: the service frame is the mmi name, the body one frame."""
    bench = Bench()
    ForeignWorker(bench, b"w").ready()
    old, new = Peer(bench, b"old"), Peer(bench, b"new")
    old.send(b"", b"MDPC01", b"mmi.service", b"echo")
    old.send(b"", b"MDPC01", b"mmi.service", b"nobody")
    old.send(b"", b"MDPC01", b"mmi.nosuch", b"")
    new.send(b"MDPC02", b"\1", b"mmi.service", b"echo")
    assert old.unread() == [
        [b"", b"MDPC01", b"mmi.service", b"200"],
        [b"", b"MDPC01", b"mmi.service", b"404"],
        [b"", b"MDPC01", b"mmi.nosuch", b"501"],
    ]
    assert new.unread() == [[b"MDPC02", b"\3", b"mmi.service", b"200"]]


@pytest.mark.parametrize("name", [b"mmi", b"Mmi.x", b"xmmi.service", b"MMI.service", b" mmi.service"])
def test_reserved_prefix_is_exact(name: bytes) -> None:
    """MMI-8: anything that only resembles it is an ordinary service."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", V1, name).ready()
    client = ForeignClient(bench, b"c")
    client.request(name, b"ordinary")
    assert worker.request().body == [b"ordinary"] and client.replies() == []


@pytest.mark.parametrize("name", [b"mmi.", b"mmi.service2", b"mmi.Service"])
def test_names_behind_the_prefix_are_exact_too(name: bytes) -> None:
    """MMI-8: they are reserved and not implemented."""
    bench = Bench()
    client = ForeignClient(bench, b"c")
    client.request(name, b"echo")
    assert [reply.body for reply in client.replies()] == [[NOT_IMPLEMENTED]]


def test_asking_changes_nothing() -> None:
    """MMI-9: no service record comes of it, and the answer stays the same."""
    bench = Bench()
    for _ in range(3):
        assert bench.mmi(b"echo") == NOT_FOUND
    assert bench.snapshot().services == ()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@both_versions
def test_mmi_follows_the_truth_within_one_expiry_of_a_death(version: Version, busy: bool) -> None:
    """MMI-10: also when the worker died busy."""
    bench = Bench()
    worker = ForeignWorker(bench, b"w", version).ready()
    if busy:
        ForeignClient(bench, b"c", version).request(b"echo")
    bench.kill(worker)
    bench.advance(bench.expiry_s + SLACK_S)
    assert bench.mmi(b"echo", version=version) == NOT_FOUND


def test_asking_does_not_make_a_client_of_a_worker() -> None:
    """MMI-9: workers of ours say hello through an mmi request before they register."""
    bench = Bench()
    worker = OurWorker(bench, b"w")
    assert worker.hello_answer is not None and worker.hello_answer.life == LIFE
    worker.ready()
    assert bench.mmi(b"echo") == FOUND


def test_hello_of_our_client_is_answered_with_the_life() -> None:
    """MMI-6: the one further name under the prefix that is implemented for our peers."""
    client = OurClient(Bench(), b"c")
    assert client.hello_answer is not None and client.hello_answer.life == LIFE


@pytest.mark.parametrize("body", [[b"nonsense"], [b""], [b"a", b"b"]])
def test_hello_that_is_none_is_not_implemented(body: Frames) -> None:
    """MMI-6: whoever asks it without being one of ours learns nothing and gets no session."""
    bench = Bench()
    client = ForeignClient(bench, b"c")
    client.request(b"mmi.reliable", *body)
    assert [reply.body for reply in client.replies()] == [[NOT_IMPLEMENTED]]


def test_status_query_shows_the_snapshot_as_json() -> None:
    """MMI-6: the last name under the prefix that is ours; it is what ``reliable status`` prints."""
    bench = Bench()
    OurWorker(bench, b"w").ready()
    client = ForeignClient(bench, b"c")
    client.request(b"mmi.reliable.status", b"")
    ((code, document),) = [reply.body for reply in client.replies()]
    shown = json.loads(document)
    assert code == FOUND and shown["life"] == LIFE.hex()
    assert [(service["name"], service["idle"]) for service in shown["services"]] == [("echo", 1)]
    assert [(worker["peer"], worker["ours"]) for worker in shown["workers"]] == [(b"w".hex(), True)]


def test_question_with_a_call_frame_is_answered_with_an_answer_frame() -> None:
    """MMI-7: for our clients it is a call like any other, and ends with OK."""
    bench = Bench()
    client = OurClient(bench, b"c")
    call = client.submit(b"mmi.service", [b"echo"], attempt=2)
    answer = client.answer()
    assert (answer.status, answer.final, answer.body) == (Status.OK, True, [NOT_FOUND])
    assert (answer.frame.call_id, answer.frame.attempt, answer.service) == (call, 2, b"mmi.service")
