"""The worker of 6/PPP as a machine: literal times, every way in which a link or a handler can end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.config import Backoff, Heartbeat
from reliable.errors import LocalProtocolError
from reliable.protocol.events import (
    CloseLink,
    Drain,
    JobError,
    JobFinished,
    JobPartial,
    LinkClosed,
    LinkEnd,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    StartJob,
    Unsent,
    WorkerEffect,
    WorkerEvent,
    WorkerStopped,
)
from reliable.protocol.ppp_worker import PppWorkerConfig, PppWorkerEngine

URL = "tcp://127.0.0.1:5556"
START = 1000.0
READY, HEARTBEAT = [b"\1"], [b"\2"]
REQUEST = [b"token", b"", b"hello"]


class Desk:
    """An engine with its clock."""

    def __init__(self, config: PppWorkerConfig | None = None, u: float = 0.0) -> None:
        self.engine = PppWorkerEngine(URL, config, jitter=lambda: u)
        self.now = START

    def feed(self, event: WorkerEvent) -> list[WorkerEffect]:
        """An event, and what follows from it."""
        self.engine.handle(event, self.now)
        return self.engine.effects()

    def receive(self, *frames: bytes, link: int = 1) -> list[WorkerEffect]:
        """A message of the queue."""
        return self.feed(Received(link, list(frames)))

    def advance(self, seconds: float) -> list[tuple[float, WorkerEffect]]:
        """Let time pass; what was done, and how many seconds after the start."""
        end, done = self.now + seconds, []
        while True:
            due = self.engine.next_deadline()
            self.now = end if due is None else min(end, max(due, self.now))
            self.engine.timers(self.now)
            done += [(self.now - START, effect) for effect in self.engine.effects()]
            due = self.engine.next_deadline()
            assert due is None or due > self.now
            if self.now >= end:
                return done

    @property
    def state(self) -> str:
        """As the snapshot has it."""
        return self.engine.snapshot().state


def talking(config: PppWorkerConfig | None = None, u: float = 0.0) -> Desk:
    """A worker that has said READY."""
    desk = Desk(config, u)
    assert desk.engine.effects() == [OpenLink(1, URL)]
    assert desk.feed(LinkOpened(1)) == [Send(1, READY)]
    return desk


def test_ready_is_the_first_message_of_each_link() -> None:
    """PPP-1: and nothing is said before the link is up."""
    desk = Desk()
    assert desk.engine.effects() == [OpenLink(1, URL)]
    assert desk.advance(100.0) == []
    assert desk.feed(LinkOpened(1)) == [Send(1, READY)]


def test_heartbeats_go_out_each_interval_also_while_a_handler_runs() -> None:
    """PPP-9: the guide's worker falls silent while it works, and is taken for dead."""
    desk = talking()
    assert desk.receive(*REQUEST) == [StartJob(job=1, service=b"", body=[b"hello"], deadline=None)]
    done = []
    for _ in range(5):
        done += desk.advance(1.0)
        desk.receive(*HEARTBEAT)
    assert done == [(float(second), Send(1, HEARTBEAT)) for second in range(1, 6)]
    assert desk.engine.snapshot().busy


def test_the_reply_carries_the_stack_of_the_request() -> None:
    """PPP-5: whatever it is; and whatever is sent postpones the next heartbeat."""
    desk = talking()
    desk.receive(b"a", b"b", b"", b"", b"x")
    desk.now += 0.5
    assert desk.feed(JobFinished(1, [b"world", b""])) == [Send(1, [b"a", b"b", b"", b"world", b""])]
    assert desk.advance(0.999) == []
    desk.receive(*REQUEST)
    assert desk.feed(JobFinished(2, [])) == [Send(1, [b"token", b"", b""])]


def test_a_silent_queue_is_left_before_the_pause_begins() -> None:
    """PPP-11, PPP-12: the guide's worker sleeps with the socket open, and is fed into it; READY follows the pause."""
    desk = talking()
    assert desk.advance(3.5) == [(1.0, Send(1, HEARTBEAT)), (2.0, Send(1, HEARTBEAT)), (3.0, CloseLink(1)),
                                 (3.5, OpenLink(2, URL))]  # fmt: skip
    assert desk.feed(LinkOpened(2)) == [Send(2, READY)]


def test_any_message_is_a_sign_of_life() -> None:
    """PPP-16: requests, too, and even what cannot be read."""
    for frames in (HEARTBEAT, REQUEST, [b"x", b""], [b""]):
        desk = talking()
        desk.advance(2.9)
        desk.receive(*frames)
        desk.advance(2.9)
        assert desk.state == "talking", frames


def test_pauses_double_up_to_the_limit() -> None:
    """1, 2, 4 … 32 s: a queue that is down for an hour must not be knocked at all the time."""
    desk = Desk(u=0.999_999_999)
    pauses = []
    for link in range(1, 9):
        desk.engine.effects()
        desk.feed(LinkClosed(link, LinkEnd.REFUSED))
        began = desk.now
        desk.advance((desk.engine.next_deadline() or 0.0) - desk.now)
        pauses.append(round(desk.now - began))
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


@pytest.mark.parametrize(("u", "pause"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_pauses_have_jitter(u: float, pause: float) -> None:
    """All workers of a queue lose it at the same moment; they must not all come back in the next one."""
    desk = talking(u=u)
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    assert desk.engine.next_deadline() == START + pause


def test_only_a_real_sign_of_life_resets_the_pauses() -> None:
    """A connection that comes up may belong to anybody who listens there."""
    desk = Desk()
    for link in (1, 2, 3):
        desk.feed(LinkOpened(link))
        desk.receive(b"x", b"", link=link)
        desk.feed(LinkClosed(link, LinkEnd.LOST))
        assert desk.engine.snapshot().attempt == link
        desk.advance(10.0)
    desk.feed(LinkOpened(4))
    desk.receive(*HEARTBEAT, link=4)
    assert desk.engine.snapshot().attempt == 0


def test_own_stall_is_not_the_queues_silence() -> None:
    """A laptop that slept must not leave a queue that was there all the time."""
    desk = talking()
    desk.now += 60.0
    desk.engine.stalled(60.0, desk.now)
    assert desk.advance(0.0) == [(60.0, Send(1, HEARTBEAT))]
    assert desk.state == "talking"
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    desk.engine.stalled(60.0, desk.now)
    assert desk.state == "paused"


def test_the_result_of_a_handler_whose_link_is_gone_is_dropped() -> None:
    """PPP-20: the queue has given the request to another worker; and READY waits until the handler has ended."""
    desk = talking()
    desk.receive(*REQUEST)
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    assert desk.advance(100.0) == []
    assert desk.feed(JobFinished(1, [b"late"])) == [OpenLink(2, URL)]
    assert desk.engine.counters.late_results == 1


def test_a_handler_that_ends_during_the_pause_does_not_shorten_it() -> None:
    """The pause is the queue's protection, not the handler's."""
    desk = talking()
    desk.receive(*REQUEST)
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    assert desk.feed(JobFinished(1, [b"late"])) == []
    assert desk.advance(0.5) == [(0.5, OpenLink(2, URL))]


def test_a_handler_that_failed_gives_its_request_back() -> None:
    """6/PPP has no word for it; READY of a busy worker has the queue hand the request to another one (PPP-19)."""
    desk = talking()
    desk.receive(*REQUEST)
    assert desk.feed(JobFinished(1, JobError("ValueError", "no"))) == [Send(1, READY)]
    assert desk.engine.counters.given_back == 1


def test_requests_ahead_of_time_wait_within_a_bound() -> None:
    """PPP-18: the guide's queue books busy workers twice; one handler runs at a time all the same."""
    desk = talking(PppWorkerConfig(waiting_max=1))
    assert len(desk.receive(b"t1", b"", b"1")) == 1
    assert desk.receive(b"t2", b"", b"2") == []
    assert desk.receive(b"t3", b"", b"3") == []
    assert desk.feed(JobFinished(1, [b"a"])) == [
        Send(1, [b"t1", b"", b"a"]),
        StartJob(job=2, service=b"", body=[b"2"], deadline=None),
    ]
    assert desk.feed(JobFinished(2, [b"b"])) == [Send(1, [b"t2", b"", b"b"])]
    assert desk.engine.counters.dropped == 1


def test_what_waits_is_forgotten_with_its_link() -> None:
    """Others have it by now."""
    desk = talking()
    desk.receive(b"t1", b"", b"1")
    desk.receive(b"t2", b"", b"2")
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    assert desk.engine.snapshot().waiting == 0


def test_a_message_that_the_socket_does_not_take_ends_the_link() -> None:
    """A reply that is stuck here would never be sent; the queue must give the request to another one."""
    desk = talking()
    desk.receive(*REQUEST)
    desk.feed(JobFinished(1, [b"world"]))
    assert desk.feed(Unsent(1, None)) == [CloseLink(1)]
    assert desk.state == "paused"
    assert desk.feed(Unsent(1, None)) == []


def test_events_of_links_that_are_over_change_nothing() -> None:
    """A shell may have had them on the way."""
    desk = talking()
    desk.feed(LinkClosed(1, LinkEnd.LOST))
    for event in (LinkOpened(1), LinkClosed(1, LinkEnd.LOST), Received(1, list(REQUEST))):
        assert desk.feed(event) == []
    assert desk.engine.counters.queues_lost == 1
    assert desk.state == "paused"


def test_an_idle_worker_stops_at_once() -> None:
    """6/PPP has no goodbye: the closed connection tells the queue."""
    desk = talking()
    assert desk.feed(Drain(START + 10.0)) == [CloseLink(1, linger=True), WorkerStopped(0)]
    assert desk.advance(100.0) == []
    assert desk.feed(Drain(START + 10.0)) == []


def test_a_busy_worker_stops_after_its_reply() -> None:
    """Nothing new is begun meanwhile."""
    desk = talking()
    desk.receive(b"t1", b"", b"1")
    desk.receive(b"t2", b"", b"2")
    assert desk.feed(Drain(START + 10.0)) == []
    assert desk.receive(b"t3", b"", b"3") == []
    assert desk.feed(JobFinished(1, [b"a"])) == [
        Send(1, [b"t1", b"", b"a"]),
        CloseLink(1, linger=True),
        WorkerStopped(0),
    ]


def test_a_handler_that_does_not_end_is_left_behind() -> None:
    """A stop has a bound; the late result is nobody's."""
    desk = talking(PppWorkerConfig(heartbeat=Heartbeat(interval_s=10.0, timeout_s=30.0)))
    desk.receive(*REQUEST)
    desk.feed(Drain(START + 2.0))
    assert desk.advance(2.0) == [(2.0, CloseLink(1, linger=True)), (2.0, WorkerStopped(1))]
    assert desk.feed(JobFinished(1, [b"late"])) == []


def test_a_stopping_worker_that_loses_its_link_has_stopped() -> None:
    """There is nobody to send the reply to, and nothing to come back for."""
    desk = talking()
    desk.receive(*REQUEST)
    desk.feed(Drain(START + 10.0))
    assert desk.feed(LinkClosed(1, LinkEnd.LOST)) == [WorkerStopped(1)]
    paused = talking()
    paused.feed(LinkClosed(1, LinkEnd.LOST))
    assert paused.feed(Drain(START + 10.0)) == [WorkerStopped(0)]


def test_misuse_is_an_error() -> None:
    """A shell that reports what never ran has lost count."""
    desk = talking()
    with pytest.raises(LocalProtocolError):
        desk.feed(JobFinished(1, [b"x"]))
    with pytest.raises(LocalProtocolError):
        desk.feed(JobPartial(1, [b"x"]))
    with pytest.raises(ValueError, match="waiting_max"):
        PppWorkerConfig(waiting_max=-1)


@given(
    st.lists(
        st.sampled_from(["open", "close", "request", "heartbeat", "junk", "finish", "fail", "unsent", "drain"])
        | st.floats(min_value=0.0, max_value=40.0),
        max_size=40,
    )
)
def test_in_every_history_one_handler_runs_and_ready_comes_first(steps: list[str | float]) -> None:
    """Whatever happens: effects only concern open links, and no deadline is left behind."""
    desk = Desk(PppWorkerConfig(reconnect=Backoff(initial_s=1.0, delay_s_max=4.0)))
    link, said, running = 1, 0, 0
    effects: list[WorkerEffect] = desk.engine.effects()
    for step in steps:
        match step:
            case float():
                effects += [effect for _, effect in desk.advance(step)]
            case "open":
                effects += desk.feed(LinkOpened(link))
            case "close":
                effects += desk.feed(LinkClosed(link, LinkEnd.LOST))
            case "request":
                effects += desk.receive(*REQUEST, link=link)
            case "heartbeat":
                effects += desk.receive(*HEARTBEAT, link=link)
            case "junk":
                effects += desk.receive(b"x", b"", link=link)
            case "unsent":
                effects += desk.feed(Unsent(link, None))
            case "drain":
                effects += desk.feed(Drain(desk.now + 5.0))
            case _ if running:
                result = JobError("E", "x") if step == "fail" else [b"x"]
                effects += desk.feed(JobFinished(running, result))
                running = 0
        for effect in effects:
            match effect:
                case OpenLink(number):
                    assert number == link + 1 or number == 1
                    link, said = number, 0
                case Send(number, frames):
                    assert number == link
                    assert said or frames == READY
                    said += 1
                case StartJob(job=job):
                    assert not running
                    running = job
        effects = []
