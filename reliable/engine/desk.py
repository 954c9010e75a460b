"""What a worker does about deliveries: join, queue, run, report, give back (rules: ``reliable.engine.worker``)."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from reliable.config import WorkerConfig
from reliable.engine import reports
from reliable.engine.arrivals import Arrivals
from reliable.engine.doubts import Doubts
from reliable.engine.jobs import Handover, Job, JobState, JobTable, OverdueJob, ServiceRule
from reliable.engine.replies import GRACE_S, ReplyTable
from reliable.engine.worker_links import Links, Peer
from reliable.engine.worker_view import WorkerCounters
from reliable.errors import RemoteProtocolError
from reliable.protocol import registration
from reliable.protocol.events import CancelJob, JobError, JobFinished, JobPartial, JobProgress, StartJob
from reliable.protocol.registration import Asking, Leave, Opening, Plain, Registered, State, Waiting
from reliable.types import Frames
from reliable.wire.extension import (
    CALL_ID_BYTES,
    MAGIC,
    TOKEN_BYTES,
    CallFlag,
    Delivery,
    DeliveryKind,
    GiveBackReason,
    ReportKind,
    ServiceOffer,
)
from reliable.wire.mdp import WorkerRequest

__all__ = ["RESEND_S", "Desk", "SentReport"]

RESEND_S: Final = 0.05
"""After which a report that the socket did not take is offered again."""
_NO_CALL: Final = bytes(CALL_ID_BYTES)
_FAR_MS: Final = 10**12
"""A deadline thirty years away is none."""


@attrs.frozen(eq=False)
class SentReport:
    """``Send.tag`` of a report; comes back with ``Unsent``."""

    kind: ReportKind
    handover: Handover
    frames: Frames = attrs.field(repr=False)


class Desk:
    """Every delivery in the worker's hands, and every job."""

    def __init__(
        self,
        links: Links,
        services: Sequence[ServiceOffer],
        rules: Mapping[bytes, ServiceRule],
        config: WorkerConfig,
        counters: WorkerCounters,
    ) -> None:
        self._links = links
        self._first_service = services[0].name
        self._names = frozenset(offer.name for offer in services)
        self._config = config
        self._counters = counters
        limits = config.limits
        self._rules = rules
        self._jobs = JobTable(config.concurrency, rules)
        self.replies = ReplyTable(
            bytes_max=limits.replies_kept_bytes_max, entries_max=limits.replies_kept_max, kept_s=config.replies_kept_s
        )
        self._unannounced: deque[Job] = deque()
        """Running jobs not yet reported as started, oldest first; ended ones are passed over."""
        self._timeouts: list[tuple[float, int, Job]] = []
        """Running jobs of services with a timeout, by when it is over."""
        self.overrunning = 0
        """How many jobs run on although they were answered for."""
        self._doubts = [
            Doubts(
                detection_s=config.transport.heartbeat_interval_s + config.transport.heartbeat_timeout_s,
                bytes_max=limits.replies_kept_bytes_max,
            )
            for _ in links.peers
        ]
        """By broker, what was reported on its current link."""
        self._alarms: list[tuple[float, int, Handover]] = []
        self._alarm_numbers = itertools.count()
        self._draining = False
        self.arrivals = Arrivals()

    @property
    def running(self) -> int:
        """How many handlers run."""
        return self._jobs.running

    @property
    def queued(self) -> int:
        """How many jobs wait for a slot."""
        return self._jobs.queued

    def runs(self, number: int) -> bool:
        """Whether this job runs."""
        return self._jobs.running_job(number) is not None

    def knows(self, number: int) -> bool:
        """Whether there ever was this job."""
        return 0 < number <= self._jobs.numbers_given

    def void(self, peer: Peer, handovers: Iterable[Handover]) -> None:
        """End deliveries without a report: nobody is left who could use it."""
        for handover in list(handovers):
            del peer.handovers[handover.token]
            self._counters.replies_dropped += not handover.doubtful
            handover.report = None
            job, handover.job = handover.job, None
            if job is None:
                continue
            job.handovers.remove(handover)
            if job.handovers:
                continue
            if job.state is JobState.QUEUED:
                self._jobs.end(job)
            elif handover.plain and job.state is JobState.RUNNING:
                # Nothing can join a job without a call id, so its work is wasted. Others may still be asked for.
                self._links.emit(CancelJob(job.number))

    def link_ended(self, peer: Peer, now: float) -> None:
        """The link to a broker is over; what it waits for may still be asked for on the next one."""
        for handover in peer.handovers.values():
            # What was said on the old link may not have arrived, so it is said again.
            handover.told_started = False
        self.void(peer, [handover for handover in peer.handovers.values() if handover.plain])
        doubts = self._doubts[peer.index]
        for sent in doubts.take(now):
            handover = sent.handover
            if handover.token not in peer.handovers:
                peer.handovers[handover.token] = handover
                handover.doubtful, handover.report, handover.keep_until = True, sent.frames, now + doubts.window_s
                self._set_alarm(handover.keep_until, handover)

    def begin_drain(self, now: float) -> None:
        """Take nothing new, and give back what has not started."""
        self._draining = True
        for job in self._jobs.all_queued():
            for handover in list(job.handovers):
                if handover.plain:
                    # The DISCONNECT that follows gives it back: MDP has no other word for it.
                    self.void(self._links.peers[handover.broker], [handover])
                else:
                    self._give_back(handover, GiveBackReason.DRAINING, now)

    # --- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When something here is due; infinite if nothing is."""
        announcing = self._next_unannounced()
        due = math.inf if announcing is None else announcing.started_at + self._config.started_after_s
        self._drop_stale_alarms()
        self._drop_stale_timeouts()
        return min([due, *(heap[0][0] for heap in (self._alarms, self._timeouts) if heap)])

    def carry_out_due(self, now: float) -> None:
        """Report long runs as started, give back what came too late, forget what is too old."""
        while (job := self._next_unannounced()) is not None and job.started_at + self._config.started_after_s <= now:
            self._unannounced.popleft()
            self._announce(job, now)
        self._drop_stale_alarms()
        while self._alarms and self._alarms[0][0] <= now:
            self._ring(heapq.heappop(self._alarms)[2], now)
            self._drop_stale_alarms()
        while self._timeouts and self._timeouts[0][0] <= now:
            self._time_out(heapq.heappop(self._timeouts)[2], now)
            self._drop_stale_timeouts()
        self.replies.expire(now)

    def _set_alarm(self, when: float, handover: Handover) -> None:
        if not math.isinf(when):
            heapq.heappush(self._alarms, (when, next(self._alarm_numbers), handover))

    def _drop_stale_alarms(self) -> None:
        while self._alarms and not _alarm_counts(*self._alarms[0]):
            heapq.heappop(self._alarms)

    def _drop_stale_timeouts(self) -> None:
        while self._timeouts and self._timeouts[0][2].state is JobState.ENDED:
            heapq.heappop(self._timeouts)

    def _ring(self, handover: Handover, now: float) -> None:
        if handover.report is not None:
            self.void(self._links.peers[handover.broker], [handover])
        else:
            self._give_back(handover, GiveBackReason.EXPIRED, now)

    # --- deliveries -------------------------------------------------------------------------------

    def delivered(self, peer: Peer, request: WorkerRequest, now: float) -> None:
        """A broker that the worker is registered with handed something over."""
        state = peer.state
        if isinstance(state, Plain):
            self._run_plain(peer, state, request)
        elif isinstance(state, Registered):
            try:
                delivery = Delivery.decode(request.address)
            except RemoteProtocolError as error:
                self._bad_delivery(peer, state, request.address, str(error), now)
                return
            match delivery.kind:
                case DeliveryKind.RUN:
                    self._run(peer, state, delivery, request.body, now)
                case DeliveryKind.CANCEL:
                    self._cancel(peer, delivery.token, now)
                case DeliveryKind.CREDIT_ACK:
                    peer.credit_seen = self._draining

    def _run_plain(self, peer: Peer, state: Plain, request: WorkerRequest) -> None:
        self._counters.deliveries += 1
        handover = Handover(broker=peer.index, token=request.address, life=b"", link=state.link, deadline=math.inf)
        peer.handovers[request.address] = handover
        job = Job(number=self._jobs.next_number(), service=self._first_service, body=request.body, deadline=math.inf)
        job.handovers.append(handover)
        handover.job = job
        self._jobs.add(job)

    def _bad_delivery(self, peer: Peer, state: Registered, address: bytes, reason: str, now: float) -> None:
        self._links.drop(peer, reason)
        token = address[:TOKEN_BYTES]
        if address[TOKEN_BYTES:].startswith(MAGIC) and token not in peer.handovers:
            # Ours, of a version that we do not read: say so, or the broker would wait for it.
            self._counters.given_back += 1
            self._links.report(peer, state.link, reports.give_back(token, GiveBackReason.BAD_DELIVERY), None, now)

    def _run(self, peer: Peer, state: Registered, delivery: Delivery, body: Frames, now: float) -> None:
        if delivery.token in peer.handovers:
            self._links.drop(peer, "a token that is in use")
            return
        self._counters.deliveries += 1
        self.arrivals.came(state.broker.life, delivery.token)
        deadline = math.inf if delivery.deadline_ms >= _FAR_MS else state.time.t1 + delivery.deadline_ms / 1000
        handover = Handover(
            broker=peer.index, token=delivery.token, life=state.broker.life, link=state.link, deadline=deadline
        )
        peer.handovers[handover.token] = handover
        if delivery.call_id != _NO_CALL and self._is_known(handover, delivery, now):
            return
        service = delivery.service or self._first_service
        refusal = self._refusal(peer, service, deadline, now)
        if refusal is None:
            self._queue(handover, delivery, service, body, now)
        else:
            self._give_back(handover, refusal, now)

    def _is_known(self, handover: Handover, delivery: Delivery, now: float) -> bool:
        """Deal with a delivery of a call that was here before; whether it was."""
        job = self._jobs.of_call(delivery.call_id)
        if job is not None:
            if job.digest == delivery.digest:
                self._join(handover, job, now)
            else:
                self._counters.conflicts += 1
                self._conclude(handover, reports.CALL_ID_CONFLICT, now)
            return True
        kept = self.replies.find(delivery.call_id, now)
        if kept is None:
            return self._is_forgotten(handover, delivery, now)
        if kept.digest != delivery.digest:
            self._counters.conflicts += 1
            self._conclude(handover, reports.CALL_ID_CONFLICT, now)
        elif kept.result is None:
            self._counters.evicted_asked += 1
            self._conclude(handover, reports.REPLY_EVICTED, now)
        else:
            self._counters.replayed += 1
            self._conclude(handover, kept.result, now)
        return True

    def _is_forgotten(self, handover: Handover, delivery: Delivery, now: float) -> bool:
        # A further attempt or delivery of a call that is not idempotent is no repeat: it exists only if everything
        # before it is proven not to have run. REPEAT says that nothing is proven.
        again = delivery.flags & CallFlag.REPEAT
        if not again or delivery.flags & CallFlag.IDEMPOTENT or not self.replies.may_have_run(handover.deadline):
            return False
        self._counters.evicted_asked += 1
        self._conclude(handover, reports.FORGOTTEN, now)
        return True

    def _join(self, handover: Handover, job: Job, now: float) -> None:
        self._counters.joined += 1
        handover.job = job
        # Parts that were given out before are missing for the one who comes later.
        handover.torn = job.streamed
        job.handovers.append(handover)
        if job.state is JobState.QUEUED:
            self._set_alarm(handover.deadline, handover)
        elif job.told_started:
            self._tell_started(handover, now)

    def _refusal(self, peer: Peer, service: bytes, deadline: float, now: float) -> GiveBackReason | None:
        if self._draining:
            return GiveBackReason.DRAINING
        if service not in self._names:
            return GiveBackReason.NO_SUCH_SERVICE
        if deadline <= now:
            return GiveBackReason.EXPIRED
        # A cancelled job may run on after the broker gave its slot away, hence some tolerance; but there is an end.
        if len(peer.handovers) > 2 * peer.credit:
            return GiveBackReason.FULL
        return None

    def _queue(self, handover: Handover, delivery: Delivery, service: bytes, body: Frames, now: float) -> None:
        job = Job(
            number=self._jobs.next_number(),
            service=service,
            body=body,
            deadline=handover.deadline,
            call_id=b"" if delivery.call_id == _NO_CALL else delivery.call_id,
            digest=delivery.digest,
            flags=delivery.flags,
            attempt=delivery.attempt,
            delivery=delivery.delivery,
            trace=delivery.trace,
        )
        job.handovers.append(handover)
        handover.job = job
        self._jobs.add(job)
        self.fill_slots(now)
        if job.state is JobState.QUEUED:
            self._set_alarm(handover.deadline, handover)

    def _cancel(self, peer: Peer, token: bytes, now: float) -> None:
        handover = peer.handovers.get(token)
        if handover is None or handover.job is None or handover.cancelled:
            # It has just been answered: the final report and the CANCEL have crossed.
            return
        self._counters.cancelled += 1
        job = handover.job
        if job.state is JobState.QUEUED:
            self._give_back(handover, GiveBackReason.CANCELLED, now)
            return
        handover.cancelled = True
        # The broker may only want back what has not started: it must know that this has.
        self._tell_started(handover, now)
        if not job.cancelled and all(waiting.cancelled for waiting in job.handovers):
            job.cancelled = True
            self._links.emit(CancelJob(job.number))

    # --- jobs -------------------------------------------------------------------------------------

    def fill_slots(self, now: float) -> None:
        """Start what may start, oldest first."""
        while (job := self._jobs.next_to_start()) is not None:
            for handover in [waiting for waiting in job.handovers if waiting.deadline <= now]:
                self._give_back(handover, GiveBackReason.EXPIRED, now)
            if job.handovers:
                self._start_job(job, now)

    def _start_job(self, job: Job, now: float) -> None:
        job.deadline = max(handover.deadline for handover in job.handovers)
        self._jobs.start(job, now)
        self._unannounced.append(job)
        self._counters.jobs_started += 1
        rule = self._rules.get(job.service)
        if rule is not None and rule.timeout_s is not None:
            heapq.heappush(self._timeouts, (now + rule.timeout_s, job.number, job))
        start = StartJob(
            job=job.number,
            service=job.service,
            body=job.body,
            deadline=None if math.isinf(job.deadline) else job.deadline,
            flags=job.flags,
            call_id=job.call_id,
            attempt=job.attempt,
            delivery=job.delivery,
            trace=job.trace,
        )
        self._links.emit(start)

    def _next_unannounced(self) -> Job | None:
        while self._unannounced and self._unannounced[0].state is JobState.ENDED:
            self._unannounced.popleft()
        return self._unannounced[0] if self._unannounced else None

    def _announce(self, job: Job, now: float) -> None:
        job.told_started = True
        for handover in job.handovers:
            self._tell_started(handover, now)

    def _tell_started(self, handover: Handover, now: float) -> None:
        state = self._session(handover)
        if isinstance(state, Registered) and not handover.told_started:
            handover.told_started = True
            self._report(handover, state, ReportKind.STARTED, reports.news(handover.token, ReportKind.STARTED, []), now)

    def progress(self, event: JobProgress, now: float) -> None:
        """The handler of a job says how far it is."""
        job = self._jobs.running_job(event.job)
        for handover in job.handovers if job is not None else ():
            state = self._session(handover)
            if isinstance(state, Registered) and not handover.cancelled:
                frames = reports.news(handover.token, ReportKind.PROGRESS, event.body)
                if self._fits(handover, frames):
                    self._report(handover, state, ReportKind.PROGRESS, frames, now)

    def partial(self, event: JobPartial, now: float) -> None:
        """The handler of a job gave a part of a streamed reply."""
        job = self._jobs.running_job(event.job)
        if job is None:
            return
        job.streamed = True
        for handover in job.handovers:
            self._send_part(handover, event.body, now)

    def _send_part(self, handover: Handover, body: Frames, now: float) -> None:
        """Send one part, or none any more: a reply with a hole must not look whole."""
        state = self._session(handover)
        frames = reports.news(handover.token, ReportKind.PARTIAL, body)
        same_link = isinstance(state, Registered) and handover.parts_link in (None, state.link)
        if handover.torn or handover.cancelled or not same_link or not self._fits(handover, frames):
            handover.torn = True
        elif isinstance(state, Registered):
            handover.parts_link = state.link
            self._report(handover, state, ReportKind.PARTIAL, frames, now)

    def finished(self, event: JobFinished, now: float) -> None:
        """The handler of a job ended: keep the reply, and send it to whoever waits."""
        job = self._jobs.running_job(event.job)
        if job is None:
            return
        self._jobs.end(job)
        if job.answered:
            self.overrunning -= 1
        else:
            self._answer(job, event.result, now)

    def _time_out(self, job: Job, now: float) -> None:
        """A handler takes longer than its service allows. Who cannot end it answers for it; the slot stays taken."""
        rule = self._rules[job.service]
        self._counters.handler_timeouts += 1
        self._links.emit(OverdueJob(job.number))
        if not rule.killable:
            job.answered = True
            self.overrunning += 1
            self._jobs.leave_call(job)
            self._answer(job, reports.handler_timeout(rule.timeout_s or 0.0), now)

    def _answer(self, job: Job, result: Frames | JobError, now: float) -> None:
        failed = isinstance(result, JobError)
        self._counters.jobs_failed += failed
        self._counters.jobs_ok += not failed
        stopped = failed and job.cancelled and bool(job.flags & CallFlag.IDEMPOTENT)
        # Who was given the call while this run was being stopped must not hear that nobody waits for it.
        again = [handover for handover in job.handovers if stopped and not handover.cancelled]
        if job.call_id and not stopped:
            self.replies.keep(
                job.call_id,
                job.digest,
                None if job.streamed and not failed else result,
                deadline=job.deadline,
                idempotent=bool(job.flags & CallFlag.IDEMPOTENT),
                now=now,
            )
        for handover in [handover for handover in job.handovers if handover not in again]:
            self._conclude(handover, result, now)
        if again:
            self._run_again(job, again, now)

    def _run_again(self, job: Job, handovers: list[Handover], now: float) -> None:
        """An idempotent call whose run was stopped, and that was delivered anew meanwhile."""
        self._jobs.add(job.again(self._jobs.next_number(), handovers))
        self.fill_slots(now)

    # --- reports ----------------------------------------------------------------------------------

    def _session(self, handover: Handover) -> State | None:
        """The state of the handover's broker, if the broker can be told about it now."""
        state = self._links.peers[handover.broker].state
        if isinstance(state, Registered):
            return state if state.broker.life == handover.life else None
        return state if isinstance(state, Plain) and state.link == handover.link and handover.plain else None

    def _fits(self, handover: Handover, frames: Frames) -> bool:
        return reports.size_bytes(frames) <= self._limit_bytes(handover)

    def _limit_bytes(self, handover: Handover) -> int:
        own = self._config.limits.message_bytes_max
        return min(own, self._links.peers[handover.broker].message_bytes_max or own)

    def _conclude(self, handover: Handover, result: Frames | JobError, now: float) -> None:
        """End a delivery with what its handler gave."""
        if handover.plain:
            self._conclude_plain(handover, result, now)
            return
        state = self._session(handover)
        link = state.link if isinstance(state, Registered) else None
        if handover.torn or (handover.parts_link is not None and handover.parts_link != link):
            result = reports.STREAM_BROKEN
        handover.replied = not isinstance(result, JobError)
        frames = reports.final(handover.token, result)
        if not self._fits(handover, frames):
            self._counters.replies_too_large += 1
            text = f"the reply has {reports.size_bytes(frames)} bytes; {self._limit_bytes(handover)} are allowed"
            frames = reports.error(handover.token, reports.too_large(text))
        self._send_final(handover, frames, now)

    def _conclude_plain(self, handover: Handover, result: Frames | JobError, now: float) -> None:
        if not isinstance(result, JobError) and not handover.torn:
            frames = reports.plain_reply(handover.token, result)
            if self._fits(handover, frames):
                self._send_final(handover, frames, now)
                return
            self._counters.replies_too_large += 1
        # MDP has no word for a failure, and a worker that never answers would count as busy for ever.
        peer = self._links.peers[handover.broker]
        self._links.step(peer, Leave(back=True), now)
        self.void(peer, [handover])

    def _give_back(self, handover: Handover, reason: GiveBackReason, now: float) -> None:
        self._counters.given_back += 1
        self._counters.expired += reason is GiveBackReason.EXPIRED
        self._send_final(handover, reports.give_back(handover.token, reason), now)

    def _send_final(self, handover: Handover, frames: Frames, now: float) -> None:
        """Send the one final report, or keep it for the next link."""
        job, handover.job = handover.job, None
        if job is not None:
            job.handovers.remove(handover)
            if not job.handovers and job.state is JobState.QUEUED:
                self._jobs.end(job)
        state = self._session(handover)
        if state is None:
            self._keep_report(handover, frames, now)
            return
        handover.report = None
        del self._links.peers[handover.broker].handovers[handover.token]
        self._counters.replies_sent += not handover.doubtful
        self._counters.replies_resent += handover.doubtful
        self._report(handover, state, ReportKind.RESULT, frames, now)
        if not (handover.plain or handover.doubtful):
            self._doubts[handover.broker].add(handover, frames, now)

    def _report(self, handover: Handover, state: State, kind: ReportKind, frames: Frames, now: float) -> None:
        if isinstance(state, Registered | Plain):
            peer = self._links.peers[handover.broker]
            self._links.report(peer, state.link, frames, SentReport(kind, handover, frames), now)

    def _keep_report(self, handover: Handover, frames: Frames, now: float) -> None:
        handover.report = frames
        # Also far behind the deadline it is offered again for a while: it frees the slot that the broker has it in.
        limit = max(handover.deadline, now) + GRACE_S
        if math.isinf(handover.deadline):
            limit = now + self._config.replies_kept_s
        handover.keep_until = limit
        self._set_alarm(limit, handover)

    def report_unsent(self, sent: SentReport, link: int, now: float) -> None:
        """The socket did not take a report: offer it again soon, or on the next link."""
        handover = sent.handover
        peer = self._links.peers[handover.broker]
        live = registration.current_link(peer.state)
        if sent.kind is ReportKind.PARTIAL:
            handover.torn = True
        elif sent.kind is ReportKind.STARTED:
            handover.told_started = False
        elif sent.kind is ReportKind.RESULT:
            waits = isinstance(peer.state, Waiting | Opening | Asking) and peer.life == handover.life and peer.life
            if link != live and not waits:
                # Either it was said again on the newer link already, or READY there did not name its token, so that
                # the broker has closed its books on it.
                self._counters.replies_dropped += not handover.doubtful
                return
            peer.handovers[handover.token] = handover
            self._keep_report(handover, sent.frames, now)
        if link == live:
            peer.resend_at = now + RESEND_S

    def resend(self, peer: Peer, now: float) -> None:
        """Say on the current link what could not be said before."""
        peer.resend_at = math.inf
        for handover in list(peer.handovers.values()):
            if handover.report is not None:
                if handover.replied and handover.parts_link not in (None, registration.current_link(peer.state)):
                    # Parts that were said on the older link may not have arrived.
                    handover.report = reports.final(handover.token, reports.STREAM_BROKEN)
                self._send_final(handover, handover.report, now)
            elif handover.job is not None and handover.job.told_started:
                self._tell_started(handover, now)


def _alarm_counts(when: float, _: int, handover: Handover) -> bool:
    """Whether an alarm still means something: what it waits for may have come long ago."""
    if handover.report is not None:
        return when == handover.keep_until
    return handover.job is not None and handover.job.state is JobState.QUEUED and when == handover.deadline
