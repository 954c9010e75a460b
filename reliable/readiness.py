"""Questions to the broker itself: is it there, and has it workers for a service? What both shells do alike."""

from __future__ import annotations

from typing import Final

import msgspec

from reliable.calling import CallOptions, Timeout
from reliable.config import Dialect
from reliable.errors import NotAuthorised, Outcome, RequestAbandoned, RequestError, RequestTimeout, ServiceNotFound
from reliable.types import Frames
from reliable.wire.mdp import check_service
from reliable.wire.mmi import FOUND, SERVICE_QUERY, STATUS_QUERY

__all__ = ["PING", "Readiness", "check_answers_mmi", "question_options"]

PING: Final = (SERVICE_QUERY.decode(), SERVICE_QUERY)
"""Service and body of a question that every Majordomo broker answers."""
_PAUSE_S_MIN: Final = 0.02
_PAUSE_S_MAX: Final = 0.25
_PAUSE_FACTOR: Final = 1.5
_WITH_MMI: Final = (Dialect.MDP, Dialect.MDP01, Dialect.MDP02)


class _Service(msgspec.Struct):
    name: str
    workers: int
    stuck: int = 0


class _Status(msgspec.Struct):
    services: list[_Service]


def check_answers_mmi(dialect: Dialect, what: str) -> None:
    """Refuse to ask somebody who cannot answer.

    Raises:
        ValueError: The dialect has no questions to a broker.
    """
    if dialect not in _WITH_MMI:
        raise ValueError(f"{what} asks a Majordomo broker (8/MMI); the dialect {dialect.value!r} has nobody to ask")


def question_options(timeout: Timeout) -> CallOptions:
    """How such questions are asked: any number of times does no harm."""
    return CallOptions(timeout=timeout, idempotent=True, hedge=None)


class Readiness:
    """Asks until a broker knows enough live workers. No clock: its shell is told how long to pause.

    Args:
        dialect: What the client speaks.
        service: The service.
        workers: How many live workers are wanted.

    Raises:
        ValueError: A bad name or number, or a broker that cannot count.
    """

    def __init__(self, dialect: Dialect, service: str, workers: int) -> None:
        check_answers_mmi(dialect, "wait_ready")
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers!r}")
        self._name = check_service(service)
        self._service = service
        self._wanted = workers
        self._known = 0
        self._heard = False
        self._counts = dialect is Dialect.MDP
        self._pause_s = _PAUSE_S_MIN
        self._check_can_count()

    def _check_can_count(self) -> None:
        if not self._counts and self._wanted > 1:
            raise ValueError("a broker that is not of this library does not tell how many workers it has: workers=1")

    def question(self) -> tuple[str, bytes]:
        """Service and body of what to ask next."""
        return (STATUS_QUERY.decode(), b"") if self._counts else (SERVICE_QUERY.decode(), self._name)

    def answered(self, frames: Frames) -> bool:
        """Whether the workers are there.

        Raises:
            ValueError: More than one is wanted, and the broker turns out not to be one of ours.
        """
        self._heard = True
        found = frames[0] == FOUND
        if not self._counts:
            self._known = int(found)
        elif not found or len(frames) < 2:
            self._counts = False
            self._check_can_count()
            self._pause_s = _PAUSE_S_MIN
        else:
            status = msgspec.json.decode(frames[1], type=_Status)
            self._known = sum(s.workers - s.stuck for s in status.services if s.name == self._service)
        return self._known >= self._wanted

    def failed(self, error: RequestError, *, time_is_up: bool) -> None:
        """Go on after a question without an answer, unless there is no sense in that.

        Raises:
            RequestError: The client is closed or not allowed to ask, or time is up.
            ServiceNotFound: Time is up; the broker did answer before, so that it is not the one that is missing.
        """
        if isinstance(error, NotAuthorised | RequestAbandoned):
            raise error
        if time_is_up:
            raise self.too_late() if self._heard and isinstance(error, RequestTimeout) else error

    def pause_s(self) -> float:
        """Seconds until the next question, each time longer."""
        pause_s = self._pause_s
        self._pause_s = min(pause_s * _PAUSE_FACTOR, _PAUSE_S_MAX)
        return pause_s

    def too_late(self) -> ServiceNotFound:
        """What to raise when time is up and the broker did answer."""
        return ServiceNotFound(
            f"the broker knows {self._known} of {self._wanted} live workers for {self._service!r}",
            outcome=Outcome.NOT_EXECUTED,
            service=self._service,
            last_state="not sent",
        )
