"""The numbers in the frames of ``reliable.wire.extension``, which is where everybody imports them from.

A number that was ever sent is never given another meaning; new ones are added at the end.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["CallFlag", "CallKind", "DeliveryKind", "GiveBackReason", "Place", "ReportKind", "Role"]


class CallKind(enum.IntEnum):
    """What a client asks of the broker about a call."""

    SUBMIT = 1
    """Run it, or join what is known of it under the same id."""
    ATTACH = 2
    """Answer from the record only; never dispatch. A miss leaves a fence against attempts up to this one."""
    CANCEL = 3


class CallFlag(enum.IntFlag):
    """Flags of a call frame and of a delivery. Neither idempotency flag set means that the caller did not say."""

    NONE = 0
    IDEMPOTENT = 1
    NOT_IDEMPOTENT = 2
    HEDGE = 4
    DURABLE = 8
    WANTS_PROGRESS = 16
    FAIL_FAST = 32
    REPEAT = 64
    """An earlier attempt, at another broker or life, may have run. A service that vetoes repeating refuses."""
    ONE_WAY = 128
    """The client wants to hear that the broker has it, and nothing more."""


class Place(enum.IntEnum):
    """Where a call was when the broker answered; the "last known state" of a caller's story."""

    UNSAID = 0
    QUEUED = 1
    QUEUED_NO_WORKER = 2
    """Queued, and no worker offers the service."""
    DELIVERED = 3
    """Handed to a worker that has not said that it started."""
    RUNNING = 4
    STUCK = 5
    """With a worker whose process lives and whose loop is silent."""
    LIMBO = 6
    """With a worker that is out of sight and may still come back."""
    ENDED = 7


class Role(enum.IntEnum):
    """Who says hello."""

    CLIENT = 1
    WORKER = 2


class DeliveryKind(enum.IntEnum):
    """What a broker tells one of our workers inside a REQUEST."""

    RUN = 0x10
    CANCEL = 0x11
    CREDIT_ACK = 0x12
    """The broker has seen the worker's CREDIT report; with credit 0 nothing more will come."""


class ReportKind(enum.IntEnum):
    """What one of our workers tells the broker inside a REPLY (FINAL or PARTIAL in MDP 0.2)."""

    RESULT = 0x20
    """The handler's reply; final."""
    ERROR = 0x21
    """Body: name of the error's type, its text; final."""
    PARTIAL = 0x22
    STARTED = 0x23
    PROGRESS = 0x24
    GIVE_BACK = 0x25
    """It never started here; final. ``Report.detail`` is a ``GiveBackReason``."""
    CREDIT = 0x26
    """With the control token: ``Report.detail`` requests at once from now on."""

    @property
    def final(self) -> bool:
        """Whether this report frees the worker's slot and ends the token."""
        return self in _FINAL_REPORTS


_FINAL_REPORTS: Final = frozenset({ReportKind.RESULT, ReportKind.ERROR, ReportKind.GIVE_BACK})


class GiveBackReason(enum.IntEnum):
    """Why a worker gave a request back unstarted."""

    DRAINING = 0
    EXPIRED = 1
    CANCELLED = 2
    NO_SUCH_SERVICE = 3
    FULL = 4
    BAD_DELIVERY = 5
