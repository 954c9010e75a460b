"""Every error a user can meet, as one tree.

    ReliableError
    ├─ RequestError             one call ended without a reply; ``.outcome`` says whether it may have run
    │  ├─ RequestTimeout        also TimeoutError
    │  │  ├─ DeadlineExceeded   the caller's total time ran out
    │  │  └─ AttemptsExhausted  every attempt that the policy allows stayed silent
    │  ├─ RequestAbandoned      cancelled, or the client was closed, while in flight
    │  ├─ RequestRefused        no worker saw it: NOT_EXECUTED
    │  │  ├─ QueueFull          a limit of ours or of the broker
    │  │  ├─ ServiceNotFound    the broker knows no worker for the service
    │  │  ├─ BrokerUnreachable  no broker could be reached; also ConnectionError
    │  │  └─ NotAuthorised      the broker does not let this client call the service
    │  ├─ MessageTooLarge       request (NOT_EXECUTED) or reply (EXECUTED) above the size limit
    │  ├─ CallIdConflict        the call id is already in use for another request: NOT_EXECUTED
    │  ├─ WorkerFailed          the handler failed: EXECUTED, or UNKNOWN if it came to no end of its own; remote
    │  │                        name and text as attributes
    │  ├─ WorkerLost            the worker that held it is gone: UNKNOWN
    │  ├─ BrokerLost            the broker that held it is gone or restarted: UNKNOWN
    │  └─ ReplyEvicted          it ran, and its reply is no longer kept: EXECUTED
    ├─ ProtocolError
    │  ├─ LocalProtocolError    we broke a rule: a programming error, never retried
    │  └─ RemoteProtocolError   the peer did: raised by decoders, caught by engines, counted
    ├─ PayloadError             a value cannot be encoded or decoded by the codec in use
    └─ ClosedError              use after close

This module imports nothing of ours, so that every layer may use it.
"""

from __future__ import annotations

import enum

import attrs

__all__ = [
    "AttemptsExhausted",
    "BrokerLost",
    "BrokerUnreachable",
    "CallIdConflict",
    "ClosedError",
    "DeadlineExceeded",
    "LocalProtocolError",
    "MessageTooLarge",
    "NotAuthorised",
    "Outcome",
    "PayloadError",
    "ProtocolError",
    "QueueFull",
    "ReliableError",
    "RemoteProtocolError",
    "ReplyEvicted",
    "RequestAbandoned",
    "RequestError",
    "RequestRefused",
    "RequestTimeout",
    "ServiceNotFound",
    "Spent",
    "WorkerFailed",
    "WorkerLost",
]


class Outcome(enum.IntEnum):
    """Whether the work of a call ran: what a caller needs to decide on a retry of its own.

    The integer is the wire value of the answer frame.
    """

    UNKNOWN = 0
    """It may have run, perhaps more than once if the call is idempotent."""
    NOT_EXECUTED = 1
    """It is proven that no handler ran it and that none will."""
    EXECUTED = 2
    """A handler ran it to an end."""


@attrs.frozen(kw_only=True)
class Spent:
    """Where the time of a call went, in seconds, as far as its client could tell."""

    unsent_s: float = 0.0
    """Waiting for a broker, or for a pause between attempts to end."""
    queued_s: float = 0.0
    """In a queue of the broker, by its word."""
    running_s: float = 0.0
    """With a worker, by the broker's word."""
    silent_s: float = 0.0
    """Sent, and nothing was heard since."""


class ReliableError(Exception):
    """Base of all errors of this library."""


class RequestError(ReliableError):
    """A call ended without a reply.

    Attributes:
        outcome: Whether the work may have run.
        service: The service that was called.
        call_id: The 16 bytes that name the call on every hop, empty if none was given out yet.
        attempts: How often the request was sent.
        elapsed_s: Seconds from the call to this error.
        retry_after_s: Seconds after which the other side suggests to try again, or None.
        story: What happened to the call, one line per step, oldest first.
        brokers: Addresses to which it was sent, in order, each once.
        last_state: What was last known of it: ``"not sent"``, ``"queued"``, ``"running"``, ``"stuck"`` and the like.
        spent: Where the time went.
    """

    default_outcome: Outcome = Outcome.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        outcome: Outcome | None = None,
        service: str = "",
        call_id: bytes = b"",
        attempts: int = 0,
        elapsed_s: float = 0.0,
        retry_after_s: float | None = None,
        story: tuple[str, ...] = (),
        brokers: tuple[str, ...] = (),
        last_state: str = "",
        spent: Spent | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = self.default_outcome if outcome is None else outcome
        self.service = service
        self.call_id = call_id
        self.attempts = attempts
        self.elapsed_s = elapsed_s
        self.retry_after_s = retry_after_s
        self.story = story
        self.brokers = brokers
        self.last_state = last_state
        self.spent = spent or Spent()

    @property
    def message(self) -> str:
        """What was the matter; ``str(error)`` also says whether it may have run."""
        return super().__str__()

    def __str__(self) -> str:
        message = self.message
        return f"{message} ({_MEANING[self.outcome]})" if message else _MEANING[self.outcome]


_MEANING = {
    Outcome.UNKNOWN: "it may have run",
    Outcome.NOT_EXECUTED: "it did not run",
    Outcome.EXECUTED: "it ran",
}


class RequestTimeout(RequestError, TimeoutError):
    """No reply in time."""


class DeadlineExceeded(RequestTimeout):
    """The caller's total time ran out."""


class AttemptsExhausted(RequestTimeout):
    """Every attempt that the retry policy allows stayed silent or failed."""


class RequestAbandoned(RequestError):
    """The call was cancelled, or its client was closed, while in flight."""


class RequestRefused(RequestError):
    """No worker saw the call."""

    default_outcome = Outcome.NOT_EXECUTED


class QueueFull(RequestRefused):
    """A limit of this client or of the broker was reached."""


class ServiceNotFound(RequestRefused):
    """The broker was asked and knows no worker for this service."""


class BrokerUnreachable(RequestRefused, ConnectionError):
    """No broker could be reached, so nothing was ever sent."""


class NotAuthorised(RequestRefused):
    """The broker does not let this client call the service."""


class MessageTooLarge(RequestError):
    """The request (NOT_EXECUTED) or the reply (EXECUTED) is larger than the limit of a peer."""

    default_outcome = Outcome.NOT_EXECUTED


class CallIdConflict(RequestError):
    """The broker holds another request under the same call id."""

    default_outcome = Outcome.NOT_EXECUTED


class WorkerFailed(RequestError):
    """The handler failed.

    EXECUTED if its own code ended it, with an exception; UNKNOWN if its process died or its time was up, since then it
    may have run in part; NOT_EXECUTED if it was never entered, say for arguments that do not fit.

    Attributes:
        remote_type: Name of the exception's class at the worker.
        remote_message: Its text.
    """

    default_outcome = Outcome.EXECUTED
    remote_type: str = ""
    remote_message: str = ""


class WorkerLost(RequestError):
    """The worker that held the call is gone, or too many workers died while they held it."""


class BrokerLost(RequestError):
    """The broker that held the call is gone or was restarted; a call that is not idempotent ends here."""


class ReplyEvicted(RequestError):
    """The call ran, and the broker no longer keeps its reply."""

    default_outcome = Outcome.EXECUTED


class ProtocolError(ReliableError):
    """A rule of the wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We broke it: a programming error, raised before anything was changed."""


class RemoteProtocolError(ProtocolError):
    """The peer broke it. Decoders raise it; engines catch it, count it and drop the message."""


class PayloadError(ReliableError, ValueError):
    """A value cannot be encoded, or bytes cannot be decoded, by the codec in use."""


class ClosedError(ReliableError):
    """The object was used after it was closed."""
