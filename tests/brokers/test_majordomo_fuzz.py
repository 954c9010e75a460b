"""Random frame lists against the broker: no input from a peer may raise, break the tables, or cost anybody else.

A seeded crowd of peers sends valid messages, valid messages with damage, and plain junk, while time passes, sends fail
and pipes fill. The frames are built so that they come close: tokens that were really handed out, call ids that were
really used, headers of both versions. Afterwards the broker must be empty again, and serve a well-behaved pair.
"""

from __future__ import annotations

import gc
import random
import types
from typing import Final

import pytest

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.snapshot import BrokerSnapshot
from reliable.types import Frames
from reliable.wire.extension import (
    CONTROL_TOKEN,
    MAGIC,
    NO_LIFE,
    CallFlag,
    CallFrame,
    CallKind,
    Hello,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
    body_digest,
)
from reliable.wire.mdp import (
    ClientRequest,
    Version,
    WorkerDisconnect,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
)
from reliable.wire.mmi import hello_request
from tests.support.broker_bench import LIFE, START, Bench, ForeignClient, ForeignWorker, OurClient, OurWorker

ROUNDS: Final = 50_000
ENDLESS_MS: Final = 2**63 - 1
SEEDS: Final = (1, 2, 3, 4)
CONFIG: Final = BrokerConfig(
    plain_request_expiry_s=8.0,
    queued_per_client_max=8,
    queued_per_service_max=20,
    queued_per_unknown_service_max=5,
    unknown_services_max=6,
    queued_max=60,
    held_bytes_max=50_000,
    finished_calls_max=50,
    reply_cache_bytes_max=2_000,
    fences_max=20,
    late_tokens_max=20,
    sessions_max=40,
    workers_max=20,
    services_max=12,
    credit_max=4,
    tombstones_max=10,
    message_bytes_max=4096,
    collected_bytes_max=1000,
    overdue_slot_s=10.0,
)
IN_HAND_MAX: Final = CONFIG.workers_max * CONFIG.credit_max
"""Requests that may come back into a full queue: what was taken in is not refused afterwards."""
SPECIAL: Final = (
    b"",
    b"\0",
    b"\1",
    b"\2",
    b"\3",
    b"\4",
    b"\5",
    b"\6",
    b"MDPC01",
    b"MDPC02",
    b"MDPW01",
    b"MDPW02",
    b"MDPC03",
    MAGIC,
    MAGIC + b"\x31\x96",
    b"mmi.service",
    b"mmi.",
    CONTROL_TOKEN,
    b"x" * 300,
    b"y" * 5000,
)
SERVICES: Final = tuple(b"s%d" % number for number in range(5))


class Crowd:
    """Everybody who sends, and what they know of what was handed out."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.engine = MajordomoEngine(CONFIG, life=LIFE, now=START)
        self.now = START
        self.ids = [bytes([0, n]) for n in range(60)]
        self.addresses: list[tuple[bytes, bytes]] = [(self.ids[0], b"nothing yet")]
        """(worker, address) of requests that were handed over lately."""
        self.call_ids = [n.to_bytes(16, "big") for n in range(40)]
        self.endless: set[bytes] = set()
        """Calls whose deadline never comes."""
        self.registered: set[bytes] = set()
        """Workers that said READY and were not sent DISCONNECT since; a sane majority acts by it."""
        self.handed_over = 0
        self.answered = 0

    def round(self) -> None:
        """One message or one step of time, then the outbox."""
        what = self.random.random()
        if what < 0.03:
            self.now += self.random.choice((0.0, 0.01, 0.02, 0.06, 0.3, 0.3, 4.0))
            self.engine.timers(self.now)
            due = self.engine.next_deadline()
            assert due is None or due > self.now, f"timers left {due} at {self.now}"
        elif what < 0.032:
            self.engine.stalled(self.random.choice((0.5, 5.0)), self.now)
        else:
            sender, frames = self.message()
            self.engine.receive([sender, *frames], self.now)
        self.drain()

    def drain(self) -> None:
        """Send what is to be sent; some of it fails."""
        for _ in range(100_000):
            if not self.engine.outbox:
                return
            message = self.engine.outbox.popleft()
            luck = self.random.random()
            if luck < 0.04:
                self.engine.unsent(message, luck < 0.02, self.now)
            else:
                self._note(message)
        raise AssertionError("the outbox does not run dry")

    def _note(self, message: Frames) -> None:
        at = 3 if message[1] == b"" else 2
        if len(message) > at + 1 and message[at] == b"\2" and message[at - 1] in (b"MDPW01", b"MDPW02"):
            self.handed_over += 1
            self.addresses.append((message[0], message[at + 1]))
            del self.addresses[:-30]
        elif message[-2:] in ([b"MDPW01", b"\5"], [b"MDPW02", b"\6"]):
            self.registered.discard(message[0])
        elif b"MDPC01" in message or b"MDPC02" in message:
            self.answered += 1

    def message(self) -> tuple[bytes, Frames]:
        """Valid, damaged, or junk."""
        kind = self.random.random()
        if kind < 0.04:
            return self.random.choice(self.ids), self._junk()
        sender, frames = self._valid()
        if kind < 0.14:
            frames = self._damaged(frames)
        if kind < 0.06:
            sender = self.random.choice(self.ids)
        return sender, frames

    def _junk(self) -> Frames:
        choose = self.random.choice
        return [
            choose(SPECIAL) if self.random.random() < 0.8 else self.random.randbytes(8) for _ in range(choose(range(8)))
        ]

    def _damaged(self, frames: Frames) -> Frames:
        frames = list(frames)
        at = self.random.randrange(len(frames))
        how = self.random.randrange(6)
        if how == 0:
            del frames[at]
        elif how == 1:
            frames.insert(at, self.random.choice(SPECIAL))
        elif how == 2:
            frames[at] = self.random.choice(SPECIAL)
        elif how == 3:
            frames[at] = frames[at][: self.random.randrange(len(frames[at]) + 1)]
        elif how == 4 and frames[at]:
            byte = self.random.randrange(len(frames[at]))
            frames[at] = frames[at][:byte] + self.random.randbytes(1) + frames[at][byte + 1 :]
        else:
            frames = frames[:at]
        return frames

    def _valid(self) -> tuple[bytes, Frames]:
        """Workers have the first 30 ids, clients the others; odd ones are ours, and two of those share an instance."""
        sender = self.random.randrange(60)
        routing_id = self.ids[sender]
        if sender < 30:
            if self.random.random() < 0.4:
                return self._reply()
            return routing_id, self._from_worker(sender)
        return routing_id, self._from_client(sender)

    def _reply(self) -> tuple[bytes, Frames]:
        worker, address = self.random.choice(self.addresses)
        body = [b"r" * self.random.choice((0, 10, 600))]
        if address[16:20] == MAGIC:
            kind = self.random.choice(list(ReportKind))
            report = Report(address[:16], kind, self.random.random() < 0.9, self.random.randrange(7))
            return worker, WorkerReply(Version.MDP02, report.encode(), body, kind.final).encode()
        version = self._version_of(worker)
        final = version is Version.MDP01 or self.random.random() < 0.7
        return worker, WorkerReply(version, address, body, final).encode()

    def _version_of(self, routing_id: bytes) -> Version:
        return Version.MDP01 if routing_id[1] % 4 == 0 else Version.MDP02

    def _from_worker(self, sender: int) -> Frames:
        version = self._version_of(self.ids[sender])
        what = self.random.random()
        if self.random.random() < (0.97 if self.ids[sender] in self.registered else 0.05):
            return WorkerHeartbeat(version).encode()
        if what < 0.1:
            self.registered.discard(self.ids[sender])
            return WorkerDisconnect(version).encode()
        if what < 0.13:
            return WorkerRequest(version, b"address", [b"x"]).encode()
        if sender % 2 and what < 0.4:
            return hello_request(Hello(Role.WORKER, bytes([sender // 4]) * 16).encode())
        self.registered.add(self.ids[sender])
        service = self._service()
        if sender % 2 == 0:
            return WorkerReady(version, service).encode()
        instance = bytes([sender // 4]) * 16
        offers = tuple(
            ServiceOffer(name, self.random.choice((None, True, False))) for name in {service, self._service()}
        )
        tokens = tuple({address[:16].ljust(16) for _, address in self.addresses[-self.random.randrange(1, 12) :]})
        life = self.random.choice((LIFE, NO_LIFE))
        ready = ReadyExtension(instance, self.random.randrange(6), offers, life, tokens)
        return WorkerReady(Version.MDP02, offers[0].name, ready.encode()).encode()

    def _service(self) -> bytes:
        if self.random.random() < 0.03:
            return b"rare" + self.random.randbytes(2)
        return self.random.choice(SERVICES)

    def _from_client(self, sender: int) -> Frames:
        what = self.random.random()
        if what < 0.05:
            return ClientRequest(self._version_of(self.ids[sender]), b"mmi.service", [self._service()]).encode()
        number = self.random.randrange(len(self.call_ids))
        body, service = [b"b" * number], SERVICES[number % len(SERVICES)]
        if self.random.random() < 0.1:
            body, service = [b"b" * 300], self._service()
        if sender % 2 == 0:
            return ClientRequest(self._version_of(self.ids[sender]), service, body).encode()
        if what < 0.15:
            return hello_request(Hello(Role.CLIENT, bytes([sender]) * 16, self.random.choice((0, 100))).encode())
        call_id = self.call_ids[number]
        if self.random.random() < 0.01:
            self.call_ids[number] = self.random.randbytes(16)
        deadline_ms = self.random.choice((0, 10**6, 10**6, 10**6, 10**6, -1, ENDLESS_MS, -(2**63)))
        if deadline_ms == ENDLESS_MS:
            self.endless.add(call_id)
        frame = CallFrame(
            self.random.choice((CallKind.SUBMIT,) * 12 + (CallKind.ATTACH, CallKind.CANCEL)),
            CallFlag(self.random.choice((0, 1, 1, 2, 2, 3, 16, 32, 64, 65, 127))),
            self.random.choice((1, 1, 2, 3, 4, self.random.randrange(65536))),
            call_id,
            bytes([sender]) * 16,
            self.random.choice((LIFE,) * 8 + (NO_LIFE, b"12345678")),
            deadline_ms,
            self.random.choice((10**6,) * 6 + (0, 100, -(2**63), 2**63 - 1)),
            body_digest(service, body),
            b"trace" * self.random.randrange(2),
        )
        return ClientRequest(Version.MDP02, service, body, [frame.encode()]).encode()


def _check_snapshot(snapshot: BrokerSnapshot) -> None:
    """Tables agree with each other and with their limits."""
    assert len({row.peer for row in snapshot.workers}) == len(snapshot.workers) <= CONFIG.workers_max
    for row in snapshot.workers:
        # Tokens that come back with a worker may be more than its credit: it had more when it took them.
        assert row.in_hand <= CONFIG.credit_max if row.ours else row.in_hand <= 1, row
        assert row.in_hand == 0 or row.state != "idle" or row.in_hand < row.credit, row
        assert row.state in ("idle", "working", "stuck", "unverified")
    for service in snapshot.services:
        offering = [row for row in snapshot.workers if service.name in row.services]
        assert len(offering) == service.workers, service
        assert service.queued <= CONFIG.queued_per_service_max + IN_HAND_MAX
    for name, used in snapshot.usage.items():
        limit = snapshot.limits.get(name if name.endswith("_max") else f"{name}_max")
        slack = IN_HAND_MAX if name == "queued" else 0
        assert limit is None or used <= limit + slack, f"{name}: {used} of {limit}"


def _reachable_objects(engine: MajordomoEngine) -> int:
    """How many objects hang on the engine: a leak shows here, whichever table it is in."""
    skipped = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
    seen: set[int] = set()
    todo: list[object] = [engine]
    while todo:
        current = todo.pop()
        if id(current) not in seen and not isinstance(current, skipped):
            seen.add(id(current))
            todo.extend(gc.get_referents(current))
    return len(seen)


def _serve_a_well_behaved_pair(engine: MajordomoEngine, now: float) -> None:
    bench = Bench(CONFIG, now=now)
    bench.engine = engine
    worker, foreign = (
        OurWorker(bench, b"good-worker", services=[ServiceOffer(b"good")]),
        ForeignWorker(bench, b"good-w2"),
    )
    worker.ready()
    foreign.ready(b"good-too")
    client, plain = OurClient(bench, b"good-client"), ForeignClient(bench, b"good-plain")
    client.submit(b"good", flags=CallFlag.NOT_IDEMPOTENT)
    worker.result(worker.job().token, b"served")
    assert client.answer().body == [b"served"]
    plain.request(b"good-too", b"?")
    foreign.send_reply(foreign.request().address, b"served too")
    assert [reply.body for reply in plain.replies()] == [[b"served too"]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_broker_survives_a_crowd_that_sends_anything(seed: int) -> None:
    """One bad peer must not take down, fill up or slow down what everybody shares (MDP1-44, MDP1-47)."""
    crowd = Crowd(seed)
    untouched = _reachable_objects(crowd.engine)
    for number in range(ROUNDS):
        crowd.round()
        if number % 250 == 0:
            _check_snapshot(crowd.engine.snapshot())
    assert crowd.handed_over > ROUNDS / 50, "the crowd is too wild to test anything"
    assert crowd.answered > ROUNDS / 50
    full = _reachable_objects(crowd.engine) - untouched
    assert full < 60_000, f"{full} objects are held"
    _let_everything_expire(crowd)
    left = crowd.engine.snapshot()
    assert sum(service.queued for service in left.services) == 0
    rest = _reachable_objects(crowd.engine) - untouched
    assert rest < 12_000, f"{rest} objects are still held when all is over"
    _serve_a_well_behaved_pair(crowd.engine, crowd.now)


def _let_everything_expire(crowd: Crowd) -> None:
    """Far longer than any deadline in the crowd, and those that have none are cancelled; sends to everybody fail."""
    bench = Bench(CONFIG, now=crowd.now)
    bench.engine = crowd.engine
    janitor = OurClient(bench, b"janitor")
    for call_id in crowd.endless:
        janitor.ask(CallKind.CANCEL, call_id, attempt=65535)
    end = crowd.now + 3_000.0
    for _ in range(200_000):
        due = crowd.engine.next_deadline()
        if due is None or due > end:
            break
        crowd.now = max(crowd.now, due)
        crowd.engine.timers(crowd.now)
        while crowd.engine.outbox:
            crowd.engine.unsent(crowd.engine.outbox.popleft(), True, crowd.now)
    else:
        raise AssertionError("the timers spin")
    crowd.now = max(crowd.now, end)
    crowd.engine.timers(crowd.now)


def test_same_seed_gives_the_same_crowd() -> None:
    """A failure must be found again from its seed."""
    crowds = [Crowd(7), Crowd(7)]
    for _ in range(500):
        messages = [crowd.message() for crowd in crowds]
        assert messages[0] == messages[1]
