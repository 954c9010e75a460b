"""What a worker has in its hands: deliveries, and the jobs that they wait for.

A **handover** is one delivery by a broker, named by its token; it ends with one final report. A **job** is one run of a
handler. Usually one handover waits for one job; more if a call was delivered more than once, none if every broker that
delivered it was restarted. Unstarted jobs without handovers vanish; running ones run to their end.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import attrs

from reliable.protocol.events import CancelJob
from reliable.types import Frames
from reliable.wire.extension import CallFlag

__all__ = ["Handover", "Job", "JobState", "JobTable", "OverdueJob", "ServiceRule"]


@attrs.frozen(kw_only=True)
class ServiceRule:
    """What a worker's owner said of one service; brokers are not told."""

    timeout_s: float | None = None
    """How long one run may take; None is no limit."""
    concurrency: int | None = None
    """Runs at once, within those of the worker; None is no further limit."""
    killable: bool = False
    """Whether a run ends as soon as it is told that it is overdue. Others are answered for while they go on."""


@attrs.frozen
class OverdueJob(CancelJob):
    """The job ran for longer than its service allows: end it, if that can be done. It still ends with ``JobFinished``;
    unless its service is killable, it has been answered already."""


class JobState(enum.Enum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


@attrs.define(eq=False, repr=False, kw_only=True)
class Handover:
    """One delivery that still needs its final report."""

    broker: int
    """Index of the broker that delivered it."""
    token: bytes
    """The token, or for a broker that is not ours the client address to echo."""
    life: bytes
    """Of the broker; empty if it is not ours."""
    link: int
    """The link that it came on. Counts only for a broker that is not ours."""
    deadline: float
    """Absolute; infinite if there is none."""
    job: Job | None = None
    cancelled: bool = False
    told_started: bool = False
    """STARTED was sent on the current link of the broker."""
    parts_link: int | None = None
    """The link that parts of the reply were sent on."""
    torn: bool = False
    """A part did not get through, so the reply can no longer be given whole."""
    replied: bool = False
    """It was answered with what the handler returned, which after parts is the last of them."""
    report: Frames | None = None
    """The final report, while it could not be sent."""
    doubtful: bool = False
    """The report was sent on a link that broke soon after, so that it may not have arrived."""
    keep_until: float = math.inf
    """When a report that could not be sent is given up."""

    @property
    def plain(self) -> bool:
        """Whether it is of a broker that is not ours."""
        return not self.life

    def __repr__(self) -> str:
        return f"<handover {self.token.hex()}>"


@attrs.define(eq=False, kw_only=True)
class Job:
    """One run of a handler."""

    number: int
    service: bytes
    body: Frames
    deadline: float
    """The latest of its handovers' when it started; infinite if there is none."""
    call_id: bytes = b""
    """Empty if the caller is not ours: such a job is neither joined nor remembered."""
    digest: bytes = b""
    flags: CallFlag = CallFlag.NONE
    attempt: int = 1
    delivery: int = 1
    trace: bytes = b""
    handovers: list[Handover] = attrs.field(factory=list, repr=False)
    state: JobState = JobState.QUEUED
    started_at: float = 0.0
    told_started: bool = False
    """It runs for so long that it is reported as started."""
    streamed: bool = False
    """Parts of its reply were given out, so that its last part alone is not the reply."""
    cancelled: bool = False
    answered: bool = False
    """It ran for too long, and that was its answer; its handler still has the slot."""

    def again(self, number: int, handovers: list[Handover]) -> Job:
        """The same work once more from its beginning, for these of its handovers; this one keeps none."""
        fresh = Job(
            number=number,
            service=self.service,
            body=self.body,
            deadline=self.deadline,
            call_id=self.call_id,
            digest=self.digest,
            flags=self.flags,
            attempt=self.attempt,
            delivery=self.delivery,
            trace=self.trace,
            handovers=handovers,
        )
        self.handovers = []
        for handover in handovers:
            handover.job = fresh
            # Parts of the run that was stopped were sent.
            handover.torn = handover.parts_link is not None
        return fresh


class JobTable:
    """Jobs that wait for a free slot, and jobs that run.

    Args:
        slots: Jobs that run at once.
        rules: Of some services: a job whose service has no room waits without holding up those of others.
    """

    def __init__(self, slots: int, rules: Mapping[bytes, ServiceRule]) -> None:
        self._slots = slots
        self._rooms = {name: rule.concurrency for name, rule in rules.items() if rule.concurrency is not None}
        """How many more may run, of services that have a limit of their own."""
        self._queues: dict[bytes, dict[int, Job]] = {}
        """By service those that have some, then by number, which is the order of arrival."""
        self._running: dict[int, Job] = {}
        self._by_call: dict[bytes, Job] = {}
        self._numbers = 0

    @property
    def queued(self) -> int:
        """How many jobs wait for a slot."""
        return sum(map(len, self._queues.values()))

    @property
    def running(self) -> int:
        """How many handlers run."""
        return len(self._running)

    @property
    def numbers_given(self) -> int:
        """The newest number that a job got."""
        return self._numbers

    def next_number(self) -> int:
        """A number that no job had before."""
        self._numbers += 1
        return self._numbers

    def add(self, job: Job) -> None:
        """Put an unstarted job at the end of the queue."""
        self._queues.setdefault(job.service, {})[job.number] = job
        if job.call_id:
            self._by_call[job.call_id] = job

    def of_call(self, call_id: bytes) -> Job | None:
        """The job, queued or running, of a call."""
        return self._by_call.get(call_id)

    def running_job(self, number: int) -> Job | None:
        """The running job with this number."""
        return self._running.get(number)

    def next_to_start(self) -> Job | None:
        """The oldest queued job whose service has room, if a slot is free."""
        if len(self._running) >= self._slots:
            return None
        firsts = [next(iter(queue.values())) for name, queue in self._queues.items() if self._rooms.get(name, 1) > 0]
        return min(firsts, key=lambda job: job.number, default=None)

    def start(self, job: Job, now: float) -> None:
        """Give a slot to a queued job."""
        job.state = JobState.RUNNING
        job.started_at = now
        self._unqueue(job)
        self._running[job.number] = job
        if job.service in self._rooms:
            self._rooms[job.service] -= 1

    def end(self, job: Job) -> None:
        """A running job ended, or a queued one is not wanted any more."""
        if job.state is JobState.RUNNING:
            del self._running[job.number]
            if job.service in self._rooms:
                self._rooms[job.service] += 1
        elif job.state is JobState.QUEUED:
            self._unqueue(job)
        job.state = JobState.ENDED
        self.leave_call(job)

    def _unqueue(self, job: Job) -> None:
        queue = self._queues[job.service]
        del queue[job.number]
        if not queue:
            del self._queues[job.service]

    def leave_call(self, job: Job) -> None:
        """The job is answered: whoever asks for its call again is not to wait for it."""
        if job.call_id and self._by_call.get(job.call_id) is job:
            del self._by_call[job.call_id]

    def all_queued(self) -> list[Job]:
        """The unstarted jobs, oldest first."""
        jobs = [job for queue in self._queues.values() for job in queue.values()]
        return sorted(jobs, key=lambda job: job.number)
