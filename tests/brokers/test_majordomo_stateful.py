"""Clients, workers, deaths and time in any order: what the broker promises of every call holds in every history.

Hypothesis makes up the history; the machine keeps its own books from what really arrived at the peers. The promises:

* an answer is owed to a question: never more final answers than questions, and a result only to whoever asked last;
* a call that is not idempotent is never in two workers' hands, unless the first gave it back unstarted or never got it;
* NOT_EXECUTED is only said of a call that no worker kept, and none gets it afterwards without a newer attempt;
* the result of a call does not change once it was given;
* a foreign worker has one request at a time, one of ours no more than its credit;
* every call ends by its deadline.
"""

from __future__ import annotations

from typing import Final

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from brokers.config import BrokerConfig
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import (
    AnswerFrame,
    CallFlag,
    CallKind,
    Delivery,
    DeliveryKind,
    GiveBackReason,
    ServiceOffer,
)
from reliable.wire.mdp import ClientReply, Version, WorkerDisconnect, WorkerRequest, decode_at_client, decode_at_worker
from tests.support.broker_bench import LIFE, SLACK_S, Bench, ForeignClient, ForeignWorker, OurClient, OurWorker, Peer

CONFIG: Final = BrokerConfig(delivery_timeout_s=5.0, overdue_slot_s=None, plain_request_expiry_s=20.0)
RESULTS: Final = (Status.OK, Status.HANDLER_ERROR)
pick: Final = st.integers(min_value=0, max_value=1_000_000)
FLAGS: Final = st.sampled_from([CallFlag.IDEMPOTENT, CallFlag.NOT_IDEMPOTENT, CallFlag.NONE])


@attrs.define
class Token:
    """One delivery that really arrived at a worker."""

    address: bytes
    worker: bytes
    call: bytes
    at: float
    started: bool = False
    missed: bool = False
    """It was not started in time, so that the broker takes it for lost and the slot for free."""
    ended: bool = False
    """The worker sent its final report."""
    given_back: bool = False


@attrs.define
class Call:
    """What the machine knows of one call."""

    id: bytes
    flags: CallFlag
    body: bytes
    began: float
    deadline: float
    attempt: int = 0
    asker: OurClient | None = None
    """Who sent the newest attempt that reached the broker."""
    last_asker: OurClient | None = None
    """Whose message about it came last, be it an overtaken copy."""
    unsent_copy: tuple[OurClient, int] | None = None
    """A first copy that is still on its way."""
    questions: int = 0
    finals: int = 0
    owed: bool = False
    """The newest question has no final answer yet."""
    proven_at_attempt: int | None = None
    """The newest attempt when NOT_EXECUTED was said."""
    result: tuple[Status, Frames] | None = None
    tokens: list[Token] = attrs.field(factory=list)

    @property
    def idempotent(self) -> bool:
        """As the broker must see it: no service in here declares anything."""
        return bool(self.flags & CallFlag.IDEMPOTENT)

    def kept(self) -> list[Token]:
        """Deliveries that were not given back."""
        return [token for token in self.tokens if not token.given_back]


class Brokerage(RuleBasedStateMachine):
    """The world around one engine."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(CONFIG)
        self.calls: dict[bytes, Call] = {}
        self.tokens: dict[bytes, Token] = {}
        self.clients: list[OurClient] = []
        self.plain = ForeignClient(self.bench, b"plain", Version.MDP02)
        self.plain_requests = 0
        self.plain_replies = 0
        self.workers: list[OurWorker | ForeignWorker] = []
        self.read = 0
        self.brought: dict[bytes, int] = {}
        """How many tokens a worker had in hand when it registered: they may be more than its credit."""
        self.names = 0

    # --- who is there -----------------------------------------------------------------------------

    def _name(self, kind: str) -> bytes:
        self.names += 1
        return f"{kind}-{self.names}".encode()

    @initialize()
    def first_client(self) -> None:
        self.clients.append(OurClient(self.bench, self._name("client")))

    @precondition(lambda self: len(self.clients) < 4)
    @rule()
    def new_client(self) -> None:
        self.clients.append(OurClient(self.bench, self._name("client")))

    @precondition(lambda self: len(self.workers) < 5)
    @rule(credit=st.integers(1, 3))
    def new_worker_of_ours(self, credit: int) -> None:
        worker = OurWorker(self.bench, self._name("ours"), credit=credit, services=[ServiceOffer(b"echo")])
        self.workers.append(worker.ready())
        self.bench.keep_alive(worker)

    @precondition(lambda self: len(self.workers) < 5)
    @rule(version=st.sampled_from(list(Version)))
    def new_foreign_worker(self, version: Version) -> None:
        worker = ForeignWorker(self.bench, self._name("foreign"), version)
        self.workers.append(worker.ready())
        self.bench.keep_alive(worker)

    # --- what clients do ----------------------------------------------------------------------------

    def _client(self, number: int) -> OurClient:
        return self.clients[number % len(self.clients)]

    def _call(self, number: int) -> Call:
        return list(self.calls.values())[number % len(self.calls)]

    def _new_call(self, flags: CallFlag, timeout_s: float) -> Call:
        call_id = self.bench.new_call_id()
        now = self.bench.now
        call = self.calls[call_id] = Call(call_id, flags, call_id, now, now + timeout_s)
        return call

    def _ask(self, client: OurClient, call: Call, kind: CallKind, attempt: int) -> None:
        call.questions += 1
        call.last_asker = client
        if attempt > call.attempt or (kind is CallKind.CANCEL and attempt == call.attempt):
            call.attempt, call.asker = attempt, client
            call.owed = True
        client.ask(
            kind,
            call.id,
            b"echo",
            [call.body],
            attempt=attempt,
            flags=call.flags,
            deadline=call.deadline,
            first_sent=call.began,
        )

    @rule(client=pick, flags=FLAGS, timeout_s=st.sampled_from([0.5, 3.0, 12.0, 30.0]))
    def submit(self, client: int, flags: CallFlag, timeout_s: float) -> None:
        call = self._new_call(flags, timeout_s)
        self._ask(self._client(client), call, CallKind.SUBMIT, 1)

    @rule(client=pick, flags=FLAGS, timeout_s=st.sampled_from([3.0, 12.0]))
    def submit_into_a_slow_link(self, client: int, flags: CallFlag, timeout_s: float) -> None:
        call = self._new_call(flags, timeout_s)
        call.unsent_copy = (self._client(client), 1)

    @precondition(lambda self: any(call.unsent_copy for call in self.calls.values()))
    @rule(number=pick)
    def slow_link_delivers(self, number: int) -> None:
        waiting = [call for call in self.calls.values() if call.unsent_copy]
        call = waiting[number % len(waiting)]
        assert call.unsent_copy is not None
        client, attempt = call.unsent_copy
        call.unsent_copy = None
        self._ask(client, call, CallKind.SUBMIT, attempt)

    @precondition(lambda self: self.calls)
    @rule(number=pick, client=pick, kind=st.sampled_from([CallKind.ATTACH, CallKind.ATTACH, CallKind.SUBMIT]))
    def ask_again(self, number: int, client: int, kind: CallKind) -> None:
        """As a client of ours would: SUBMIT again only what may be repeated or is proven not to have run."""
        call = self._call(number)
        if self.bench.now >= call.deadline:
            return
        proven = call.proven_at_attempt == max(call.attempt, 1)
        if kind is CallKind.SUBMIT and not (call.idempotent or proven):
            kind = CallKind.ATTACH
        self._ask(self._client(client), call, kind, max(call.attempt, 1) + 1)

    @precondition(lambda self: self.calls)
    @rule(number=pick)
    def cancel(self, number: int) -> None:
        call = self._call(number)
        if call.asker is not None:
            self._ask(call.asker, call, CallKind.CANCEL, call.attempt)

    @rule()
    def plain_request(self) -> None:
        self.plain_requests += 1
        self.plain.request(b"echo", b"plain")

    # --- what workers do ------------------------------------------------------------------------------

    def _open_tokens(self) -> list[Token]:
        alive = {worker.id for worker in self.workers}
        return [token for token in self.tokens.values() if not token.ended and token.worker in alive]

    @precondition(lambda self: self._open_tokens())
    @rule(number=pick, how=st.sampled_from(["result", "result", "result", "started", "error", "give back", "partial"]))
    def worker_reports(self, number: int, how: str) -> None:
        tokens = self._open_tokens()
        token = tokens[number % len(tokens)]
        worker = self.bench.peers[token.worker]
        if isinstance(worker, ForeignWorker):
            self._foreign_reply(worker, token, how)
        elif isinstance(worker, OurWorker):
            self._our_report(worker, token, how)

    def _foreign_reply(self, worker: ForeignWorker, token: Token, how: str) -> None:
        if how == "partial" and worker.version is Version.MDP02:
            token.started = True
            worker.send_reply(token.address, b"part", final=False)
        elif how == "result":
            token.ended = True
            worker.send_reply(token.address, token.address)

    def _our_report(self, worker: OurWorker, token: Token, how: str) -> None:
        if how in ("started", "partial") and self.bench.now > token.at + CONFIG.delivery_timeout_s - SLACK_S:
            token.missed = token.missed or not token.started
        if how == "started":
            token.started = True
            worker.started(token.address)
        elif how == "partial":
            token.started = True
            worker.partial(token.address, b"part")
        elif how == "error":
            token.ended = True
            worker.error(token.address, b"Error", token.address)
        elif how == "result":
            token.ended = True
            worker.result(token.address, token.address)
        elif not token.started:
            token.ended = token.given_back = True
            worker.give_back(token.address, GiveBackReason.FULL)

    @precondition(lambda self: self.workers)
    @rule(number=pick)
    def worker_dies(self, number: int) -> None:
        worker = self.workers.pop(number % len(self.workers))
        self.bench.kill(worker)

    @precondition(lambda self: self.workers)
    @rule(number=pick)
    def worker_disconnects(self, number: int) -> None:
        worker = self.workers.pop(number % len(self.workers))
        self.bench.fall_silent(worker)
        worker.disconnect()

    @precondition(lambda self: any(isinstance(worker, OurWorker) for worker in self.workers))
    @rule(number=pick, broken_first=st.booleans(), pause_s=st.sampled_from([0.0, 0.3, 1.0]))
    def worker_reconnects(self, number: int, broken_first: bool, pause_s: float) -> None:
        """The link breaks, noticed by the broker before the worker is back or not; its tokens come along."""
        ours = [worker for worker in self.workers if isinstance(worker, OurWorker)]
        worker = ours[number % len(ours)]
        self.workers.remove(worker)
        if broken_first:
            self.bench.notice_death(worker)
        else:
            self.bench.kill(worker)
        self.bench.advance(pause_s)
        self._digest()
        held = [token for token in self.tokens.values() if token.worker == worker.id and not token.ended]
        again = worker.successor(self._name("ours"))
        self.brought[again.id] = len(held)
        for token in held:
            token.worker = again.id
        again.ready(tokens=[token.address for token in held], last_life=LIFE)
        self.workers.append(again)
        self.bench.keep_alive(again)

    @precondition(lambda self: self.workers)
    @rule(number=pick, silent=st.booleans())
    def worker_falls_silent_or_speaks(self, number: int, silent: bool) -> None:
        worker = self.workers[number % len(self.workers)]
        if silent:
            self.bench.fall_silent(worker)
        else:
            worker.heartbeat()
            self.bench.keep_alive(worker)

    @precondition(lambda self: self.workers)
    @rule(number=pick)
    def pipe_of_a_worker_fills_or_empties(self, number: int) -> None:
        self.bench.full ^= {self.workers[number % len(self.workers)].id}

    @rule(seconds=st.sampled_from([0.05, 0.3, 0.6, 1.1, 3.2, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.advance(seconds)

    # --- the books ----------------------------------------------------------------------------------------

    def _digest(self) -> None:
        while self.read < len(self.bench.journal):
            at, peer, frames = self.bench.journal[self.read]
            self.read += 1
            if isinstance(peer, OurClient):
                self._answered(peer, frames)
            elif isinstance(peer, OurWorker | ForeignWorker):
                self._handed_over(peer, frames, at)
            else:
                self.plain_replies += int(decode_at_client(frames).final)

    def _answered(self, peer: OurClient, frames: Frames) -> None:
        reply = decode_at_client(frames)
        if reply.version is Version.MDP01:
            return
        answer = AnswerFrame.decode(reply.stack[-1])
        call = self.calls[answer.call_id]
        if answer.status in (*RESULTS, Status.PARTIAL):
            assert peer in (call.asker, call.last_asker), f"{answer.status!r} went to {peer.id!r}"
        if not reply.final:
            return
        call.finals += 1
        assert call.finals <= call.questions, f"{call.finals} final answers to {call.questions} questions"
        if peer is call.asker:
            call.owed = False
        if answer.outcome is Outcome.NOT_EXECUTED:
            assert call.kept() == [], f"{answer.status!r} says not executed; {call.kept()}"
            call.proven_at_attempt = call.attempt
        if answer.status in RESULTS:
            assert call.result in (None, (answer.status, reply.body)), "the result of a call changed"
            call.result = (answer.status, reply.body)

    def _handed_over(self, peer: Peer, frames: Frames, at: float) -> None:
        command = decode_at_worker(frames)
        if isinstance(command, WorkerDisconnect):
            for token in self.tokens.values():
                if token.worker == peer.id and isinstance(peer, ForeignWorker):
                    token.ended = True
        if isinstance(command, ClientReply) or not isinstance(command, WorkerRequest):
            return
        address = command.address
        if isinstance(peer, OurWorker):
            delivery = Delivery.decode(address)
            if delivery.kind is not DeliveryKind.RUN:
                return
            address = delivery.token
        assert address not in self.tokens, "a token was given out twice"
        token = self.tokens[address] = Token(address, peer.id, command.body[0], at)
        if token.call in self.calls:
            self._delivered(self.calls[token.call], token)
        self._check_load(peer, at)

    def _delivered(self, call: Call, token: Token) -> None:
        assert call.idempotent or call.kept() == [], f"delivered again: {call.kept()}"
        assert call.proven_at_attempt is None or call.attempt > call.proven_at_attempt, "it was said not to have run"
        assert call.result is None, "delivered after it was answered"
        call.tokens.append(token)

    def _check_load(self, peer: Peer, now: float) -> None:
        open_tokens = [token for token in self.tokens.values() if token.worker == peer.id and not token.ended]
        if isinstance(peer, OurWorker):
            # What was not started within the delivery timeout is taken for lost on the way, so it fills no slot.
            young = now - CONFIG.delivery_timeout_s + SLACK_S
            open_tokens = [token for token in open_tokens if (token.started and not token.missed) or token.at > young]
            assert len(open_tokens) <= peer.credit, "credit exceeded"
        else:
            assert len(open_tokens) <= 1, "a foreign worker has two requests"

    @invariant()
    def books_balance(self) -> None:
        self._digest()
        assert self.plain_replies <= self.plain_requests
        assert self.bench.strays == []
        for call in self.calls.values():
            if call.owed and call.asker is not None and self.bench.now > call.deadline + SLACK_S:
                raise AssertionError(f"no final answer by the deadline: {call}")

    @invariant()
    def tables_agree(self) -> None:
        for row in self.bench.snapshot().workers:
            worker = self.bench.peers[bytes.fromhex(row.peer)]
            credit = worker.credit if isinstance(worker, OurWorker) else 1
            assert row.in_hand <= max(credit, self.brought.get(worker.id, 0)), row

    def teardown(self) -> None:
        """When all is over and healed, a fresh pair is served."""
        self.bench.full.clear()
        self.bench.advance(90.0)
        self._digest()
        assert all(not call.owed for call in self.calls.values()), "a call never ended"
        worker = OurWorker(self.bench, b"fresh", services=[ServiceOffer(b"fresh")]).ready()
        client = OurClient(self.bench, b"fresh-client")
        client.submit(b"fresh", flags=CallFlag.NOT_IDEMPOTENT)
        worker.result(worker.job().token, b"served")
        assert client.answer().body == [b"served"]


TestBrokerage = Brokerage.TestCase
TestBrokerage.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
