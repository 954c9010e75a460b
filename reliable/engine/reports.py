"""What a worker sends about a delivery, as frames: reports inside MDP 0.2 replies, or plain replies of MDP 0.1."""

from __future__ import annotations

from typing import Final

from reliable.protocol.events import JobError
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CONTROL_TOKEN, GiveBackReason, Report, ReportKind
from reliable.wire.mdp import Version, WorkerReply

__all__ = [
    "CALL_ID_CONFLICT",
    "ERROR_TEXT_BYTES_MAX",
    "FORGOTTEN",
    "REPLY_EVICTED",
    "STREAM_BROKEN",
    "credit",
    "error",
    "final",
    "give_back",
    "handler_timeout",
    "news",
    "plain_reply",
    "size_bytes",
    "too_large",
]

CALL_ID_CONFLICT: Final = JobError("CallIdConflict", "another request with this call id was run here", executed=False)
REPLY_EVICTED: Final = JobError(
    "ReplyEvicted", "it ran here before, and the reply is no longer kept", status=Status.REPLY_EVICTED
)
FORGOTTEN: Final = JobError(
    "ReplyEvicted", "it may have run here before; too much was answered since to tell", executed=False
)
"""Not executed is true of this delivery; what is said of the call the client joins with what it knows of the others."""
STREAM_BROKEN: Final = JobError(
    "StreamBroken", "a part of the streamed reply could not be sent", status=Status.REPLY_EVICTED
)
ERROR_TEXT_BYTES_MAX: Final = 16 * 1024
_ERROR_NAME_BYTES_MAX: Final = 255


def handler_timeout(timeout_s: float) -> JobError:
    """What is said of a handler that took longer than its service allows."""
    text = f"the handler was not done after {timeout_s:g} s; it may have run in part"
    return JobError("HandlerTimeout", text, status=Status.WORKER_LOST)


def too_large(text: str) -> JobError:
    """What is said in place of a reply that does not fit through."""
    return JobError("ReplyTooLarge", text, status=Status.TOO_LARGE)


def final(token: bytes, result: Frames | JobError) -> Frames:
    """The report that ends a delivery whose handler returned or failed."""
    if isinstance(result, JobError):
        return error(token, result)
    return _report(Report(token, ReportKind.RESULT), result, last=True)


def error(token: bytes, failure: JobError) -> Frames:
    """The report that ends a delivery whose handler failed; overlong texts are cut."""
    name = failure.type_name.encode("utf-8", "replace")[:_ERROR_NAME_BYTES_MAX]
    text = failure.message.encode("utf-8", "replace")[:ERROR_TEXT_BYTES_MAX]
    detail = 0 if failure.status is Status.HANDLER_ERROR else int(failure.status)
    return _report(Report(token, ReportKind.ERROR, failure.executed, detail), [name, text], last=True)


def give_back(token: bytes, reason: GiveBackReason) -> Frames:
    """The report that ends a delivery that never started."""
    return _report(Report(token, ReportKind.GIVE_BACK, False, reason), [], last=True)


def news(token: bytes, kind: ReportKind, body: Frames) -> Frames:
    """STARTED, PROGRESS or PARTIAL; the delivery goes on."""
    return _report(Report(token, kind), body, last=False)


def credit(amount: int) -> Frames:
    """How many requests at once the worker takes from now on."""
    return _report(Report(CONTROL_TOKEN, ReportKind.CREDIT, detail=amount), [], last=False)


def plain_reply(address: bytes, body: Frames) -> Frames:
    """A reply to a broker that is not ours."""
    return WorkerReply(Version.MDP01, address, body or [b""]).encode()


def size_bytes(frames: Frames) -> int:
    """Of one message, all frames together."""
    return sum(map(len, frames))


def _report(report: Report, body: Frames, *, last: bool) -> Frames:
    # MDP demands a body frame; what has nothing to say sends an empty one.
    return WorkerReply(Version.MDP02, report.encode(), body or [b""], last).encode()
