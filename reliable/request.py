"""What a handler can know of the request it works on."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

from reliable.payload import check_frames
from reliable.protocol.events import StartJob
from reliable.types import Clock, Frames

__all__ = ["Request", "current_request", "request_context"]


class Request:
    """The request that a handler is working on; from ``current_request()``.

    Attributes:
        service: Name of the service.
        call_id: 16 bytes that name the call on every hop; empty if the caller is not one of this library's clients.
        attempt: How often the client has sent it, 1 for the first.
        delivery: How often a broker has handed it to a worker, 1 for the first. Above 1 the work may have been begun
            elsewhere.
        deadline: Reading of ``time.monotonic()`` after which nobody waits for the reply; None if the caller set none.
        trace: W3C trace context of the caller, or empty.
    """

    def __init__(self, job: StartJob, report: Callable[[Frames], None], clock: Clock = time.monotonic) -> None:
        self.service = job.service.decode("utf-8", "backslashreplace")
        self.call_id = job.call_id
        self.attempt = job.attempt
        self.delivery = job.delivery
        self.deadline = job.deadline
        self.trace = job.trace
        self._report = report
        self._clock = clock
        self._cancelled = threading.Event()

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock())

    @property
    def overdue_s(self) -> float:
        """Seconds since the deadline passed; 0 if it did not, or if there is none."""
        return 0.0 if self.deadline is None else max(0.0, self._clock() - self.deadline)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the reply any more: cancelled by the caller, expired, or the broker is gone."""
        return self._cancelled.is_set()

    def wait_cancelled(self, timeout: float) -> bool:
        """Sleep for ``timeout`` seconds, or less if the request is cancelled; whether it is. Not for coroutines."""
        return self._cancelled.wait(timeout)

    def cancel(self) -> None:
        """Called by the worker; handlers ask ``cancelled``."""
        self._cancelled.set()

    def progress(self, *frames: bytes) -> None:
        """Tell the broker, and a caller that wants to know, that the work goes on.

        Args:
            frames: Anything; it is passed on as it is.

        Raises:
            PayloadError: A frame is not bytes.
        """
        self._report(check_frames(frames))


request_context: contextvars.ContextVar[Request] = contextvars.ContextVar("reliable_request")
"""Set by the workers around each handler."""


def current_request() -> Request:
    """The request that the calling handler works on.

    Threads that a handler starts itself do not inherit it; pass the object on.

    Raises:
        LookupError: Not called from a handler.
    """
    try:
        return request_context.get()
    except LookupError:
        raise LookupError("current_request() works inside a handler only") from None
