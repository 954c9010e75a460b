"""What a call of ours carries through the broker, and what does not fit: news, sizes, proxies, both MDP versions.

``test_how_calls_end.py`` and its neighbours speak through one kind of client; here the frames themselves are looked at.
"""

from __future__ import annotations

import pytest

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import (
    LIFE_BYTES,
    AnswerFrame,
    CallFlag,
    CallFrame,
    CallKind,
    Delivery,
    GiveBackReason,
    Hello,
    Role,
    ServiceOffer,
    body_digest,
)
from reliable.wire.mdp import ClientRequest, Version, WorkerRequest, decode_at_client
from reliable.wire.mmi import hello_request
from tests.support.broker_bench import LIFE, SLACK_S, Bench, ForeignClient, ForeignWorker, OurClient, OurWorker, Peer
from tests.support.broker_verdicts import DONE, EXPIRED_IN_QUEUE, NO, YES, final, no_final, verdict

both_versions = pytest.mark.parametrize("version", list(Version), ids=["0.1", "0.2"])


def _call_frame(client: bytes, call_id: bytes, body: Frames, *, trace: bytes = b"", attempt: int = 1) -> bytes:
    frame = CallFrame(CallKind.SUBMIT, NO, attempt, call_id, client, LIFE, 10_000, 0, body_digest(b"echo", body), trace)
    return frame.encode()


# --- what is carried ---


def test_delivery_tells_the_worker_whose_call_it_is() -> None:
    """A worker joins repetitions by call id and digest, and hands the trace on to what it calls itself."""
    bench = Bench()
    client, worker = Peer(bench, b"client"), OurWorker(bench).ready()
    client.send(*hello_request(Hello(Role.CLIENT, b"i" * 16).encode()))
    frame = _call_frame(b"i" * 16, b"c" * 16, [b"work"], trace=b"00-trace-01", attempt=3)
    client.send(frame, b"", b"MDPC02", b"\1", b"echo", b"work")
    delivery = worker.job().delivery
    assert (delivery.call_id, delivery.client, delivery.attempt, delivery.delivery) == (b"c" * 16, b"i" * 16, 3, 1)
    assert (delivery.digest, delivery.trace) == (body_digest(b"echo", [b"work"]), b"00-trace-01")
    assert delivery.token[:LIFE_BYTES] == LIFE


def test_foreign_worker_sees_nothing_of_the_extension() -> None:
    """It gets an opaque address of one frame and the body, as from any broker."""
    bench = Bench()
    client, worker = OurClient(bench), ForeignWorker(bench).ready()
    client.submit(body=[b"a", b"b"], flags=NO)
    (frames,) = worker.unread()
    assert len(frames[3]) == 16 and frames[:3] == [b"", b"MDPW01", b"\2"]
    assert frames[4:] == [b"", b"a", b"b"]


@both_versions
def test_call_frame_is_understood_in_both_versions(version: Version) -> None:
    """Answers come in the version of the request, with the answer frame where the call frame was."""
    bench = Bench()
    client, worker = Peer(bench, b"client"), OurWorker(bench).ready()
    client.send(*hello_request(Hello(Role.CLIENT, b"i" * 16).encode()))
    client.unread()
    frame = _call_frame(b"i" * 16, b"c" * 16, [b"work"])
    client.send(*ClientRequest(version, b"echo", [b"work"], [frame]).encode())
    worker.result(worker.job().token, b"done")
    (frames,) = client.unread()
    reply = decode_at_client(frames)
    assert (reply.version, reply.service, reply.body, reply.final) == (version, b"echo", [b"done"], True)
    answer = AnswerFrame.decode(reply.stack[0])
    assert (answer.status, answer.call_id, answer.life) == (Status.OK, b"c" * 16, LIFE)


def test_clients_behind_one_proxy_have_sessions_of_their_own() -> None:
    """They share a routing id; what a proxy put in front tells them apart, in hello, call and answer."""
    bench = Bench()
    proxy, worker = Peer(bench, b"proxy"), OurWorker(bench, credit=2).ready()
    proxy.send(b"hop", b"alice", *hello_request(Hello(Role.CLIENT, b"a" * 16).encode()))
    (hello,) = proxy.unread()
    assert hello[:3] == [b"hop", b"alice", b""]
    alice = _call_frame(b"a" * 16, b"A" * 16, [b"work"])
    bob = _call_frame(b"b" * 16, b"B" * 16, [b"work"])
    proxy.send(b"hop", b"bob", bob, b"", b"MDPC02", b"\1", b"echo", b"work")
    assert worker.jobs() == [], "bob has not said hello"
    proxy.send(b"hop", b"bob", *hello_request(Hello(Role.CLIENT, b"b" * 16).encode()))
    proxy.unread()
    proxy.send(b"hop", b"bob", bob, b"", b"MDPC02", b"\1", b"echo", b"work")
    proxy.send(b"hop", b"alice", alice, b"", b"MDPC02", b"\1", b"echo", b"work")
    for job in worker.jobs():
        worker.result(job.token, job.delivery.client)
    replies = [decode_at_client(frames) for frames in proxy.unread()]
    assert [(reply.stack[:2], reply.body) for reply in replies] == [
        ([b"hop", b"bob"], [b"b" * 16]),
        ([b"hop", b"alice"], [b"a" * 16]),
    ]


def test_second_hello_begins_the_sessions_time_anew() -> None:
    """Deadlines that follow are reckoned from it; a call made before keeps its own."""
    bench = Bench()
    client = OurClient(bench)
    client.submit(b"absent", flags=NO, timeout_s=3.0)
    client.answers()
    bench.advance(2.0)
    client.hello()
    client.submit(b"absent", flags=NO, timeout_s=3.0)
    client.answers()
    bench.advance(1.0 + SLACK_S)
    assert final(client).outcome is Outcome.NOT_EXECUTED
    bench.advance(2.0)
    assert final(client).outcome is Outcome.NOT_EXECUTED


# --- news ---


def test_news_of_a_run_reach_only_who_wants_them() -> None:
    """Progress costs a message each; whoever did not ask is not woken."""
    for wants in (True, False):
        bench = Bench()
        client, worker = OurClient(bench), OurWorker(bench).ready()
        client.submit(flags=NO | (CallFlag.WANTS_PROGRESS if wants else CallFlag.NONE))
        token = worker.job().token
        worker.started(token)
        worker.progress(token, b"half", b"way")
        news = [(answer.status, answer.final, answer.body) for answer in client.answers()]
        expected = [(Status.STARTED, False, [b""]), (Status.PROGRESS, False, [b"half", b"way"])]
        assert news == (expected if wants else [])


def test_parts_of_a_reply_come_in_order_and_the_final_one_ends_it() -> None:
    """A stream is several answers of which only the last is final."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=NO)
    token = worker.job().token
    for part in (b"1", b"2", b"3"):
        worker.partial(token, part)
    worker.result(token, b"end")
    answers = client.answers()
    assert [(answer.status, answer.body, answer.final) for answer in answers] == [
        (Status.PARTIAL, [b"1"], False),
        (Status.PARTIAL, [b"2"], False),
        (Status.PARTIAL, [b"3"], False),
        (Status.OK, [b"end"], True),
    ]


def test_stream_that_lost_a_part_does_not_end_as_if_it_were_whole() -> None:
    """The hole would be hidden by the final answer: it ran, and its reply is not to be had."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=NO)
    token = worker.job().token
    worker.partial(token, b"1")
    bench.full.add(client.id)
    worker.partial(token, b"2")
    bench.full.clear()
    worker.partial(token, b"3")
    worker.result(token, b"end")
    bodies = [answer.body for answer in client.all_answers()]
    assert [b"3"] not in bodies and [b"end"] not in bodies
    answer = final(client)
    assert (answer.status, answer.outcome) == (Status.REPLY_EVICTED, Outcome.EXECUTED)


# --- what does not fit ---


def test_request_above_the_brokers_limit_is_refused_unexecuted() -> None:
    """With a word for our clients, in silence for plain ones; and the broker goes on."""
    bench = Bench(BrokerConfig(message_bytes_max=2000))
    client, plain, worker = OurClient(bench), ForeignClient(bench, b"plain"), OurWorker(bench).ready()
    assert client.hello_answer is not None and client.hello_answer.max_message_bytes == 2000
    client.submit(body=[b"x" * 1500, b"y" * 1500], flags=NO)
    assert verdict(client) == (Status.TOO_LARGE, Outcome.NOT_EXECUTED)
    plain.request(b"echo", b"x" * 3000)
    assert plain.replies() == [] and worker.jobs() == []
    assert bench.count("too_large") == 2


def test_reply_above_the_clients_limit_is_said_to_have_run() -> None:
    """Sent anyway, it would cut the client's connection and everything on it."""
    bench = Bench()
    client, worker = OurClient(bench, max_message_bytes=1000), OurWorker(bench).ready()
    client.submit(flags=NO)
    worker.result(worker.job().token, b"x" * 2000)
    assert verdict(client) == (Status.TOO_LARGE, Outcome.EXECUTED)


def test_request_that_nobody_wants_to_start_ends() -> None:
    """Given back for ever, it would be a ball between two workers."""
    bench = Bench(BrokerConfig(hand_overs_max=6))
    client = OurClient(bench)
    workers = [OurWorker(bench, b"w%d" % number).ready() for number in range(2)]
    client.submit(flags=NO, timeout_s=60.0)
    hand_overs = 0
    for _ in range(20):
        for worker in workers:
            for job in worker.jobs():
                hand_overs += 1
                worker.give_back(job.token, GiveBackReason.FULL)
            worker.heartbeat()
    assert hand_overs == 6
    assert verdict(client) == (Status.OVERLOADED, Outcome.NOT_EXECUTED)


def test_workers_and_services_above_the_limit_are_sent_away() -> None:
    """Registrations are memory too; DISCONNECT makes them try elsewhere or later."""
    bench = Bench(BrokerConfig(workers_max=2, services_max=2))
    workers = [ForeignWorker(bench, b"w%d" % number).ready() for number in range(3)]
    assert [worker.disconnects() for worker in workers] == [0, 0, 1]
    workers[1].disconnect()
    greedy = OurWorker(bench, b"greedy", services=[ServiceOffer(b"s%d" % number) for number in range(3)]).ready()
    assert greedy.disconnects() == 1
    modest = OurWorker(bench, b"modest", services=[ServiceOffer(b"s0")]).ready()
    assert modest.disconnects() == 0 and bench.mmi(b"s0") == b"200"


def test_names_of_services_that_are_over_make_room_for_new_ones() -> None:
    """A table of names that only fills up would one day refuse every new service."""
    bench = Bench(BrokerConfig(services_max=3))
    for number in range(20):
        worker = ForeignWorker(bench, b"w%d" % number, Version.MDP02, b"s%d" % number).ready()
        assert worker.disconnects() == 0
        worker.disconnect()


def test_session_that_was_forgotten_for_want_of_room_is_silent_until_the_next_hello() -> None:
    """Sessions are bounded; a client that is not answered says hello again."""
    bench = Bench(BrokerConfig(sessions_max=8))
    client, worker = OurClient(bench, b"early"), OurWorker(bench).ready()
    for number in range(40):
        OurClient(bench, b"late%d" % number)
    client.submit(flags=NO)
    assert client.mail == [] and worker.jobs() == []
    client.hello()
    client.submit(flags=NO)
    worker.result(worker.job().token)
    assert verdict(client) == DONE


def test_reply_reaches_a_client_whose_session_was_forgotten_meanwhile() -> None:
    """A call in flight does not need the table any more."""
    bench = Bench(BrokerConfig(sessions_max=8))
    client, worker = OurClient(bench, b"early"), OurWorker(bench).ready()
    client.submit(flags=NO)
    for number in range(40):
        OurClient(bench, b"late%d" % number)
    worker.result(worker.job().token)
    assert verdict(client) == DONE


# --- pushing back ---


def test_worker_that_gave_a_request_back_gets_nothing_until_it_is_heard() -> None:
    """Else the same request would come and go as fast as the two can talk."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(flags=NO, timeout_s=5.0)
    worker.give_back(worker.job().token, GiveBackReason.FULL)
    assert worker.jobs() == []
    worker.heartbeat()
    assert len(worker.jobs()) == 1


def test_draining_worker_gives_back_and_is_not_available() -> None:
    """It leaves: what it gives back waits for others, and the service is not said to be there."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    bench.keep_alive(worker)
    client.submit(flags=NO, timeout_s=3.0)
    worker.give_back(worker.job().token, GiveBackReason.DRAINING)
    bench.advance(1.0)
    assert worker.jobs() == [] and bench.mmi(b"echo") == b"404"
    no_final(client)
    bench.advance(2.0 + SLACK_S)
    assert verdict(client) == EXPIRED_IN_QUEUE


def test_request_in_the_outbox_for_a_worker_that_goes_is_given_to_the_next() -> None:
    """It has not left: two events of one batch must not lose it."""
    bench = Bench()
    client = OurClient(bench)
    first, second = OurWorker(bench, b"w1").ready(), OurWorker(bench, b"w2").ready()
    frame = _call_frame(client.instance, b"c" * 16, [b"work"])
    request = ClientRequest(Version.MDP02, b"echo", [b"work"], [frame]).encode()
    bench.engine.receive([client.id, *request], bench.now)
    bench.engine.receive([first.id, b"MDPW02", b"\6"], bench.now)
    bench.pump()
    assert first.new(WorkerRequest) == []
    job = second.job()
    assert job.delivery.delivery == 1
    second.result(job.token)
    assert verdict(client) == DONE


def test_least_recently_failed_worker_is_not_preferred() -> None:
    """A full pipe holds the worker back until it is heard, so the next call goes to one that takes it."""
    bench = Bench()
    client = OurClient(bench)
    slow, quick = OurWorker(bench, b"slow").ready(), OurWorker(bench, b"quick").ready()
    bench.full.add(slow.id)
    client.submit(flags=YES)
    quick.result(quick.job().token)
    bench.full.clear()
    client.submit(flags=YES)
    assert len(quick.jobs()) == 1 and slow.jobs() == []


def test_address_of_a_request_to_our_worker_is_one_frame() -> None:
    """7/MDP: the delivery stands where the client's address stands, and nothing else moves."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench).ready()
    client.submit(body=[b"x"], flags=NO)
    (frames,) = [frames for frames in worker.mail if frames[1] == b"\2"]
    assert Delivery.decode(frames[2]) and frames[3:] == [b"", b"x"]


def test_a_client_cannot_escape_its_limit_by_naming_itself_anew_in_each_call() -> None:
    """The limit per client protects the others; who the client is was said in its hello."""
    bench = Bench(BrokerConfig(queued_per_client_max=2))
    client = OurClient(bench)
    for number in range(3):
        client.instance = bytes([number]) * 16
        client.submit()
    refused = [answer for answer in client.answers() if answer.status is Status.OVERLOADED]
    assert len(refused) == 1
    assert [service.queued for service in bench.snapshot().services] == [2]
