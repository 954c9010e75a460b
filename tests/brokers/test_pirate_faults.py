"""Faults of the queues in the ZeroMQ Guide, one test each: ours must not have them.

They were found by running or reading ``ppqueue`` and ``spqueue`` (C and Python); what they do is in each docstring, so
that nobody takes a test for pedantry.
"""

from __future__ import annotations

import pytest

from brokers.queueing import QueueConfig
from reliable.types import Frames
from tests.support.queue_bench import HEARTBEAT, READY, QueueBench, paranoid, simple

A, B = b"client-a", b"client-b"
V, W = b"worker-v", b"worker-w"


@pytest.mark.parametrize("times", [1, 5])
def test_a_heartbeat_does_not_book_a_busy_worker_twice(times: int) -> None:
    """ppqueue: any sign of life puts the sender into the list of ready workers, the busy one with the rest."""
    bench = paranoid()
    bench.worker(W, READY)
    bench.ask(A, b"first")
    bench.request(W)
    for _ in range(times):
        bench.worker(W, HEARTBEAT)
    bench.ask(B, b"second")
    assert bench.requests(W) == []
    assert (bench.idle, bench.busy, bench.queued) == ([], {W}, 1)


def test_a_worker_that_only_heartbeats_gets_nothing() -> None:
    """ppqueue: one that never said READY and never answers takes every request that comes."""
    bench = paranoid()
    for number in range(5):
        bench.worker(V, HEARTBEAT)
        bench.ask(A, b"request %d" % number)
        bench.advance(1.0)
    assert bench.at_worker(V) == []


def test_heartbeats_go_out_though_nobody_says_anything() -> None:
    """ppqueue.py: they are sent inside of the branch "a worker said something"; silent workers hear none."""
    bench = paranoid()
    bench.worker(W, READY)
    bench.advance(2.0)
    assert bench.at_worker(W) == [[HEARTBEAT], [HEARTBEAT]]


def test_heartbeats_go_out_though_clients_never_pause() -> None:
    """A loop that is always busy with requests must not forget them either."""
    bench = paranoid(QueueConfig(queue_max=5))
    bench.worker(W, READY)
    for _ in range(25):
        bench.ask(A, b"more")
        bench.advance(0.1)
    assert bench.at_worker(W).count([HEARTBEAT]) == 2


JUNK: dict[str, Frames] = {
    "empty": [b""],
    "none": [],
    "command of two bytes": [b"\1\0"],
    "READY twice": [READY, READY],
    "READY of the simple pirate": [b"", READY],
    "a reply": [A, b"", b"x"],
    "a text": [b"hello"],
    "MDP": [b"", b"MDPW01", b"\1", b"echo"],
    "deep": [b"x"] * 40,
}


@pytest.mark.parametrize("shape", JUNK)
def test_nobody_is_registered_by_junk(shape: str) -> None:
    """ppqueue: registers first and validates later, so that one junk frame makes its sender a ready worker."""
    bench = paranoid()
    bench.worker(W, *JUNK[shape])
    bench.ask(A, b"hello")
    assert bench.at_worker(W) == []
    assert bench.queued == 1


@pytest.mark.parametrize("shape", sorted(set(JUNK) - {"READY of the simple pirate"}))
def test_nobody_is_registered_by_junk_at_the_simple_queue(shape: str) -> None:
    """spqueue: the same."""
    bench = simple()
    bench.worker(W, *JUNK[shape])
    assert not bench.engine.wants_requests


def test_a_restarted_queue_gives_no_answer_to_a_client_of_its_own_life() -> None:
    """ppqueue: ids start anew after a restart; A's answer, sent to the new queue, reached B under the same id."""
    first = paranoid(life=b"life-one")
    first.worker(W, READY)
    first.ask(A, b"of A")
    address = first.request(W)[:2]
    second = paranoid(life=b"life-two")
    second.worker(V, READY)
    second.ask(A, b"of B, who has A's id now")
    held = second.request(V)
    assert held[0] != address[0]
    second.worker(W, *address, b"for A")
    second.worker(V, *address, b"for A")
    assert second.at_client(A) == []
    second.worker(V, *held[:2], b"for B")
    assert second.at_client(A) == [[b"", b"for B"]]


def test_no_worker_can_answer_in_the_name_of_another() -> None:
    """ppqueue: forwards any reply from anybody to any address."""
    bench = paranoid()
    for worker in (V, W):
        bench.worker(worker, READY)
    bench.ask(A, b"a")
    bench.ask(B, b"b")
    of_v, of_w = bench.request(V), bench.request(W)
    bench.worker(V, *of_w[:2], b"forged")
    bench.worker(b"stranger", *of_w[:2], b"forged")
    bench.worker(V, B, b"", b"forged")
    assert (bench.at_client(A), bench.at_client(B)) == ([], [])
    bench.worker(V, *of_v[:2], b"true")
    assert bench.at_client(A) == [[b"", b"true"]]


def test_ready_is_recognised_by_its_bytes() -> None:
    """spqueue.py: compares a str with bytes, so READY is never recognised and is sent on to a client named 01."""
    bench = simple()
    bench.worker(W, b"", READY)
    assert bench.engine.wants_requests
    assert bench.journal == []
    bench.ask(A, b"hello")
    assert bench.request(W) == [b"", A, b"", b"hello"]


def test_heartbeats_do_not_reorder_the_line() -> None:
    """ppqueue: each one moves its worker to the end, so that whoever beats least is used most."""
    bench = paranoid()
    for worker in (V, W):
        bench.worker(worker, READY)
    for _ in range(3):
        bench.worker(V, HEARTBEAT)
    assert bench.idle == [V, W]


def _old_connection(bench: QueueBench) -> None:
    """The worker is known by an id whose connection is over, and by its new one."""
    bench.worker(V, READY)
    bench.unreachable.add(V)
    bench.worker(W, READY)


def test_a_stale_worker_id_swallows_no_request() -> None:
    """ppqueue: a worker that reconnected stays ready under its old id; requests to that one are dropped in silence."""
    bench = paranoid()
    _old_connection(bench)
    bench.ask(A, b"hello")
    assert bench.request(W)[2:] == [b"hello"]


def test_a_stale_worker_id_swallows_no_request_of_the_simple_queue() -> None:
    """spqueue: the same, and for ever, as nothing there expires."""
    bench = simple()
    bench.worker(V, b"", READY)
    bench.unreachable.add(V)
    bench.worker(W, b"", READY)
    bench.ask(A, b"hello")
    assert bench.request(W)[3:] == [b"hello"]


@pytest.mark.parametrize("content", [READY, HEARTBEAT])
def test_a_content_that_looks_like_a_command_is_a_content(content: bytes) -> None:
    """6/PPP admits the ambiguity of contents 01 and 02 without address stack; ours always have their delimiter."""
    bench = paranoid()
    bench.worker(W, READY)
    bench.ask(A, content)
    token, delimiter, body = bench.request(W)
    assert (delimiter, body) == (b"", content)
    bench.worker(W, token, b"", content)
    assert bench.at_client(A) == [[b"", content]]
    assert bench.idle == [W]
