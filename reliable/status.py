"""The status table: what an answer means, in one place.

Each row says of a status: does it end the attempt, what it says about the work when the answer itself
does not say more, may the client try again by itself, which exception the caller gets, and with which code the
command line exits. ``docs/reference/statuses.md`` is generated from this table by a test that compares the two.

The outcome on the wire (``AnswerFrame.outcome``) goes before the one listed here: a request that expired in the queue
did not run, one that expired in a worker's hands may have.
"""

from __future__ import annotations

import enum

import attrs

from reliable.errors import (
    BrokerLost,
    CallIdConflict,
    DeadlineExceeded,
    MessageTooLarge,
    NotAuthorised,
    Outcome,
    QueueFull,
    ReplyEvicted,
    RequestAbandoned,
    RequestError,
    ServiceNotFound,
    WorkerFailed,
    WorkerLost,
)

__all__ = ["STATUS_TABLE", "ExitCode", "Retry", "Status", "StatusRule"]


class Status(enum.IntEnum):
    """What the broker says about one attempt. The integer is the wire value."""

    OK = 0
    PARTIAL = 1
    ACCEPTED = 2
    STARTED = 3
    PROGRESS = 4
    NO_SERVICE = 16
    EXPIRED = 17
    OVERLOADED = 18
    WORKER_LOST = 19
    HANDLER_ERROR = 20
    UNKNOWN_CALL = 21
    WRONG_LIFE = 22
    ID_CONFLICT = 23
    REPLY_EVICTED = 24
    TOO_LARGE = 25
    CANCELLED = 26
    NOT_AUTHORISED = 27


class Retry(enum.Enum):
    """What the client may do by itself after an attempt ended with a status."""

    NOT_FINAL = "not final"
    """The attempt goes on; the answer is news about it."""
    NEVER = "never"
    """The status ends the call."""
    BY_OUTCOME = "by outcome"
    """Proven not executed: send it anywhere again. May have run: only what the table "who may repeat what" allows."""


class ExitCode(enum.IntEnum):
    """Exit codes of the command line; documented in ``docs/reference/cli.md``."""

    OK = 0
    FAILURE = 1
    """Something went wrong that has no code of its own."""
    USAGE = 2
    TIMEOUT = 3
    NO_SERVICE = 4
    HANDLER_ERROR = 5
    UNREACHABLE = 6
    OVERLOADED = 7
    LOST = 8
    """A worker or broker was lost while it held the call."""
    TOO_LARGE = 9
    REFUSED = 10
    ADDRESS_IN_USE = 11
    INTERRUPTED = 130


@attrs.frozen
class StatusRule:
    """One row of the table."""

    outcome: Outcome | None
    """What the status says about the work; None for a status that is not final."""
    retry: Retry
    error: type[RequestError] | None
    """The exception that a call which ends with this status raises; None if it cannot end a call."""
    exit_code: ExitCode | None
    meaning: str


STATUS_TABLE: dict[Status, StatusRule] = {
    Status.OK: StatusRule(Outcome.EXECUTED, Retry.NEVER, None, ExitCode.OK, "the reply; ends the call"),
    Status.PARTIAL: StatusRule(None, Retry.NOT_FINAL, None, None, "a part of a streamed reply"),
    Status.ACCEPTED: StatusRule(None, Retry.NOT_FINAL, None, None, "the broker holds it in a queue"),
    Status.STARTED: StatusRule(None, Retry.NOT_FINAL, None, None, "a worker holds it"),
    Status.PROGRESS: StatusRule(None, Retry.NOT_FINAL, None, None, "the handler reports progress"),
    Status.NO_SERVICE: StatusRule(
        Outcome.NOT_EXECUTED, Retry.BY_OUTCOME, ServiceNotFound, ExitCode.NO_SERVICE, "no worker offers the service"
    ),
    Status.EXPIRED: StatusRule(
        Outcome.UNKNOWN, Retry.NEVER, DeadlineExceeded, ExitCode.TIMEOUT, "the deadline passed at the broker"
    ),
    Status.OVERLOADED: StatusRule(
        Outcome.NOT_EXECUTED, Retry.BY_OUTCOME, QueueFull, ExitCode.OVERLOADED, "a limit of the broker is reached"
    ),
    Status.WORKER_LOST: StatusRule(
        Outcome.UNKNOWN, Retry.NEVER, WorkerLost, ExitCode.LOST, "the worker that held it is gone"
    ),
    Status.HANDLER_ERROR: StatusRule(
        Outcome.EXECUTED, Retry.NEVER, WorkerFailed, ExitCode.HANDLER_ERROR, "the handler failed; ends the call"
    ),
    Status.UNKNOWN_CALL: StatusRule(
        Outcome.NOT_EXECUTED, Retry.BY_OUTCOME, BrokerLost, ExitCode.LOST, "the broker has no record of the call"
    ),
    Status.WRONG_LIFE: StatusRule(
        Outcome.NOT_EXECUTED, Retry.BY_OUTCOME, BrokerLost, ExitCode.LOST, "meant for another run of this broker"
    ),
    Status.ID_CONFLICT: StatusRule(
        Outcome.NOT_EXECUTED, Retry.NEVER, CallIdConflict, ExitCode.REFUSED, "another request has this call id"
    ),
    Status.REPLY_EVICTED: StatusRule(
        Outcome.EXECUTED, Retry.NEVER, ReplyEvicted, ExitCode.LOST, "it ran; the reply is no longer kept"
    ),
    Status.TOO_LARGE: StatusRule(
        Outcome.NOT_EXECUTED, Retry.NEVER, MessageTooLarge, ExitCode.TOO_LARGE, "above the size limit of a peer"
    ),
    Status.CANCELLED: StatusRule(
        Outcome.UNKNOWN, Retry.NEVER, RequestAbandoned, ExitCode.FAILURE, "cancelled by the caller"
    ),
    Status.NOT_AUTHORISED: StatusRule(
        Outcome.NOT_EXECUTED, Retry.NEVER, NotAuthorised, ExitCode.REFUSED, "the caller may not use the service"
    ),
}
