"""Decisions of the broker that no RFC and no page of rules makes: what is done at the edges, and why."""

from __future__ import annotations

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import (
    CallFlag,
    CallKind,
    GiveBackReason,
    Hello,
    Place,
    ReadyExtension,
    Role,
    ServiceOffer,
)
from reliable.wire.mdp import Version, WorkerHeartbeat, WorkerReady, decode_at_client, decode_at_worker
from reliable.wire.mmi import hello_request
from tests.support.broker_bench import LIFE, SLACK_S, Bench, ForeignClient, ForeignWorker, OurClient, OurWorker

YES, NO = CallFlag.IDEMPOTENT, CallFlag.NOT_IDEMPOTENT


def heartbeats(worker: OurWorker) -> int:
    """How many it was sent since this was last asked."""
    return sum(isinstance(decode_at_worker(frames), WorkerHeartbeat) for frames in worker.unread("details"))


def test_request_still_in_the_outbox_of_a_worker_that_goes_was_never_sent() -> None:
    """A batch may hold a REQUEST and its worker's DISCONNECT: saying "may have run" there would be a false alarm."""
    bench = Bench()
    client, first, second = OurClient(bench), OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    pump, bench.pump = bench.pump, lambda: None  # type: ignore[method-assign]
    client.submit(flags=NO)
    first.disconnect()
    bench.pump = pump  # type: ignore[method-assign]
    bench.pump()
    assert first.jobs() == []
    job = second.job()
    assert job.delivery.delivery == 1
    second.result(job.token)
    assert client.answer().status is Status.OK


def test_call_that_everybody_gives_back_ends_refused_and_may_be_asked_for_again() -> None:
    """Workers that hand a request round for ever keep everybody busy; the caller may still try another broker."""
    bench = Bench(BrokerConfig(hand_overs_max=3))
    client, worker = OurClient(bench), OurWorker(bench).ready()
    call_id = client.submit(flags=NO, timeout_s=60.0)
    for _ in range(3):
        worker.give_back(worker.job().token, GiveBackReason.FULL)
        worker.heartbeat()
    answer = client.answer()
    assert (answer.status, answer.outcome) == (Status.OVERLOADED, Outcome.NOT_EXECUTED)
    assert answer.frame.retry_after_ms > 0
    client.submit(call_id=call_id, attempt=1, flags=NO, timeout_s=60.0)
    assert client.answer().status is Status.UNKNOWN_CALL, "an old copy came late"
    client.submit(call_id=call_id, attempt=2, flags=NO, timeout_s=60.0)
    worker.result(worker.job().token)
    assert client.answer().status is Status.OK


def test_worker_that_has_no_such_service_is_not_asked_for_it_again() -> None:
    """It would give back everything, and the queue would go round in circles."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, services=[ServiceOffer(b"echo"), ServiceOffer(b"other")]).ready()
    client.submit(flags=NO)
    worker.give_back(worker.job().token, GiveBackReason.NO_SUCH_SERVICE)
    assert worker.jobs() == []
    row = bench.view(worker)
    assert row is not None and row.services == ("other",)
    assert bench.mmi(b"echo") == b"404"
    client.submit(b"other")
    assert worker.job().delivery.service == b"other"


def test_worker_that_came_back_with_a_request_has_no_delivery_timeout_for_it() -> None:
    """Its "started" went down with the old connection; a long run must not be taken for a lost request."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench, b"old").ready()
    client.submit(flags=NO, timeout_s=60.0)
    token = worker.job().token
    worker.disconnect()
    again = worker.successor(b"new").ready(tokens=[token], last_life=LIFE)
    bench.keep_alive(again)
    bench.advance(4 * bench.config.delivery_timeout_s)
    again.result(token)
    assert client.answer().status is Status.OK


def test_worker_cannot_bring_more_tokens_than_anybody_may_hold() -> None:
    """What a peer names is bounded, whatever it names."""
    bench = Bench(BrokerConfig(credit_max=2))
    client = OurClient(bench)
    olds = [OurWorker(bench, name, instance=b"same-process-id.") for name in (b"a", b"b", b"c")]
    tokens = []
    for old in olds:
        old.ready()
        client.submit(flags=NO)
        tokens.append(old.job().token)
        old.disconnect()
    again = olds[0].successor(b"new").ready(tokens=[*tokens, *tokens, b"x" * 16], last_life=LIFE)
    row = bench.view(again)
    assert row is not None and row.in_hand == 2


def test_older_connection_of_a_process_that_registers_anew_is_doubted() -> None:
    """Half-open connections swallow requests; one heartbeat shows the truth before a request has to."""
    bench = Bench()
    client, old = OurClient(bench), OurWorker(bench, b"old").ready()
    heartbeats(old)
    new = old.successor(b"new").ready()
    assert heartbeats(old) == 1
    client.submit()
    client.submit()
    assert len(new.jobs()) == 1
    assert old.jobs() == [], "it may be gone"
    old.heartbeat()
    assert len(old.jobs()) == 1


def test_streamed_reply_is_never_replayed() -> None:
    """The record has only the end of it: replaying that would hide the missing beginning."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    call_id = client.submit()
    token = worker.job().token
    worker.partial(token, b"1")
    worker.result(token, b"end")
    assert [answer.status for answer in client.answers()] == [Status.PARTIAL, Status.OK]
    client.attach(call_id)
    answer = client.answer()
    assert (answer.status, answer.outcome) == (Status.REPLY_EVICTED, Outcome.EXECUTED)


@pytest.mark.parametrize("fault", ["part unreachable", "part into a full pipe", "asked from a new connection"])
def test_stream_with_a_hole_does_not_end_as_if_it_were_whole(fault: str) -> None:
    """18/MDP trap: a dropped part is a hole that the final one hides."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    call_id = client.submit(timeout_s=30.0)
    token = worker.job().token
    worker.partial(token, b"1")
    asker = client
    if fault == "asked from a new connection":
        asker = OurClient(bench, b"again", instance=client.instance)
        asker.attach(call_id)
        asker.answers()
    else:
        (bench.unreachable if fault == "part unreachable" else bench.full).add(client.id)
        worker.partial(token, b"2")
        bench.unreachable.clear()
        bench.full.clear()
        client.answers()
    worker.partial(token, b"3")
    worker.result(token, b"end")
    answer = asker.answer()
    assert (answer.status, answer.outcome) == (Status.REPLY_EVICTED, Outcome.EXECUTED)


def test_plain_stream_with_a_hole_ends_in_silence() -> None:
    """The client then runs into its own timeout, which is what MDP leaves."""
    bench = Bench()
    client, worker = ForeignClient(bench, version=Version.MDP02), ForeignWorker(bench, version=Version.MDP02).ready()
    client.request(b"echo", b"?")
    address = worker.request().address
    worker.send_reply(address, b"1", final=False)
    bench.full.add(client.id)
    worker.send_reply(address, b"2", final=False)
    bench.full.clear()
    worker.send_reply(address, b"3", final=False)
    worker.send_reply(address, b"end")
    assert [reply.body for reply in client.replies()] == [[b"1"]]
    assert bench.state(worker) == "idle"
    assert bench.snapshot().usage["streams"] == 0
    assert bench.count("unanswered") == 1
    client.request(b"echo", b"?")
    worker.send_reply(worker.request().address, b"whole")
    assert [reply.body for reply in client.replies()] == [[b"whole"]]


def test_collected_parts_are_bounded_even_if_they_are_empty() -> None:
    """A worker that streams nothing, countless times, must not fill the broker."""
    bench = Bench(BrokerConfig(collected_bytes_max=6400))
    client, worker = ForeignClient(bench), ForeignWorker(bench, version=Version.MDP02).ready()
    client.request(b"echo", b"?")
    address = worker.request().address
    for _ in range(101):
        worker.send_reply(address, b"", final=False)
    worker.send_reply(address, b"end")
    assert client.replies() == []
    assert bench.state(worker) == "idle"


def test_queued_plain_request_of_a_client_that_is_gone_is_not_run() -> None:
    """7/MDP trap: zombie requests; nobody is left to take the reply."""
    bench = Bench()
    client, worker = ForeignClient(bench), ForeignWorker(bench).ready()
    for number in (b"1", b"2", b"3"):
        client.request(b"echo", number)
    bench.unreachable.add(client.id)
    worker.send_reply(worker.request().address, b"lost")
    second = worker.request()
    assert second.body == [b"2"], "it left together with the reply that was found undeliverable"
    worker.send_reply(second.address, b"lost too")
    assert worker.requests() == []
    assert bench.snapshot().usage["queued"] == 0
    assert bench.count("unanswered") == 1


def test_services_of_one_worker_take_turns() -> None:
    """A service with a long queue must not starve its neighbour."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, services=[ServiceOffer(b"a"), ServiceOffer(b"b"), ServiceOffer(b"c")]).ready()
    for service in (b"a", b"a", b"a", b"a", b"c", b"b"):
        client.submit(service)
    served = []
    for _ in range(6):
        job = worker.job()
        served.append(job.delivery.service)
        worker.result(job.token)
    assert sorted(served[:4]) == [b"a", b"a", b"b", b"c"]


def test_request_and_reply_above_the_limit_of_a_peer_end_with_a_typed_answer() -> None:
    """Sent all the same, they would cut the peer's connection, and with it everything else on it."""
    bench = Bench()
    client = OurClient(bench, max_message_bytes=1000)
    worker = OurWorker(bench)
    extension = ReadyExtension(worker.instance, 1, worker.services, max_message_bytes=2000)
    worker.send(*WorkerReady(Version.MDP02, b"echo", extension.encode()).encode())
    client.submit(body=[b"x" * 2001])
    answer = client.answer()
    assert (answer.status, answer.outcome) == (Status.TOO_LARGE, Outcome.NOT_EXECUTED)
    assert worker.jobs() == []
    client.submit(body=[b"x" * 2000])
    worker.result(worker.job().token, b"y" * 1001)
    answer = client.answer()
    assert (answer.status, answer.outcome) == (Status.TOO_LARGE, Outcome.EXECUTED)
    client.submit()
    worker.result(worker.job().token, b"y" * 1000)
    assert client.answer().status is Status.OK


def test_plain_request_has_an_id_of_its_own_for_our_workers() -> None:
    """All zero would make any two of them the same request to a worker that looks for repetitions."""
    bench = Bench()
    client, worker = ForeignClient(bench), OurWorker(bench, credit=2).ready()
    client.request(b"echo", b"same")
    client.request(b"echo", b"same")
    first, second = worker.jobs()
    assert len({first.delivery.call_id, second.delivery.call_id, bytes(16)}) == 3


def test_failed_handler_leaves_a_plain_client_in_silence() -> None:
    """MDP has no error reply; the text of an error must not be taken for a result."""
    bench = Bench()
    client, worker = ForeignClient(bench), OurWorker(bench).ready()
    client.request(b"echo", b"?")
    worker.error(worker.job().token)
    assert client.replies() == []
    assert bench.count("unanswered") == 1


def test_proxied_clients_have_sessions_of_their_own() -> None:
    """Two clients behind one proxy reckon deadlines from different hellos."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.ask(CallKind.SUBMIT, bench.new_call_id(), stack=[b"behind"])
    assert worker.jobs() == []
    assert bench.count("dropped_invalid") == 1
    hello = hello_request(Hello(Role.CLIENT, b"behind-the-proxy").encode())
    client.send(b"behind", *hello)
    client.ask(CallKind.SUBMIT, bench.new_call_id(), stack=[b"behind"])
    worker.result(worker.job().token)
    assert decode_at_client(client.unread()[-1]).stack[0] == b"behind"


def test_heartbeat_that_crossed_the_request_does_not_prove_that_a_worker_beats_while_busy() -> None:
    """Single-threaded workers of the Guide are silent while they work: they must not be expired for it."""
    bench = Bench()
    client, worker = ForeignClient(bench), ForeignWorker(bench).ready()
    client.request(b"echo", b"?")
    address = worker.request().address
    worker.heartbeat()
    bench.advance(3 * bench.expiry_s)
    assert bench.state(worker) == "unverified"
    worker.send_reply(address, b"done")
    assert [reply.body for reply in client.replies()] == [[b"done"]]


def test_own_stall_is_nobodys_silence() -> None:
    """A broker that was stopped for ten seconds must not tell all its workers to go."""
    bench = Bench()
    foreign, ours = ForeignWorker(bench, b"foreign").ready(b"f"), OurWorker(bench, b"ours").ready()
    bench.now += 10.0
    bench.engine.stalled(10.0, bench.now)
    bench.tick()
    assert (bench.state(foreign), bench.state(ours)) == ("idle", "idle")
    bench.advance(bench.stuck_s + SLACK_S)
    assert (bench.state(foreign), bench.state(ours)) == (None, "stuck")


def test_place_of_a_call_with_a_stuck_worker_is_told() -> None:
    """ "Still running" and "its worker does not move" are different news to somebody who waits."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    call_id = client.submit(flags=NO, timeout_s=60.0)
    worker.started(worker.job().token)
    bench.advance(bench.stuck_s + SLACK_S)
    client.attach(call_id)
    answer = client.answer()
    assert (answer.status, answer.place) == (Status.STARTED, Place.STUCK)
