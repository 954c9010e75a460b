"""Processes of a world that are ours: production engines in the place where a shell would hold them.

Each does what a shell does: take in what arrived, run the timers that are due, carry out the effects in order, and ask
when to wake up next.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from chaos.history import Call, Dismissal, End, Ending, Execution, Wait
from chaos.sim.describe import describe_from_broker, describe_to_broker
from chaos.sim.network import SendResult, ServerSocket
from chaos.sim.process import Actor, LinkActor, Surroundings, WorldError
from reliable.config import ClientConfig, HedgePolicy, WorkerConfig
from reliable.engine.client import ClientEngine
from reliable.engine.worker import WorkerEngine
from reliable.errors import Outcome, RemoteProtocolError, RequestError
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    CancelJob,
    ClientEffect,
    ClientEvent,
    Drain,
    JobError,
    JobFinished,
    JobPartial,
    JobProgress,
    OpenLink,
    Received,
    Send,
    StartJob,
    Submit,
    WorkerEffect,
    WorkerEvent,
    WorkerStopped,
)
from reliable.status import STATUS_TABLE, Retry
from reliable.types import Frames
from reliable.wire.extension import AnswerFrame, ServiceOffer
from reliable.wire.mdp import Version, WorkerDisconnect, decode_at_client

__all__ = ["BrokerActor", "ClientActor", "Handler", "Job", "Run", "WorkerActor"]

_SENT: Final = SendResult.SENT
_GOODBYES: Final = [WorkerDisconnect(version).encode() for version in Version]
_NOBODY_WAITS: Final = JobError("Cancelled", "nobody waits for the reply any more")
_GOODBYE_FRAMES_MAX: Final = 1 + max(map(len, _GOODBYES))
"""With the routing id."""


@attrs.frozen
class Job:
    """What a scripted handler gets to know."""

    key: bytes
    start: StartJob
    worker: str
    now: float


@attrs.frozen
class Run:
    """What a scripted handler does: run so long, then reply or fail. ``None`` as duration: it never returns."""

    duration_s: float | None
    result: Frames | JobError | None = None
    """None: the reply that belongs to the call."""
    parts: int = 0
    """Given out one by one before the reply, which then says how many there were."""
    news: int = 0
    """Words of progress that are given out before the reply."""
    obeys_after_s: float | None = None
    """Within how long it ends once it is told that nobody waits; None: it goes on as if nothing had been said."""
    enters: bool = True
    """False: something fails before the handler is entered; the result says so."""


Handler = Callable[[Job], Run]


class BrokerActor(Actor):
    """A Majordomo broker on one address; each start is a new life."""

    def __init__(self, around: Surroundings, name: str, address: str, config: BrokerConfig) -> None:
        super().__init__(around, name)
        self.address = address
        self.engine: MajordomoEngine | None = None
        self._config = config
        self._socket: ServerSocket | None = None
        self._drains = False

    def start(self) -> None:
        """Run a new life."""
        if self.alive:
            return
        self.alive = True
        self._drains = False
        self.incarnation += 1
        now = self.now()
        life = self.around.ids(8)
        self.engine = MajordomoEngine(self._config, life=life, now=now)
        self._socket = self.around.network.bind(self, self.address, self.wake)
        self.note(f"starts as life {life.hex()}")
        self.wake()

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive and self._socket is not None:
            self.note("killed")
            self.around.network.close_server(self._socket)
            self.dies()

    def stop(self) -> None:
        """SIGTERM: say goodbye, then end."""
        if self.running and self.engine is not None and self._socket is not None:
            now = self.now()
            self.leaving = True
            self._read(self.engine, self._socket, now)
            self.engine.stop(now)
            self._flush(self.engine, self._socket, now)
            self.note("stopped")
            self.around.network.close_server(self._socket, linger=True)
            self.dies()

    def drain(self, timeout_s: float) -> None:
        """SIGTERM, with time to let workers end what they hold. Once: a second one, which stops it sooner, is the fault
        ``Stop``, and of who was given less time than work takes nothing could be demanded."""
        if self.running and self.engine is not None and not self._drains:
            self.note(f"leaves within {timeout_s:g} s")
            self.leaving = self._drains = True
            now = self.now()
            self.engine.drain(now + timeout_s, now)
            self.wake()

    def turn(self) -> None:
        engine, socket = self.engine, self._socket
        if not self.running or engine is None or socket is None:
            return
        now = self.now()
        self._read(engine, socket, now)
        if socket.ended_unread:
            socket.ended_unread = 0
            engine.connection_ended(now)
        if self.stood_still_s is not None:
            engine.stalled(now - self.stood_still_s, now)
            self.stood_still_s = None
        self._flush(engine, socket, now)
        engine.timers(now)
        self._flush(engine, socket, now)
        if self._drains and engine.drained(now):
            self.stop()
        else:
            self.rest(engine, now)

    def _read(self, engine: MajordomoEngine, socket: ServerSocket, now: float) -> None:
        trace, inbox = self._trace, socket.inbox
        while inbox:
            message = inbox.popleft()
            trace.message(self.name, "<", 0, message)
            if trace.verbose:
                trace.remark(describe_to_broker(message[1:]))
            engine.receive(message, now)

    def _flush(self, engine: MajordomoEngine, socket: ServerSocket, now: float) -> None:
        trace, outbox = self._trace, engine.outbox
        while outbox:
            message = outbox.popleft()
            sent = socket.send(message)
            if sent is not _SENT:
                self._read(engine, socket, now)
                sent = socket.send(message)
            trace.message(self.name, ">", 0, message, "sent" if sent is _SENT else sent.value)
            if len(message) <= _GOODBYE_FRAMES_MAX and message[1:] in _GOODBYES and sent is _SENT:
                self._dismissed(socket, message[0])
            if trace.verbose:
                trace.remark(describe_from_broker(message[1:]))
            if sent is not _SENT:
                engine.unsent(message, sent is SendResult.UNREACHABLE, now)

    def _dismissed(self, socket: ServerSocket, peer: bytes) -> None:
        connection = socket.peers[peer]
        owner = connection.owner
        ours = isinstance(owner, WorkerActor) and not self.leaving and not connection.over_at_client
        told = Dismissal(self.process_name, f"{connection!r} as {peer.hex()}", self.around.agenda.clock(), ours)
        self.around.history.dismissals.append(told)

    @property
    def process_name(self) -> str:
        """Name and incarnation."""
        return f"{self.name}#{self.incarnation}"

    @property
    def unread(self) -> int:
        """Messages that arrived and that no turn has taken in."""
        return len(self._socket.inbox) if self._socket is not None else 0

    def knows(self, peer: bytes) -> bool:
        """Whether there is a connection behind a routing id."""
        return self._socket is not None and peer in self._socket.peers


class WorkerActor(LinkActor):
    """A worker with scripted handlers; each start is a new process with a new instance id."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        brokers: Sequence[str],
        services: Sequence[ServiceOffer],
        handler: Handler,
        config: WorkerConfig,
    ) -> None:
        super().__init__(around, name)
        self.engine: WorkerEngine | None = None
        self.handler = handler
        self._brokers = list(brokers)
        self._services = list(services)
        self._config = config
        self._mailbox: deque[WorkerEvent] = deque()
        self._running: dict[int, Execution] = {}
        self._obeys: dict[int, float | None] = {}
        self._returned: list[Callable[[], None]] = []
        """Handlers that would have returned while the process stood still."""

    def start(self) -> None:
        """Start the process."""
        if self.alive:
            return
        self.alive = True
        self.incarnation += 1
        self.note(f"starts, incarnation {self.incarnation}")
        self.around.history.capacity[self.process_name] = self._config.concurrency
        self.engine = WorkerEngine(
            self._brokers,
            self._services,
            self._config,
            instance=self.around.ids(16),
            jitter=self.around.jitter,
        )
        self.engine.start(self.now())
        self.wake()

    @property
    def process_name(self) -> str:
        """Name and incarnation."""
        return f"{self.name}#{self.incarnation}"

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.note("killed")
            self._end()

    def drain(self, timeout_s: float) -> None:
        """SIGTERM."""
        if self.alive:
            self.note("drains")
            self.leaving = True
            self.post(Drain(self.now() + timeout_s))

    def _end(self) -> None:
        now = self.around.agenda.clock()
        for execution in self._running.values():
            execution.ended_s = now
        self._running.clear()
        self._obeys.clear()
        self._returned.clear()
        self._mailbox.clear()
        self.drop_links()
        self.dies()

    def goes_on(self) -> None:
        returned, self._returned = self._returned, []
        for action in returned:
            action()
        super().goes_on()

    def post(self, event: object) -> None:
        self._mailbox.append(event)  # type: ignore[arg-type]  # what the links and this class put in are worker events
        self.wake()

    def turn(self) -> None:
        engine = self.engine
        if not self.running or engine is None:
            return
        self.stood_still_s = None
        now = self.now()
        self._perform(engine, now)
        while self._mailbox and self.alive:
            event = self._mailbox.popleft()
            if not self.stale(event):
                self.note_received(event)
                engine.handle(event, now)
                self._perform(engine, now)
        if self.alive:
            engine.timers(now)
            self._perform(engine, now)
        if self.alive:
            self.rest(engine, now)

    def _perform(self, engine: WorkerEngine, now: float) -> None:
        for effect in engine.effects():
            self._do(effect)
        while self.refused and self.alive:
            engine.handle(self.refused.popleft(), now)
            self._perform(engine, now)

    def _do(self, effect: WorkerEffect) -> None:
        match effect:
            case Send():
                self.send(effect)
            case StartJob():
                self._start_job(effect)
            case CancelJob(job=job):
                self.note(f"job {job} is to be cancelled")
                if job in self._running:
                    self._running[job].told_s = self.around.agenda.clock()
                    obeys_after_s = self._obeys[job]
                    if obeys_after_s is not None:
                        self._later(obeys_after_s, job, lambda: self._return(job, _NOBODY_WAITS))
            case WorkerStopped(unfinished=unfinished):
                self.note(f"stopped with {unfinished} unfinished")
                self._end()
            case OpenLink(address=address) if address in self.ended:
                self.around.history.waits.append(Wait(self.process_name, self.now() - self.ended.pop(address)))
                self.do_link(effect)
            case _:
                self.do_link(effect)

    def _start_job(self, start: StartJob) -> None:
        now = self.around.agenda.clock()
        key = start.body[0] if start.body else b""
        run = self.handler(Job(key, start, self.name, now))
        execution = Execution(key, self.process_name, now)
        if run.enters:
            self.around.history.executions.append(execution)
        self._running[start.job] = execution
        self._obeys[start.job] = run.obeys_after_s
        self.note(f"runs {key.decode('ascii', 'backslashreplace')} as job {start.job}, delivery {start.delivery}")
        if run.duration_s is not None:
            result = [key, b"done"] if run.result is None else run.result
            if run.parts:
                result = [key, b"done", b"%d" % run.parts] if run.result is None else run.result
                self._give_parts(key, start.job, run.parts, run.duration_s / (run.parts + 1))
            for number in range(run.news):
                word = JobProgress(start.job, [key, b"news", self._who(start.job), b"%d" % number])
                self._later((number + 0.5) * run.duration_s / run.news, start.job, functools.partial(self.post, word))
            self._later(run.duration_s, start.job, lambda: self._return(start.job, result))

    def _who(self, job: int) -> bytes:
        """Names one run."""
        return f"{self.process_name}/{job}".encode()

    def _give_parts(self, key: bytes, job: int, parts: int, every_s: float) -> None:
        who = self._who(job)
        for number in range(parts):
            part = JobPartial(job, [key, b"part", who, b"%d" % number])
            self._later((number + 1) * every_s, job, functools.partial(self.post, part))

    def _later(self, delay_s: float, job: int, action: Callable[[], None]) -> None:
        """Let a handler do something; one that stands still with its process does it when that goes on."""
        incarnation = self.incarnation

        def due() -> None:
            if self.alive and incarnation == self.incarnation and job in self._running:
                if self.running:
                    action()
                else:
                    self._returned.append(due)

        self.around.agenda.after(delay_s, due)

    def _return(self, job: int, result: Frames | JobError) -> None:
        execution = self._running.pop(job)
        del self._obeys[job]
        execution.finished_s = execution.ended_s = self.around.agenda.clock()
        self.note(f"job {job} returns")
        self.post(JobFinished(job, result))


class ClientActor(LinkActor):
    """A client whose calls and their ends are written into the history."""

    def __init__(self, around: Surroundings, name: str, brokers: Sequence[str], config: ClientConfig) -> None:
        super().__init__(around, name)
        self._brokers = list(brokers)
        self.config = config
        self._mailbox: deque[ClientEvent] = deque()
        self._calls: dict[bytes, Call] = {}
        self.start()

    def start(self) -> None:
        """Start the process; a former one's calls are nobody's any more."""
        if self.alive:
            return
        self.alive = True
        self.incarnation += 1
        self._calls = {}
        ids, jitter = self.around.ids(16), self.around.jitter
        self.engine = ClientEngine(self._brokers, self.config, client_id=ids, jitter=jitter)

    def submit(
        self,
        key: bytes,
        service: str,
        *,
        timeout_s: float | None,
        idempotent: bool | None = None,
        fail_fast: bool = False,
        phase: str = "",
        one_way: bool = False,
        hedge: HedgePolicy | None = None,
        wants_progress: bool = False,
    ) -> Call:
        """Make a call; its end is found in what this returns."""
        now = self.around.agenda.clock()
        call = Call(
            key,
            self.name,
            service,
            idempotent,
            now,
            None if timeout_s is None else self._true(self.now() + timeout_s),
            phase,
            one_way=one_way,
            hedged=hedge is not None,
            wants_progress=wants_progress,
        )
        self.around.history.calls[key] = call
        call_id = self.around.ids(16)
        self._calls[call_id] = call
        self.note(f"calls {service} {key.decode()} as {call_id.hex()[:8]} within {timeout_s} s")
        self.post(
            Submit(
                call_id=call_id,
                service=service.encode(),
                body=[key],
                deadline=None if timeout_s is None else self.now() + timeout_s,
                idempotent=idempotent,
                fail_fast=fail_fast,
                wants_progress=wants_progress,
                one_way=one_way,
                hedge=hedge,
                hedge_id=self.around.ids(16) if hedge is not None else b"",
            )
        )
        return call

    @property
    def calls_open(self) -> int:
        """Calls that its engine still holds."""
        return self.engine.snapshot().calls if self.alive else 0

    def cancel_later(self, key: bytes, delay_s: float) -> None:
        """Give up on a call in a while, unless it is over by then."""
        self.around.agenda.after(delay_s, lambda: self.cancel(key))

    def cancel(self, key: bytes) -> None:
        """Give up on a call, unless it is over."""
        for call_id, call in self._calls.items():
            if call.key == key and not call.endings and self.running:
                self.note(f"cancels {key.decode()}")
                self.post(CancelCall(call_id))

    def kill(self) -> None:
        """SIGKILL; nobody can be told what became of its calls."""
        if self.alive:
            self.note("killed")
            self._end()

    def stop(self) -> None:
        """Close it: every call ends, and cancels are let out."""
        if self.running:
            self.note("closes")
            self.post(AbandonAll())
            self.turn()
            self._end()

    def _end(self) -> None:
        for call in self._calls.values():
            call.abandoned = not call.endings
        self._mailbox.clear()
        self.drop_links()
        self.dies()

    def post(self, event: object) -> None:
        self._mailbox.append(event)  # type: ignore[arg-type]  # what the links and this class put in are client events
        self.wake()

    def turn(self) -> None:
        if not self.running:
            return
        self.stood_still_s = None
        now = self.now()
        while self._mailbox:
            event = self._mailbox.popleft()
            if not self.stale(event):
                self.note_received(event)
                if isinstance(event, Received):
                    self._count_answer(event.frames)
                self.engine.handle(event, now)
                self._perform(now)
        self.engine.timers(now)
        self._perform(now)
        self.rest(self.engine, now)

    def _count_answer(self, frames: Frames) -> None:
        if not self.around.history.calm:
            return
        try:
            stack = decode_at_client(frames).stack
            answer = AnswerFrame.decode(stack[-1]) if stack else None
        except RemoteProtocolError:
            return
        # A refusal that another attempt follows is no end.
        if answer is not None and STATUS_TABLE[answer.status].retry not in (Retry.NOT_FINAL, Retry.BY_OUTCOME):
            call = self._calls.get(answer.call_id)
            if call is not None:
                call.answers += 1

    def _perform(self, now: float) -> None:
        for effect in self.engine.effects():
            self._do(effect)
        while self.refused:
            self.engine.handle(self.refused.popleft(), now)
            self._perform(now)

    def _do(self, effect: ClientEffect) -> None:
        match effect:
            case Send():
                self.send(effect)
            case CallFinished():
                self._finish(effect)
            case CallProgress():
                self.note(f"{effect.call_id.hex()[:8]} news")
                call = self._calls[effect.call_id]
                (call.parts if effect.partial else call.news).append(tuple(effect.body))
            case _:
                self.do_link(effect)

    def _finish(self, effect: CallFinished) -> None:
        call = self._calls[effect.call_id]
        now = self.around.agenda.clock()
        if isinstance(effect.result, RequestError):
            error = effect.result
            if error.outcome is not effect.outcome:
                raise WorldError(f"{error!r} says {error.outcome.name}, its effect {effect.outcome.name}")
            end = End.UNKNOWN if effect.outcome is Outcome.UNKNOWN else End.FAILED
            call.endings.append(Ending(now, end, effect.outcome, type(error).__name__))
        else:
            # The engine ends a one-way call so; if it ever ended another one so, its reply would be missing.
            accepted = effect.outcome is Outcome.UNKNOWN and effect.result == [b""]
            end = End.ACCEPTED if accepted and call.one_way else End.OK
            call.endings.append(Ending(now, end, effect.outcome, reply=tuple(effect.result)))
        ending = call.endings[-1]
        self.note(f"{call.key.decode()} ends {ending.end.value}, {ending.outcome.name} {ending.error}".rstrip())
        if isinstance(effect.result, RequestError):
            self.around.trace.remark(f"{effect.result}")
