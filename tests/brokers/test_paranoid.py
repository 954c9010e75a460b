"""The rules of 6/PPP that a queue's engine can show, one test per rule, with literal times; then limits.

The ids are those of the conformance table in ``docs/reference``. Faults of the queues in the ZeroMQ Guide have a test
each in ``test_pirate_faults.py``.
"""

from __future__ import annotations

import attrs
import pytest

from brokers.paranoid import ParanoidEngine
from brokers.queueing import QueueConfig, Side
from reliable.config import Heartbeat
from reliable.types import Frames
from tests.support.queue_bench import HEARTBEAT, LIFE, READY, START, QueueBench, paranoid

A, B, C = b"client-a", b"client-b", b"client-c"
V, W, X = b"worker-v", b"worker-w", b"worker-x"


def counters(bench: QueueBench) -> dict[str, int]:
    """Those that are not zero."""
    return {name: count for name, count in attrs.asdict(bench.engine.counters).items() if count}


def with_workers(*names: bytes, config: QueueConfig | None = None) -> QueueBench:
    """A queue at which these are ready, in this order."""
    bench = paranoid(config)
    for name in names:
        bench.worker(name, READY)
    return bench


# --- beginning, commands ---


@pytest.mark.parametrize(
    "first", [[HEARTBEAT], [A, b"", b"reply"], [b"", b"reply"]], ids=["heartbeat", "reply", "bare"]
)
def test_nothing_but_ready_begins_a_conversation(first: Frames) -> None:
    """PPP-1: a worker that the queue does not know gets no request, whatever it says."""
    bench = paranoid()
    bench.worker(W, *first)
    bench.ask(A, b"hello")
    bench.advance(2.5)
    assert bench.at_worker(W) == []
    assert bench.queued == 1
    bench.worker(W, READY)
    assert bench.request(W)[-1] == b"hello"


@pytest.mark.parametrize(
    "nearly", [[READY, READY], [b"\1\0"], [b""], [], [b"", READY], [READY, b""], [b"\0"]], ids=repr
)
def test_what_only_looks_like_ready_registers_nobody(nearly: Frames) -> None:
    """PPP-2: READY is one frame with one byte."""
    bench = paranoid()
    bench.worker(W, *nearly)
    assert bench.idle == []
    assert bench.engine.next_deadline() is None


@pytest.mark.parametrize("nearly", [[HEARTBEAT, HEARTBEAT], [b"\2\0"], [HEARTBEAT, b""]], ids=repr)
def test_what_only_looks_like_heartbeat_ends_the_registration(nearly: Frames) -> None:
    """PPP-3: HEARTBEAT is one frame with one byte; who sends anything else is not trusted any more."""
    bench = with_workers(W)
    bench.worker(W, *nearly)
    assert bench.idle == []
    assert counters(bench)["dropped_invalid"] == 1


def test_golden_bytes_of_an_exchange() -> None:
    """PPP-4, PPP-5: the address stack is one opaque frame, an empty one follows, then the client's own frames."""
    bench = with_workers(W)
    bench.ask(A, b"hello", b"", b"\x00\xff")
    token = LIFE + (1).to_bytes(8, "big")
    assert bench.at_worker(W) == [[token, b"", b"hello", b"", b"\x00\xff"]]
    bench.worker(W, token, b"", b"", b"world", b"")
    assert bench.at_client(A) == [[b"", b"", b"world", b""]]


@pytest.mark.parametrize("body", [[b""], [b"\1"], [b"\2"], [b"", b""], [b"x"] * 50], ids=repr)
def test_content_of_any_frames_arrives_unchanged(body: Frames) -> None:
    """PPP-4, PPP-5: one frame or many, empty or not, even those that would be commands without a delimiter."""
    bench = with_workers(W)
    bench.ask(A, *body)
    token, delimiter, *got = bench.request(W)
    assert (delimiter, got) == (b"", body)
    bench.worker(W, token, b"", *body)
    assert bench.at_client(A) == [[b"", *body]]
    assert bench.idle == [W]


def test_the_stack_of_a_client_is_restored_and_not_shown_to_workers() -> None:
    """PPP-5: REQ_CORRELATE and proxies put frames there, and workers that take one address only still serve them."""
    bench = with_workers(W)
    bench.client(A, b"\0\0\0\7", b"proxy", b"", b"hello")
    token, *rest = bench.request(W)
    assert rest == [b"", b"hello"]
    bench.worker(W, token, b"", b"world")
    assert bench.at_client(A) == [[b"\0\0\0\7", b"proxy", b"", b"world"]]


def test_each_request_has_one_reply_in_whatever_order() -> None:
    """PPP-6: requests are independent, also those of one client that does not wait."""
    bench = with_workers(V, W)
    bench.ask(A, b"first")
    bench.ask(A, b"second")
    first, second = bench.request(V), bench.request(W)
    bench.worker(W, *second[:2], b"2")
    bench.worker(V, *first[:2], b"1")
    assert bench.at_client(A) == [[b"", b"2"], [b"", b"1"]]
    bench.worker(V, *first[:2], b"1")
    assert bench.at_client(A) == []


# --- heartbeats ---


def test_idle_and_busy_workers_get_a_heartbeat_each_interval() -> None:
    """PPP-10: also when nobody says anything; three intervals, three heartbeats, at their moments."""
    bench = with_workers(V, W, config=QueueConfig(heartbeat=Heartbeat(interval_s=1.0, timeout_s=5.0)))
    bench.ask(A, b"long")
    bench.journal.clear()
    bench.advance(3.0)
    assert bench.journal == [
        (START + second, Side.BACKEND, [peer, HEARTBEAT]) for second in (1.0, 2.0, 3.0) for peer in (V, W)
    ]
    assert bench.busy == {V}


def test_a_silent_worker_is_gone_after_the_agreed_multiple_and_not_before() -> None:
    """PPP-11: three intervals by default."""
    bench = with_workers(W)
    bench.advance(2.999)
    assert bench.idle == [W]
    bench.advance(0.001)
    assert bench.idle == []
    assert counters(bench)["workers_expired"] == 1


def test_a_worker_may_come_back_by_ready() -> None:
    """PPP-12: the worker's part is to say READY again; the queue's is to take it, from the same routing id too."""
    bench = with_workers(W)
    bench.advance(3.0)
    bench.worker(W, READY)
    bench.ask(A, b"hello")
    assert bench.request(W)[2:] == [b"hello"]


def test_a_lost_worker_is_sent_nothing() -> None:
    """PPP-13: not even heartbeats, so that a live one notices and begins anew."""
    bench = with_workers(W)
    bench.advance(3.0)
    bench.at_worker(W)
    bench.ask(A, b"hello")
    bench.advance(10.0)
    assert bench.at_worker(W) == []


@pytest.mark.parametrize("sign", [[READY], [HEARTBEAT], [b"late", b"", b"reply"]], ids=["ready", "heartbeat", "reply"])
def test_any_message_is_a_sign_of_life(sign: Frames) -> None:
    """PPP-16: a worker that answers need not say that it lives."""
    bench = with_workers(W)
    bench.advance(2.5)
    bench.worker(W, *sign)
    bench.advance(2.999)
    assert bench.idle == [W]
    bench.advance(0.001)
    assert bench.idle == []


def test_a_busy_worker_lives_by_its_heartbeats_and_gets_nothing_by_them() -> None:
    """PPP-9, PPP-17: a run may last much longer than the liveness; a heartbeat is no READY."""
    bench = with_workers(W)
    bench.ask(A, b"long")
    token = bench.request(W)[0]
    bench.ask(B, b"next")
    for _ in range(20):
        bench.advance(1.0)
        bench.worker(W, HEARTBEAT)
    assert bench.requests(W) == []
    assert bench.busy == {W}
    bench.worker(W, token, b"", b"done")
    assert bench.at_client(A) == [[b"", b"done"]]
    assert bench.request(W)[2:] == [b"next"]


# --- distribution ---


def test_workers_are_used_in_the_order_in_which_they_became_ready() -> None:
    """PPP-14: least recently used, and heartbeats in between change nothing."""
    bench = with_workers(V, W, X)
    bench.worker(V, HEARTBEAT)
    bench.worker(W, READY)
    for client in (A, B, C):
        bench.ask(client, client)
    assert [bench.request(worker)[2] for worker in (V, W, X)] == [A, B, C]


def test_an_answer_puts_a_worker_at_the_end_of_the_line() -> None:
    """PPP-14: it is the one that was used last."""
    bench = with_workers(V, W)
    bench.ask(A, b"1")
    bench.worker(V, *bench.request(V)[:2], b"1")
    assert bench.idle == [W, V]


def test_a_worker_has_one_request_at_most() -> None:
    """PPP-18: the others wait here, where another worker can have them."""
    bench = with_workers(W)
    for client in (A, B, C):
        bench.ask(client, client)
    assert len(bench.requests(W)) == 1
    assert bench.queued == 2
    bench.worker(X, READY)
    assert bench.request(X)[2] == B


# --- loss ---


def test_the_request_of_a_dead_worker_goes_to_another_at_its_old_place() -> None:
    """PPP-15: within the liveness; whoever asked first is served first."""
    bench = with_workers(W)
    bench.ask(A, b"first")
    bench.request(W)
    bench.ask(B, b"second")
    bench.advance(2.5)
    assert bench.queued == 1
    bench.advance(0.5)
    bench.worker(X, READY)
    token, _, body = bench.request(X)
    assert body == b"first"
    bench.worker(X, token, b"", b"answer")
    assert bench.at_client(A) == [[b"", b"answer"]]
    assert bench.request(X)[2] == b"second"
    assert bench.at_client(B) == []


def test_ready_of_an_idle_worker_changes_nothing() -> None:
    """PPP-19: it is neither registered twice nor moved."""
    bench = with_workers(V, W)
    bench.worker(V, READY)
    assert bench.idle == [V, W]
    assert counters(bench)["workers_registered"] == 2


def test_ready_of_a_busy_worker_means_that_it_began_anew() -> None:
    """PPP-19: its request is given to the one whose turn it is, and it takes part again."""
    bench = with_workers(V, W)
    bench.ask(A, b"hello")
    bench.request(V)
    bench.worker(V, READY)
    assert bench.request(W)[2:] == [b"hello"]
    assert bench.idle == [V]
    assert counters(bench)["workers_restarted"] == 1


def test_the_reply_of_an_expired_worker_is_dropped() -> None:
    """PPP-20: its request was given to another one, whose reply is the one that counts."""
    bench = with_workers(V)
    bench.ask(A, b"hello")
    old = bench.request(V)
    bench.advance(3.0)
    bench.worker(W, READY)
    new = bench.request(W)
    bench.worker(V, *old[:2], b"late")
    assert bench.at_client(A) == []
    bench.worker(W, *new[:2], b"in time")
    bench.worker(V, *old[:2], b"later still")
    assert bench.at_client(A) == [[b"", b"in time"]]
    assert counters(bench)["late_replies"] == 2
    assert bench.idle == [W]


def test_the_late_reply_of_a_former_request_does_not_answer_the_next_one_of_the_same_client() -> None:
    """PPP-20: the client's address alone would fit, and the client would take the wrong answer."""
    bench = with_workers(V)
    bench.ask(A, b"first")
    old = bench.request(V)
    bench.worker(V, READY)
    new = bench.request(V)
    assert new[2:] == old[2:]
    bench.worker(V, *old[:2], b"from before it began anew")
    assert bench.at_client(A) == []
    assert bench.busy == {V}
    bench.worker(V, *new[:2], b"answer 1")
    assert bench.at_client(A) == [[b"", b"answer 1"]]
    bench.ask(A, b"second")
    bench.worker(V, *new[:2], b"answer 1 again")
    assert bench.at_client(A) == []
    assert bench.busy == {V}


def test_a_request_that_costs_worker_after_worker_is_given_up() -> None:
    """It was handed to another three times; a poisonous request must not kill the whole pool."""
    bench = paranoid()
    bench.ask(A, b"poison")
    for number in range(5):
        name = b"worker-%d" % number
        bench.worker(name, READY)
        assert len(bench.requests(name)) == (number < 4)
        bench.unreachable.add(name)
        bench.advance(1.0)
    assert counters(bench)["abandoned"] == 1
    assert counters(bench)["redelivered"] == 3
    assert bench.queued == 0


def test_without_redeliveries_a_lost_request_stays_lost() -> None:
    """For work that must not be repeated: the client's timeout is the only answer then."""
    bench = with_workers(V, W, config=QueueConfig(redeliveries_max=0))
    bench.ask(A, b"once")
    bench.advance(3.0)
    bench.worker(W, READY)
    assert [frames[2] for frames in (*bench.requests(V), *bench.requests(W))] == [b"once"]
    assert counters(bench)["abandoned"] == 1


# --- sends that fail ---


@pytest.mark.parametrize("how", ["unreachable", "full"])
def test_a_worker_that_cannot_be_sent_to_is_gone_at_once(how: str) -> None:
    """Its request goes to the next one in the same moment, and does not count as lost with a worker."""
    bench = with_workers(V, W, config=QueueConfig(redeliveries_max=0))
    getattr(bench, how).add(V)
    bench.ask(A, b"hello")
    assert bench.request(W)[2:] == [b"hello"]
    assert bench.idle == []
    assert counters(bench)["workers_unreachable"] == 1
    assert counters(bench)["dispatched"] == 1


def test_all_workers_gone_at_once_costs_no_request() -> None:
    """The power of a rack fails: requests wait for the next worker."""
    bench = with_workers(V, W)
    bench.unreachable |= {V, W}
    bench.ask(A, b"hello")
    assert (bench.idle, bench.queued) == ([], 1)
    bench.worker(X, READY)
    assert bench.request(X)[2:] == [b"hello"]


def test_what_was_meant_for_a_worker_that_is_forgotten_meanwhile_is_not_sent() -> None:
    """PPP-13: not even what was on its way; and a request that was never sent was no hand-over."""
    bench = with_workers(V, W, config=QueueConfig(redeliveries_max=0))
    engine = bench.engine
    engine.receive_frontend([A, b"", b"hello"], bench.now)
    engine.receive_backend([V, b"junk"], bench.now)
    bench.pump()
    assert bench.at_worker(V) == []
    assert bench.request(W)[2:] == [b"hello"]
    assert counters(bench)["dispatched"] == 1


def test_an_ended_connection_is_looked_into_at_once() -> None:
    """A killed worker that holds a request is found by the send that fails, long before its silence tells."""
    bench = with_workers(V, W)
    bench.ask(A, b"hello")
    bench.request(V)
    bench.advance(0.2)
    bench.unreachable.add(V)
    bench.engine.connection_ended(bench.now)
    bench.engine.connection_ended(bench.now)
    bench.advance(0.001)
    assert bench.request(W)[2:] == [b"hello"]
    assert counters(bench)["heartbeats_sent"] == 2


def test_an_ended_connection_is_looked_into_again() -> None:
    """libzmq reports the end a moment before it takes it in: the first look may still find the worker there."""
    bench = with_workers(V, W)
    bench.ask(A, b"hello")
    bench.request(V)
    bench.engine.connection_ended(bench.now)
    bench.advance(0.01)
    assert bench.requests(W) == []
    bench.unreachable.add(V)
    bench.advance(0.05)
    assert bench.request(W)[2:] == [b"hello"]
    bench.at_worker(W)
    bench.advance(0.5)
    assert bench.at_worker(W) == []


def test_endings_by_the_thousand_cost_one_look_at_a_time() -> None:
    """A crowd of peers that come and go must not make a queue of many workers do nothing else."""
    bench = paranoid()
    for number in range(100):
        bench.worker(b"worker-%d" % number, READY)
    for _ in range(1000):
        bench.engine.connection_ended(bench.now)
        bench.advance(0.0001)
    assert counters(bench)["heartbeats_sent"] <= 100 * 11


def test_an_ending_that_was_nobodys_changes_nothing() -> None:
    """Port scanners connect and hang up."""
    bench = paranoid()
    bench.engine.connection_ended(bench.now)
    assert bench.engine.next_deadline() is None


def test_a_client_that_is_gone_costs_its_reply_only() -> None:
    """The worker has done its work, and is ready for the next one."""
    bench = with_workers(W)
    bench.ask(A, b"hello")
    bench.unreachable.add(A)
    bench.worker(W, *bench.request(W)[:2], b"world")
    assert counters(bench)["undeliverable"] == 1
    assert bench.idle == [W]


def test_a_failed_send_to_a_worker_that_is_forgotten_already_is_nothing_new() -> None:
    """Several messages to the same dead worker may be on their way."""
    bench = with_workers(W)
    engine = bench.engine
    engine.unsent(Side.BACKEND, [W, HEARTBEAT], True, bench.now)
    engine.unsent(Side.BACKEND, [W, HEARTBEAT], True, bench.now)
    assert counters(bench)["workers_gone"] == 1


# --- own stalls ---


def test_own_stall_costs_no_worker() -> None:
    """A queue that was stopped for a minute has heard nothing because it did not listen."""
    bench = with_workers(W)
    bench.ask(A, b"long")
    bench.now += 30.0
    bench.engine.stalled(30.0, bench.now)
    bench.advance(2.999)
    assert bench.busy == {W}
    bench.advance(0.001)
    assert bench.busy == set()


def test_after_a_stall_heartbeats_are_not_made_up_for() -> None:
    """Thirty of them at once would prove nothing."""
    bench = with_workers(W)
    bench.now += 30.5
    bench.engine.stalled(30.5, bench.now)
    bench.advance(0.0)
    assert bench.at_worker(W) == [[HEARTBEAT]]
    assert bench.engine.next_deadline() == START + 31.5


# --- limits ---


def test_requests_that_waited_too_long_are_dropped() -> None:
    """Their clients have given up; workers must not spend their time on them."""
    bench = paranoid(QueueConfig(expiry_s=10.0))
    bench.ask(A, b"old")
    bench.advance(9.0)
    bench.ask(B, b"new")
    bench.advance(1.0)
    bench.worker(W, READY)
    assert bench.request(W)[2:] == [b"new"]
    assert counters(bench)["expired"] == 1


def test_an_expired_request_is_not_handed_out_though_no_timer_ran_yet() -> None:
    """A READY that is read before the timers must not get what is over."""
    bench = paranoid(QueueConfig(expiry_s=10.0))
    bench.ask(A, b"old")
    bench.now += 10.0
    bench.worker(W, READY)
    assert bench.requests(W) == []
    assert bench.idle == [W]


def test_a_worker_that_never_answers_is_left_to_begin_anew() -> None:
    """It heartbeats, but lost the request or hangs: without this its place would be taken for ever."""
    bench = with_workers(W, config=QueueConfig(expiry_s=10.0))
    bench.ask(A, b"lost")
    token = bench.request(W)[0]
    for _ in range(10):
        bench.advance(1.0)
        bench.worker(W, HEARTBEAT)
    assert (bench.busy, bench.idle, bench.queued) == (set(), [], 0)
    assert counters(bench)["overdue"] == 1
    bench.worker(W, token, b"", b"too late")
    assert bench.at_client(A) == []
    bench.worker(W, READY)
    assert bench.idle == [W]


def test_a_full_queue_drops_the_newest() -> None:
    """Those that wait are nearer to their turn; dropping is counted, as REQ clients can be told nothing."""
    bench = paranoid(QueueConfig(queue_max=2))
    for client in (A, B, C):
        bench.ask(client, client)
    assert counters(bench) == {"requests": 2, "dropped_full": 1}
    for worker in (V, W, X):
        bench.worker(worker, READY)
    assert [bench.requests(worker)[0][2] for worker in (V, W)] == [A, B]
    assert bench.requests(X) == []


def test_bytes_are_bounded_and_given_back() -> None:
    """Few large requests are as heavy as many small ones; held ones count, too."""
    bench = paranoid(QueueConfig(queue_bytes_max=5000))
    bench.ask(A, bytes(4000))
    bench.ask(B, bytes(4000))
    assert counters(bench)["dropped_full"] == 1
    bench.worker(W, READY)
    bench.ask(B, bytes(4000))
    assert counters(bench)["dropped_full"] == 2
    bench.worker(W, *bench.request(W)[:2], b"done")
    assert bench.engine.snapshot(bench.now).bytes == 0
    bench.ask(B, bytes(4000))
    assert bench.request(W)[2] == bytes(4000)


def test_empty_frames_are_not_free() -> None:
    """A message of a million empty frames takes memory as well."""
    bench = paranoid(QueueConfig(queue_bytes_max=100_000))
    bench.ask(A, *[b""] * 2000)
    assert counters(bench) == {"dropped_full": 1}


def test_messages_beyond_the_limit_are_dropped_in_both_directions() -> None:
    """The worker is free afterwards: it did what it was asked."""
    bench = with_workers(W, config=QueueConfig(message_bytes_max=2048))
    bench.ask(A, *[bytes(1000)] * 3)
    assert counters(bench)["dropped_too_large"] == 1
    bench.ask(A, b"small")
    bench.worker(W, *bench.request(W)[:2], *[bytes(1000)] * 3)
    assert bench.at_client(A) == []
    assert bench.idle == [W]
    assert counters(bench)["dropped_too_large"] == 2


def test_workers_are_bounded() -> None:
    """A peer that says READY under ever new ids must not fill the memory."""
    bench = with_workers(V, W, X, config=QueueConfig(workers_max=2))
    assert bench.idle == [V, W]
    assert counters(bench)["workers_refused"] == 1


@pytest.mark.parametrize(
    "junk", [[], [b"no delimiter"], [b"", b""][:1], [b"x"] * 40 + [b"", b"y"], [b"a", b""]], ids=repr
)
def test_junk_of_clients_is_dropped(junk: Frames) -> None:
    """It is not sent on to workers, which could not answer it."""
    bench = with_workers(W)
    bench.client(A, *junk)
    assert bench.at_worker(W) == []
    assert bench.queued == 0


@pytest.mark.parametrize("change", [{"queue_max": 0}, {"expiry_s": 0.0}, {"redeliveries_max": -1}, {"workers_max": 0}])
def test_bad_settings_are_refused_when_built(change: dict[str, float]) -> None:
    """Not when the first request comes."""
    with pytest.raises(ValueError, match=next(iter(change))):
        QueueConfig(**change)  # type: ignore[arg-type]


def test_a_life_is_eight_bytes() -> None:
    """Tokens are told apart by it."""
    with pytest.raises(ValueError, match="8 bytes"):
        ParanoidEngine(QueueConfig(), life=b"short")


# --- the end ---


def test_a_stopped_queue_takes_and_sends_nothing() -> None:
    """6/PPP has no goodbye; what was open is counted."""
    bench = with_workers(W)
    bench.ask(A, b"held")
    bench.ask(B, b"queued")
    token = bench.request(W)[0]
    bench.engine.stop(bench.now)
    bench.worker(W, token, b"", b"reply")
    bench.worker(X, READY)
    bench.ask(C, b"more")
    bench.advance(100.0)
    assert (bench.at_client(A), bench.at_worker(X), bench.idle) == ([], [], [])
    assert counters(bench)["unanswered"] == 2


def test_the_snapshot_shows_who_is_next_and_who_is_silent() -> None:
    """For tests and logs."""
    bench = with_workers(V, W)
    bench.ask(A, b"hello")
    bench.advance(0.5)
    view = bench.engine.snapshot(bench.now)
    assert (view.queued, view.held) == (0, 1)
    assert [(worker.peer, worker.busy, worker.silent_s) for worker in view.workers] == [
        (W.hex(), False, 0.5),
        (V.hex(), True, 0.5),
    ]
