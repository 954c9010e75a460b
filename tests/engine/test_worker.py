"""The worker engine rule by rule, as exact traces of what it does."""

from __future__ import annotations

import math

import pytest

from reliable.config import Limits, WorkerConfig
from reliable.engine.observe import BrokerFound, LinkLost, MessageDropped
from reliable.engine.reports import ERROR_TEXT_BYTES_MAX
from reliable.engine.worker import WorkerEngine
from reliable.errors import LocalProtocolError
from reliable.protocol.events import (
    Drain,
    JobError,
    JobFinished,
    JobPartial,
    JobProgress,
    LinkClosed,
    LinkEnd,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    StartJob,
    Unsent,
)
from reliable.protocol.registration import Tag
from reliable.wire.extension import (
    CONTROL_TOKEN,
    NO_LIFE,
    CallFlag,
    Delivery,
    DeliveryKind,
    Hello,
    ReadyExtension,
    Role,
    ServiceOffer,
    make_token,
)
from reliable.wire.mdp import Version, WorkerReady, WorkerRequest, decode_at_broker
from tests.support.worker_bench import ECHO, INSTANCE, LIFE_A, LIFE_B, WorkerBench, call_id

ACK = CONTROL_TOKEN


# --- registering ----------------------------------------------------------------------------------


def test_a_worker_says_hello_and_registers() -> None:
    """The whole way in: link, hello, READY, and nothing in between."""
    bench = WorkerBench()
    assert bench.trace() == [("open", 1, "a")]
    assert bench.engine.registered == 0
    assert bench.opened(1) == [("hello", 1)]
    assert bench.greet(1) == [("ready", 1, 1, NO_LIFE)]
    assert bench.engine.registered == 1
    assert bench.seen == [BrokerFound("a", LIFE_A, False)]


def test_hello_and_ready_say_who_we_are() -> None:
    """The broker knows a returning worker by its instance, and its limits by the hello."""
    bench = WorkerBench(concurrency=3, services=(ECHO, ServiceOffer(b"sum", idempotent=True)))
    bench.trace()
    bench.engine.handle(LinkOpened(1), bench.now)
    hello = decode_at_broker(bench.sends()[0].frames)
    assert getattr(hello, "service", None) == b"mmi.reliable"
    assert Hello.decode(hello.body[0]) == Hello(Role.WORKER, INSTANCE, 64 * 1024 * 1024)  # type: ignore[union-attr]
    bench.greet(1)
    ready = decode_at_broker(bench.raw[-1].frames)  # type: ignore[union-attr]
    assert isinstance(ready, WorkerReady)
    assert ready.service == b"echo"
    extension = ReadyExtension.decode(ready.extension)
    assert extension.instance == INSTANCE
    assert extension.services == (ECHO, ServiceOffer(b"sum", idempotent=True))
    assert extension.max_message_bytes == 64 * 1024 * 1024


def test_nothing_is_sent_before_the_link_is_open() -> None:
    """What libzmq queues on a link that is not up may reach another process."""
    bench = WorkerBench()
    assert bench.tick(5.0)[0] == ("open", 1, "a")
    assert not [line for line in bench.trace() if line[0] != "open"]


@pytest.mark.parametrize("end", LinkEnd)
def test_a_broker_that_cannot_be_reached_is_tried_again_on_a_new_link(end: LinkEnd) -> None:
    """Brokers may start after workers, and come back."""
    bench = WorkerBench()
    bench.trace()
    assert bench.closed(1, end) == []
    assert bench.tick(0.04) == []
    assert bench.tick(0.01) == [("open", 2, "a")]
    assert bench.counters.links_refused == 1
    assert bench.seen == [LinkLost("a", end.value)]


def test_hello_silence_closes_the_link_and_tries_again() -> None:
    """Silence means "not usable", never "not ours"."""
    bench = WorkerBench()
    bench.opened(1)
    assert bench.tick(0.99) == []
    assert bench.tick(0.01) == [("close", 1)]
    assert bench.tick(0.05) == [("open", 2, "a")]
    assert bench.opened(2) == [("hello", 2)]
    assert bench.counters.hellos_unanswered == 1
    assert bench.counters.downgrades == 0


def test_a_link_that_nobody_reports_about_is_given_up() -> None:
    """A shell that loses an event must not cost the worker its broker for ever."""
    bench = WorkerBench()
    bench.trace()
    assert bench.tick(5.9) == []
    assert bench.tick(0.2) == [("close", 1), ("open", 2, "a")]


def test_the_backoff_grows_until_a_sign_of_life_behind_ready() -> None:
    """A broker that refuses each READY is not stormed."""
    bench = WorkerBench()
    waits = []
    for link in range(1, 5):
        bench.opened(link)
        bench.greet(link)
        if link == 4:
            bench.beat(link)
        assert bench.disconnect(link) == [("close", link)]
        waits.append(round((bench.engine.next_deadline() or 0.0) - bench.now, 6))
        bench.tick(waits[-1])
    assert waits == [0.05, 0.1, 0.2, 0.05]


def test_credit_is_shared_over_brokers_to_the_last_slot() -> None:
    """Three slots over two brokers: none idle, none promised twice."""
    bench = WorkerBench("a", "b", concurrency=3)
    assert bench.trace() == [("open", 1, "a"), ("open", 2, "b")]
    bench.opened(1)
    bench.opened(2)
    assert bench.greet(1) == [("ready", 1, 2, NO_LIFE)]
    assert bench.greet(2, LIFE_B) == [("ready", 2, 1, NO_LIFE)]


def test_each_broker_gets_at_least_one_credit_and_the_surplus_waits_here() -> None:
    """With more brokers than slots, a delivery may come while the handler is busy."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    assert bench.deliver(first, 1) == [("start", 1, b"work")]
    assert bench.deliver(second, 2, link=2) == []
    assert bench.engine.snapshot().queued == 1
    assert bench.finish(1, b"one") == [("result", 1, first, b"one"), ("start", 2, b"work")]
    assert bench.finish(2, b"two") == [("result", 2, second, b"two")]


def test_the_same_address_twice_is_one_broker() -> None:
    """Two registrations of one instance at one broker would fight over their tokens."""
    assert WorkerBench("a", "b", "a").trace() == [("open", 1, "a"), ("open", 2, "b")]


# --- heartbeats and silence -----------------------------------------------------------------------


def test_heartbeats_go_out_while_a_handler_runs() -> None:
    """Busy is not dead: the broker hears us whatever the handler does."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    beats = 0
    for _ in range(50):
        beats += bench.tick(0.1).count(("beat", 1))
        bench.beat(1)
    # 5 s; the STARTED report at 0.2 s stands for the first one.
    assert beats == 4


def test_whatever_is_sent_stands_for_a_heartbeat() -> None:
    """7/MDP: no heartbeats while other commands go out."""
    bench = WorkerBench()
    bench.register()
    for number in range(1, 6):
        token = bench.token()
        bench.deliver(token, number)
        assert bench.finish(number, b"done") == [("result", 1, token, b"done")]
        assert bench.tick(0.9) == []
        bench.beat(1)
    assert bench.counters.heartbeats_sent == 0


def test_a_silent_broker_is_left_for_a_new_link() -> None:
    """A cut that no socket notices."""
    bench = WorkerBench()
    bench.register()
    assert bench.tick(2.99) == [("beat", 1), ("beat", 1)]
    assert bench.tick(0.01) == [("close", 1)]
    assert bench.tick(0.05) == [("open", 2, "a")]
    assert bench.counters.brokers_silent == 1


def test_a_talking_broker_is_never_left() -> None:
    """Any command counts as a sign of life."""
    bench = WorkerBench()
    bench.register()
    for _ in range(10):
        assert ("close", 1) not in bench.tick(2.9)
        bench.beat(1)


def test_an_own_stall_is_not_held_against_the_broker() -> None:
    """A process that was stopped for ten seconds did not hear; the broker may have spoken all along."""
    bench = WorkerBench()
    bench.register()
    bench.stall(10.0)
    assert bench.tick(0.0) == [("beat", 1)], "heartbeat first: the broker did miss us"
    assert bench.counters.stalls == 1
    # From here on it counts again.
    assert bench.tick(2.99) == [("beat", 1), ("beat", 1)]
    assert bench.tick(0.01) == [("close", 1)]


def test_a_stall_is_noticed_by_whatever_comes_first_and_forgiven_once() -> None:
    """After a stall the shell reads before it looks at timers; one gap must not count twice."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    bench.stall(10.0)
    bench.beat(1)
    bench.beat(1)
    bench.tick(0.0)
    assert bench.counters.stalls == 1
    assert bench.engine.registered == 2
    # Broker a was heard just now; b has the 3 s that it would have had, not 3 s and more gaps.
    bench.tick(2.0)
    bench.beat(1)
    bench.tick(0.99)
    assert bench.engine.registered == 2
    bench.tick(0.01)
    assert bench.engine.registered == 1


def test_a_hello_that_falls_into_a_stall_gets_its_time_back() -> None:
    """Otherwise each long pause costs a connection."""
    bench = WorkerBench()
    bench.opened(1)
    bench.stall(5.0)
    assert bench.tick(0.0) == []
    assert bench.greet(1) == [("ready", 1, 1, NO_LIFE)]


def test_being_a_little_late_forgives_nothing() -> None:
    """Each loop is a little late; extending by that would let a dead broker live on."""
    bench = WorkerBench()
    bench.register()
    bench.stall(1.9)
    bench.tick(0.0)
    assert bench.counters.stalls == 0
    bench.tick(1.1)
    assert bench.counters.brokers_silent == 1


# --- one delivery ---------------------------------------------------------------------------------


def test_a_delivery_runs_and_is_answered() -> None:
    """The plain case, with everything that a handler is told."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token, 7, b"a", b"b", flags=CallFlag.IDEMPOTENT, attempt=2, delivery=3, within_s=5.0)
    assert bench.raw[-1] == StartJob(
        job=1,
        service=b"echo",
        body=[b"a", b"b"],
        deadline=105.0,
        flags=CallFlag.IDEMPOTENT,
        call_id=call_id(7),
        attempt=2,
        delivery=3,
    )
    assert bench.finish(1, b"c", b"d") == [("result", 1, token, b"c", b"d")]
    snapshot = bench.engine.snapshot()
    assert (snapshot.running, snapshot.queued, snapshot.brokers[0].tokens) == (0, 0, 0)


def test_an_empty_reply_still_has_a_body_frame() -> None:
    """MDP demands one."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.finish(1) == [("result", 1, token, b"")]


def test_the_deadline_counts_from_the_answer_to_the_hello() -> None:
    """Both ends stamp the hello, so that clocks need not agree."""
    bench = WorkerBench()
    bench.register()
    bench.tick(2.0)
    bench.beat(1)
    header = Delivery(bench.token(), DeliveryKind.RUN, call_id=call_id(1), deadline_ms=2500)
    bench.receive(1, WorkerRequest(Version.MDP02, header.encode(), [b"work"]).encode())
    assert getattr(bench.raw[-1], "deadline", None) == 102.5


def newest(bench: WorkerBench) -> list[int | None]:
    """What each READY so far says of the deliveries that have come."""
    readies = [decode_at_broker(send.frames) for send in bench.raw if isinstance(send, Send) and send.tag is Tag.READY]
    return [
        ReadyExtension.decode(ready.extension).newest
        for ready in readies
        if isinstance(ready, WorkerReady) and ready.extension
    ]


def reconnect(bench: WorkerBench, link: int, after: int, life: bytes = LIFE_A) -> None:
    """One link breaks, the next one registers."""
    bench.closed(link)
    bench.tick(2.0)
    bench.register(after, life)


def test_ready_says_which_delivery_is_the_newest_that_came() -> None:
    """By it the broker knows which of those it sent on the broken link never came: they did not run."""
    bench = WorkerBench(concurrency=2)
    bench.register(1)
    reconnect(bench, 1, 2)
    bench.deliver(make_token(LIFE_A, 7), 1, link=2)
    bench.finish(1, b"done")
    bench.deliver(make_token(LIFE_A, 9), 2, link=2)
    reconnect(bench, 2, 3)
    reconnect(bench, 3, 4, LIFE_B)
    reconnect(bench, 4, 5, LIFE_A)
    assert newest(bench) == [0, 0, 9, 0, 9], "a life that comes back is remembered, answered or not"


def test_a_worker_with_two_links_to_one_broker_proves_nothing_by_one_of_them() -> None:
    """What is newer may be coming on the other."""
    bench = WorkerBench("a", "also a")
    bench.register(1)
    bench.register(2)
    bench.deliver(make_token(LIFE_A, 7), 1, link=2)
    bench.closed(1)
    bench.tick(0.2)
    bench.beat(2)
    bench.register(3)
    bench.closed(3)
    bench.closed(2)
    bench.tick(0.3)
    bench.register(4)
    assert newest(bench) == [0, None, None, 7]


def test_hours_later_a_deadline_still_means_the_same_moment() -> None:
    """The broker's clock is 3.6 s ahead by then; a handler would be told that it has that much more time."""
    bench = WorkerBench()
    bench.register()
    rate = 1.001
    for _ in range(3600):
        if ("time", 1) in bench.tick(1.0):
            bench.tell_time(1, (bench.now - 100.0) * rate)
        bench.beat(1)
    shown_s = (bench.now - 100.0) * rate
    header = Delivery(bench.token(), DeliveryKind.RUN, call_id=call_id(1), deadline_ms=int((shown_s + 2.0) * 1000))
    bench.receive(1, WorkerRequest(Version.MDP02, header.encode(), [b"work"]).encode())
    start = bench.raw[-1]
    assert isinstance(start, StartJob) and start.deadline is not None
    assert start.deadline - bench.now == pytest.approx(2.0, abs=0.07)
    assert shown_s - 3600.0 > 3.5
    assert bench.counters.registrations == 1, "to the broker it is the same registration as ever"


def test_a_question_about_the_time_leaves_tokens_and_reports_alone() -> None:
    """It is no registration: what is in hand stays in hand, and is reported on the same link."""
    bench = WorkerBench()
    bench.register()
    for _ in range(59):
        bench.tick(1.0)
        bench.beat(1)
    token = bench.token()
    bench.deliver(token)
    assert ("time", 1) in bench.tick(1.0)
    bench.beat(1)
    assert bench.tell_time(1, bench.now - 100.0) == []
    assert bench.finish(1, b"done") == [("result", 1, token, b"done")]


def test_a_question_about_the_time_that_the_socket_did_not_take_is_asked_again_later() -> None:
    """A full pipe is no reason to leave a broker."""
    bench = WorkerBench()
    bench.register()
    asked = []
    for _ in range(130):
        bench.now += 1.0
        bench.engine.timers(bench.now)
        sends = [send for send in bench.sends() if send.tag is Tag.TIME]
        for send in sends:
            assert bench.unsent(send) == []
        asked += sends
        bench.beat(1)
    assert len(asked) == 2


def test_a_deadline_in_the_next_century_is_none() -> None:
    """A caller who set no limit; a timer for it would only get in the way."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token(), within_s=10.0**10)
    start = bench.raw[-1]
    assert isinstance(start, StartJob)
    assert start.deadline is None


@pytest.mark.parametrize("executed", [True, False])
def test_a_failed_handler_is_reported_with_name_and_text(executed: bool) -> None:
    """The caller learns what failed, and whether the handler was entered."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    word = "executed" if executed else "not executed"
    assert bench.fail(1, "ValueError", executed) == [("error", 1, token, "ValueError", word)]
    assert bench.counters.jobs_failed == 1


def test_an_endless_error_text_is_cut() -> None:
    """An error report must fit where a reply would."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.engine.handle(JobFinished(1, JobError("E" * 1000, "x" * 10**6)), bench.now)
    reply = bench.sends()[0].frames
    assert len(reply[-1]) == ERROR_TEXT_BYTES_MAX
    assert len(reply[-2]) == 255


def test_no_more_handlers_run_than_allowed() -> None:
    """Concurrency is a promise to the handlers' memory and locks."""
    bench = WorkerBench(concurrency=2)
    bench.register()
    lines = [bench.deliver(bench.token(), number) for number in range(1, 5)]
    assert lines == [[("start", 1, b"work")], [("start", 2, b"work")], [], []]
    assert bench.finish(2, b"r")[-1] == ("start", 3, b"work")
    assert bench.finish(1, b"r")[-1] == ("start", 4, b"work")


def test_a_broker_far_above_its_credit_gets_the_surplus_back() -> None:
    """Our memory is bounded by credit, whatever a broker does."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token(), 1)
    assert bench.deliver(bench.token(), 2) == []
    surplus = bench.token()
    assert bench.deliver(surplus, 3) == [("give back", 1, surplus, "FULL")]


def test_services_are_told_apart() -> None:
    """One registration may offer several; MDP itself does not say which is meant."""
    bench = WorkerBench(concurrency=2, services=(ECHO, ServiceOffer(b"sum")))
    bench.register()
    bench.deliver(bench.token(), 1, service=b"sum")
    bench.deliver(bench.token(), 2, service=b"echo")
    assert [effect.service for effect in bench.raw if isinstance(effect, StartJob)] == [b"sum", b"echo"]
    odd = bench.token()
    assert bench.deliver(odd, 3, service=b"other") == [("give back", 1, odd, "NO_SUCH_SERVICE")]


def test_an_unnamed_service_is_the_first() -> None:
    """Brokers need not name it to a worker with a single one."""
    bench = WorkerBench()
    bench.register()
    header = Delivery(bench.token(), DeliveryKind.RUN, call_id=call_id(1), deadline_ms=9000)
    assert bench.receive(1, WorkerRequest(Version.MDP02, header.encode(), [b"x"]).encode()) == [("start", 1, b"x")]
    assert getattr(bench.raw[-1], "service", None) == b"echo"


def test_calls_without_id_are_never_taken_for_each_other() -> None:
    """Requests of clients that are not ours have no id; the bodies may well be equal."""
    bench = WorkerBench(concurrency=2)
    bench.register()
    assert bench.deliver(bench.token(), 0) == [("start", 1, b"work")]
    assert bench.deliver(bench.token(), 0) == [("start", 2, b"work")]
    assert [effect.call_id for effect in bench.raw if isinstance(effect, StartJob)] == [b"", b""]
    bench.finish(1, b"r")
    bench.finish(2, b"r")
    assert bench.engine.snapshot().replies_kept == 0


# --- started, progress, partial -------------------------------------------------------------------


def test_a_long_run_is_reported_as_started_once() -> None:
    """The broker must know that the request is past giving back; a short run needs no such message."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.tick(0.19) == []
    assert bench.tick(0.01) == [("started", 1, token)]
    assert bench.tick(0.5) == []
    bench.finish(1, b"r")
    bench.deliver(bench.token(), 2)
    bench.finish(2, b"r")
    assert bench.tick(0.3) == []


def test_progress_goes_to_everybody_who_waits() -> None:
    """ "Working, no progress for 40 s" is only visible if progress is."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first)
    bench.deliver(second, link=2)
    assert bench.handle(JobProgress(1, [b"half"])) == [
        ("progress", 1, first, b"half"),
        ("progress", 2, second, b"half"),
    ]


def test_who_has_given_up_hears_of_no_progress() -> None:
    """Nobody reads it there."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first)
    bench.deliver(second, link=2)
    bench.cancel(first)
    assert bench.handle(JobProgress(1, [b"half"])) == [("progress", 2, second, b"half")]


def test_parts_are_sent_in_order_before_the_last_one() -> None:
    """A streamed reply."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.handle(JobPartial(1, [b"1"])) == [("partial", 1, token, b"1")]
    assert bench.handle(JobPartial(1, [b"2"])) == [("partial", 1, token, b"2")]
    assert bench.finish(1, b"3") == [("result", 1, token, b"3")]


def test_a_stream_with_a_hole_never_looks_whole() -> None:
    """A link lost between parts: what was on its way is gone, so the end must be an error."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.handle(JobPartial(1, [b"1"]))
    bench.closed(1)
    bench.tick(0.05)
    bench.register(2)
    assert bench.handle(JobPartial(1, [b"2"])) == []
    assert bench.finish(1, b"3") == [("error", 2, token, "StreamBroken", "executed")]


def test_a_stream_that_ends_on_another_link_than_its_parts_is_broken() -> None:
    """Even if every part was sent: whether the last ones arrived before the cut is not known."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.handle(JobPartial(1, [b"1"]))
    bench.closed(1)
    bench.tick(0.05)
    bench.register(2)
    assert bench.finish(1, b"2") == [("error", 2, token, "StreamBroken", "executed")]


def test_a_part_that_the_socket_did_not_take_breaks_the_stream() -> None:
    """A full pipe drops a part; the next ones must not hide it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.engine.handle(JobPartial(1, [b"1"]), bench.now)
    bench.unsent(bench.sends()[0])
    assert bench.handle(JobPartial(1, [b"2"])) == []
    assert bench.finish(1, b"3") == [("error", 1, token, "StreamBroken", "executed")]


def test_who_joins_a_stream_late_is_told_that_it_is_not_whole() -> None:
    """The parts before are gone, for a join as for a replay."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second, third = bench.token(), bench.token(LIFE_B), bench.token()
    bench.deliver(first)
    bench.handle(JobPartial(1, [b"1"]))
    bench.deliver(second, link=2)
    assert bench.finish(1, b"2") == [
        ("result", 1, first, b"2"),
        ("error", 2, second, "StreamBroken", "executed"),
    ]
    assert bench.deliver(third, 1) == [("error", 1, third, "ReplyEvicted", "executed")]


# --- the same call again --------------------------------------------------------------------------


def test_a_second_delivery_joins_the_running_job() -> None:
    """The client failed over: one run, and both brokers get the reply."""
    bench = WorkerBench("a", "b", concurrency=2)
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    assert bench.deliver(first, 1) == [("start", 1, b"work")]
    assert bench.deliver(second, 1, link=2, attempt=2) == []
    assert bench.finish(1, b"r") == [("result", 1, first, b"r"), ("result", 2, second, b"r")]
    assert bench.counters.joined == 1
    assert bench.counters.jobs_started == 1


def test_a_second_delivery_joins_the_queued_job() -> None:
    """Not yet started is no reason to run it twice."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    busy, first, second = bench.token(), bench.token(), bench.token(LIFE_B)
    bench.deliver(busy, 1)
    bench.deliver(first, 2)
    assert bench.deliver(second, 2, link=2) == []
    assert bench.engine.snapshot().queued == 1
    assert bench.finish(1, b"r")[-1] == ("start", 2, b"work")
    assert bench.finish(2, b"r") == [("result", 1, first, b"r"), ("result", 2, second, b"r")]


def test_who_joins_a_long_run_hears_at_once_that_it_started() -> None:
    """Its broker would else think it unstarted and take it elsewhere."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    bench.deliver(bench.token())
    bench.tick(0.5)
    second = bench.token(LIFE_B)
    assert bench.deliver(second, link=2) == [("started", 2, second)]


def test_an_answered_call_is_answered_again_from_the_kept_reply() -> None:
    """The reply was lost on its way; the work must not be repeated."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.finish(1, b"r")
    again = bench.token()
    assert bench.deliver(again, delivery=2) == [("result", 1, again, b"r")]
    assert bench.counters.replayed == 1
    assert bench.counters.jobs_started == 1


def test_a_kept_error_is_given_again_as_it_was() -> None:
    """A handler that failed once may have done half its work."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.fail(1, "KeyError", executed=False)
    again = bench.token()
    assert bench.deliver(again) == [("error", 1, again, "KeyError", "not executed")]


def test_a_call_id_in_use_for_another_request_is_refused() -> None:
    """Answering from the record would give one caller the reply of another."""
    bench = WorkerBench()
    bench.register()
    first, running, kept = bench.token(), bench.token(), bench.token()
    bench.deliver(first, 1, b"one")
    assert bench.deliver(running, 1, b"other") == [("error", 1, running, "CallIdConflict", "not executed")]
    assert bench.finish(1, b"r") == [("result", 1, first, b"r")]
    assert bench.deliver(kept, 1, b"other") == [("error", 1, kept, "CallIdConflict", "not executed")]
    assert bench.counters.conflicts == 2


def test_past_its_bytes_the_table_says_that_it_ran() -> None:
    """The reply is lost, the knowledge is not."""
    bench = WorkerBench(limits=Limits(replies_kept_bytes_max=10))
    bench.register()
    bench.deliver(bench.token())
    bench.finish(1, b"x" * 100)
    again = bench.token()
    assert bench.deliver(again) == [("error", 1, again, "ReplyEvicted", "executed")]
    assert bench.counters.jobs_started == 1


def forgetful_bench() -> WorkerBench:
    """Its table holds one id; call 1 (due at 130) is forgotten, call 2 is kept."""
    bench = WorkerBench(limits=Limits(replies_kept_max=1))
    bench.register()
    for number in (1, 2):
        bench.deliver(bench.token(), number)
        bench.finish(number, b"r")
    return bench


def test_past_its_count_the_table_fails_closed() -> None:
    """A repeat that might be of a forgotten id is not run, and nothing is claimed of the runs before it."""
    bench = forgetful_bench()
    token = bench.token()
    assert bench.deliver(token, 1, flags=CallFlag.REPEAT) == [("error", 1, token, "ReplyEvicted", "not executed")]
    assert bench.counters.jobs_started == 2
    assert bench.counters.evicted_asked == 1


@pytest.mark.parametrize("again", [{"attempt": 2}, {"delivery": 2}], ids=["attempt", "delivery"])
def test_an_attempt_after_ones_that_are_proven_not_to_have_run_is_run_however_full_the_table_was(
    again: dict[str, int],
) -> None:
    """Clients and brokers send such a call again only with that proof; refusing it would fail it for nothing."""
    bench = forgetful_bench()
    assert bench.deliver(bench.token(), 3, **again) == [("start", 3, b"work")]  # type: ignore[arg-type]


def test_a_first_delivery_is_run_however_full_the_table_was() -> None:
    """What comes for the first time cannot have run."""
    bench = forgetful_bench()
    assert bench.deliver(bench.token(), 3) == [("start", 3, b"work")]


def test_a_repeat_without_id_is_run_however_full_the_table_was() -> None:
    """A client that is not ours has no id, so the table never knew its calls."""
    bench = forgetful_bench()
    assert bench.deliver(bench.token(), 0, flags=CallFlag.REPEAT) == [("start", 3, b"work")]


def test_an_idempotent_repeat_is_run_where_the_table_cannot_tell() -> None:
    """It may run again; that is what the word means."""
    bench = forgetful_bench()
    assert bench.deliver(bench.token(), 1, flags=CallFlag.IDEMPOTENT | CallFlag.REPEAT) == [("start", 3, b"work")]


def test_a_repeat_with_a_later_deadline_than_all_forgotten_ones_is_run() -> None:
    """It cannot be one of them, since a repeat shows the deadline of its call."""
    bench = forgetful_bench()
    assert bench.deliver(bench.token(), 3, flags=CallFlag.REPEAT, within_s=36.0) == [("start", 3, b"work")]


def test_the_same_token_twice_is_dropped() -> None:
    """No broker sends one token twice; answering twice would break its books."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.deliver(token) == []
    assert bench.counters.dropped == 1
    assert bench.finish(1, b"r") == [("result", 1, token, b"r")]


# --- cancel and expiry ----------------------------------------------------------------------------


def busy_bench() -> tuple[WorkerBench, bytes, bytes]:
    """One slot, taken by call 1; call 2 waits. Gives both tokens."""
    bench = WorkerBench()
    bench.register()
    running, waiting = bench.token(), bench.token()
    bench.deliver(running, 1)
    bench.deliver(waiting, 2, within_s=5.0)
    return bench, running, waiting


def test_a_cancelled_unstarted_call_is_given_back_and_never_runs() -> None:
    """Proof for the caller that it did not run."""
    bench, running, waiting = busy_bench()
    assert bench.cancel(waiting) == [("give back", 1, waiting, "CANCELLED")]
    assert bench.finish(1, b"r") == [("result", 1, running, b"r")]
    assert bench.engine.snapshot().queued == 0


def test_a_cancelled_running_call_tells_its_handler_and_still_ends_with_a_report() -> None:
    """The broker's slot is freed by that report alone."""
    bench, running, _ = busy_bench()
    assert bench.cancel(running) == [("started", 1, running), ("cancel job", 1)], "too late to have it back"
    assert bench.cancel(running) == [], "telling a handler twice is of no use"
    assert bench.counters.cancelled == 1
    assert bench.fail(1, "Cancelled")[0] == ("error", 1, running, "Cancelled", "executed")


def test_a_job_is_cancelled_only_when_nobody_waits_for_it() -> None:
    """One of two callers giving up must not cost the other its reply."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first)
    bench.deliver(second, link=2)
    assert bench.cancel(first) == [("started", 1, first)]
    assert bench.cancel(second, link=2) == [("started", 2, second), ("cancel job", 1)]
    assert bench.finish(1, b"r") == [("result", 1, first, b"r"), ("result", 2, second, b"r")]


def test_one_of_two_cancelled_while_queued_leaves_the_job_to_the_other() -> None:
    """The same for what has not started."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(bench.token(), 1)
    bench.deliver(first, 2)
    bench.deliver(second, 2, link=2)
    assert bench.cancel(first) == [("give back", 1, first, "CANCELLED")]
    assert bench.finish(1, b"r")[-1] == ("start", 2, b"work")
    assert bench.finish(2, b"r") == [("result", 2, second, b"r")]


def test_a_cancel_that_crosses_the_reply_is_ignored() -> None:
    """The token has ended; a second final report would be a forgery."""
    bench, running, _ = busy_bench()
    bench.finish(1, b"r")
    assert bench.cancel(running) == []
    assert bench.cancel(bench.token()) == []
    assert bench.counters.cancelled == 0


def test_a_call_whose_deadline_passes_unstarted_is_given_back_in_time() -> None:
    """The caller hears "expired, not run" at the deadline, not when a slot gets free."""
    bench, _, waiting = busy_bench()
    for _ in range(4):
        bench.tick(1.2)
        bench.beat(1)
    lines = bench.tick(0.2)
    assert ("give back", 1, waiting, "EXPIRED") in lines
    assert bench.finish(1, b"r")[-1][0] == "result"
    assert bench.counters.expired == 1


def test_a_call_that_arrives_after_its_deadline_is_given_back() -> None:
    """A queue on the way may have held it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    assert bench.deliver(token, within_s=0.0) == [("give back", 1, token, "EXPIRED")]


def test_a_call_that_arrives_too_late_at_a_busy_worker_is_given_back_at_once() -> None:
    """It need not wait for a slot to hear that it is late."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token(), 1)
    late = bench.token()
    assert bench.deliver(late, 2, within_s=0.0) == [("give back", 1, late, "EXPIRED")]


def test_a_late_look_at_the_clock_does_not_start_an_expired_call() -> None:
    """A slot that gets free in the same step in which the deadline has passed."""
    bench, running, waiting = busy_bench()
    bench.stall(5.0)
    assert bench.finish(1, b"r") == [("result", 1, running, b"r"), ("give back", 1, waiting, "EXPIRED")]


def test_of_two_deliveries_of_a_queued_call_each_expires_by_itself() -> None:
    """Two brokers may tell the deadline a little apart; the later one still counts."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    early, later = bench.token(), bench.token(LIFE_B)
    bench.deliver(bench.token(), 1)
    bench.deliver(early, 2, within_s=0.5)
    bench.deliver(later, 2, within_s=0.9, link=2)
    assert bench.tick(0.6)[-1] == ("give back", 1, early, "EXPIRED")
    assert bench.finish(1, b"r")[-1] == ("start", 2, b"work")
    assert getattr(bench.raw[-1], "deadline", None) == 100.9
    assert bench.finish(2, b"r") == [("result", 2, later, b"r")]


def test_a_running_call_past_its_deadline_still_reports() -> None:
    """Its report frees the slot at the broker; what the caller hears is the broker's affair."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token, within_s=0.5)
    bench.tick(2.0)
    assert bench.finish(1, b"r") == [("result", 1, token, b"r")]


# --- links that break, brokers that restart -------------------------------------------------------


def test_a_link_flap_under_a_running_call_costs_nothing() -> None:
    """Not idempotent, so nobody may run it again: READY names the token, the reply takes the new link."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token, flags=CallFlag.NOT_IDEMPOTENT)
    assert bench.closed(1) == []
    assert bench.tick(0.05) == [("open", 2, "a")]
    assert bench.opened(2) == [("hello", 2)]
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token)]
    assert bench.finish(1, b"r") == [("result", 2, token, b"r")]
    assert bench.counters.replies_dropped == 0


def test_a_reply_that_is_ready_while_the_link_is_down_is_sent_behind_ready() -> None:
    """READY first: without it the broker does not know whose token that is."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.closed(1)
    assert bench.finish(1, b"r") == []
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("result", 2, token, b"r")]


def test_started_is_said_again_on_the_next_link() -> None:
    """The first one may have been lost with the old link; an unstarted call would be taken away."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.tick(0.5)
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("started", 2, token)]
    assert bench.tick(0.9) == []


def test_after_a_broker_restart_old_tokens_are_void() -> None:
    """The new process knows none of them: a reply to one would be a forgery, or somebody else's."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2, LIFE_B) == [("ready", 2, 1, LIFE_A)]
    assert bench.finish(1, b"r") == []
    assert bench.counters.replies_dropped == 1
    assert bench.counters.brokers_restarted == 1
    assert BrokerFound("a", LIFE_B, True) in bench.seen


def test_after_a_broker_restart_a_kept_report_is_dropped() -> None:
    """The same for what was finished in between."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.closed(1)
    bench.finish(1, b"r")
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2, LIFE_B) == [("ready", 2, 1, LIFE_A)]
    assert bench.counters.replies_dropped == 1


def test_after_a_broker_restart_a_repeat_joins_what_still_runs() -> None:
    """The handler of the voided delivery runs on, and the client's next attempt finds it."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    bench.greet(2, LIFE_B)
    token = bench.token(LIFE_B)
    assert bench.deliver(token, link=2, attempt=2) == []
    assert bench.finish(1, b"r") == [("result", 2, token, b"r")]


def test_a_voided_unstarted_call_is_never_started() -> None:
    """Its caller has heard that the broker is gone, and may act on it."""
    bench, _, _ = busy_bench()
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    bench.greet(2, LIFE_B)
    assert bench.finish(1, b"r") == []
    assert bench.engine.snapshot().queued == 0


def test_a_report_that_finds_no_link_is_given_up_after_the_deadline() -> None:
    """Nobody can ask for it any more, and memory is bounded."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token(), within_s=2.0)
    bench.closed(1)
    bench.finish(1, b"r")
    bench.tick(6.9)
    assert bench.engine.snapshot().brokers[0].tokens == 1
    bench.tick(0.2)
    assert bench.engine.snapshot().brokers[0].tokens == 0
    assert bench.counters.replies_dropped == 1


def test_a_report_without_deadline_is_given_up_after_the_time_of_kept_replies() -> None:
    """No deadline must not mean for ever."""
    bench = WorkerBench(replies_kept_s=20.0)
    bench.register()
    bench.deliver(bench.token(), within_s=10.0**10)
    bench.closed(1)
    bench.finish(1, b"r")
    bench.tick(19.9)
    assert bench.engine.snapshot().brokers[0].tokens == 1
    bench.tick(0.2)
    assert bench.engine.snapshot().brokers[0].tokens == 0


def test_a_received_disconnect_ends_the_link_without_another_word() -> None:
    """7/MDP: nothing more is sent, the socket is closed, a new one is opened."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.disconnect(1) == [("close", 1)]
    assert bench.finish(1, b"r") == []
    assert bench.tick(0.05) == [("open", 2, "a")]
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("result", 2, token, b"r")]
    assert bench.counters.disconnects_received == 1


def test_messages_behind_a_disconnect_have_no_effect() -> None:
    """The shell may have read them in one batch before it saw the link closed."""
    bench = WorkerBench()
    bench.register()
    bench.disconnect(1)
    assert bench.deliver(bench.token()) == []
    assert bench.handle(LinkClosed(1, LinkEnd.LOST)) == []
    assert bench.counters.deliveries == 0


def test_one_broker_lost_leaves_the_other_at_work() -> None:
    """Independent brokers are the default way to be available."""
    bench = WorkerBench("a", "b", concurrency=2)
    bench.register(1)
    bench.register(2, LIFE_B)
    bench.closed(1)
    token = bench.token(LIFE_B)
    assert bench.deliver(token, link=2) == [("start", 1, b"work")]
    assert bench.finish(1, b"r") == [("result", 2, token, b"r")]


# --- the socket does not take it ------------------------------------------------------------------


def test_a_reply_that_the_socket_did_not_take_is_offered_again() -> None:
    """A full pipe must not turn a finished call into an unknown one."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    reply = bench.sends()[0]
    assert bench.unsent(reply) == []
    assert bench.tick(0.04) == []
    assert bench.tick(0.01) == [("result", 1, token, b"r")]
    assert bench.tick(0.5) == []
    assert bench.counters.unsent == 1


def test_offering_one_report_again_repeats_no_other() -> None:
    """What was taken is not said twice on one link."""
    bench = WorkerBench(concurrency=2)
    bench.register()
    bench.deliver(bench.token(), 1)
    quick = bench.token()
    bench.tick(0.3)
    bench.deliver(quick, 2)
    bench.engine.handle(JobFinished(2, [b"r"]), bench.now)
    bench.unsent(bench.sends()[0])
    assert bench.tick(0.05) == [("result", 1, quick, b"r")]


def test_a_reply_long_after_its_deadline_that_the_socket_did_not_take_is_offered_again_too() -> None:
    """Nobody waits for it, and yet it alone frees the slot that the broker keeps for it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token, within_s=1.0)
    bench.now += 30.0
    bench.engine.timers(bench.now)
    bench.sends()
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    assert bench.unsent(bench.sends()[0]) == []
    assert ("result", 1, token, b"r") in bench.tick(0.05)


def test_a_reply_that_the_socket_did_not_take_survives_the_link() -> None:
    """Unsent, then lost: the token is in hand again, so READY names it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    reply = bench.sends()[0]
    bench.closed(1)
    bench.unsent(reply)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("result", 2, token, b"r")]


def test_a_reply_that_comes_back_after_the_next_ready_was_said_there() -> None:
    """On that link it is not to be said twice, nor counted as lost."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    reply = bench.sends()[0]
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 1, LIFE_A, token), ("result", 2, token, b"r")]
    assert bench.unsent(reply) == []
    assert bench.tick(0.5) == []
    assert (bench.counters.replies_dropped, bench.counters.replies_resent) == (0, 1)


def test_a_reply_that_comes_back_long_after_its_link_is_dropped() -> None:
    """READY did not name its token any more, so the broker would take it for a forgery."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token(), within_s=1.0)
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    reply = bench.sends()[0]
    bench.closed(1)
    bench.tick(10.0)
    opened = [effect for effect in bench.raw if isinstance(effect, OpenLink)]
    bench.register(opened[-1].link)
    assert bench.unsent(reply) == []
    assert bench.tick(0.5) == []
    assert bench.counters.replies_resent == 0


def test_a_started_report_that_the_socket_did_not_take_is_offered_again() -> None:
    """Without it the broker thinks the call unstarted."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.now += 0.2
    bench.engine.timers(bench.now)
    assert bench.unsent(bench.sends()[0]) == []
    assert bench.tick(0.05) == [("started", 1, token)]


@pytest.mark.parametrize("registered", [False, True])
def test_a_link_that_takes_neither_hello_nor_ready_is_left(registered: bool) -> None:
    """Without them the conversation never begins."""
    bench = WorkerBench()
    bench.trace()
    bench.engine.handle(LinkOpened(1), bench.now)
    send = bench.sends()[0]
    if registered:
        bench.engine.effects()
        bench.greet(1)
        send = bench.raw[-1]  # type: ignore[assignment]
    assert bench.unsent(send) == [("close", 1)]
    assert bench.tick(0.05) == [("open", 2, "a")]


def test_a_heartbeat_that_the_socket_did_not_take_is_no_matter() -> None:
    """A pipe that is full of other messages is sign of life enough."""
    bench = WorkerBench()
    bench.register()
    bench.now += 1.0
    bench.engine.timers(bench.now)
    assert bench.unsent(bench.sends()[0]) == []
    assert bench.tick(0.9) == []


# --- sizes ----------------------------------------------------------------------------------------


def test_a_reply_above_the_brokers_limit_becomes_an_error() -> None:
    """The broker's socket would cut the link instead, and the caller never hear."""
    bench = WorkerBench()
    bench.register(1, message_bytes_max=1000)
    fits, too_large = bench.token(), bench.token()
    bench.deliver(fits, 1)
    # header 6, command 1, report 24, delimiter 0
    assert bench.finish(1, b"x" * 969) == [("result", 1, fits, b"x" * 969)]
    bench.deliver(too_large, 2)
    assert bench.finish(2, b"x" * 970) == [("error", 1, too_large, "ReplyTooLarge", "executed")]
    assert bench.counters.replies_too_large == 1


def test_our_own_limit_counts_where_the_broker_names_none() -> None:
    """Zero means no limit of the peer's."""
    bench = WorkerBench(limits=Limits(message_bytes_max=2000))
    bench.register()
    token = bench.token()
    bench.deliver(token)
    assert bench.finish(1, b"x" * 2000) == [("error", 1, token, "ReplyTooLarge", "executed")]


def test_a_reply_too_large_for_one_broker_may_fit_the_other() -> None:
    """The limit is that of a link, not of the call."""
    bench = WorkerBench("a", "b")
    bench.register(1, message_bytes_max=1000)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first)
    bench.deliver(second, link=2)
    assert [line[0] for line in bench.finish(1, b"x" * 5000)] == ["error", "result"]


# --- brokers that are not ours --------------------------------------------------------------------


def test_501_leads_to_a_plain_ready_on_a_fresh_link() -> None:
    """A strict broker may by now take the first link for a client's."""
    bench = WorkerBench(services=(ECHO, ServiceOffer(b"sum")), concurrency=4)
    bench.opened(1)
    assert bench.greet_501(1) == [("close", 1), ("open", 2, "a")]
    assert bench.opened(2) == [("plain ready", 2, b"echo")]
    snapshot = bench.engine.snapshot()
    assert snapshot.registered == 1
    assert snapshot.brokers[0].foreign
    assert bench.counters.downgrades == 1


def test_a_plain_request_is_answered_to_its_address() -> None:
    """The address frame comes back byte for byte."""
    bench = WorkerBench()
    bench.register_plain()
    assert bench.deliver_plain(b"\x00\xff client", b"a", b"b") == [("start", 1, b"a", b"b")]
    assert bench.tick(0.5) == [], "MDP 0.1 has no STARTED"
    assert bench.handle(JobProgress(1, [b"x"])) == []
    assert bench.finish(1, b"r", b"s") == [("plain reply", 2, b"\x00\xff client", b"r", b"s")]


def test_a_plain_broker_gets_one_request_at_a_time() -> None:
    """7/MDP: a worker handles at most one."""
    bench = WorkerBench(concurrency=4)
    bench.register_plain()
    bench.deliver_plain(b"one")
    assert bench.deliver_plain(b"two") == []
    assert bench.counters.dropped == 1
    bench.finish(1, b"r")
    assert bench.deliver_plain(b"two") == [("start", 2, b"work")]


def test_equal_plain_requests_are_two_requests() -> None:
    """Without ids nothing may be joined."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain(b"same")
    bench.finish(1, b"r")
    assert bench.deliver_plain(b"same") == [("start", 2, b"work")]


def test_a_plain_broker_is_not_left_while_its_request_runs() -> None:
    """Most say nothing to a busy worker; the reply would be lost."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain()
    lines = bench.tick(60.0)
    assert set(lines) == {("beat", 2)}
    assert len(lines) == 60
    assert bench.finish(1, b"r") == [("plain reply", 2, b"client", b"r")]
    assert bench.tick(7.4)[-1] == ("beat", 2)
    assert bench.tick(0.1) == [("close", 2)]


def test_a_plain_reply_never_goes_to_another_link() -> None:
    """After a restart the same address is somebody else."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain()
    assert bench.closed(2) == [("cancel job", 1)]
    bench.tick(0.05)
    bench.opened(3)
    bench.greet_501(3)
    bench.opened(4)
    bench.trace()
    assert bench.finish(1, b"r") == []
    assert bench.counters.replies_dropped == 1


@pytest.mark.parametrize("how", ["failed", "too large", "in parts"])
def test_what_a_plain_broker_cannot_be_told_ends_the_registration(how: str) -> None:
    """MDP has no word for a failure; a worker that never answers would count as busy for ever."""
    bench = WorkerBench(limits=Limits(message_bytes_max=2000))
    bench.register_plain()
    bench.deliver_plain()
    if how == "failed":
        lines = bench.fail(1)
    elif how == "too large":
        lines = bench.finish(1, b"x" * 3000)
    else:
        bench.handle(JobPartial(1, [b"1"]))
        lines = bench.finish(1, b"2")
    assert lines == [("disconnect", 2), ("close", 2, "linger")]
    assert bench.tick(0.05) == [("open", 3, "a")]


def test_a_plain_reply_that_the_socket_did_not_take_is_offered_again() -> None:
    """As for our own brokers."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain()
    bench.engine.handle(JobFinished(1, [b"r"]), bench.now)
    bench.unsent(bench.sends()[0])
    assert bench.tick(0.05) == [("plain reply", 2, b"client", b"r")]


def test_a_broker_of_ours_in_the_place_of_another_is_found_at_the_next_link() -> None:
    """A downgrade counts for one link."""
    bench = WorkerBench()
    bench.register_plain()
    bench.closed(2)
    bench.tick(0.05)
    assert bench.opened(3) == [("hello", 3)]
    assert bench.greet(3) == [("ready", 3, 1, NO_LIFE)]


def test_a_plain_broker_in_the_place_of_ours_voids_the_tokens() -> None:
    """Whatever life that was, it is over."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.closed(1)
    bench.tick(0.05)
    bench.opened(2)
    bench.greet_501(2)
    bench.opened(3)
    bench.trace()
    assert bench.finish(1, b"r") == []
    assert bench.counters.replies_dropped == 1


# --- junk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"junk"],
        [b"MDPW02"],
        [b"MDPW02", b"\x09"],
        [b"MDPW02", b"\x02", b"token"],
        [b"MDPW02", b"\x02", b"short", b"", b"body"],
        [b"MDPW02", b"\x02", b"t" * 16, b"", b"body"],
        [b"MDPW02", b"\x01", b"echo"],
        [b"MDPW02", b"\x04", b"t" * 16, b"", b"body"],
        [b"", b"MDPW01", b"\x04"],
        [b"", b"MDPC01", b"mmi.reliable", b"200"],
    ],
)
def test_junk_of_a_broker_is_counted_and_nothing_else(frames: list[bytes]) -> None:
    """No bytes of a peer can raise out of the engine, and a broker that sends some is not our death."""
    bench = WorkerBench()
    bench.register()
    for _ in range(100):
        assert bench.receive(1, list(frames)) == []
    assert bench.counters.dropped == 100
    assert isinstance(bench.seen[-1], MessageDropped)
    assert bench.deliver(bench.token()) == [("start", 1, b"work")]


def test_junk_is_no_sign_of_life() -> None:
    """Something that does not speak the protocol is no broker."""
    bench = WorkerBench()
    bench.register()
    for _ in range(4):
        bench.receive(1, [b"junk"])
        bench.tick(1.0)
    assert bench.counters.brokers_silent == 1


def test_a_delivery_of_ours_that_cannot_be_read_is_given_back() -> None:
    """Of a later version, say: the broker would else wait for it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    address = token + b"RLX\x01\x77"
    lines = bench.receive(1, WorkerRequest(Version.MDP02, address, [b"x"]).encode())
    assert lines == [("give back", 1, token, "BAD_DELIVERY")]
    assert bench.counters.dropped == 1


# --- drain ----------------------------------------------------------------------------------------


def test_a_drain_ends_in_order() -> None:
    """Credit gone, unstarted given back, running finished, goodbye, stopped."""
    bench, running, waiting = busy_bench()
    assert bench.drain() == [("credit", 1, 0), ("give back", 1, waiting, "DRAINING")]
    assert bench.control(ACK, DeliveryKind.CREDIT_ACK) == []
    assert bench.tick(0.3) == [("started", 1, running)]
    assert bench.finish(1, b"r") == [
        ("result", 1, running, b"r"),
        ("disconnect", 1),
        ("close", 1, "linger"),
        ("stopped", 0),
    ]
    assert bench.engine.stopped
    assert bench.engine.next_deadline() is None
    assert bench.tick(60.0) == []


def test_an_idle_worker_leaves_when_the_broker_has_seen_the_credit() -> None:
    """A request that crosses the goodbye would be lost, so we wait for the broker to know."""
    bench = WorkerBench()
    bench.register()
    assert bench.drain() == [("credit", 1, 0)]
    crossing = bench.token()
    assert bench.deliver(crossing) == [("give back", 1, crossing, "DRAINING")]
    assert bench.control(ACK, DeliveryKind.CREDIT_ACK) == [
        ("disconnect", 1),
        ("close", 1, "linger"),
        ("stopped", 0),
    ]


def test_a_broker_that_does_not_acknowledge_is_left_after_a_second() -> None:
    """A drain ends whatever the broker does."""
    bench = WorkerBench()
    bench.register()
    bench.drain()
    assert bench.tick(0.99) == []
    assert bench.tick(0.01)[-3:] == [("disconnect", 1), ("close", 1, "linger"), ("stopped", 0)]


def test_at_the_deadline_the_worker_goes_and_says_what_it_left() -> None:
    """A handler that does not end must not keep the process."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.drain(2.0)
    bench.control(ACK, DeliveryKind.CREDIT_ACK)
    bench.beat(1)
    assert bench.tick(2.0)[-3:] == [("disconnect", 1), ("close", 1, "linger"), ("stopped", 1)]
    assert bench.finish(1, b"r") == [], "the handler may end later; nobody is there to be told"


def test_a_second_drain_can_only_shorten_the_first() -> None:
    """A second signal means now."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.drain(10.0)
    assert bench.drain(20.0) == []
    assert bench.drain(0.0) == [("disconnect", 1), ("close", 1, "linger"), ("stopped", 1)]


def test_a_later_deadline_does_not_prolong_a_drain() -> None:
    """Whoever asked first may rely on it."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.drain(2.0)
    bench.drain(20.0)
    assert bench.tick(2.0)[-1] == ("stopped", 1)


def test_a_drain_without_any_broker_stops_at_once() -> None:
    """There is nobody to say goodbye to."""
    bench = WorkerBench("a", "b")
    bench.trace()
    bench.opened(1)
    assert bench.drain() == [("close", 1), ("close", 2), ("stopped", 0)]


def test_a_drain_before_the_start_stops_at_once() -> None:
    """A signal may come first."""
    bench = WorkerBench(start=False)
    assert bench.drain() == [("stopped", 0)]
    with pytest.raises(LocalProtocolError):
        bench.engine.start(bench.now)


def test_a_running_call_brings_the_worker_back_even_while_it_drains() -> None:
    """The reply is worth a new link; no new work comes with it."""
    bench = WorkerBench()
    bench.register()
    token = bench.token()
    bench.deliver(token)
    bench.drain()
    bench.closed(1)
    assert bench.tick(0.05) == [("open", 2, "a")]
    bench.opened(2)
    assert bench.greet(2) == [("ready", 2, 0, LIFE_A, token)]
    assert bench.finish(1, b"r") == [
        ("result", 2, token, b"r"),
        ("disconnect", 2),
        ("close", 2, "linger"),
        ("stopped", 0),
    ]


def test_a_draining_worker_still_joins_and_replays() -> None:
    """Giving back what runs here would send it to run elsewhere too."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first)
    bench.drain()
    assert bench.deliver(second, link=2) == []
    assert bench.finish(1, b"r") == [("result", 1, first, b"r"), ("result", 2, second, b"r")]


def test_a_draining_worker_leaves_a_plain_broker_after_its_reply() -> None:
    """There is no credit to take back: DISCONNECT gives back whatever crosses it."""
    bench = WorkerBench()
    bench.register_plain()
    bench.deliver_plain()
    assert bench.drain() == []
    assert bench.finish(1, b"r") == [
        ("plain reply", 2, b"client", b"r"),
        ("disconnect", 2),
        ("close", 2, "linger"),
        ("stopped", 0),
    ]


def test_a_draining_worker_gives_an_unstarted_plain_request_back_by_leaving() -> None:
    """7/MDP: the broker takes back what a disconnected worker held."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.opened(2)
    bench.greet_501(2)
    bench.opened(3)
    bench.deliver(bench.token())
    assert bench.deliver_plain(link=3) == []
    assert bench.drain() == [("credit", 1, 0), ("disconnect", 3), ("close", 3, "linger")]
    assert bench.finish(1, b"r")[0][0] == "result"


# --- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        Received(2, [b"x"]),
        LinkOpened(0),
        LinkClosed(99, LinkEnd.LOST),
        Unsent(2, None),
        JobFinished(1, [b"r"]),
        JobProgress(1, [b"x"]),
        JobPartial(0, [b"x"]),
    ],
)
def test_what_was_never_given_out_is_our_own_mistake(event: object) -> None:
    """A shell that mixes up numbers must hear of it, before anything changes."""
    bench = WorkerBench()
    before = bench.engine.snapshot()
    with pytest.raises(LocalProtocolError):
        bench.engine.handle(event, bench.now)  # type: ignore[arg-type]
    assert bench.engine.snapshot() == before


def test_a_job_ends_once() -> None:
    """A second end would answer somebody twice."""
    bench = WorkerBench()
    bench.register()
    bench.deliver(bench.token())
    bench.finish(1, b"r")
    with pytest.raises(LocalProtocolError):
        bench.finish(1, b"r")
    assert bench.handle(JobProgress(1, [b"late"])) == []
    assert bench.handle(JobPartial(1, [b"late"])) == []


def test_time_never_goes_back() -> None:
    """Every deadline here rests on that."""
    bench = WorkerBench()
    with pytest.raises(LocalProtocolError):
        bench.engine.timers(99.0)
    with pytest.raises(LocalProtocolError):
        bench.engine.handle(Drain(200.0), 99.0)
    with pytest.raises(LocalProtocolError):
        bench.engine.start(101.0)


@pytest.mark.parametrize(
    ("brokers", "services", "instance"),
    [
        ((), (ECHO,), INSTANCE),
        (("a",), (), INSTANCE),
        (("a",), (ECHO, ECHO), INSTANCE),
        (("a",), (ServiceOffer(b"mmi.echo"),), INSTANCE),
        (("a",), (ServiceOffer(b""),), INSTANCE),
        (("a",), (ServiceOffer(b"with space"),), INSTANCE),
        (("a",), (ECHO,), b"short"),
    ],
)
def test_bad_settings_are_refused_when_built(
    brokers: tuple[str, ...], services: tuple[ServiceOffer, ...], instance: bytes
) -> None:
    """Better than a worker that no broker ever takes."""
    with pytest.raises(ValueError, match=r"."):
        WorkerEngine(brokers, services, WorkerConfig(), instance=instance, jitter=lambda: 0.5)


def test_zero_jitter_does_not_make_the_shell_spin() -> None:
    """A wait of zero makes two steps due at once; both are taken."""
    bench = WorkerBench(jitter=lambda: 0.0)
    bench.trace()
    bench.closed(1)
    assert bench.tick(0.0) == [("open", 2, "a")]
    assert (bench.engine.next_deadline() or -math.inf) > bench.now
