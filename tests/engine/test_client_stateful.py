"""The client engine against model brokers that lose, delay, repeat, reorder, restart and forget, under Hypothesis.

The model knows what really ran, so it can tell whether the client's word holds: also later, when stragglers of a call
that is long over reach a broker.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reliable.config import (
    Backoff,
    BreakerPolicy,
    ClientConfig,
    HedgePolicy,
    Limits,
    RetryBudget,
    RetryPolicy,
    TransportConfig,
)
from reliable.engine.client import ClientEngine
from reliable.errors import Outcome, RequestError
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    CloseLink,
    LinkClosed,
    LinkEnd,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    Submit,
    Unsent,
)
from reliable.protocol.link import HELLO_TAG
from reliable.protocol.session import TIME_TAG
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.types import Frames
from reliable.wire.extension import HELLO_SERVICE, AnswerFrame, CallFlag, CallFrame, CallKind, HelloAnswer, Place
from reliable.wire.mdp import ClientReply, ClientRequest, Version, decode_at_broker
from reliable.wire.mmi import TIME_QUERY, time_answer

T = TypeVar("T")
PICK = st.integers(min_value=0, max_value=99)
PERCENT = st.integers(min_value=0, max_value=99)
MOVES = st.lists(st.tuples(PICK, PERCENT), min_size=5, max_size=20)
CONFIG = ClientConfig(
    retry=RetryPolicy(attempts=4, attempt_timeout_s=1.0, backoff=Backoff(initial_s=0.1, delay_s_max=0.5)),
    hello_timeout_s=0.5,
    limits=Limits(calls_in_flight_max=8),
    return_after_s=5.0,
    transport=TransportConfig(time_check_s=2.0),
)


def work(call_id: bytes) -> bytes:
    """The id of the user's call to which a call on the wire belongs: its own, or that of the call which it hedges."""
    return call_id[:-1] + b"." if call_id.endswith(b"'") else call_id


@attrs.define
class Record:
    """What a model broker holds of one call. ``links`` are reply addresses, the newest last."""

    attempt: int
    link: int
    state: str = "queued"
    answer: Status | None = None
    outcome: Outcome = Outcome.UNKNOWN


@attrs.define
class Broker:
    """One address. ``records`` and ``fences`` are of this life alone."""

    address: str
    life: bytes
    records: dict[bytes, Record] = attrs.Factory(dict)
    rate: float = 1.0
    fences: dict[bytes, int] = attrs.Factory(dict)

    def shows(self, when: float) -> float:
        """What its clock shows at that moment."""
        return 7.0 + when * self.rate


@attrs.define
class Link:
    """One connection: what is on its way in each direction outlives neither a restart nor, towards us, the link."""

    broker: Broker
    state: str = "opening"
    greeted: bool = False
    zero: float = 0.0
    """What the broker's clock showed when the hello came."""
    inbox: list[tuple[float, Frames]] = attrs.Factory(list)
    """Each with the moment of its sending."""
    outbox: list[Frames] = attrs.Factory(list)


class Clients(RuleBasedStateMachine):
    """One client, two brokers."""

    @initialize(
        policy=st.sampled_from([4, None, 1]),
        u=st.sampled_from([0.0, 0.5, 0.999]),
        brokers=st.integers(1, 2),
        calls_open_max=st.sampled_from([1, 3, 3, 7]),
        declared=st.booleans(),
        breaker=st.sampled_from([None, 1, 3]),
        budget=st.sampled_from([None, RetryBudget(ratio=0.5, tokens_max=2.0)]),
        rate=st.sampled_from([1.0, 0.995, 1.004]),
    )
    def start(
        self,
        policy: int | None,
        u: float,
        brokers: int,
        calls_open_max: int,
        declared: bool,
        breaker: int | None,
        budget: RetryBudget | None,
        rate: float,
    ) -> None:
        self.calls_open_max = calls_open_max
        self.declared = declared
        self.policy = policy
        self.now = 50.0
        self.brokers = [Broker(name, name.encode() + b"-life-0", rate=rate) for name in "ab"[:brokers]]
        self.lives = 0
        self.links: dict[int, Link] = {}
        self.calls: dict[bytes, Submit] = {}
        self.ended: dict[bytes, CallFinished] = {}
        self.runs: Counter[bytes] = Counter()
        self.unsent: list[tuple[int, object]] = []
        self.refuse_next = False
        self.closed = False
        self.engine = ClientEngine(
            [broker.address for broker in self.brokers],
            attrs.evolve(
                CONFIG,
                retry=attrs.evolve(CONFIG.retry, attempts=policy, budget=budget),
                breaker=BreakerPolicy(failures=breaker),
            ),
            client_id=b"i" * 16,
            jitter=lambda: u,
        )

    # --- what the user does -----------------------------------------------------------------------

    @precondition(lambda self: len(self.calls) - len(self.ended) < self.calls_open_max)
    @rule(
        timeout=st.sampled_from([10.0, 0.3, 2.0, 30.0, None, 0.0]),
        idempotent=st.sampled_from([None, False, True]),
        fail_fast=st.booleans(),
        one_way=st.sampled_from([False, False, False, True]),
        hedge=st.sampled_from([None, HedgePolicy(delay_s=0.05), HedgePolicy(percentile=50.0)]),
    )
    def submit(
        self, timeout: float | None, idempotent: bool | None, fail_fast: bool, one_way: bool, hedge: HedgePolicy | None
    ) -> None:
        if idempotent is not True or one_way:
            hedge = None
        call_id = f"call-{len(self.calls)}".encode().ljust(16, b".")
        deadline = None if timeout is None else self.now + timeout
        call = Submit(
            call_id=call_id,
            service=b"echo",
            body=[call_id],
            deadline=deadline,
            idempotent=idempotent,
            fail_fast=fail_fast,
            one_way=one_way,
            hedge=hedge,
            hedge_id=call_id[:-1] + b"'" if hedge else b"",
        )
        self.calls[call_id] = call
        self.feed(call)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, chance=PERCENT)
    def cancel(self, pick: int, chance: int) -> None:
        if chance >= 60:
            self.feed(CancelCall(list(self.calls)[pick % len(self.calls)]))

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= until:
            assert due > self.now
            self.now = due
            self.engine.timers(self.now)
            self.carry_out()
        self.now = until
        self.engine.timers(self.now)
        self.carry_out()

    # --- what the network does --------------------------------------------------------------------

    def in_state(self, *states: str) -> list[int]:
        return [number for number, link in self.links.items() if link.state in states]

    @precondition(lambda self: self.in_state("opening"))
    @rule(pick=PICK, chance=PERCENT)
    def link_opens(self, pick: int, chance: int) -> None:
        """Most often the hello is answered before anything else happens."""
        number = self.pick(self.in_state("opening"), pick)
        self.links[number].state = "open"
        self.feed(LinkOpened(number))
        if chance < 60 and self.links[number].inbox:
            self.broker_reads(self.full_inboxes().index(number), chance)
            self.feed(Received(number, self.links[number].outbox.pop()))

    @precondition(lambda self: self.in_state("opening"))
    @rule(pick=PICK, end=st.sampled_from([LinkEnd.REFUSED, LinkEnd.UNRESOLVED, LinkEnd.HANDSHAKE]))
    def link_fails(self, pick: int, end: LinkEnd) -> None:
        self.link_ends(self.pick(self.in_state("opening"), pick), end)

    @precondition(lambda self: self.in_state("open"))
    @rule(pick=PICK, keep=PICK)
    def link_breaks(self, pick: int, keep: int) -> None:
        """What was under way may still arrive, but for a suffix."""
        number = self.pick(self.in_state("open"), pick)
        inbox = self.links[number].inbox
        del inbox[keep % (len(inbox) + 1) :]
        self.link_ends(number, LinkEnd.LOST)

    def link_ends(self, number: int, end: LinkEnd) -> None:
        self.links[number].state = "over"
        self.links[number].outbox.clear()
        self.feed(LinkClosed(number, end))

    @rule()
    def socket_is_full(self) -> None:
        self.refuse_next = True

    @precondition(lambda self: self.unsent)
    @rule(pick=PICK)
    def unsent_is_reported(self, pick: int) -> None:
        number, tag = self.unsent.pop(pick % len(self.unsent))
        self.feed(Unsent(number, tag))

    @precondition(lambda self: any(link.outbox for link in self.links.values()))
    @rule(pick=PICK, chance=PERCENT)
    def answer_arrives(self, pick: int, chance: int) -> None:
        """Mostly in order; sometimes another one first, sometimes twice."""
        number = self.pick([number for number, link in self.links.items() if link.outbox], pick)
        outbox = self.links[number].outbox
        frames = outbox[-1] if chance % 10 == 9 else outbox[0]
        if chance % 8 != 7:
            outbox.remove(frames)
        self.feed(Received(number, frames))

    @rule(moves=MOVES)
    def everything_goes_on(self, moves: list[tuple[int, int]]) -> None:
        """Several steps in which nothing fails at once, so that calls get somewhere between the faults."""
        for pick, chance in moves:
            self.something_goes_on(pick, chance)

    @rule(moves=MOVES)
    def and_on(self, moves: list[tuple[int, int]]) -> None:
        """The same, to make it more likely."""
        self.everything_goes_on(moves)

    def something_goes_on(self, pick: int, chance: int) -> bool:
        ways = [
            (self.link_opens, bool(self.in_state("opening"))),
            (self.answer_arrives, any(link.outbox for link in self.links.values())),
            (self.broker_reads, bool(self.full_inboxes())),
            (self.worker_replies, bool(self.records("running"))),
            (self.broker_dispatches, bool(self.records("queued"))),
        ]
        open_ways = [way for way, is_open in ways if is_open]
        if open_ways:
            self.pick(open_ways, pick)(pick, chance)
        return bool(open_ways)

    # --- what the brokers do ----------------------------------------------------------------------

    def full_inboxes(self) -> list[int]:
        return [number for number, link in self.links.items() if link.inbox]

    @precondition(lambda self: self.full_inboxes())
    @rule(pick=PICK, chance=PERCENT)
    def broker_reads(self, pick: int, chance: int) -> None:
        number = self.pick(self.full_inboxes(), pick)
        link = self.links[number]
        sent_at, frames = link.inbox.pop(0)
        request = decode_at_broker(frames)
        assert isinstance(request, ClientRequest)
        if request.service == TIME_QUERY:
            self.broker_tells_the_time(number, link, request.body[0], chance)
            return
        if request.service == HELLO_SERVICE:
            if chance < 90 or chance >= 98:
                code = [b"501"] if chance >= 98 else [b"200", *HelloAnswer(link.broker.life).encode()]
                self.say(number, ClientReply(Version.MDP01, HELLO_SERVICE, code).encode())
                link.greeted = chance < 90
                link.zero = link.broker.shows(self.now)
            return
        frame = CallFrame.decode(request.stack[-1])
        # Else a broker that has forgotten a call could take a repetition for a call that it has never seen.
        assert link.zero + frame.first_sent_ms / 1000 <= link.broker.shows(sent_at) + 1e-6
        self.broker_takes(number, link.broker, frame, request.body, chance)

    def broker_tells_the_time(self, number: int, link: Link, stamp: bytes, chance: int) -> None:
        if chance >= 90:
            return
        since_hello_ms = int((link.broker.shows(self.now) - link.zero) * 1000)
        body = [b"200", *time_answer(stamp, since_hello_ms)] if chance < 80 else [(b"501", b"404")[chance % 2]]
        self.say(number, ClientReply(Version.MDP01, TIME_QUERY, body).encode())

    def broker_takes(self, number: int, broker: Broker, frame: CallFrame, body: Frames, chance: int) -> None:
        call_id, record = frame.call_id, broker.records.get(frame.call_id)
        if frame.life != broker.life:
            if chance < 70:
                self.tell(number, broker, frame, Status.WRONG_LIFE, Outcome.NOT_EXECUTED)
        elif frame.kind is CallKind.CANCEL:
            if record is not None and record.state == "queued":
                self.end_record(broker, call_id, record, Status.CANCELLED, Outcome.NOT_EXECUTED)
        elif record is not None:
            record.attempt, record.link = max(record.attempt, frame.attempt), number
            self.tell_record(broker, call_id, record)
        elif frame.attempt <= broker.fences.get(call_id, 0):
            self.tell(number, broker, frame, Status.UNKNOWN_CALL, Outcome.NOT_EXECUTED)
        elif frame.kind is CallKind.ATTACH:
            if chance >= 90:
                self.tell(number, broker, frame, Status.UNKNOWN_CALL, Outcome.UNKNOWN)
            elif chance >= 80:
                self.tell(number, broker, frame, Status.OVERLOADED, Outcome.NOT_EXECUTED)
            else:
                broker.fences[call_id] = frame.attempt
                self.tell(number, broker, frame, Status.UNKNOWN_CALL, Outcome.NOT_EXECUTED)
        elif chance >= 80:
            self.tell(number, broker, frame, (Status.OVERLOADED, Status.NO_SERVICE)[chance % 2], Outcome.NOT_EXECUTED)
        elif frame.flags & CallFlag.REPEAT and not (frame.flags & CallFlag.IDEMPOTENT or self.declared):
            self.tell(number, broker, frame, Status.UNKNOWN_CALL, Outcome.UNKNOWN)
        else:
            assert body == [work(call_id)], "a copy without its body"
            assert bool(frame.flags & CallFlag.HEDGE) is (work(call_id) != call_id)
            broker.records[call_id] = Record(frame.attempt, number)
            if chance % 2 or frame.flags & CallFlag.ONE_WAY:
                self.tell(number, broker, frame, Status.ACCEPTED, Outcome.UNKNOWN, Place.QUEUED_NO_WORKER)

    @precondition(lambda self: self.calls and self.in_state("open"))
    @rule(pick=PICK, status=st.sampled_from([Status.OK, Status.UNKNOWN_CALL]))
    def an_answer_goes_astray(self, pick: int, status: Status) -> None:
        """From a life that is not the one this link leads to; nothing may be believed of it."""
        number, call_id = self.pick(self.in_state("open"), pick), self.pick(list(self.calls), pick)
        outcome = Outcome.EXECUTED if status is Status.OK else Outcome.NOT_EXECUTED
        self.say_answer(number, AnswerFrame(status, 1, call_id, b"nobody's", outcome), call_id)

    def records(self, *states: str) -> list[tuple[Broker, bytes]]:
        return [
            (broker, call_id)
            for broker in self.brokers
            for call_id, record in broker.records.items()
            if record.state in states
        ]

    @precondition(lambda self: self.records("queued"))
    @rule(pick=PICK, chance=PERCENT)
    def broker_dispatches(self, pick: int, chance: int) -> None:
        """Here the work runs, whatever is heard of it afterwards."""
        broker, call_id = self.pick(self.records("queued"), pick)
        record = broker.records[call_id]
        self.runs[work(call_id)] += 1
        record.state = "running"
        if chance % 2:
            self.tell_record(broker, call_id, record)

    @precondition(lambda self: self.records("running"))
    @rule(pick=PICK, chance=PERCENT)
    def worker_replies(self, pick: int, chance: int) -> None:
        broker, call_id = self.pick(self.records("running"), pick)
        ends = (Status.OK, Outcome.EXECUTED)
        if chance >= 90:
            ends = (Status.HANDLER_ERROR, Outcome.EXECUTED)
        elif chance >= 80:
            ends = (Status.WORKER_LOST, Outcome.UNKNOWN)
        self.end_record(broker, call_id, broker.records[call_id], *ends)

    @precondition(lambda self: self.records("queued"))
    @rule(pick=PICK, status=st.sampled_from([Status.EXPIRED, Status.OVERLOADED, Status.NO_SERVICE]))
    def broker_gives_up_a_queued_call(self, pick: int, status: Status) -> None:
        broker, call_id = self.pick(self.records("queued"), pick)
        record = broker.records[call_id]
        self.end_record(broker, call_id, record, status, Outcome.NOT_EXECUTED)
        if status is not Status.EXPIRED:
            # A later copy may be taken, none up to this one.
            broker.fences[call_id] = record.attempt
            del broker.records[call_id]

    @rule(pick=PICK, hidden=st.booleans())
    def broker_restarts(self, pick: int, hidden: bool) -> None:
        """With ``hidden`` something stands in between and keeps the connections up."""
        broker = self.pick(self.brokers, pick)
        self.lives += 1
        broker.life = f"{broker.address}{self.lives:07}".encode()
        broker.records, broker.fences = {}, {}
        for number, link in list(self.links.items()):
            if link.broker is broker and not hidden:
                link.inbox.clear()
                if link.state == "open":
                    self.link_ends(number, LinkEnd.LOST)

    def end_record(self, broker: Broker, call_id: bytes, record: Record, status: Status, outcome: Outcome) -> None:
        record.state, record.answer, record.outcome = "done", status, outcome
        self.tell_record(broker, call_id, record)

    def tell_record(self, broker: Broker, call_id: bytes, record: Record) -> None:
        places = {"queued": (Status.ACCEPTED, Place.QUEUED), "running": (Status.STARTED, Place.RUNNING)}
        status, place = places.get(record.state, (record.answer, Place.ENDED))
        assert status is not None
        answer = AnswerFrame(status, record.attempt, call_id, broker.life, record.outcome, place)
        self.say_answer(record.link, answer, call_id)

    def tell(
        self,
        number: int,
        broker: Broker,
        frame: CallFrame,
        status: Status,
        outcome: Outcome,
        place: Place = Place.UNSAID,
    ) -> None:
        self.say_answer(
            number, AnswerFrame(status, frame.attempt, frame.call_id, broker.life, outcome, place), frame.call_id
        )

    def say_answer(self, number: int, answer: AnswerFrame, call_id: bytes) -> None:
        final = STATUS_TABLE[answer.status].retry is not Retry.NOT_FINAL
        self.say(number, ClientReply(Version.MDP02, b"echo", [work(call_id)], [answer.encode()], final).encode())

    def say(self, number: int, frames: Frames) -> None:
        if self.links[number].state == "open":
            self.links[number].outbox.append(frames)

    # --- the shell --------------------------------------------------------------------------------

    def pick(self, choices: list[T], pick: int) -> T:
        return choices[pick % len(choices)]

    def feed(self, event: ClientEvent) -> None:
        self.engine.handle(event, self.now)
        self.engine.timers(self.now)
        self.carry_out()

    def carry_out(self) -> None:
        for effect in self.engine.effects():
            self.perform(effect)
        due = self.engine.next_deadline()
        assert due is None or due > self.now, "timers() left something due"

    def perform(self, effect: ClientEffect) -> None:
        match effect:
            case OpenLink():
                assert effect.link not in self.links, "a link number was used twice"
                assert not any(
                    link.broker.address == effect.address and link.state != "over" for link in self.links.values()
                ), "two links to one broker"
                broker = next(broker for broker in self.brokers if broker.address == effect.address)
                self.links[effect.link] = Link(broker)
            case CloseLink():
                assert self.links[effect.link].state != "over", "a link was closed twice"
                self.links[effect.link].state = "over"
                self.links[effect.link].outbox.clear()
            case Send():
                self.send(effect)
            case CallFinished():
                self.finish(effect)
            case CallProgress():
                pass

    def send(self, effect: Send) -> None:
        link = self.links[effect.link]
        assert link.state == "open", "sent on a link that is not open"
        request = decode_at_broker(effect.frames)
        assert isinstance(request, ClientRequest)
        if effect.tag not in (HELLO_TAG, TIME_TAG):
            frame = CallFrame.decode(request.stack[-1])
            call = self.calls[work(frame.call_id)]
            assert link.greeted, "a call before the hello was answered"
            assert frame.kind is CallKind.CANCEL or call.call_id not in self.ended, "sent although it is over"
            assert not (frame.flags & CallFlag.REPEAT) or call.idempotent is not False
        if self.refuse_next and effect.tag is not None:
            self.refuse_next = False
            self.unsent.append((effect.link, effect.tag))
        else:
            link.inbox.append((self.now, effect.frames))

    def finish(self, effect: CallFinished) -> None:
        call = self.calls[effect.call_id]
        assert effect.call_id not in self.ended, "a call ended twice"
        assert call.deadline is None or self.now <= call.deadline + 1e-9, "a call ended after its deadline"
        self.ended[effect.call_id] = effect
        if isinstance(effect.result, RequestError):
            assert effect.result.outcome is effect.outcome
        else:
            accepted = call.one_way and effect.result == [b""] and effect.outcome is Outcome.UNKNOWN
            assert accepted or effect.result == [effect.call_id], "somebody else's reply"

    # --- what must hold at any time ---------------------------------------------------------------

    @invariant()
    def a_call_that_is_not_idempotent_runs_at_most_once(self) -> None:
        for call_id, runs in getattr(self, "runs", {}).items():
            assert runs <= 1 or self.may_repeat(call_id), f"{call_id!r} ran {runs} times"

    def may_repeat(self, call_id: bytes) -> bool:
        """By the caller's word, or by the service's if the caller said nothing."""
        said = self.calls[call_id].idempotent
        return self.declared if said is None else said

    @invariant()
    def outcomes_are_true_and_stay_true(self) -> None:
        for call_id, end in getattr(self, "ended", {}).items():
            if end.outcome is Outcome.NOT_EXECUTED:
                assert not self.runs[call_id], f"{call_id!r} ran although proven not to"
            if end.outcome is Outcome.EXECUTED:
                assert self.runs[call_id], f"{call_id!r} is said to have run and did not"

    @invariant()
    def every_open_call_has_its_place(self) -> None:
        if not hasattr(self, "engine"):
            return
        view = self.engine.snapshot()
        open_calls = len(self.calls) - len(self.ended)
        assert open_calls <= view.calls <= min(2 * open_calls, CONFIG.limits.calls_in_flight_max)
        assert view.waiting >= 0

    def teardown(self) -> None:
        """The network heals: every call with a deadline ends by itself, the others on close, and nothing is left."""
        if not hasattr(self, "engine"):
            return
        self.refuse_next = False
        # Longer than a broker that answered 501 is left alone.
        last = Submit(
            call_id=b"the-last-call...",
            service=b"echo",
            body=[b"the-last-call..."],
            deadline=self.now + 100.0,
            idempotent=True,
        )
        self.calls[last.call_id] = last
        self.feed(last)
        for _ in range(101):
            while self.something_goes_on(0, 0):
                pass
            self.wait(1.0)
        assert all(call_id in self.ended or call.deadline is None for call_id, call in self.calls.items())
        end = self.ended[last.call_id].result
        # A client whose brokers all answered 501 just now says so; a policy of one attempt may meet a stale link.
        excused = isinstance(end, RequestError) and ("501" in str(end) or "budget" in str(end) or self.policy == 1)
        assert end == last.body or excused, f"after all healed, a call still failed: {end!r}"
        self.feed(AbandonAll())
        while self.full_inboxes():
            self.broker_reads(0, 0)
        while self.records("queued"):
            self.broker_dispatches(0, 0)
        self.a_call_that_is_not_idempotent_runs_at_most_once()
        self.outcomes_are_true_and_stay_true()
        engine = self.engine
        assert self.ended.keys() == self.calls.keys()
        assert engine.next_deadline() is None and engine.snapshot().links == ()
        state = engine._state
        assert not state.calls and not state.free and len(state.alarms) == 0 and len(state.hedges) == 0


Clients.TestCase.settings = settings(
    max_examples=int(os.environ.get("RELIABLE_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestClients = Clients.TestCase
