"""Processes of a world that are not ours: they speak plain MDP 0.1 and know nothing of call ids, lives or deadlines.

Whoever was promised nothing about outcomes is still promised that nobody gets another one's reply, and that a service
which must not be repeated is not.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

from chaos.history import Call, End, Ending, Execution
from chaos.sim.actors import Handler, Job
from chaos.sim.process import LinkActor, Surroundings
from reliable.errors import Outcome, RemoteProtocolError
from reliable.protocol.events import (
    CloseLink,
    JobError,
    LinkClosed,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    StartJob,
)
from reliable.types import Frames
from reliable.wire.mdp import (
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

__all__ = ["Event", "PlainClientActor", "PlainWorkerActor"]

_V1: Final = Version.MDP01
_HEARTBEAT_S: Final = 1.0
_SILENCE_S: Final = 3.5
_AGAIN_S: Final = 0.2
"""Before a broken link is opened again."""

Event: TypeAlias = LinkOpened | LinkClosed | Received


class _Stranger(LinkActor):
    """A process without an engine: it reacts to each event by itself."""

    def __init__(self, around: Surroundings, name: str, address: str) -> None:
        super().__init__(around, name)
        self._address = address
        self._mailbox: deque[Event] = deque()
        self._link = 0
        self._open = False
        self._returned: list[Callable[[], None]] = []
        """What would have happened while the process stood still."""

    def post(self, event: object) -> None:
        """Events of links are all there is."""
        if isinstance(event, Event):
            self._mailbox.append(event)
            self.wake()

    def turn(self) -> None:
        """Take in everything."""
        self.stood_still_s = None
        while self._mailbox and self.running:
            event = self._mailbox.popleft()
            if not self.stale(event):
                self.note_received(event)
                self.take(event)
        self.refused.clear()

    @abc.abstractmethod
    def take(self, event: Event) -> None:
        """React to one event."""

    def goes_on(self) -> None:
        """First what is late, then what arrived."""
        returned, self._returned = self._returned, []
        for action in returned:
            action()
        super().goes_on()

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something in a while, unless this process is another one by then."""
        incarnation = self.incarnation

        def due() -> None:
            if self.alive and incarnation == self.incarnation:
                if self.running:
                    action()
                else:
                    self._returned.append(due)

        self.around.agenda.after(delay_s, due)

    def connect(self) -> None:
        """A new socket, unless there is one."""
        if self._link in self._links:
            return
        self._link += 1
        self._open = False
        self.do_link(OpenLink(self._link, self._address))

    def say(self, frames: Frames) -> None:
        """Send, and do not care."""
        if self._open:
            self.do_link(Send(self._link, frames))

    def hang_up(self) -> None:
        """Close the socket."""
        self._open = False
        self.do_link(CloseLink(self._link))

    def end(self) -> None:
        """The process is no more."""
        self._mailbox.clear()
        self._returned.clear()
        self.drop_links()
        self.dies()


class PlainClientActor(_Stranger):
    """One request at a time; after a timeout a fresh socket, so that a late reply can answer nothing."""

    def __init__(self, around: Surroundings, name: str, address: str) -> None:
        super().__init__(around, name, address)
        self.alive = True
        self.incarnation = 1
        self._waiting: deque[tuple[Call, float]] = deque()
        self._current: Call | None = None
        self.connect()

    def submit(self, key: bytes, service: str, *, timeout_s: float, phase: str = "") -> Call:
        """Make a call, behind those that were made before; its time counts from when its turn comes."""
        call = Call(key, self.name, service, True, self.around.agenda.clock(), None, phase)
        self.around.history.calls[key] = call
        self._waiting.append((call, timeout_s))
        self._next()
        return call

    def _next(self) -> None:
        if self._current is None and self._waiting and self._open:
            call, timeout_s = self._waiting.popleft()
            self._current = call
            self.note(f"asks {call.service} {call.key.decode()}")
            self.say(ClientRequest(_V1, call.service.encode(), [call.key]).encode())
            self.later(timeout_s, lambda: self._timed_out(call))

    def _timed_out(self, call: Call) -> None:
        if self._current is call:
            self._end(Ending(self.around.agenda.clock(), End.UNKNOWN, Outcome.UNKNOWN, "Silence"))
            self.hang_up()
            self.connect()

    def _end(self, ending: Ending) -> None:
        if self._current is not None:
            self.note(f"{self._current.key.decode()} ends {ending.end.value}")
            self._current.endings.append(ending)
            self._current = None

    def take(self, event: Event) -> None:
        """A reply goes to the one request that is out: that is all that MDP offers."""
        match event:
            case LinkOpened():
                self._open = True
            case LinkClosed():
                self._open = False
                self.later(_AGAIN_S, self.connect)
            case Received(frames=frames):
                reply = decode_at_client(frames)
                if self._current is not None and reply.service == self._current.service.encode():
                    now = self.around.agenda.clock()
                    self._end(Ending(now, End.OK, Outcome.EXECUTED, reply=tuple(reply.body)))
        self._next()


@attrs.define
class _Running:
    """What a plain worker has in hand."""

    execution: Execution
    address: bytes
    link: int


class PlainWorkerActor(_Stranger):
    """One service, one request at a time, heartbeats by the RFC also while a handler runs."""

    def __init__(self, around: Surroundings, name: str, address: str, service: bytes, handler: Handler) -> None:
        super().__init__(around, name, address)
        self._service = service
        self._handler = handler
        self._running: _Running | None = None
        self._pending: WorkerRequest | None = None
        """Of a new session, while the handler of a former one still runs."""
        self._heard_s = 0.0

    @property
    def process_name(self) -> str:
        """Name and incarnation."""
        return f"{self.name}#{self.incarnation}"

    def start(self) -> None:
        """Start the process."""
        if not self.alive:
            self.alive = True
            self.incarnation += 1
            self.note(f"starts, incarnation {self.incarnation}, plain")
            self.around.history.capacity[self.process_name] = 1
            self._running = self._pending = None
            self.connect()
            self.later(_HEARTBEAT_S, self._beat)

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.note("killed")
            if self._running is not None:
                self._running.execution.ended_s = self.around.agenda.clock()
            self.end()

    def drain(self, _timeout_s: float) -> None:
        """SIGTERM: it says DISCONNECT and goes, whatever it has in hand."""
        if self.running:
            self.say(WorkerDisconnect(_V1).encode())
        self.kill()

    def _beat(self) -> None:
        self.say(WorkerHeartbeat(_V1).encode())
        silent_s = self.around.agenda.clock() - self._heard_s
        if self._open and self._running is None and silent_s > _SILENCE_S:
            self.hang_up()
            self.connect()
        self.later(_HEARTBEAT_S, self._beat)

    def take(self, event: Event) -> None:
        """By the RFC."""
        self._heard_s = self.around.agenda.clock()
        match event:
            case LinkOpened():
                self._open = True
                self._pending = None
                self.say(WorkerReady(_V1, self._service).encode())
            case LinkClosed():
                self._open = False
                self.later(_AGAIN_S, self.connect)
            case Received(frames=frames):
                self._received(frames)

    def _received(self, frames: Frames) -> None:
        try:
            command = decode_at_worker(frames)
        except RemoteProtocolError as error:
            raise AssertionError(f"the broker said something that is no MDP: {frames}") from error
        if isinstance(command, WorkerDisconnect):
            self.hang_up()
            self.later(_AGAIN_S, self.connect)
        elif isinstance(command, WorkerRequest):
            if self._running is not None and self._running.link == self._link:
                raise AssertionError(f"{self.name} got a second request while it runs one")
            self._run(command)

    def _run(self, request: WorkerRequest) -> None:
        now = self.around.agenda.clock()
        if self._running is not None:
            self._pending = request
            return
        key = request.body[0]
        start = StartJob(job=0, service=self._service, body=request.body, deadline=None)
        run = self._handler(Job(key, start, self.name, now))
        execution = Execution(key, self.process_name, now, plain=True)
        self.around.history.executions.append(execution)
        self._running = running = _Running(execution, request.address, self._link)
        self.note(f"runs {key.decode('ascii', 'backslashreplace')}, plain")
        if run.duration_s is not None:
            # A handler that fails has no word for it in MDP; it replies with an empty frame of its own.
            body = [key, b"failed" if isinstance(run.result, JobError) else b"done"]
            self.later(run.duration_s, lambda: self._return(running, body))

    def _return(self, running: _Running, body: Frames) -> None:
        running.execution.finished_s = running.execution.ended_s = self.around.agenda.clock()
        self._running = None
        if running.link == self._link:
            self.say(WorkerReply(_V1, running.address, body).encode())
        pending, self._pending = self._pending, None
        if pending is not None:
            self._run(pending)
