"""Mistakes in the worker."""

from __future__ import annotations

from chaos.planted.values import Change
from reliable.engine.desk import Desk
from reliable.engine.jobs import Handover, Job, JobTable
from reliable.engine.replies import ReplyTable
from reliable.engine.worker_links import Peer
from reliable.protocol.events import JobError
from reliable.types import Frames
from reliable.wire.extension import Delivery

__all__ = [
    "drain_loses_what_waits",
    "half_a_stream_passes_for_whole",
    "more_runs_than_slots",
    "no_dedupe",
    "replies_kept_for_ever",
    "reports_on_new_links_not_repeated",
    "stopped_run_answers_for_all",
]


def no_dedupe() -> list[Change]:
    """Each delivery is a run of its own, however often a call is delivered."""

    def _is_known(_self: Desk, _handover: Handover, _delivery: Delivery, _now: float) -> bool:
        return False

    return [Change(Desk, "_is_known", _is_known)]


def drain_loses_what_waits() -> list[Change]:
    """A worker that is told to stop throws away what it has not begun."""

    def begin_drain(self: Desk, _now: float) -> None:
        self._draining = True
        for job in self._jobs.all_queued():
            for handover in list(job.handovers):
                self.void(self._links.peers[handover.broker], [handover])

    return [Change(Desk, "begin_drain", begin_drain)]


def more_runs_than_slots() -> list[Change]:
    """Whatever is delivered runs at once."""

    def next_to_start(self: JobTable) -> Job | None:
        return next((job for queue in self._queues.values() for job in queue.values()), None)

    return [Change(JobTable, "next_to_start", next_to_start)]


def half_a_stream_passes_for_whole() -> list[Change]:
    """The last part is said again on a new link as if all those before it had arrived on the old one."""

    def resend(self: Desk, peer: Peer, now: float) -> None:
        peer.resend_at = float("inf")
        for handover in list(peer.handovers.values()):
            if handover.report is not None:
                self._send_final(handover, handover.report, now)

    return [Change(Desk, "resend", resend)]


def reports_on_new_links_not_repeated() -> list[Change]:
    """What could not be said before the link broke is not said on the next one either."""

    def _keep_report(self: Desk, handover: Handover, _frames: Frames, _now: float) -> None:
        self._links.peers[handover.broker].handovers.pop(handover.token, None)

    return [Change(Desk, "_keep_report", _keep_report)]


def replies_kept_for_ever() -> list[Change]:
    """What was answered is not forgotten when nobody can ask any more."""

    def expire(_self: ReplyTable, _now: float) -> None:
        pass

    return [Change(ReplyTable, "expire", expire)]


def stopped_run_answers_for_all() -> list[Change]:
    """What a handler says that was told to stop is taken for the reply of its call, now and later."""
    answers = Desk._answer

    def _answer(self: Desk, job: Job, result: Frames | JobError, now: float) -> None:
        job.cancelled = False
        answers(self, job, result, now)

    return [Change(Desk, "_answer", _answer)]
