"""A reply that a worker says again on a new connection, since it cannot know whether the first copy arrived."""

from __future__ import annotations

import pytest

from brokers import workers
from brokers.config import BrokerConfig
from reliable.status import Status
from reliable.wire.extension import GiveBackReason, ReportKind
from tests.support.broker_bench import LIFE, OTHER_LIFE, Bench, OurClient, OurWorker
from tests.support.broker_verdicts import NO, final, no_final


def _answered(bench: Bench) -> tuple[OurClient, OurWorker, bytes]:
    """A call that was answered, by a worker that lost its connection right after."""
    client, worker = OurClient(bench), OurWorker(bench, b"old").ready()
    client.submit(flags=NO)
    token = worker.job().token
    worker.result(token, b"first")
    assert final(client).body == [b"first"]
    bench.notice_death(worker)
    return client, worker, token


def _say(worker: OurWorker, token: bytes, kind: ReportKind) -> None:
    if kind is ReportKind.RESULT:
        worker.result(token, b"again")
    elif kind is ReportKind.ERROR:
        worker.error(token)
    else:
        worker.give_back(token, GiveBackReason.DRAINING)


@pytest.mark.parametrize("kind", [ReportKind.RESULT, ReportKind.ERROR, ReportKind.GIVE_BACK])
def test_a_reply_said_again_is_counted_and_the_worker_stays(kind: ReportKind) -> None:
    """A DISCONNECT would cost it a registration for each link that breaks, and all that it runs its place."""
    bench = Bench()
    client, worker, token = _answered(bench)
    again = worker.successor(b"new").ready(tokens=[token], last_life=LIFE)
    _say(again, token, kind)
    assert again.disconnects() == 0 and bench.state(again) == "idle"
    assert bench.count("repeated_reports") == 1
    no_final(client)
    client.submit(body=[b"next"], flags=NO)
    assert again.job().body == [b"next"]


def test_a_reply_may_be_said_again_once() -> None:
    """What a worker says beyond that it has no right to say."""
    bench = Bench()
    _, worker, token = _answered(bench)
    again = worker.successor(b"new").ready(tokens=[token], last_life=LIFE)
    again.result(token, b"again")
    again.result(token, b"and again")
    assert again.disconnects() == 1 and bench.state(again) is None


@pytest.mark.parametrize("lie", ["it named no token", "the token is of another life"])
def test_a_reply_that_was_not_announced_is_refused(lie: str) -> None:
    """READY is where a worker says what it holds; a token out of nowhere means that the two disagree."""
    bench = Bench()
    _, worker, token = _answered(bench)
    named, life = ([], LIFE) if lie == "it named no token" else ([token], OTHER_LIFE)
    again = worker.successor(b"new").ready(tokens=named, last_life=life)
    again.result(token, b"again")
    assert again.disconnects() == 1


def test_a_reply_in_doubt_that_did_not_arrive_answers_its_call() -> None:
    """The other half of the doubt: then the broker holds the token, and the same message is the reply."""
    bench = Bench()
    client, worker = OurClient(bench), OurWorker(bench, b"old").ready()
    client.submit(flags=NO)
    token = worker.job().token
    bench.notice_death(worker)
    again = worker.successor(b"new").ready(tokens=[token], last_life=LIFE)
    again.result(token, b"again")
    assert (final(client).status, again.disconnects()) == (Status.OK, 0)


def test_what_a_worker_may_say_again_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a peer names, it takes no more memory than this."""
    monkeypatch.setattr(workers, "_CLOSED_TOKENS_MAX", 2)
    bench = Bench()
    tokens = [LIFE + b"%08d" % number for number in range(3)]
    worker = OurWorker(bench).ready(tokens=tokens, last_life=LIFE)
    worker.result(tokens[0])
    worker.result(tokens[1])
    assert worker.disconnects() == 0
    worker.result(tokens[2])
    assert worker.disconnects() == 1


def test_a_worker_that_holds_as_much_as_it_may_can_still_say_a_reply_again() -> None:
    """The bound on what it may hold is none on what it has done."""
    bench = Bench(BrokerConfig(credit_max=1))
    client, worker = OurClient(bench), OurWorker(bench, b"old").ready()
    tokens = []
    for number in range(2):
        client.submit(flags=NO)
        tokens.append(worker.job().token)
        if number == 0:
            worker.result(tokens[0], b"first")
            assert final(client).body == [b"first"]
    bench.notice_death(worker)
    again = worker.successor(b"new").ready(tokens=tokens[::-1], last_life=LIFE)
    again.result(tokens[0], b"again")
    assert again.disconnects() == 0 and bench.count("repeated_reports") == 1
    again.result(tokens[1], b"second")
    assert final(client).body == [b"second"]
