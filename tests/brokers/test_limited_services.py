"""A service with a limit of its own: what it cannot run waits at the broker, not in slots that others could use."""

from __future__ import annotations

import pytest

from reliable.errors import RemoteProtocolError
from reliable.wire.extension import NO_LIFE, GiveBackReason, ReadyExtension, ServiceOffer
from tests.support.broker_bench import LIFE, Bench, OurClient, OurWorker
from tests.support.broker_verdicts import NO

LIMITED = (ServiceOffer(b"slow", None, 1), ServiceOffer(b"quick"))


def bodies(worker: OurWorker) -> list[bytes]:
    """What was handed to a worker since this was last asked."""
    return [job.body[0] for job in worker.jobs()]


def limited_bench(credit: int = 4) -> tuple[Bench, OurClient, OurWorker]:
    """One worker with room for several requests, but for one of ``slow`` only."""
    bench = Bench()
    client = OurClient(bench)
    worker = OurWorker(bench, b"w1", services=LIMITED, credit=credit).ready()
    bench.keep_alive(worker)
    return bench, client, worker


def test_no_more_than_its_limit_is_handed_over_and_the_rest_of_the_credit_is_for_others() -> None:
    """Four slow calls would else take all of the credit, three of them for nothing."""
    _, client, worker = limited_bench()
    for number in range(4):
        client.submit(b"slow", [b"s%d" % number], flags=NO)
    assert bodies(worker) == [b"s0"]
    for number in range(4):
        client.submit(b"quick", [b"q%d" % number], flags=NO)
    assert bodies(worker) == [b"q0", b"q1", b"q2"]


def test_the_next_one_comes_when_the_one_before_is_done_even_if_others_wait_longer() -> None:
    """The limit must not become a standstill, nor the queue of one service the queue of all."""
    _, client, worker = limited_bench(credit=2)
    for number in range(3):
        client.submit(b"slow", [b"s%d" % number], flags=NO)
    first = worker.job()
    client.submit(b"quick", [b"q0"], flags=NO)
    client.submit(b"quick", [b"q1"], flags=NO)
    quick = worker.job()
    worker.result(quick.token)
    other = worker.job()
    assert other.body == [b"q1"], "a free slot that slow may not use"
    worker.result(first.token)
    assert bodies(worker) == [b"s1"]
    worker.result(other.token)
    assert bodies(worker) == [], "s2 waits for s1, not for a slot"


def test_what_is_too_much_for_one_worker_goes_to_another() -> None:
    """In a worker's own queue it could not move."""
    bench, client, worker = limited_bench()
    client.submit(b"slow", [b"s0"], flags=NO)
    client.submit(b"slow", [b"s1"], flags=NO)
    other = OurWorker(bench, b"w2", services=LIMITED, credit=4).ready()
    client.submit(b"slow", [b"s2"], flags=NO)
    assert (bodies(worker), bodies(other)) == ([b"s0"], [b"s1"])


def test_the_limit_counts_what_a_worker_brings_along_on_a_new_connection() -> None:
    """It runs already; one more beside it would wait in a slot."""
    bench, client, worker = limited_bench()
    client.submit(b"slow", [b"s0"], flags=NO)
    token = worker.job().token
    worker.started(token)
    bench.kill(worker)
    bench.engine.connection_ended(bench.now)
    bench.advance(0.1)
    client.submit(b"slow", [b"s1"], flags=NO)
    back = worker.successor(b"w1b").ready(tokens=[token], last_life=LIFE)
    assert bodies(back) == []
    back.result(token)
    assert bodies(back) == [b"s1"]


def test_a_worker_that_is_stuck_gone_or_without_the_service_leaves_every_shelf() -> None:
    """With shelves of its own for each service there is more to forget."""
    bench, client, worker = limited_bench()
    client.submit(b"slow", [b"s0"], flags=NO)
    worker.give_back(worker.job().token, GiveBackReason.NO_SUCH_SERVICE)
    client.submit(b"slow", [b"s1"], flags=NO)
    client.submit(b"quick", [b"q0"], flags=NO)
    assert bodies(worker) == [b"q0"]
    bench.fall_silent(worker)
    bench.advance(bench.stuck_s + 0.2)
    assert bench.state(worker) == "stuck"
    client.submit(b"quick", [b"q1"], flags=NO)
    assert bodies(worker) == []
    worker.heartbeat()
    assert bodies(worker) == [b"q1"]
    worker.disconnect()
    client.submit(b"quick", [b"q2"], flags=NO)
    assert bodies(worker) == []


def test_an_offer_without_the_limit_still_reads_and_one_out_of_range_does_not() -> None:
    """Workers of before this field say two things of a service; brokers of before it read over the third."""
    now = ReadyExtension(b"i" * 16, 4, LIMITED)
    assert ReadyExtension.decode(now.encode()) == now
    prefix = now.encode()[:5]
    before = prefix + bytes.fromhex("96c410") + b"i" * 16 + b"\xc4\x08" + NO_LIFE + bytes.fromhex("9004")
    before += bytes.fromhex("9192c404736c6f77c0") + b"\x00"
    assert ReadyExtension.decode(before).services == (ServiceOffer(b"slow"),)
    for wrong in (0, 0x10000):
        with pytest.raises(RemoteProtocolError):
            ReadyExtension.decode(ReadyExtension(b"i" * 16, 4, (ServiceOffer(b"slow", None, wrong),)).encode())
