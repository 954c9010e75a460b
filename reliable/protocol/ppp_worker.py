"""A worker of a Paranoid Pirate queue (6/PPP), sans I/O.

    state      means                                        leaves it by
    Opening    a link is being opened                       opened: READY, Talking; failed: Paused
    Talking    READY was said on an open link               closed, silent or stuffed link: close it, Paused
    Paused     no link, on purpose                          the pause is over and no handler runs: Opening
    Stopped    drained                                      -

Rules:

* READY comes first on every link, HEARTBEAT each interval after it, also while a handler runs: handlers run outside.
* Any message of the queue is a sign of life. After ``heartbeat.timeout_s`` without one the queue is lost: the link is
  closed *first*, so that the queue cannot go on to feed it, and only then comes the pause. The pause doubles from 1 to
  32 s with jitter, and begins anew only after a real sign of life: that a connection came up proves no queue.
* One handler at a time. 6/PPP allows one request at a time; a queue that sends more of them (the guide's does, as it
  takes heartbeats for readiness) has them wait here, within a bound.
* A handler whose link is gone runs to its end, and its result is dropped: the queue has given the request to another
  worker. Until then there is no new link, since READY would be a promise that cannot be kept.
* A handler that fails is answered with READY: 6/PPP has no word for "failed", and this has the request given to another
  worker, which is right as requests are idempotent here. How often that happens is bounded by the queue.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

import attrs
from attrs import validators

from reliable.config import Backoff, Heartbeat
from reliable.errors import LocalProtocolError, RemoteProtocolError
from reliable.protocol.events import (
    CloseLink,
    Drain,
    JobError,
    JobFinished,
    JobPartial,
    JobProgress,
    LinkClosed,
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
from reliable.protocol.liveness import Liveness
from reliable.types import Frames, Jitter
from reliable.wire.ppp import PppHeartbeat, PppReady, PppRequest, decode_at_worker

__all__ = ["PppWorkerConfig", "PppWorkerCounters", "PppWorkerEngine", "PppWorkerSnapshot"]


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must be zero or more, not {value!r}")


@attrs.frozen(kw_only=True)
class PppWorkerConfig:
    """Settings of a PPP worker; the heartbeat should be the queue's."""

    heartbeat: Heartbeat = attrs.field(factory=Heartbeat)
    reconnect: Backoff = attrs.field(factory=lambda: Backoff(initial_s=1.0, delay_s_max=32.0))
    """Pauses after a lost queue; each lasts between half of the bound and all of it."""
    waiting_max: int = attrs.field(default=16, validator=validators.and_(validators.instance_of(int), _not_negative))
    """Requests that a queue may send ahead of the reply to the first; further ones are dropped."""


@attrs.define
class PppWorkerCounters:
    """Plain integers that only grow."""

    requests: int = 0
    replies: int = 0
    given_back: int = 0
    """Requests whose handler failed."""
    late_results: int = 0
    """Results of handlers whose link was gone."""
    dropped: int = 0
    """Requests beyond ``waiting_max``, or that came while the worker was stopping."""
    dropped_invalid: int = 0
    queues_lost: int = 0
    """How often a link failed, broke, or stayed silent."""


@attrs.frozen(kw_only=True)
class PppWorkerSnapshot:
    """A frozen view."""

    state: str
    """``opening``, ``talking``, ``paused`` or ``stopped``."""
    busy: bool
    waiting: int
    attempt: int
    """Links lost in a row without a sign of life."""
    counters: PppWorkerCounters


@attrs.frozen
class _Opening:
    link: int


@attrs.frozen
class _Talking:
    link: int
    liveness: Liveness


@attrs.frozen
class _Paused:
    until: float


@attrs.frozen
class _Stopped:
    pass


_State: TypeAlias = _Opening | _Talking | _Paused | _Stopped


@attrs.frozen
class _Job:
    number: int
    link: int
    """It only counts while this link lasts."""
    request: PppRequest


class PppWorkerEngine:
    """One worker at one queue.

    A shell carries out ``effects()``, runs the handler of each ``StartJob`` outside of its loop, and feeds events in:
    ``LinkOpened``, ``LinkClosed``, ``Received``, ``Unsent``, ``JobFinished`` and ``Drain``.

    Args:
        address: Of the queue's workers' side.
        config: Settings.
        jitter: Numbers in [0, 1).
    """

    def __init__(self, address: str, config: PppWorkerConfig | None = None, *, jitter: Jitter) -> None:
        self.config = config or PppWorkerConfig()
        self.counters = PppWorkerCounters()
        self._address = address
        self._jitter = jitter
        self._effects: list[WorkerEffect] = []
        self._links = 0
        self._jobs = 0
        self._attempt = 0
        self._job: _Job | None = None
        self._waiting: deque[PppRequest] = deque()
        self._drain_deadline: float | None = None
        self._state: _State = self._open()

    # --- contract of engines ----------------------------------------------------------------------

    def handle(self, event: WorkerEvent, now: float) -> None:
        """Take in what happened.

        Raises:
            LocalProtocolError: A job that does not run is reported, or a part of a reply, which 6/PPP does not have.
        """
        match event:
            case LinkOpened(link):
                if isinstance(self._state, _Opening) and self._state.link == link:
                    self._send(link, PppReady().encode())
                    self._state = _Talking(link, Liveness.begin(self.config.heartbeat, now))
            case LinkClosed(link):
                if self._link == link:
                    self._lose(now)
            case Unsent(link):
                if self._link == link:
                    self._effects.append(CloseLink(link))
                    self._lose(now)
            case Received(link, frames):
                if isinstance(self._state, _Talking) and self._state.link == link:
                    self._state = _Talking(link, self._state.liveness.after_hearing(now))
                    self._received(link, frames)
            case JobFinished():
                self._finished(event, now)
            case Drain(deadline):
                self._drain_deadline = deadline
                self._waiting.clear()
                if self._job is None or self._job.link != self._link:
                    self._stop()
            case JobPartial() | JobProgress():
                raise LocalProtocolError("6/PPP has neither parts of a reply nor progress")

    def timers(self, now: float) -> None:
        """Carry out everything that is due at ``now``."""
        if self._drain_deadline is not None and self._drain_deadline <= now:
            self._stop()
        state = self._state
        if isinstance(state, _Talking):
            if state.liveness.lost(now):
                self._effects.append(CloseLink(state.link))
                self._lose(now)
            elif state.liveness.beat_due(now):
                self._send(state.link, PppHeartbeat().encode())
                self._state = _Talking(state.link, state.liveness.after_saying(now))
        self._reopen(now)

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""
        due: list[float] = []
        match self._state:
            case _Talking(_, liveness):
                due += [liveness.beat_at, liveness.lost_at]
            case _Paused(until) if self._job is None:
                due.append(until)
            case _Stopped():
                return None
        if self._drain_deadline is not None:
            due.append(self._drain_deadline)
        return min(due, default=None)

    def effects(self) -> list[WorkerEffect]:
        """Take out, in order, what to do; each is given out once."""
        effects, self._effects = self._effects, []
        return effects

    def stalled(self, gap_s: float, now: float) -> None:
        """This process stood still: the queue's silence meanwhile does not count. Call after reading everything."""
        if isinstance(self._state, _Talking):
            self._state = _Talking(self._state.link, self._state.liveness.excused(gap_s, now))

    def snapshot(self) -> PppWorkerSnapshot:
        """A frozen view."""
        return PppWorkerSnapshot(
            state=type(self._state).__name__.lstrip("_").lower(),
            busy=self._job is not None,
            waiting=len(self._waiting),
            attempt=self._attempt,
            counters=attrs.evolve(self.counters),
        )

    # --- the link ---------------------------------------------------------------------------------

    @property
    def _link(self) -> int | None:
        return self._state.link if isinstance(self._state, _Opening | _Talking) else None

    def _open(self) -> _State:
        self._links += 1
        self._effects.append(OpenLink(self._links, self._address))
        return _Opening(self._links)

    def _send(self, link: int, frames: Frames) -> None:
        self._effects.append(Send(link, frames))

    def _say(self, talking: _Talking, frames: Frames, now: float) -> None:
        self._send(talking.link, frames)
        self._state = _Talking(talking.link, talking.liveness.after_saying(now))

    def _lose(self, now: float) -> None:
        """The link is closed already; what waited on it is the queue's to give to others."""
        self.counters.queues_lost += 1
        self._waiting.clear()
        self._attempt += 1
        # Between half of the bound and all of it: full jitter could come back at once, and again, and again.
        self._state = _Paused(now + self.config.reconnect.delay_s(self._attempt, (1.0 + self._jitter()) / 2.0))
        if self._drain_deadline is not None:
            self._stop()

    def _reopen(self, now: float) -> None:
        if isinstance(self._state, _Paused) and self._job is None and self._state.until <= now:
            self._state = self._open()

    def _stop(self) -> None:
        if isinstance(self._state, _Stopped):
            return
        if self._link is not None:
            self._effects.append(CloseLink(self._link, linger=True))
        self._state = _Stopped()
        self._effects.append(WorkerStopped(int(self._job is not None)))

    # --- requests ---------------------------------------------------------------------------------

    def _received(self, link: int, frames: Frames) -> None:
        try:
            command = decode_at_worker(frames)
        except RemoteProtocolError:
            self.counters.dropped_invalid += 1
            return
        self._attempt = 0
        if not isinstance(command, PppRequest):
            return
        if self._drain_deadline is not None:
            self.counters.dropped += 1
        elif self._job is None:
            self._start(link, command)
        elif len(self._waiting) < self.config.waiting_max:
            self._waiting.append(command)
        else:
            self.counters.dropped += 1

    def _start(self, link: int, request: PppRequest) -> None:
        self._jobs += 1
        self._job = _Job(self._jobs, link, request)
        self.counters.requests += 1
        self._effects.append(StartJob(job=self._jobs, service=b"", body=request.body, deadline=None))

    def _finished(self, event: JobFinished, now: float) -> None:
        job = self._job
        if job is None or job.number != event.job:
            raise LocalProtocolError(f"job {event.job} does not run")
        self._job = None
        state = self._state
        if not isinstance(state, _Talking) or state.link != job.link:
            self.counters.late_results += 1
            self._reopen(now)
            return
        if isinstance(event.result, JobError):
            self.counters.given_back += 1
            self._say(state, PppReady().encode(), now)
        else:
            self.counters.replies += 1
            self._say(state, job.request.reply(event.result or [b""]).encode(), now)
        if self._drain_deadline is not None:
            self._stop()
        elif self._waiting:
            self._start(job.link, self._waiting.popleft())
