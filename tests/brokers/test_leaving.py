"""A broker that is told to stop: what it refuses, what it waits for, whom it tells, and when it goes."""

from __future__ import annotations

import json

import pytest

from brokers.config import BrokerConfig
from brokers.leaving import QUIET_S
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import AnswerFrame, CallFlag, CallKind, ServiceOffer
from reliable.wire.mdp import Version, decode_at_client
from reliable.wire.mmi import STATUS_QUERY
from tests.support.broker_bench import LIFE, OTHER_LIFE, Bench, ForeignClient, ForeignWorker, OurClient, OurWorker
from tests.support.broker_verdicts import DONE, NO, WORKER_LOST, YES, final, idempotent_or_not, no_final, verdict

REFUSED = (Status.OVERLOADED, Outcome.NOT_EXECUTED)
ELSEWHERE = (Status.OVERLOADED, Outcome.UNKNOWN)
DRAIN_S = 10.0


def drain(bench: Bench, seconds: float = DRAIN_S) -> None:
    """Begin it; what clients are told about no call is put aside for ``words``."""
    bench.engine.drain(bench.now + seconds, bench.now)
    bench.pump()
    for peer in bench.peers.values():
        if isinstance(peer, OurClient):
            peer.answers()


def vanish(bench: Bench, worker: OurWorker) -> None:
    """Its connection breaks, and the broker hears of it."""
    bench.kill(worker)
    bench.engine.connection_ended(bench.now)
    bench.advance(0.1)


def drained(bench: Bench) -> bool:
    return bench.engine.drained(bench.now)


def stop(bench: Bench) -> None:
    bench.engine.stop(bench.now)
    bench.pump()


def words(client: OurClient) -> list[AnswerFrame]:
    """What a client was told about no call: that the broker is about to go."""
    frames = [AnswerFrame.decode(decode_at_client(mail).stack[-1]) for mail in client.unread("words")]
    return [frame for frame in frames if frame.call_id == bytes(16)]


def held_call(flags: CallFlag = NO) -> tuple[Bench, OurClient, OurWorker, bytes]:
    """A bench with one call in a worker's hands."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    client.submit(flags=flags, timeout_s=60.0)
    token = worker.job().token
    worker.started(token)
    return bench, client, worker, token


@idempotent_or_not
def test_what_a_worker_holds_is_waited_for_and_answered(flags: CallFlag) -> None:
    """Stopping a broker is no reason for a payment of which nobody knows whether it was made."""
    bench, client, worker, token = held_call(flags)
    drain(bench)
    bench.advance(5.0)
    assert not drained(bench) and worker.disconnects() == 0
    worker.result(token, b"paid")
    assert final(client).body == [b"paid"]
    assert drained(bench)
    stop(bench)
    assert worker.disconnects() == 1
    no_final(client)


def test_workers_are_not_told_to_go_before_their_results_are_in() -> None:
    """One that hears DISCONNECT drops its link, and its result with it."""
    bench, _, worker, token = held_call()
    other = OurWorker(bench, b"w2", services=(ServiceOffer(b"other"),)).ready()
    bench.keep_alive(other)
    drain(bench)
    bench.advance(DRAIN_S - 1.0)
    assert worker.disconnects() == 0 and other.disconnects() == 0
    worker.result(token)
    stop(bench)
    assert worker.disconnects() == 1 and other.disconnects() == 1


@idempotent_or_not
def test_new_calls_are_refused_and_proven_not_to_have_run(flags: CallFlag) -> None:
    """So that their clients send them to the next broker, whatever they do."""
    bench, client, worker, token = held_call()
    drain(bench)
    client.submit(flags=flags)
    assert verdict(client) == REFUSED
    assert worker.jobs() == []
    worker.result(token)
    client.submit(flags=flags)
    finals = [(answer.status, answer.outcome) for answer in client.answers() if answer.final]
    assert finals == [DONE, REFUSED]
    assert worker.jobs() == [], "its slot is free, and stays so"


@idempotent_or_not
def test_queued_calls_are_refused_at_once_and_no_late_copy_of_them_runs(flags: CallFlag) -> None:
    """They never ran here; waiting for a slot that is not given to them any more would only cost their time."""
    bench, client, _, _ = held_call()
    call_id = client.submit(flags=flags)
    no_final(client)
    bench.engine.drain(bench.now + DRAIN_S, bench.now)
    bench.pump()
    answers = [answer for answer in client.answers() if answer.frame.call_id == call_id]
    assert [(answer.status, answer.outcome) for answer in answers] == [REFUSED]
    client.submit(call_id=call_id, flags=flags)
    assert final(client).outcome is Outcome.NOT_EXECUTED


def test_what_a_worker_gives_back_unstarted_goes_to_the_next_broker() -> None:
    """It is proof that it did not run, and here nobody is to run it any more."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    client.submit(flags=NO)
    token = worker.job().token
    spare = OurWorker(bench, b"w2").ready()
    drain(bench)
    worker.give_back(token)
    assert verdict(client) == REFUSED
    assert spare.jobs() == []
    bench.advance(QUIET_S + 0.1)
    assert drained(bench)


def test_it_goes_when_time_is_up_and_says_what_it_does_not_know() -> None:
    """A handler that never ends must not keep a broker for ever."""
    bench, client, worker, _ = held_call()
    drain(bench)
    bench.advance(DRAIN_S - 0.01)
    assert not drained(bench)
    bench.advance(0.1)
    assert drained(bench)
    stop(bench)
    assert verdict(client) == WORKER_LOST
    assert worker.disconnects() == 1


def test_a_broker_with_nothing_in_hand_and_no_clients_goes_at_once() -> None:
    """An idle broker is stopped as fast as ever."""
    bench = Bench()
    worker = OurWorker(bench, b"w1").ready()
    assert not drained(bench), "nobody asked"
    drain(bench)
    assert drained(bench)
    stop(bench)
    assert worker.disconnects() == 1


def test_the_earliest_end_counts_if_it_is_asked_more_than_once() -> None:
    """A second signal means now; a later, more patient wish does not take that back."""
    bench, _, _, _ = held_call()
    drain(bench, 10.0)
    drain(bench, 2.0)
    drain(bench, 30.0)
    bench.advance(1.9)
    assert not drained(bench)
    bench.advance(0.2)
    assert drained(bench)
    drain(bench, 0.0)
    assert drained(bench)


def test_clients_are_told_once_that_it_goes_and_for_how_long_to_stay_away() -> None:
    """A client that sends until the link breaks cannot know what became of its last calls."""
    bench, client, _, _ = held_call()
    silent = OurClient(bench, b"silent")
    drain(bench)
    for told in (client, silent):
        (word,) = words(told)
        assert (word.status, word.outcome, word.life) == (*REFUSED, LIFE)
        assert word.retry_after_ms == round(DRAIN_S * 1000)
    bench.advance(3.0)
    assert words(silent) == []
    late = OurClient(bench, b"late")
    assert late.hello_answer is not None
    (word,) = words(late)
    assert word.retry_after_ms == pytest.approx((DRAIN_S - 3.0) * 1000, abs=2)


def test_only_clients_of_ours_are_told() -> None:
    """A plain client would take it for a reply, a worker for a breach of the protocol."""
    bench = Bench()
    plain = ForeignClient(bench, b"plain")
    foreign = ForeignWorker(bench, b"fw").ready()
    worker = OurWorker(bench, b"w1").ready()
    plain.request(b"nobody")
    for peer in (plain, foreign, worker):
        peer.unread("all")
    drain(bench)
    assert plain.unread("all") == [] and foreign.unread("all") == [] and worker.unread("all") == []
    late = OurWorker(bench, b"w2")
    late.unread("all")
    assert late.hello_answer is not None


def test_it_stays_until_it_has_been_quiet_for_a_moment() -> None:
    """What a client sent before it knew must be answered, not lost with the connection."""
    bench = Bench()
    client = OurClient(bench)
    drain(bench)
    assert not drained(bench)
    bench.advance(QUIET_S - 0.05)
    client.submit()
    assert verdict(client) == REFUSED
    bench.advance(QUIET_S - 0.05)
    assert not drained(bench), "somebody did not know yet"
    bench.advance(0.1)
    assert drained(bench)


def test_the_shell_is_woken_when_time_alone_ends_the_drain() -> None:
    """No message may ever come again."""
    bench = Bench()
    OurClient(bench)
    drain(bench)
    due = bench.engine.next_deadline()
    assert due is not None and due <= bench.now + QUIET_S + 0.1
    bench = Bench()
    ForeignClient(bench, b"c").request(b"echo")
    ForeignWorker(bench, b"w").ready()
    drain(bench, 0.5)
    due = bench.engine.next_deadline()
    assert due is not None and due <= bench.now + 0.6


def test_a_worker_whose_link_broke_comes_back_with_what_it_holds() -> None:
    """A lost connection during a drain is no more the end of the work than at any other time."""
    bench, client, worker, token = held_call()
    drain(bench)
    vanish(bench, worker)
    bench.advance(0.2)
    no_final(client)
    back = worker.successor(b"w1b").ready(tokens=[token], last_life=LIFE)
    back.result(token, b"done after all")
    assert final(client).body == [b"done after all"]
    assert bench.count("limbo_recovered") == 1


def test_workers_that_come_anew_are_not_let_in() -> None:
    """They would get nothing, and be told to go a moment later; at another broker they are of use."""
    bench, _, _, _ = held_call()
    drain(bench)
    fresh = OurWorker(bench, b"w2").ready()
    foreign = ForeignWorker(bench, b"fw").ready()
    stranger = OurWorker(bench, b"w3").ready(last_life=OTHER_LIFE)
    assert [worker.disconnects() for worker in (fresh, foreign, stranger)] == [1, 1, 1]


def test_after_the_end_not_even_a_returning_worker_is_let_in() -> None:
    """It would be the only one to hold the broker's name for its own."""
    bench, _, worker, token = held_call()
    stop(bench)
    vanish(bench, worker)
    back = worker.successor(b"w1b").ready(tokens=[token], last_life=LIFE)
    assert back.disconnects() == 1


@pytest.mark.parametrize(("flags", "expected"), [(YES, ELSEWHERE), (NO, None)], ids=["idempotent", "not idempotent"])
def test_a_worker_that_dies_during_the_drain(flags: CallFlag, expected: tuple[Status, Outcome] | None) -> None:
    """What may be repeated goes to the next broker at once; the rest has its half second of limbo, as ever."""
    bench, client, worker, _ = held_call(flags)
    drain(bench)
    vanish(bench, worker)
    bench.advance(0.1)
    if expected is not None:
        assert verdict(client) == expected
        return
    no_final(client)
    assert not drained(bench)
    bench.advance(1.5)
    assert verdict(client) == WORKER_LOST
    assert drained(bench)


def test_calls_in_hand_can_be_asked_after_joined_and_cancelled() -> None:
    """A client that lost its link must still find its call."""
    bench, client, worker, token = held_call()
    call_id = bench.engine._state.calls.calls.copy().popitem()[0]
    drain(bench)
    client.answers()
    client.attach(call_id)
    assert client.answer().status is Status.STARTED
    client.ask(CallKind.CANCEL, call_id)
    assert final(client).status is Status.CANCELLED
    assert worker.cancels() == [token]
    bench.advance(QUIET_S + 0.1)
    assert drained(bench), "nobody waits for it"


def test_status_shows_it_and_the_service_is_not_available_any_more() -> None:
    """Whoever looks must see why calls are refused; whoever asks 8/MMI must hear that none is taken."""
    bench, client, _, _ = held_call()
    client.answers()
    asker = ForeignClient(bench, b"asker")

    def shown() -> object:
        asker.request(STATUS_QUERY, b"")
        return json.loads(asker.replies()[-1].body[1])["draining"]

    def available() -> bytes:
        asker.request(b"mmi.service", b"echo")
        return bytes(asker.replies()[-1].body[0])

    assert shown() is False and available() == b"200"
    drain(bench)
    assert shown() is True and available() == b"404"


def test_the_longer_a_drain_lasts_the_longer_refused_clients_are_told_to_wait() -> None:
    """A client that has no other broker must not use up its attempts on one that is going."""
    config = BrokerConfig(retry_after_s=0.25)
    bench = Bench(config)
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1").ready()
    bench.keep_alive(worker)
    client.submit(timeout_s=60.0)
    drain(bench)
    waits = []
    for pause_s in (0.0, 1.0, 3.0):
        bench.advance(pause_s)
        client.answers()
        client.submit()
        waits.append(final(client).frame.retry_after_ms)
    assert waits[0] == 250 and waits[1] == pytest.approx(2000, abs=5) and waits[2] == pytest.approx(8000, abs=5)


@pytest.mark.parametrize("version", [Version.MDP01, Version.MDP02])
def test_plain_requests_in_hand_are_answered_too(version: Version) -> None:
    """Foreign peers are served by the same promise, as far as MDP has words for it."""
    bench = Bench()
    client = ForeignClient(bench, b"c", version)
    worker = ForeignWorker(bench, b"w", version).ready()
    client.request(b"echo", b"hi")
    request = worker.request()
    drain(bench)
    assert not drained(bench)
    client.request(b"echo", b"new")
    worker.send_reply(request.address, b"ho")
    assert [reply.body for reply in client.replies()] == [[b"ho"]]
    bench.advance(QUIET_S + 0.1)
    assert drained(bench)
