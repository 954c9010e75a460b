"""A worker engine on a clock that only moves when told, and a telling of its effects that tests can compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reliable.config import Backoff, Heartbeat, Limits, WorkerConfig
from reliable.engine.worker import OverdueJob, ServiceRule, WorkerEngine
from reliable.errors import RemoteProtocolError
from reliable.protocol.events import (
    CancelJob,
    CloseLink,
    Drain,
    JobError,
    JobFinished,
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
from reliable.protocol.registration import Tag
from reliable.types import Frames
from reliable.wire.extension import (
    NO_LIFE,
    CallFlag,
    Delivery,
    DeliveryKind,
    GiveBackReason,
    HelloAnswer,
    ReadyExtension,
    Report,
    ReportKind,
    ServiceOffer,
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
from reliable.wire.mmi import FOUND, NOT_IMPLEMENTED, TIME_QUERY, time_answer

Line = tuple[Any, ...]

LIFE_A = b"life-aaa"
LIFE_B = b"life-bbb"
INSTANCE = b"worker-instance!"
ECHO = ServiceOffer(b"echo")


def call_id(number: int) -> bytes:
    """A call id that is easy to read."""
    return b"call-%011d" % number


def told(effect: WorkerEffect) -> Line:
    """One effect, in short."""
    match effect:
        case OpenLink():
            return ("open", effect.link, effect.address)
        case CloseLink():
            return ("close", effect.link, "linger") if effect.linger else ("close", effect.link)
        case Send():
            return told_message(effect.link, effect.frames)
        case StartJob():
            return ("start", effect.job, *effect.body)
        case OverdueJob():
            return ("overdue job", effect.job)
        case CancelJob():
            return ("cancel job", effect.job)
        case WorkerStopped():
            return ("stopped", effect.unfinished)


def told_message(link: int, frames: Frames) -> Line:
    """One message of the worker, in short."""
    command = decode_at_broker(frames)
    match command:
        case ClientRequest(service=service):
            return ("time" if service == TIME_QUERY else "hello", link)
        case WorkerReady(extension=b""):
            return ("plain ready", link, command.service)
        case WorkerReady():
            ready = ReadyExtension.decode(command.extension)
            return ("ready", link, ready.credit, ready.last_life, *ready.tokens)
        case WorkerHeartbeat():
            return ("beat", link)
        case WorkerDisconnect():
            return ("disconnect", link)
        case WorkerReply(version=Version.MDP01):
            return ("plain reply", link, command.address, *command.body)
        case WorkerReply():
            return told_report(link, command)
        case _:
            raise AssertionError(f"a worker never sends {command!r}")


def told_report(link: int, reply: WorkerReply) -> Line:
    """One report, in short; checks that it is final exactly if its kind is."""
    report = Report.decode(reply.address)
    assert reply.final is report.kind.final
    match report.kind:
        case ReportKind.RESULT:
            return ("result", link, report.token, *reply.body)
        case ReportKind.ERROR:
            executed = "executed" if report.executed else "not executed"
            return ("error", link, report.token, reply.body[0].decode(), executed)
        case ReportKind.GIVE_BACK:
            return ("give back", link, report.token, GiveBackReason(report.detail).name)
        case ReportKind.CREDIT:
            return ("credit", link, report.detail)
        case _:
            return (report.kind.name.lower(), link, report.token, *[frame for frame in reply.body if frame])


class WorkerBench:
    """One worker; the test plays the shell and the brokers."""

    def __init__(
        self,
        *brokers: str,
        concurrency: int = 1,
        services: Sequence[ServiceOffer] = (ECHO,),
        jitter: Callable[[], float] = lambda: 0.5,
        limits: Limits | None = None,
        replies_kept_s: float = 60.0,
        rules: Mapping[bytes, ServiceRule] | None = None,
        start: bool = True,
    ) -> None:
        self.config = WorkerConfig(
            concurrency=concurrency,
            heartbeat=Heartbeat(interval_s=1.0, timeout_s=3.0),
            reconnect=Backoff(initial_s=0.1, factor=2.0, delay_s_max=2.0),
            hello_timeout_s=1.0,
            started_after_s=0.2,
            replies_kept_s=replies_kept_s,
            limits=limits or Limits(),
        )
        self.seen: list[object] = []
        self.engine = WorkerEngine(
            brokers or ("a",),
            services,
            self.config,
            instance=INSTANCE,
            jitter=jitter,
            observer=self.seen.append,
            rules=rules,
        )
        self.now = 100.0
        self.raw: list[WorkerEffect] = []
        self._tokens = 0
        if start:
            self.engine.start(self.now)

    # --- what the worker did ---

    def trace(self) -> list[Line]:
        """Everything since the last time; the effects themselves stay in ``raw``."""
        effects = self.engine.effects()
        self.raw.extend(effects)
        return [told(effect) for effect in effects]

    def sends(self) -> list[Send]:
        """The messages since the last time, as effects."""
        effects = self.engine.effects()
        self.raw.extend(effects)
        return [effect for effect in effects if isinstance(effect, Send)]

    @property
    def counters(self) -> Any:
        return self.engine.counters

    # --- time ---

    def tick(self, seconds: float) -> list[Line]:
        """Let time pass as a punctual shell does."""
        end = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= end:
            assert due > self.now or not self.engine.snapshot().stopped
            self.now = max(due, self.now)
            self.engine.timers(self.now)
            after = self.engine.next_deadline()
            assert after is None or after > self.now, "the shell would spin"
        self.now = end
        self.engine.timers(end)
        return self.trace()

    def stall(self, seconds: float) -> None:
        """Let time pass without running."""
        self.now += seconds

    # --- what happens to it ---

    def handle(self, event: Any) -> list[Line]:
        self.engine.handle(event, self.now)
        return self.trace()

    def receive(self, link: int, frames: Frames) -> list[Line]:
        return self.handle(Received(link, frames))

    def opened(self, link: int) -> list[Line]:
        return self.handle(LinkOpened(link))

    def closed(self, link: int, end: LinkEnd = LinkEnd.LOST) -> list[Line]:
        return self.handle(LinkClosed(link, end))

    def unsent(self, send: Send) -> list[Line]:
        return self.handle(Unsent(send.link, send.tag))

    def greet(self, link: int, life: bytes = LIFE_A, message_bytes_max: int = 0) -> list[Line]:
        """The broker answers the hello."""
        body = [FOUND, *HelloAnswer(life, message_bytes_max).encode()]
        return self.receive(link, ClientReply(Version.MDP01, b"mmi.reliable", body).encode())

    def tell_time(self, link: int, since_hello_s: float) -> list[Line]:
        """The broker answers the newest question about the time: so long ago was the hello by its clock."""
        sent = [effect for effect in self.raw if isinstance(effect, Send) and effect.tag is Tag.TIME]
        question = decode_at_broker(sent[-1].frames)
        assert isinstance(question, ClientRequest)
        body = [FOUND, *time_answer(question.body[0], int(since_hello_s * 1000))]
        return self.receive(link, ClientReply(Version.MDP01, TIME_QUERY, body).encode())

    def greet_501(self, link: int) -> list[Line]:
        return self.receive(link, ClientReply(Version.MDP01, b"mmi.reliable", [NOT_IMPLEMENTED]).encode())

    def register(self, link: int = 1, life: bytes = LIFE_A, message_bytes_max: int = 0) -> int:
        """From the open link to READY; the broker then shows a sign of life."""
        self.opened(link)
        self.greet(link, life, message_bytes_max)
        self.beat(link)
        self.trace()
        return link

    def register_plain(self) -> int:
        """From the first link to a plain READY on the second."""
        self.opened(1)
        self.greet_501(1)
        self.opened(2)
        self.trace()
        return 2

    def beat(self, link: int, version: Version = Version.MDP02) -> list[Line]:
        return self.receive(link, WorkerHeartbeat(version).encode())

    def disconnect(self, link: int, version: Version = Version.MDP02) -> list[Line]:
        return self.receive(link, WorkerDisconnect(version).encode())

    def token(self, life: bytes = LIFE_A) -> bytes:
        """A token that was not used before."""
        self._tokens += 1
        return make_token(life, self._tokens)

    def deliver(
        self,
        token: bytes,
        call: int = 1,
        *body: bytes,
        link: int = 1,
        service: bytes = b"echo",
        within_s: float = 30.0,
        since: float | None = None,
        flags: CallFlag = CallFlag.NONE,
        attempt: int = 1,
        delivery: int = 1,
    ) -> list[Line]:
        """The broker hands over a call, due ``within_s`` after the hello's answer (taken to be now)."""
        frames = list(body) or [b"work"]
        deadline_ms = int((within_s + self.now - (100.0 if since is None else since)) * 1000)
        header = Delivery(
            token,
            DeliveryKind.RUN,
            flags,
            attempt,
            delivery,
            call_id(call) if call else bytes(16),
            deadline_ms=deadline_ms,
            digest=body_digest(service, frames),
            service=service,
        )
        return self.receive(link, WorkerRequest(Version.MDP02, header.encode(), frames).encode())

    def deliver_plain(self, address: bytes = b"client", *body: bytes, link: int = 2) -> list[Line]:
        return self.receive(link, WorkerRequest(Version.MDP01, address, list(body) or [b"work"]).encode())

    def control(self, token: bytes, kind: DeliveryKind, link: int = 1) -> list[Line]:
        return self.receive(link, WorkerRequest(Version.MDP02, Delivery(token, kind).encode(), [b""]).encode())

    def cancel(self, token: bytes, link: int = 1) -> list[Line]:
        return self.control(token, DeliveryKind.CANCEL, link)

    def finish(self, job: int, *body: bytes) -> list[Line]:
        return self.handle(JobFinished(job, list(body)))

    def fail(self, job: int, name: str = "ValueError", executed: bool = True) -> list[Line]:
        return self.handle(JobFinished(job, JobError(name, "text", executed)))

    def drain(self, timeout_s: float = 10.0) -> list[Line]:
        return self.handle(Drain(self.now + timeout_s))


__all__ = [
    "ECHO",
    "INSTANCE",
    "LIFE_A",
    "LIFE_B",
    "NO_LIFE",
    "Line",
    "RemoteProtocolError",
    "WorkerBench",
    "call_id",
    "told",
]
