"""A bench for the Majordomo broker's engine: literal time, named peers, every message kept.

``Bench`` stands where the shell stands. It takes messages from the engine's outbox as soon as there are any, files them
under the peer they go to, and checks of each one that this peer may get it at all: in the dialect that the peer speaks,
nothing after a DISCONNECT, nothing to an unknown peer. Peers that a test calls unreachable or full make the bench call
``engine.unsent`` in place of a delivery, as the shell does for EHOSTUNREACH and EAGAIN. Time moves only in
``Bench.advance``, which visits each deadline of the engine on its way and checks that none is left behind.

The peers are what a test talks through: ``ForeignClient`` and ``ForeignWorker`` speak plain MDP of either version,
``OurClient`` and ``OurWorker`` say hello and use the extension. Nothing in here knows how the engine works.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import attrs

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.snapshot import BrokerSnapshot, WorkerView
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import (
    CONTROL_TOKEN,
    HELLO_SERVICE,
    NO_LIFE,
    AnswerFrame,
    CallFlag,
    CallFrame,
    CallKind,
    Delivery,
    DeliveryKind,
    GiveBackReason,
    Hello,
    HelloAnswer,
    Place,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
    body_digest,
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
    decode_at_client,
    decode_at_worker,
)
from reliable.wire.mmi import FOUND, SERVICE_QUERY, hello_request

__all__ = [
    "LIFE",
    "OTHER_LIFE",
    "SLACK_S",
    "START",
    "Answer",
    "Bench",
    "ForeignClient",
    "ForeignWorker",
    "Job",
    "OurClient",
    "OurWorker",
    "Peer",
]

LIFE: Final = b"life-one"
OTHER_LIFE: Final = b"life-two"
START: Final = 1000.0
SLACK_S: Final = 0.15
"""How late the engine may carry out what is due: its deadlines live in buckets of 50 ms."""
STEPS_MAX: Final = 200_000

T = TypeVar("T")


@attrs.frozen
class Answer:
    """What one of our clients was told, taken apart."""

    frame: AnswerFrame
    final: bool
    service: bytes
    body: Frames

    @property
    def status(self) -> Status:
        """Shorthand, since nearly every test looks at it."""
        return self.frame.status

    @property
    def outcome(self) -> Outcome:
        """Shorthand, likewise."""
        return self.frame.outcome

    @property
    def place(self) -> Place:
        """Shorthand, likewise."""
        return self.frame.place


@attrs.frozen
class Job:
    """What one of our workers was handed."""

    delivery: Delivery
    body: Frames

    @property
    def token(self) -> bytes:
        """The token to report under."""
        return self.delivery.token


class Bench:
    """An engine, a clock that is a number, and the mail of every peer."""

    def __init__(self, config: BrokerConfig | None = None, *, life: bytes = LIFE, now: float = START) -> None:
        self.config = BrokerConfig() if config is None else config
        self.life = life
        self.now = now
        self.engine = MajordomoEngine(self.config, life=life, now=now)
        self.peers: dict[bytes, Peer] = {}
        self.unreachable: set[bytes] = set()
        self.full: set[bytes] = set()
        self.strays: list[Frames] = []
        """Messages to a routing id that no peer of the test has."""
        self.journal: list[tuple[float, Peer, Frames]] = []
        """Everything that was delivered to anybody, in order."""
        self._kept_alive: dict[bytes, float] = {}
        self._call_numbers = itertools.count(1)

    # --- the shell's part -------------------------------------------------------------------------

    def receive(self, routing_id: bytes, frames: Iterable[bytes]) -> None:
        """One message from a peer reaches the ROUTER; what it leads to is delivered."""
        self.engine.receive([routing_id, *frames], self.now)
        self.pump()

    def pump(self) -> None:
        """Deliver the outbox, or tell the engine what could not be."""
        for _ in range(STEPS_MAX):
            if not self.engine.outbox:
                return
            message = self.engine.outbox.popleft()
            assert all(type(frame) is bytes for frame in message), f"not bytes: {message!r}"
            routing_id = message[0]
            if routing_id in self.unreachable:
                self.engine.unsent(message, True, self.now)
            elif routing_id in self.full:
                self.engine.unsent(message, False, self.now)
            elif routing_id in self.peers:
                self.journal.append((self.now, self.peers[routing_id], message[1:]))
                self.peers[routing_id].deliver(message[1:])
            else:
                self.strays.append(message)
        raise AssertionError("the outbox does not run dry: each unsent message leads to another one")

    def advance(self, seconds: float) -> None:
        """Let time pass, carrying out every deadline at its moment; kept-alive workers heartbeat meanwhile."""
        end = self.now + seconds
        for _ in range(STEPS_MAX):
            beat = min(self._kept_alive.values(), default=end)
            due = self.engine.next_deadline()
            step = min(end, beat, end if due is None else max(due, self.now))
            self.now = max(self.now, step)
            self._beat()
            self.tick()
            if self.now >= end:
                return
        raise AssertionError("the engine's deadlines do not move on")

    def tick(self) -> None:
        """``timers`` at this moment; afterwards nothing may be due."""
        self.engine.timers(self.now)
        self.pump()
        due = self.engine.next_deadline()
        assert due is None or due > self.now, f"timers() left a deadline at {due}, and it is {self.now}"

    def _beat(self) -> None:
        for routing_id, at in list(self._kept_alive.items()):
            if at <= self.now:
                self._kept_alive[routing_id] = self.now + self.heartbeat_s
                worker = self.peers[routing_id]
                if routing_id not in self.unreachable and isinstance(worker, ForeignWorker | OurWorker):
                    worker.heartbeat()

    # --- what the tests read ----------------------------------------------------------------------

    @property
    def heartbeat_s(self) -> float:
        """The agreed interval."""
        return self.config.heartbeat.interval_s

    @property
    def expiry_s(self) -> float:
        """Silence after which a foreign idle worker is expired."""
        return self.config.heartbeat.timeout_s

    @property
    def stuck_s(self) -> float:
        """Silence after which a worker of ours is stuck."""
        return self.config.heartbeat.timeout_s + 2 * self.config.heartbeat.interval_s

    def snapshot(self) -> BrokerSnapshot:
        """The engine's own view."""
        return self.engine.snapshot()

    def view(self, peer: Peer) -> WorkerView | None:
        """The row of a worker in the snapshot, or None if the broker does not have it."""
        rows = [row for row in self.snapshot().workers if row.peer == peer.id.hex()]
        assert len(rows) <= 1, f"the same worker is listed twice: {rows}"
        return rows[0] if rows else None

    def state(self, peer: Peer) -> str | None:
        """``idle``, ``working``, ``stuck``, ``unverified`` or None."""
        row = self.view(peer)
        return None if row is None else row.state

    def count(self, name: str) -> int:
        """One of the engine's counters."""
        value = getattr(self.engine.counters, name)
        assert isinstance(value, int)
        return value

    def keep_alive(self, *workers: Peer) -> None:
        """From now on these workers heartbeat at the interval while time passes."""
        for worker in workers:
            self._kept_alive[worker.id] = self.now + self.heartbeat_s

    def fall_silent(self, *workers: Peer) -> None:
        """These workers stop heartbeating by themselves."""
        for worker in workers:
            self._kept_alive.pop(worker.id, None)

    def kill(self, peer: Peer) -> None:
        """The peer's connection is gone: it says nothing more, and sends to it fail from now on."""
        self.unreachable.add(peer.id)
        self._kept_alive.pop(peer.id, None)

    def beat_while_busy(self, worker: _WorkerPeer) -> None:
        """Heartbeat late enough after the request went out that it cannot have been under way before."""
        self.advance(self.heartbeat_s * 0.75)
        worker.heartbeat()

    def notice_death(self, peer: Peer) -> None:
        """Kill the peer, and let the broker find out by its next heartbeat to it."""
        self.kill(peer)
        self.advance(self.heartbeat_s + SLACK_S)

    def mmi(self, name: bytes, *, version: Version = Version.MDP01, asker: bytes = b"mmi-asker") -> bytes:
        """Ask ``mmi.service`` from a client of its own."""
        client = self.peers.get(asker) or ForeignClient(self, asker, version)
        assert isinstance(client, ForeignClient)
        client.request(SERVICE_QUERY, name)
        answer = client.replies()[-1]
        assert answer.service == SERVICE_QUERY and len(answer.body) == 1
        return answer.body[0]

    def new_call_id(self) -> bytes:
        """16 bytes that no other call of this bench has."""
        return b"call" + next(self._call_numbers).to_bytes(12, "big")


class Peer:
    """Whoever has a routing id. Keeps what it was sent, raw and in order."""

    def __init__(self, bench: Bench, routing_id: bytes) -> None:
        assert routing_id not in bench.peers, "this id is taken"
        self.bench = bench
        self.id = routing_id
        self.mail: list[Frames] = []
        """All raw messages ever received, without the routing id."""
        self._read: dict[str, int] = {}
        bench.peers[routing_id] = self

    def deliver(self, frames: Frames) -> None:
        """The bench hands over one message."""
        self.mail.append(frames)

    def send(self, *frames: bytes) -> None:
        """Send frames as they are."""
        self.bench.receive(self.id, frames)

    def unread(self, reader: str = "raw") -> list[Frames]:
        """Raw messages that came since this was last asked under this reader's name."""
        start = self._read.get(reader, 0)
        self._read[reader] = len(self.mail)
        return self.mail[start:]


class ForeignClient(Peer):
    """A client that speaks plain MDP: REQ or DEALER in 0.1, DEALER in 0.2."""

    def __init__(self, bench: Bench, routing_id: bytes = b"client", version: Version = Version.MDP01) -> None:
        super().__init__(bench, routing_id)
        self.version = version

    def deliver(self, frames: Frames) -> None:
        """Whatever reaches a client must be a reply in its own version: anything else would brick a REQ socket."""
        reply = decode_at_client(frames)
        assert reply.version is self.version, f"a {self.version} client got {frames!r}"
        assert frames == reply.encode(), f"not exactly the frames of the RFC: {frames!r}"
        super().deliver(frames)

    def request(self, service: bytes, *body: bytes, stack: Sequence[bytes] = ()) -> None:
        """Send a request; a 0.1 request may have address frames in front of the delimiter."""
        self.send(*ClientRequest(self.version, service, list(body) or [b"work"], list(stack)).encode())

    def replies(self) -> list[ClientReply]:
        """What was answered since this was last asked."""
        return [decode_at_client(frames) for frames in self.unread("replies")]


class _WorkerPeer(Peer):
    """What both kinds of worker have in common."""

    version: Version

    def __init__(self, bench: Bench, routing_id: bytes, version: Version) -> None:
        super().__init__(bench, routing_id)
        self.version = version

    def deliver(self, frames: Frames) -> None:
        """Commands come in this worker's version, and byte for byte as its RFC has them."""
        command = decode_at_worker(frames)
        if not isinstance(command, ClientReply):
            assert command.version is self.version, f"a {self.version} worker got {frames!r}"
            assert not isinstance(command, WorkerReady | WorkerReply), "the broker does not send this"
            assert frames == command.encode()
        super().deliver(frames)

    def new(self, kind: type[T]) -> list[T]:
        """Commands of one kind that came since this was last asked for this kind."""
        commands = [decode_at_worker(frames) for frames in self.unread(kind.__name__)]
        return [command for command in commands if isinstance(command, kind)]

    def disconnects(self) -> int:
        """How many DISCONNECTs came since this was last asked."""
        return len(self.new(WorkerDisconnect))

    def heartbeats(self) -> int:
        """How many HEARTBEATs came since this was last asked."""
        return len(self.new(WorkerHeartbeat))

    def heartbeat(self) -> None:
        """Say that we live."""
        self.send(*WorkerHeartbeat(self.version).encode())

    def disconnect(self) -> None:
        """Say goodbye."""
        self.send(*WorkerDisconnect(self.version).encode())

    def send_reply(self, address: bytes, *body: bytes, final: bool = True) -> None:
        """A REPLY, FINAL or PARTIAL to whatever address."""
        self.send(*WorkerReply(self.version, address, list(body) or [b"done"], final).encode())


class ForeignWorker(_WorkerPeer):
    """A worker that speaks plain MDP."""

    def __init__(
        self, bench: Bench, routing_id: bytes = b"worker", version: Version = Version.MDP01, service: bytes = b"echo"
    ) -> None:
        super().__init__(bench, routing_id, version)
        self.service = service

    def ready(self, service: bytes | None = None) -> ForeignWorker:
        """Register; gives itself, so that it can be chained to the constructor."""
        self.send(*WorkerReady(self.version, self.service if service is None else service).encode())
        return self

    def requests(self) -> list[WorkerRequest]:
        """Requests that came since this was last asked."""
        return self.new(WorkerRequest)

    def request(self) -> WorkerRequest:
        """The one request that came."""
        requests = self.requests()
        assert len(requests) == 1, f"expected one request, got {requests}"
        return requests[0]


class OurClient(Peer):
    """A client of ours: hello, call frames, MDP 0.2."""

    def __init__(
        self,
        bench: Bench,
        routing_id: bytes = b"our-client",
        *,
        instance: bytes | None = None,
        hello: bool = True,
        max_message_bytes: int = 0,
    ) -> None:
        super().__init__(bench, routing_id)
        self.instance = routing_id.ljust(16, b".")[:16] if instance is None else instance
        self.max_message_bytes = max_message_bytes
        self.hello_at = bench.now
        self.hello_answer: HelloAnswer | None = None
        if hello:
            self.hello()

    def hello(self) -> None:
        """Open the session: both sides count from now."""
        self.hello_at = self.bench.now
        self.send(*hello_request(Hello(Role.CLIENT, self.instance, self.max_message_bytes).encode()))

    def deliver(self, frames: Frames) -> None:
        """The hello's answer is MDP 0.1, everything else 0.2 with an answer frame of this life."""
        reply = decode_at_client(frames)
        if reply.version is Version.MDP01:
            assert reply.body[0] == FOUND
            self.hello_answer = HelloAnswer.decode(reply.body[1:])
            return
        answer = AnswerFrame.decode(reply.stack[-1])
        assert answer.life == self.bench.life
        assert frames == reply.encode()
        super().deliver(frames)

    def ms(self, moment: float) -> int:
        """A deadline as this session writes it."""
        return round((moment - self.hello_at) * 1000)

    def ms_before(self, moment: float) -> int:
        """The moment of the first sending, which must err to the past."""
        return math.floor((moment - self.hello_at) * 1000)

    def ask(
        self,
        kind: CallKind,
        call_id: bytes,
        service: bytes = b"echo",
        body: Sequence[bytes] = (b"work",),
        *,
        attempt: int = 1,
        flags: CallFlag = CallFlag.NONE,
        timeout_s: float = 10.0,
        deadline: float | None = None,
        first_sent: float | None = None,
        life: bytes | None = None,
        digest: bytes | None = None,
        stack: Sequence[bytes] = (),
    ) -> bytes:
        """One message about a call; ``deadline`` and ``first_sent`` are moments of the bench's clock."""
        frame = CallFrame(
            kind,
            flags,
            attempt,
            call_id,
            self.instance,
            self.bench.life if life is None else life,
            self.ms(self.bench.now + timeout_s if deadline is None else deadline),
            self.ms_before(self.bench.now if first_sent is None else first_sent),
            body_digest(service, body) if digest is None else digest,
        )
        self.send(*ClientRequest(Version.MDP02, service, list(body), [*stack, frame.encode()]).encode())
        return call_id

    def submit(
        self,
        service: bytes = b"echo",
        body: Sequence[bytes] = (b"work",),
        *,
        call_id: bytes | None = None,
        attempt: int = 1,
        flags: CallFlag = CallFlag.NONE,
        timeout_s: float = 10.0,
        deadline: float | None = None,
        first_sent: float | None = None,
        life: bytes | None = None,
        digest: bytes | None = None,
    ) -> bytes:
        """SUBMIT; gives the call id."""
        return self.ask(
            CallKind.SUBMIT,
            self.bench.new_call_id() if call_id is None else call_id,
            service,
            body,
            attempt=attempt,
            flags=flags,
            timeout_s=timeout_s,
            deadline=deadline,
            first_sent=first_sent,
            life=life,
            digest=digest,
        )

    def attach(
        self,
        call_id: bytes,
        service: bytes = b"echo",
        body: Sequence[bytes] = (b"work",),
        *,
        attempt: int = 2,
        flags: CallFlag = CallFlag.NONE,
        timeout_s: float = 10.0,
        deadline: float | None = None,
        first_sent: float | None = None,
        life: bytes | None = None,
    ) -> bytes:
        """ATTACH: what became of it?"""
        return self.ask(
            CallKind.ATTACH,
            call_id,
            service,
            body,
            attempt=attempt,
            flags=flags,
            timeout_s=timeout_s,
            deadline=deadline,
            first_sent=first_sent,
            life=life,
        )

    def cancel(self, call_id: bytes, service: bytes = b"echo", body: Sequence[bytes] = (b"work",)) -> bytes:
        """CANCEL: nobody waits for it any more."""
        return self.ask(CallKind.CANCEL, call_id, service, body)

    def answers(self) -> list[Answer]:
        """What was answered since this was last asked."""
        return [self._answer(frames) for frames in self.unread("answers")]

    def answer(self) -> Answer:
        """The one answer that came."""
        answers = self.answers()
        assert len(answers) == 1, f"expected one answer, got {answers}"
        return answers[0]

    def all_answers(self) -> list[Answer]:
        """Every answer since the beginning."""
        return [self._answer(frames) for frames in self.mail]

    def _answer(self, frames: Frames) -> Answer:
        reply = decode_at_client(frames)
        return Answer(AnswerFrame.decode(reply.stack[-1]), reply.final, reply.service, reply.body)


class OurWorker(_WorkerPeer):
    """A worker of ours: hello, READY with its extension, deliveries and reports, MDP 0.2."""

    def __init__(
        self,
        bench: Bench,
        routing_id: bytes = b"our-worker",
        *,
        services: Sequence[ServiceOffer] = (ServiceOffer(b"echo"),),
        credit: int = 1,
        instance: bytes | None = None,
        hello: bool = True,
    ) -> None:
        super().__init__(bench, routing_id, Version.MDP02)
        self.instance = routing_id.ljust(16, b".")[:16] if instance is None else instance
        self.services = tuple(services)
        self.credit = credit
        self.hello_at = bench.now
        self.hello_answer: HelloAnswer | None = None
        if hello:
            self.hello()

    def hello(self) -> None:
        """Open the session."""
        self.hello_at = self.bench.now
        self.send(*hello_request(Hello(Role.WORKER, self.instance).encode()))

    def deliver(self, frames: Frames) -> None:
        """As for any worker, and each REQUEST carries a delivery."""
        command = decode_at_worker(frames)
        if isinstance(command, ClientReply) and command.service == HELLO_SERVICE:
            assert command.body[0] == FOUND
            self.hello_answer = HelloAnswer.decode(command.body[1:])
            return
        if isinstance(command, WorkerRequest):
            Delivery.decode(command.address)
        super().deliver(frames)

    def ready(
        self, *, tokens: Sequence[bytes] = (), last_life: bytes = NO_LIFE, newest: int | None = None
    ) -> OurWorker:
        """Register with the extension frame; gives itself."""
        extension = ReadyExtension(self.instance, self.credit, self.services, last_life, tuple(tokens), newest=newest)
        self.send(*WorkerReady(Version.MDP02, self.services[0].name, extension.encode()).encode())
        return self

    def successor(self, routing_id: bytes) -> OurWorker:
        """The same process on a new connection: same instance id, not yet registered."""
        return OurWorker(
            self.bench, routing_id, services=self.services, credit=self.credit, instance=self.instance, hello=True
        )

    def _messages(self, reader: str, kind: DeliveryKind) -> list[Job]:
        jobs = []
        for frames in self.unread(reader):
            command = decode_at_worker(frames)
            if isinstance(command, WorkerRequest):
                delivery = Delivery.decode(command.address)
                if delivery.kind is kind:
                    jobs.append(Job(delivery, command.body))
        return jobs

    def jobs(self) -> list[Job]:
        """Deliveries to run that came since this was last asked."""
        return self._messages("jobs", DeliveryKind.RUN)

    def job(self) -> Job:
        """The one delivery that came."""
        jobs = self.jobs()
        assert len(jobs) == 1, f"expected one delivery, got {jobs}"
        return jobs[0]

    def cancels(self) -> list[bytes]:
        """Tokens that were cancelled since this was last asked."""
        return [job.token for job in self._messages("cancels", DeliveryKind.CANCEL)]

    def credit_acks(self) -> int:
        """How many CREDIT reports were acknowledged since this was last asked."""
        return len(self._messages("credit", DeliveryKind.CREDIT_ACK))

    def report(
        self,
        token: bytes,
        kind: ReportKind,
        *body: bytes,
        executed: bool = True,
        detail: int = 0,
        final: bool | None = None,
    ) -> None:
        """Any report, in a FINAL or PARTIAL as its kind wants it."""
        report = Report(token, kind, executed, detail)
        self.send_reply(report.encode(), *(body or (b"",)), final=kind.final if final is None else final)

    def result(self, token: bytes, *body: bytes) -> None:
        """The handler's reply."""
        self.report(token, ReportKind.RESULT, *(body or (b"done",)))

    def error(self, token: bytes, name: bytes = b"ValueError", text: bytes = b"no", *, executed: bool = True) -> None:
        """The handler failed, or was never entered."""
        self.report(token, ReportKind.ERROR, name, text, executed=executed)

    def started(self, token: bytes) -> None:
        """The handler runs."""
        self.report(token, ReportKind.STARTED)

    def partial(self, token: bytes, *body: bytes) -> None:
        """A part of a streamed reply."""
        self.report(token, ReportKind.PARTIAL, *body)

    def progress(self, token: bytes, *body: bytes) -> None:
        """News of the handler."""
        self.report(token, ReportKind.PROGRESS, *body)

    def give_back(self, token: bytes, reason: GiveBackReason = GiveBackReason.DRAINING) -> None:
        """It never started here."""
        self.report(token, ReportKind.GIVE_BACK, detail=reason)

    def set_credit(self, credit: int) -> None:
        """So many requests at once from now on."""
        self.report(CONTROL_TOKEN, ReportKind.CREDIT, detail=credit)
