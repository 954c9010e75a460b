"""The worker against model brokers that do whatever brokers, links and handlers may do, in any order."""

from __future__ import annotations

import attrs
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from reliable.config import Backoff, TransportConfig, WorkerConfig
from reliable.engine.worker import WorkerEngine
from reliable.protocol.events import (
    CancelJob,
    CloseLink,
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
    WorkerEffect,
    WorkerStopped,
)
from reliable.types import Frames
from reliable.wire.extension import (
    CONTROL_TOKEN,
    CallFlag,
    Delivery,
    DeliveryKind,
    HelloAnswer,
    ReadyExtension,
    Report,
    ReportKind,
    body_digest,
    make_token,
)
from reliable.wire.mdp import (
    ClientReply,
    ClientRequest,
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
    decode_at_broker,
)
from reliable.wire.mmi import TIME_QUERY, time_answer
from tests.support.worker_bench import ECHO, INSTANCE, call_id

PATIENCE_S = 30.0
GRACE_S = 5.0
KEPT_S = 60.0
DOUBT_S = 5.0
SLACK_S = 1e-6


@attrs.define
class Token:
    """One delivery, as its broker knows it."""

    call: int
    finals: int = 0
    """Final reports that arrived for all that the worker can know."""
    final_at: float = 0.0
    final_link: int = 0
    named_in_ready: bool = True
    """False once a READY of the same life left it out: the broker has closed its books."""


@attrs.define
class Broker:
    """One address: the process behind it, and the worker's link to it."""

    address: str
    number: int
    lives: int = 1
    plain: bool = False
    link: int | None = None
    open: bool = False
    asked: bool = False
    ready: bool = False
    link_plain: bool = False
    greeted_at: float = 0.0
    last_said: float = 0.0
    questions: list[bytes] = attrs.Factory(list)
    """About the time, on this link, that are not answered yet: their stamps."""
    tokens: dict[bytes, Token] = attrs.Factory(dict)
    """Of this life."""
    newest: int = 0
    """Of the deliveries of this life, the counter of the newest one that came."""
    in_hand: bytes | None = None
    """The address of a plain request that is not answered."""

    @property
    def life(self) -> bytes:
        return b"L%d-%05d" % (self.number, self.lives)

    def unlink(self) -> None:
        self.link, self.open, self.asked, self.ready, self.in_hand = None, False, False, False, None
        self.questions.clear()

    def restart(self) -> None:
        self.lives += 1
        self.tokens = {}
        self.newest = 0


@attrs.define
class Run:
    """One start of a handler."""

    call: int | None
    deadline: float
    ended_at: float | None = None
    told_to_stop: bool = False
    stopped: bool = False
    """It ended with an error after it was told to stop, which is not the reply of an idempotent call."""


class WorkerMachine(RuleBasedStateMachine):
    """Rules are what may happen; every effect is judged as it comes out."""

    engine: WorkerEngine

    @initialize(
        brokers=st.integers(1, 3),
        concurrency=st.integers(1, 3),
        jitter=st.sampled_from([0.0, 0.3, 0.999]),
        up=st.booleans(),
    )
    def begin(self, brokers: int, concurrency: int, jitter: float, up: bool) -> None:
        self.brokers = [Broker(f"b{number}", number) for number in range(brokers)]
        self.concurrency = concurrency
        config = WorkerConfig(
            concurrency=concurrency,
            reconnect=Backoff(initial_s=0.1, delay_s_max=1.0),
            hello_timeout_s=1.0,
            replies_kept_s=KEPT_S,
            transport=TransportConfig(time_check_s=2.0),
        )
        self.config = config
        self.engine = WorkerEngine(
            [broker.address for broker in self.brokers], [ECHO], config, instance=INSTANCE, jitter=lambda: jitter
        )
        self.now = 1000.0
        self.calls = 0
        self.deadlines: dict[int, float] = {}
        self.runs: dict[int, Run] = {}
        self.numbers = 0
        self.refusable: list[Send] = []
        self.dead_links: set[int] = set()
        self.drained = False
        self.stopped = False
        self.stalled_at = -1.0
        self.engine.start(self.now)
        self.judge()
        if up:
            self.everything_comes_up()

    # --- judging what comes out ---

    def judge(self) -> None:
        for effect in self.engine.effects():
            assert not self.stopped, "nothing happens after WorkerStopped"
            self.judge_effect(effect)

    def judge_effect(self, effect: WorkerEffect) -> None:
        match effect:
            case OpenLink():
                broker = next(broker for broker in self.brokers if broker.address == effect.address)
                assert broker.link is None, "one link at a time"
                assert effect.link not in self.dead_links, "a link number is used once"
                broker.link = effect.link
            case CloseLink():
                broker = self.broker_of(effect.link)
                self.dead_links.add(effect.link)
                broker.unlink()
            case Send():
                broker = self.broker_of(effect.link)
                assert broker.open, "nothing is sent before the link is open or after it is over"
                broker.last_said = self.now
                self.refusable.append(effect)
                self.judge_message(broker, effect.frames)
            case StartJob():
                self.judge_start(effect)
            case CancelJob():
                assert self.runs[effect.job].ended_at is None
                self.runs[effect.job].told_to_stop = True
            case WorkerStopped():
                assert self.drained
                assert effect.unfinished == len(self.running())
                assert all(broker.link is None for broker in self.brokers)
                self.stopped = True

    def broker_of(self, link: int) -> Broker:
        return next(broker for broker in self.brokers if broker.link == link)

    def judge_message(self, broker: Broker, frames: Frames) -> None:
        command = decode_at_broker(frames)
        match command:
            case ClientRequest(service=service) if service == TIME_QUERY:
                assert broker.ready and not broker.link_plain
                broker.questions.append(command.body[0])
            case ClientRequest():
                assert not broker.asked and not broker.ready
                broker.asked = True
            case WorkerReady(extension=b""):
                assert broker.link_plain and not broker.ready and not broker.asked
                broker.ready = True
            case WorkerReady():
                assert broker.asked and not broker.ready, "one READY on each link, and only after the answer"
                broker.ready = True
                ready = ReadyExtension.decode(command.extension)
                assert ready.newest == broker.newest
                assert ready.credit == 0 if self.drained else ready.credit >= 1
                for token in ready.tokens:
                    self.judge_named(broker, broker.tokens[token])
                for token, record in broker.tokens.items():
                    record.named_in_ready &= token in ready.tokens
            case WorkerReply(version=Version.MDP01):
                assert broker.ready and broker.link_plain and command.address == broker.in_hand
                broker.in_hand = None
            case WorkerReply():
                assert broker.ready and not broker.link_plain
                self.judge_report(broker, command)
            case WorkerHeartbeat() | WorkerDisconnect():
                assert broker.ready

    def judge_named(self, broker: Broker, token: Token) -> None:
        """A token that was answered is named again only if the answer may be lost."""
        if token.finals:
            assert token.final_link != broker.link, "on one link nothing is said twice"
            assert self.now - token.final_at <= 2 * DOUBT_S + SLACK_S, "it arrived long ago"
            token.finals = 0

    def judge_report(self, broker: Broker, reply: WorkerReply) -> None:
        report = Report.decode(reply.address)
        assert reply.final is report.kind.final
        if report.kind is ReportKind.CREDIT:
            assert self.drained and report.token == CONTROL_TOKEN
            return
        token = broker.tokens[report.token]
        assert token.finals == 0, "nothing about a token after its final report"
        assert token.named_in_ready
        if report.kind.final:
            assert broker.link is not None
            token.finals, token.final_at, token.final_link = token.finals + 1, self.now, broker.link
        runs = [run for run in self.runs.values() if run.call == token.call]
        if report.kind is ReportKind.RESULT:
            assert reply.body == [b"reply-%d" % token.call]
            assert any(run.ended_at is not None for run in runs)
        elif report.kind in (ReportKind.STARTED, ReportKind.PARTIAL, ReportKind.PROGRESS):
            assert any(run.ended_at is None for run in runs)

    def judge_start(self, start: StartJob) -> None:
        assert not self.drained
        assert start.job not in self.runs
        call = int(start.call_id[5:]) if start.call_id else None
        if call is not None:
            assert start.deadline is not None and start.deadline > self.now
            for run in self.runs.values():
                if run.call == call:
                    assert run.ended_at is not None, "the same call twice at once"
                    assert run.stopped or self.now >= min(run.ended_at + KEPT_S, run.deadline + GRACE_S) - SLACK_S, (
                        "it was kept"
                    )
        deadline = self.now + KEPT_S if start.deadline is None else start.deadline
        self.runs[start.job] = Run(call, deadline)
        assert len(self.running()) <= self.concurrency

    def running(self) -> list[int]:
        return [job for job, run in self.runs.items() if run.ended_at is None]

    # --- letting things happen ---

    def handle(self, event: object) -> None:
        self.engine.handle(event, self.now)  # type: ignore[arg-type]
        self.judge()

    def receive(self, broker: Broker, frames: Frames) -> None:
        assert broker.link is not None
        self.handle(Received(broker.link, frames))

    def pick(self, data: st.DataObject, which: list[Broker]) -> Broker | None:
        return data.draw(st.sampled_from(which)) if which else None

    @precondition(lambda self: any(broker.link is not None and not broker.open for broker in self.brokers))
    @rule(data=st.data(), up=st.booleans())
    def link_comes_up_or_not(self, data: st.DataObject, up: bool) -> None:
        broker = self.pick(data, [broker for broker in self.brokers if broker.link is not None and not broker.open])
        if broker is None:
            return
        if up:
            self.open_link(broker)
        else:
            self.break_link(broker, data.draw(st.sampled_from(LinkEnd)))

    def open_link(self, broker: Broker) -> None:
        assert broker.link is not None
        broker.open = True
        self.handle(LinkOpened(broker.link))

    def break_link(self, broker: Broker, end: LinkEnd) -> None:
        link = broker.link
        assert link is not None
        self.dead_links.add(link)
        broker.unlink()
        broker.link_plain = False
        self.handle(LinkClosed(link, end))

    @precondition(lambda self: any(broker.asked and not broker.ready for broker in self.brokers))
    @rule(data=st.data())
    def hello_is_answered(self, data: st.DataObject) -> None:
        broker = self.pick(data, [broker for broker in self.brokers if broker.asked and not broker.ready])
        if broker is not None:
            self.answer_hello(broker)

    def answer_hello(self, broker: Broker) -> None:
        if broker.plain:
            broker.link_plain = True
            self.receive(broker, ClientReply(Version.MDP01, b"mmi.reliable", [b"501"]).encode())
        else:
            broker.link_plain = False
            broker.greeted_at = self.now
            answer = [b"200", *HelloAnswer(broker.life).encode()]
            self.receive(broker, ClientReply(Version.MDP01, b"mmi.reliable", answer).encode())

    @precondition(lambda self: not self.stopped and not all(broker.ready for broker in self.brokers))
    @rule()
    def everything_comes_up(self) -> None:
        """The short way to a registered worker, so that runs do not spend all their steps on it."""
        for broker in self.brokers:
            self.bring_up(broker)

    def bring_up(self, broker: Broker) -> None:
        for _ in range(20):
            if broker.ready or self.stopped:
                return
            if broker.asked:
                self.answer_hello(broker)
            elif broker.link is not None and not broker.open:
                self.open_link(broker)
            else:
                self.pass_time(self.now + 1.0)

    @precondition(lambda self: self.calls > 2)
    @rule(data=st.data(), end=st.sampled_from(LinkEnd), restart=st.booleans(), plain=st.booleans())
    def broker_or_link_dies(self, data: st.DataObject, end: LinkEnd, restart: bool, plain: bool) -> None:
        broker = self.pick(data, [broker for broker in self.brokers if broker.link is not None])
        if broker is None:
            return
        self.break_link(broker, end)
        if restart or plain != broker.plain:
            broker.plain = plain
            broker.restart()

    def ours(self) -> list[Broker]:
        return [broker for broker in self.brokers if broker.ready and not broker.link_plain]

    @precondition(lambda self: bool(self.ours()))
    @rule(data=st.data(), new=st.booleans(), patience_s=st.sampled_from([0.5, PATIENCE_S]), again=st.booleans())
    def broker_delivers(self, data: st.DataObject, new: bool, patience_s: float, again: bool) -> None:
        self.deliver(data, new, patience_s, again)

    @precondition(lambda self: bool(self.ours()))
    @rule(data=st.data(), count=st.integers(2, 5))
    def broker_delivers_many(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            self.deliver(data, True, PATIENCE_S, False)

    def deliver(self, data: st.DataObject, new: bool, patience_s: float, again: bool) -> None:
        broker = self.pick(data, self.ours())
        if broker is None:
            return
        if new or not self.calls:
            self.calls += 1
            self.deadlines[self.calls] = self.now + patience_s
            call = self.calls
        else:
            call = data.draw(st.integers(max(1, self.calls - 3), self.calls))
        self.numbers += 1
        token = make_token(broker.life, self.numbers)
        broker.tokens[token] = Token(call)
        broker.newest = self.numbers
        header = Delivery(
            token,
            DeliveryKind.RUN,
            CallFlag.IDEMPOTENT if call % 2 else CallFlag.NONE,
            2 if again else 1,
            call_id=call_id(call),
            deadline_ms=round((self.deadlines[call] - broker.greeted_at) * 1000),
            digest=body_digest(b"echo", [b"body-%d" % call]),
            service=b"echo",
        )
        self.receive(broker, WorkerRequest(Version.MDP02, header.encode(), [b"body-%d" % call]).encode())

    @precondition(lambda self: any(broker.ready and broker.link_plain for broker in self.brokers))
    @rule(data=st.data())
    def plain_broker_delivers(self, data: st.DataObject) -> None:
        plain = [b for b in self.brokers if b.ready and b.link_plain and b.in_hand is None]
        broker = self.pick(data, plain)
        if broker is not None:
            self.numbers += 1
            broker.in_hand = b"client-%d" % self.numbers
            self.receive(broker, WorkerRequest(Version.MDP01, broker.in_hand, [b"body"]).encode())

    @precondition(lambda self: any(broker.tokens for broker in self.ours()))
    @rule(data=st.data())
    def broker_cancels(self, data: st.DataObject) -> None:
        broker = self.pick(data, [broker for broker in self.ours() if broker.tokens])
        if broker is not None:
            token = data.draw(st.sampled_from(list(broker.tokens)))
            self.receive(
                broker, WorkerRequest(Version.MDP02, Delivery(token, DeliveryKind.CANCEL).encode(), [b""]).encode()
            )

    @rule(data=st.data(), bad=st.sampled_from([[b"junk"], [], [b"MDPW02", b"\x02", b"t" * 16, b"", b""]]))
    def broker_sends_junk(self, data: st.DataObject, bad: Frames) -> None:
        broker = self.pick(data, [broker for broker in self.brokers if broker.open])
        if broker is not None:
            self.receive(broker, bad)

    @precondition(lambda self: self.calls > 2 and any(broker.ready for broker in self.brokers))
    @rule(data=st.data())
    def broker_disconnects(self, data: st.DataObject) -> None:
        broker = self.pick(data, [broker for broker in self.brokers if broker.ready])
        if broker is None:
            return
        version = Version.MDP01 if broker.link_plain else Version.MDP02
        assert broker.link is not None
        link, broker.open = broker.link, False
        self.handle(Received(link, WorkerDisconnect(version).encode()))
        assert broker.link != link, "the link is closed at once"

    @rule()
    def brokers_beat(self) -> None:
        for broker in self.brokers:
            if broker.ready:
                version = Version.MDP01 if broker.link_plain else Version.MDP02
                self.receive(broker, WorkerHeartbeat(version).encode())

    @precondition(lambda self: any(broker.questions for broker in self.brokers))
    @rule(data=st.data(), code=st.sampled_from([b"200", b"200", b"200", b"501", b"404"]), twice=st.booleans())
    def a_broker_tells_the_time(self, data: st.DataObject, code: bytes, twice: bool) -> None:
        """Any question that is open, so that answers may come late, never, or out of order."""
        broker = self.pick(data, [broker for broker in self.brokers if broker.questions])
        if broker is None:
            return
        stamp = data.draw(st.sampled_from(broker.questions))
        if not twice:
            broker.questions.remove(stamp)
        body = [code]
        if code == b"200":
            body += time_answer(stamp, int((self.now - broker.greeted_at) * 1000))
        self.receive(broker, ClientReply(Version.MDP01, TIME_QUERY, body).encode())

    @precondition(lambda self: bool(self.running()))
    @rule(data=st.data(), failed=st.booleans())
    def handler_ends(self, data: st.DataObject, failed: bool) -> None:
        if self.running():
            self.end_run(data.draw(st.sampled_from(self.running())), failed)

    def end_run(self, job: int, failed: bool = False) -> None:
        run = self.runs[job]
        run.ended_at = self.now
        run.stopped = failed and run.told_to_stop and (run.call or 0) % 2 == 1
        result: Frames | JobError = [b"reply-%d" % (run.call or 0)]
        self.handle(JobFinished(job, JobError("ValueError", "no") if failed else result))

    @precondition(lambda self: bool(self.running()))
    @rule(data=st.data(), kind=st.sampled_from([JobProgress, JobPartial]))
    def handler_says_something(self, data: st.DataObject, kind: type[JobProgress] | type[JobPartial]) -> None:
        if self.running():
            self.handle(kind(data.draw(st.sampled_from(self.running())), [b"news"]))

    @rule(data=st.data())
    def socket_refuses_what_was_just_sent(self, data: st.DataObject) -> None:
        recent = [send for send in self.refusable[-3:] if send.link not in self.dead_links]
        if not recent:
            return
        send = data.draw(st.sampled_from(recent))
        self.refusable.remove(send)
        self.unsay(send)
        self.handle(Unsent(send.link, send.tag))

    def unsay(self, send: Send) -> None:
        """The broker never saw it."""
        broker = self.broker_of(send.link)
        command = decode_at_broker(send.frames)
        if isinstance(command, WorkerReply) and command.version is Version.MDP01:
            broker.in_hand = command.address
        elif isinstance(command, WorkerReply) and command.final:
            broker.tokens[Report.decode(command.address).token].finals -= 1

    @rule(seconds=st.floats(0.0, 4.0))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(self.now + seconds)

    def pass_time(self, end: float) -> None:
        while (due := self.engine.next_deadline()) is not None and due <= end:
            assert due >= self.now or self.stalled_at == self.now
            self.now = max(self.now, due)
            self.run_timers()
        self.now = end
        self.run_timers()

    def run_timers(self) -> None:
        self.engine.timers(self.now)
        self.judge()
        due = self.engine.next_deadline()
        assert due is None or due > self.now, "a shell would spin"
        for broker in self.brokers:
            if broker.ready:
                silent_s = self.now - broker.last_said
                assert silent_s < self.config.heartbeat.interval_s + SLACK_S, "a heartbeat is missing"

    @rule(seconds=st.floats(1.0, 20.0))
    def process_stalls(self, seconds: float) -> None:
        self.now += seconds
        self.stalled_at = self.now
        counters = self.engine.counters
        before = counters.brokers_silent
        late = (self.engine.next_deadline() or self.now) + self.config.heartbeat.interval_s < self.now
        self.run_timers()
        if late:
            assert counters.brokers_silent == before, "nobody is judged by a stall"

    @precondition(lambda self: self.calls > 5)
    @rule(timeout_s=st.floats(0.0, 20.0))
    def drain(self, timeout_s: float) -> None:
        if not self.stopped:
            self.drained = True
            self.handle(Drain(self.now + timeout_s))

    # --- what holds at all times ---

    @invariant()
    def the_snapshot_tells_the_truth(self) -> None:
        snapshot = self.engine.snapshot()
        assert snapshot.running == len(self.running())
        assert snapshot.registered == sum(broker.ready for broker in self.brokers)
        assert snapshot.stopped is self.stopped
        assert snapshot.queued == 0 or snapshot.running == self.concurrency

    def teardown(self) -> None:
        """After healing, every delivery of a living broker life has ended with exactly one final report."""
        if not hasattr(self, "engine") or self.stopped:
            return
        self.end_all_runs()
        for broker in self.brokers:
            self.bring_up(broker)
            self.brokers_beat()
        self.end_all_runs()
        self.brokers_beat()
        self.pass_time(self.now + 0.1)
        if self.engine.stopped:
            return
        for broker in self.brokers:
            for token in broker.tokens.values():
                over = self.now > self.deadlines[token.call] + GRACE_S
                assert token.finals == 1 or over or not token.named_in_ready
        assert all(view.tokens == 0 for view in self.engine.snapshot().brokers)

    def end_all_runs(self) -> None:
        while self.running():
            self.end_run(self.running()[0])


TestWorkerMachine = WorkerMachine.TestCase
TestWorkerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    # Without "explain", which traces every line of every run and makes them ten times as long.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
