"""The engines of the plain dialects against model servers that are silent, late, too loud or gone, under Hypothesis.

The model knows which work ran how often, and each reply carries the name of the call that it answers; so it can tell
whether a reply ever reached another call, and whether work ran twice that must not.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reliable.config import Backoff, ClientConfig, Dialect, Freelance, Limits, RetryPolicy
from reliable.engine.plain import PlainEngine
from reliable.engine.plain_freelance import FreelanceEngine
from reliable.errors import AttemptsExhausted, Outcome, RequestError
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
from reliable.types import Frames

T = TypeVar("T")
PICK = st.integers(min_value=0, max_value=99)
MOVES = st.lists(st.tuples(PICK, PICK), min_size=5, max_size=20)
ATTEMPTS = 3
CONFIG = ClientConfig(
    retry=RetryPolicy(attempts=ATTEMPTS, attempt_timeout_s=1.0, backoff=Backoff(initial_s=0.1, delay_s_max=0.5)),
    freelance=Freelance(ping_interval_s=0.5, ping_timeout_s=1.5),
    limits=Limits(calls_in_flight_max=6),
)
SERVICE = b"echo"


@attrs.define
class Link:
    """One connection: what is on its way in each direction."""

    server: str
    state: str = "opening"
    inbox: list[Frames] = attrs.Factory(list)
    outbox: list[Frames] = attrs.Factory(list)
    waits: int = 0
    """Requests that were sent on it and not answered."""


class Clients(RuleBasedStateMachine):
    """One client, one to three servers that serve at once or never."""

    @initialize(
        dialect=st.sampled_from([Dialect.REQ, Dialect.PPP, Dialect.MDP01, Dialect.MDP02, Dialect.FREELANCE]),
        shotgun=st.booleans(),
        attempts=st.sampled_from([ATTEMPTS, None, 1]),
        u=st.sampled_from([0.0, 0.5, 0.999]),
        servers=st.integers(1, 3),
        correlate=st.booleans(),
    )
    def start(
        self, dialect: Dialect, shotgun: bool, attempts: int | None, u: float, servers: int, correlate: bool
    ) -> None:
        self.now = 50.0
        self.marked = dialect is Dialect.FREELANCE or (dialect is Dialect.REQ and correlate)
        self.dialect, self.attempts = dialect, attempts
        self.servers = list("abc"[:servers])
        self.links: dict[int, Link] = {}
        self.calls: dict[bytes, Submit] = {}
        self.ended: dict[bytes, CallFinished] = {}
        self.parts: Counter[bytes] = Counter()
        self.sent: dict[bytes, set[tuple[int, object]]] = {}
        self.runs: Counter[bytes] = Counter()
        self.refuse_next = False
        self.ending: set[int] = set()
        config = attrs.evolve(
            CONFIG,
            dialect=dialect,
            correlate=correlate,
            retry=attrs.evolve(CONFIG.retry, attempts=attempts),
            freelance=attrs.evolve(CONFIG.freelance, shotgun=shotgun),
        )
        kind: type[PlainEngine | FreelanceEngine] = FreelanceEngine if dialect is Dialect.FREELANCE else PlainEngine
        self.engine = kind(self.servers, config, client_id=b"i" * 16, jitter=lambda: u)

    # --- what the user does -----------------------------------------------------------------------

    @precondition(lambda self: not self.refuse_next)
    @rule(timeout=st.sampled_from([10.0, 0.3, 2.0, None, 0.0]), idempotent=st.sampled_from([None, False, True, True]))
    def submit(self, timeout: float | None, idempotent: bool | None) -> None:
        call_id = f"call-{len(self.calls)}".encode().ljust(16, b".")
        deadline = None if timeout is None else self.now + timeout
        call = Submit(call_id=call_id, service=SERVICE, body=[call_id], deadline=deadline, idempotent=idempotent)
        self.calls[call_id] = call
        self.feed(call)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        self.feed(CancelCall(self.pick(list(self.calls), pick)))

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= until:
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
    @rule(pick=PICK)
    def link_opens(self, pick: int) -> None:
        number = self.pick(self.in_state("opening"), pick)
        self.links[number].state = "open"
        self.feed(LinkOpened(number))

    @precondition(lambda self: self.in_state("opening", "open"))
    @rule(pick=PICK, end=st.sampled_from([LinkEnd.REFUSED, LinkEnd.UNRESOLVED, LinkEnd.LOST]))
    def link_ends(self, pick: int, end: LinkEnd) -> None:
        """What had come is read before that, all in one go."""
        number = self.pick(self.in_state("opening", "open"), pick)
        link = self.links[number]
        end = LinkEnd.LOST if link.state == "open" else end
        events = [Received(number, frames) for frames in link.outbox]
        link.state, link.outbox, link.inbox = "over", [], []
        self.feed(*events, LinkClosed(number, end))

    @rule()
    def the_next_message_is_not_taken(self) -> None:
        self.refuse_next = True

    def loaded(self) -> list[int]:
        return [number for number in self.in_state("open") if self.links[number].outbox]

    @precondition(lambda self: self.loaded())
    @rule(pick=PICK, all_at_once=st.booleans())
    def messages_arrive(self, pick: int, all_at_once: bool) -> None:
        number = self.pick(self.loaded(), pick)
        outbox = self.links[number].outbox
        taken = outbox[:] if all_at_once else outbox[:1]
        del outbox[: len(taken)]
        self.feed(*(Received(number, frames) for frames in taken))

    @rule(moves=MOVES)
    def everything_goes_on(self, moves: list[tuple[int, int]]) -> None:
        """Several steps in which nothing fails at once, so that calls get somewhere between the faults."""
        for pick, how in moves:
            self.something_goes_on(pick, how)

    def something_goes_on(self, pick: int, how: int) -> bool:
        if self.full():
            self.server_works(pick, how)
        elif self.loaded():
            self.messages_arrive(pick, False)
        elif self.in_state("opening"):
            self.link_opens(pick)
        else:
            return False
        return True

    # --- what the servers do ----------------------------------------------------------------------

    def full(self) -> list[int]:
        return [number for number in self.in_state("open") if self.links[number].inbox]

    @precondition(lambda self: self.full())
    @rule(pick=PICK, how=PICK)
    def server_works(self, pick: int, how: int) -> None:
        """Answers; or twice, at any time if requests are told apart, else in the same breath; or in parts; or never."""
        number = self.pick(self.full(), pick)
        link = self.links[number]
        frames = link.inbox.pop(0)
        if frames == [b"PING"]:
            link.outbox.append([b"PONG"])
            return
        call_id = frames[-1]
        self.runs[call_id] += 1
        if how >= 90:
            return
        if how >= 80:
            link.outbox.append(self.garbage(how))
        if self.dialect is Dialect.MDP02 and how % 5 == 0:
            link.outbox.append([b"MDPC02", b"\x02", SERVICE, call_id])
        reply = [*frames[:-1], call_id]
        if self.dialect is Dialect.MDP02:
            reply[1] = b"\x03"
        link.outbox.append(reply)
        if how % 4 == 0:
            link.outbox.append(reply)
        if how % 4 == 0 and not self.marked:
            # Both are read before anything else can be sent here; a later one could not be told from the next reply.
            self.messages_arrive(self.loaded().index(number), True)

    def garbage(self, how: int) -> Frames:
        """A reply in none of the dialects, or about another service."""
        other = [b"", b"MDPC01", b"other", b"y"] if self.dialect is Dialect.MDP01 else [b"MDPC02", b"\x03", b"o", b"y"]
        return self.pick([[b"x"], [b"x", b"y"], other], how)

    @precondition(lambda self: self.in_state("open") and self.dialect is Dialect.FREELANCE)
    @rule(pick=PICK, which=PICK)
    def a_reply_goes_astray(self, pick: int, which: int) -> None:
        """To a call that is not there, or that this server was not asked about."""
        link = self.links[self.pick(self.in_state("open"), pick)]
        link.outbox.append([b"nobody's".ljust(16) + bytes(4), b"stray"])

    # --- the shell --------------------------------------------------------------------------------

    def pick(self, choices: list[T], pick: int) -> T:
        return choices[pick % len(choices)]

    def feed(self, *events: ClientEvent) -> None:
        for event in events:
            self.engine.handle(event, self.now)
        self.engine.timers(self.now)
        # For what came before the end of a link, the engine may have wanted it closed, not knowing what came next.
        self.ending = {event.link for event in events if isinstance(event, LinkClosed)}
        self.carry_out()
        self.ending = set()

    def carry_out(self) -> None:
        while effects := self.engine.effects():
            for effect in effects:
                self.perform(effect)
        due = self.engine.next_deadline()
        assert due is None or due > self.now, "timers() left something due"

    def perform(self, effect: ClientEffect) -> None:
        match effect:
            case OpenLink():
                assert effect.link not in self.links, "a link number was used twice"
                self.links[effect.link] = Link(effect.address)
            case CloseLink():
                over = self.links[effect.link].state == "over"
                assert not over or effect.link in self.ending, "a link was closed twice"
                self.ending.discard(effect.link)
                link = self.links[effect.link]
                link.state, link.outbox = "over", []
            case Send():
                self.send(effect)
            case CallFinished():
                self.finish(effect)
            case CallProgress():
                self.parts[effect.call_id] += 1
                assert effect.partial and effect.body == [effect.call_id] and effect.call_id not in self.ended

    def send(self, effect: Send) -> None:
        link = self.links[effect.link]
        taken = link.state == "open" and not self.refuse_next
        if effect.frames != [b"PING"]:
            call_id = effect.frames[-1]
            call = self.calls[call_id]
            assert call_id not in self.ended or link.state == "over", "sent although it is over"
            assert call.deadline is None or self.now < call.deadline
            if taken:
                sent = self.sent.setdefault(call_id, set())
                sent.add((effect.link, effect.tag))
                attempts = {tag for _, tag in sent}
                assert call.idempotent or len(sent) == 1, "sent twice"
                assert self.attempts is None or len(attempts) <= self.attempts, "more attempts than allowed"
                assert not self.parts[call_id], "sent again after a part"
        if not taken:
            self.refuse_next = self.refuse_next and link.state != "open"
            self.engine.handle(Unsent(effect.link, effect.tag), self.now)
            return
        link.inbox.append(effect.frames)

    def finish(self, effect: CallFinished) -> None:
        call = self.calls[effect.call_id]
        assert effect.call_id not in self.ended, "a call ended twice"
        assert call.deadline is None or self.now <= call.deadline + 1e-9, "a call ended after its deadline"
        self.ended[effect.call_id] = effect
        if isinstance(effect.result, RequestError):
            assert effect.result.outcome is effect.outcome is not Outcome.EXECUTED
            sent = self.sent.get(effect.call_id, set())
            assert effect.outcome is (Outcome.UNKNOWN if sent else Outcome.NOT_EXECUTED)
            if isinstance(effect.result, AttemptsExhausted):
                assert len({tag for _, tag in sent}) == effect.result.attempts
        else:
            assert effect.result == [effect.call_id], "somebody else's reply"
            assert self.runs[effect.call_id]

    # --- what must hold at any time ---------------------------------------------------------------

    @invariant()
    def every_open_call_has_its_place(self) -> None:
        if not hasattr(self, "engine"):
            return
        engine = self.engine
        view = engine.snapshot()
        assert view.calls == len(self.calls) - len(self.ended) <= CONFIG.limits.calls_in_flight_max
        assert {link.link for link in view.links} == set(self.in_state("opening", "open"))
        for link in engine._links.values():
            assert all(engine._calls.get(call.call_id) is call for call in link.asked.values())
            assert self.dialect is Dialect.FREELANCE or len(link.asked) <= 1
        for call in engine._calls.values():
            assert set(call.copies) <= set(engine._links)

    def teardown(self) -> None:
        """The network heals: every call with a deadline ends by itself, the others on close, and nothing is left."""
        if not hasattr(self, "engine"):
            return
        self.refuse_next = False
        self.wait(11.0)
        assert all(call_id in self.ended or call.deadline is None for call_id, call in self.calls.items())
        for call_id in self.calls:
            self.feed(CancelCall(call_id))
        self.submit(timeout=30.0, idempotent=True)
        last = next(reversed(self.calls))
        for _ in range(60):
            while self.something_goes_on(0, 1):
                pass
            self.wait(0.5)
        assert self.ended[last].result == [last], f"after all healed, a call still failed: {self.ended[last]!r}"
        self.feed(AbandonAll())
        engine = self.engine
        assert self.ended.keys() == self.calls.keys()
        assert engine.next_deadline() is None and engine.snapshot().links == ()
        assert not engine._calls and not engine._waiting and len(engine._alarms) == 0
        assert not getattr(engine, "_pulses", None)
        for server in engine._servers:
            assert not server.links and not server.opening and not server.idle


Clients.TestCase.settings = settings(
    max_examples=int(os.environ.get("RELIABLE_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestClients = Clients.TestCase
