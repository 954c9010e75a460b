"""The Simple Pirate queue of the guide: what it promises, and what it deliberately does not."""

from __future__ import annotations

import pytest

from brokers.queueing import QueueConfig, Side
from brokers.simple import SimpleEngine
from reliable.types import Frames
from tests.support.queue_bench import READY, QueueBench, simple

A, B, C = b"client-a", b"client-b", b"client-c"
V, W, X = b"worker-v", b"worker-w", b"worker-x"


def with_workers(*names: bytes, config: QueueConfig | None = None) -> QueueBench:
    """A queue at which these are ready, in this order."""
    bench = simple(config)
    for name in names:
        bench.worker(name, b"", READY)
    return bench


def wants_requests(bench: QueueBench) -> bool:
    """Whether the shell is to read the front socket now."""
    return bench.engine.wants_requests


def test_clients_are_read_only_while_a_worker_is_ready() -> None:
    """SP-1: all others wait in the socket, where they cost the queue nothing."""
    bench = simple()
    assert not wants_requests(bench)
    bench.worker(W, b"", READY)
    assert wants_requests(bench)
    bench.ask(A, b"hello")
    assert not wants_requests(bench)
    bench.worker(W, b"", A, b"", b"world")
    assert wants_requests(bench)


def test_the_worker_that_became_ready_first_is_used_first() -> None:
    """SP-2: least recently used."""
    bench = with_workers(V, W, X)
    bench.worker(V, b"", READY)
    for client in (A, B, C):
        bench.ask(client, client)
    assert [bench.request(worker)[3] for worker in (V, W, X)] == [A, B, C]
    bench.worker(W, b"", B, b"", b"done")
    bench.worker(V, b"", A, b"", b"done")
    assert bench.idle == [W, V]


def test_golden_bytes_of_an_exchange() -> None:
    """Workers and clients of the guide send and expect exactly these."""
    client, worker = bytes.fromhex("006b8b4567"), bytes.fromhex("006b8b4568")
    bench = simple()
    bench.worker(worker, b"", READY)
    bench.ask(client, b"hello")
    assert bench.request(worker) == [b"", client, b"", b"hello"]
    bench.worker(worker, b"", client, b"", b"hello")
    assert bench.at_client(client) == [[b"", b"hello"]]


@pytest.mark.parametrize("body", [[b""], [READY], [b"", b"", b"x"]], ids=repr)
def test_content_and_stack_arrive_unchanged(body: Frames) -> None:
    """REQ_CORRELATE puts a frame in front of the delimiter; bodies are the client's own."""
    bench = with_workers(W)
    bench.client(A, b"\0\0\0\7", b"", *body)
    assert bench.request(W) == [b"", A, b"\0\0\0\7", b"", *body]
    bench.worker(W, b"", A, b"\0\0\0\7", b"", *body)
    assert bench.at_client(A) == [[b"\0\0\0\7", b"", *body]]


def test_a_dead_idle_worker_costs_no_request() -> None:
    """MANDATORY tells at once; the request goes to the next one, or waits for one."""
    bench = with_workers(V, W)
    bench.unreachable |= {V, W}
    bench.ask(A, b"hello")
    assert not wants_requests(bench)
    assert bench.queued == 1
    bench.worker(X, b"", READY)
    assert bench.request(X) == [b"", A, b"", b"hello"]
    assert bench.engine.counters.dispatched == 1


def test_a_worker_that_dies_with_a_request_takes_it_along() -> None:
    """What the simple pirate cannot do; 6/PPP is the cure."""
    bench = with_workers(V)
    bench.ask(A, b"hello")
    bench.request(V)
    bench.unreachable.add(V)
    bench.engine.connection_ended(bench.now)
    bench.engine.stalled(5.0, bench.now)
    bench.advance(1000.0)
    bench.worker(W, b"", READY)
    assert bench.at_worker(W) == []
    assert bench.engine.next_deadline() is None


@pytest.mark.parametrize(
    "reply",
    [[b"", B, b"", b"x"], [b"", A, b"x", b"", b"x"], [b"", A, b""], [b"", A], [A, b"", b"x"], [b"x", A, b"", b"x"]],
    ids=repr,
)
def test_only_the_reply_to_its_own_request_is_taken(reply: Frames) -> None:
    """No client gets another one's answer; a REQ socket that said something else is of no use any more."""
    bench = with_workers(W)
    bench.ask(A, b"hello")
    bench.worker(W, *reply)
    assert (bench.at_client(A), bench.at_client(B)) == ([], [])
    assert (bench.idle, bench.busy) == ([], set())


def test_a_reply_of_a_former_life_is_dropped() -> None:
    """After a restart ids belong to others; the guide's queue sends it on."""
    bench = with_workers(V)
    bench.worker(W, b"", A, b"", b"of a former life")
    bench.worker(V, b"", A, b"", b"nobody asked")
    assert bench.at_client(A) == []
    assert bench.idle == [V]
    assert bench.engine.counters.late_replies == 2


def test_ready_of_a_busy_worker_means_that_it_began_anew() -> None:
    """What it held is gone, and it can be used again."""
    bench = with_workers(W)
    bench.ask(A, b"hello")
    bench.worker(W, b"", READY)
    assert bench.idle == [W]
    assert bench.engine.counters.abandoned == 1


def test_workers_are_bounded_and_the_busy_one_of_longest_silence_goes_first() -> None:
    """Nobody tells when a worker dies with its request: without a bound each of them would stay for ever."""
    bench = with_workers(V, W, config=QueueConfig(workers_max=2))
    bench.ask(A, b"hello")
    bench.worker(X, b"", READY)
    assert (bench.idle, bench.busy) == ([W, X], set())
    bench.worker(V, b"", A, b"", b"late")
    assert bench.at_client(A) == []
    bench.worker(b"fourth", b"", READY)
    assert bench.idle == [X, b"fourth"]


def test_messages_beyond_the_limit_are_dropped_in_both_directions() -> None:
    """The worker is free afterwards."""
    bench = with_workers(W, config=QueueConfig(message_bytes_max=2048))
    bench.ask(A, *[bytes(1000)] * 3)
    assert bench.at_worker(W) == []
    bench.ask(A, b"small")
    bench.worker(W, b"", A, b"", *[bytes(1000)] * 3)
    assert bench.at_client(A) == []
    assert bench.idle == [W]
    assert bench.engine.counters.dropped_too_large == 2


@pytest.mark.parametrize("junk", [[], [b""], [b"x"], [b"x", b""], [b"x"] * 40 + [b"", b"y"]], ids=repr)
def test_junk_of_clients_is_dropped(junk: Frames) -> None:
    """It must neither take a worker nor stop the queue."""
    bench = with_workers(W)
    bench.client(A, *junk)
    assert bench.at_worker(W) == []
    assert bench.idle == [W]


def test_a_client_that_is_gone_costs_its_reply_only() -> None:
    """And a worker that was forgotten meanwhile is not missed twice."""
    bench = with_workers(W)
    bench.ask(A, b"hello")
    bench.unreachable.add(A)
    bench.worker(W, b"", A, b"", b"world")
    assert bench.engine.counters.undeliverable == 1
    bench.engine.unsent(Side.BACKEND, [V, b"", A, b"", b"x"], True, bench.now)
    assert bench.idle == [W]


def test_a_stopped_queue_takes_nothing() -> None:
    """The goodbye is silence: neither REQ workers nor REQ clients know a word for it."""
    bench = with_workers(V, W)
    bench.ask(A, b"hello")
    bench.engine.stop(bench.now)
    bench.worker(V, b"", A, b"", b"late")
    bench.worker(X, b"", READY)
    bench.ask(B, b"more")
    assert bench.idle == []
    bench.engine.timers(bench.now)
    assert isinstance(bench.engine, SimpleEngine)
    assert not wants_requests(bench)
    assert (bench.at_client(A), bench.at_worker(W)) == ([], [])
    assert bench.engine.counters.unanswered == 1
