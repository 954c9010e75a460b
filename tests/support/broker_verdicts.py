"""Names for what our clients are told, so that a test's trace reads as a sentence."""

from __future__ import annotations

from typing import Final

import pytest

from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import CallFlag
from tests.support.broker_bench import SLACK_S, Answer, OurClient

__all__ = [
    "DONE",
    "EXPIRED_IN_HANDS",
    "EXPIRED_IN_QUEUE",
    "NO",
    "SOON",
    "UNKNOWN_PROVEN",
    "UNKNOWN_UNPROVEN",
    "UNSAID",
    "WORKER_LOST",
    "YES",
    "final",
    "idempotent_or_not",
    "no_final",
    "verdict",
]

YES: Final = CallFlag.IDEMPOTENT
NO: Final = CallFlag.NOT_IDEMPOTENT
UNSAID: Final = CallFlag.NONE
SOON: Final = 2 * SLACK_S
idempotent_or_not = pytest.mark.parametrize("flags", [YES, NO], ids=["idempotent", "not idempotent"])

WORKER_LOST: Final = (Status.WORKER_LOST, Outcome.UNKNOWN)
EXPIRED_IN_QUEUE: Final = (Status.EXPIRED, Outcome.NOT_EXECUTED)
EXPIRED_IN_HANDS: Final = (Status.EXPIRED, Outcome.UNKNOWN)
DONE: Final = (Status.OK, Outcome.EXECUTED)
UNKNOWN_PROVEN: Final = (Status.UNKNOWN_CALL, Outcome.NOT_EXECUTED)
UNKNOWN_UNPROVEN: Final = (Status.UNKNOWN_CALL, Outcome.UNKNOWN)


def final(client: OurClient) -> Answer:
    """The one final answer since this was last asked; news before it are passed over."""
    finals = [answer for answer in client.answers() if answer.final]
    assert len(finals) == 1, f"expected one final answer, got {finals}"
    return finals[0]


def no_final(client: OurClient) -> None:
    """Nothing final came since this was last asked."""
    assert [answer for answer in client.answers() if answer.final] == []


def verdict(client: OurClient) -> tuple[Status, Outcome]:
    """Status and outcome of the one final answer."""
    answer = final(client)
    return answer.status, answer.outcome
