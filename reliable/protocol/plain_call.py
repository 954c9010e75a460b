"""One call to a server that knows nothing of calls: its attempts, and what may follow when one of them fails.

A plain server keeps no record that could be asked what became of a request. So there are two kinds of calls ("who may
repeat what", row "strict, req, ppp, freelance"):

1. A *repeatable* call (declared idempotent by its caller, or an ``mmi.`` question) is sent again, by the retry policy,
   after an attempt stayed silent or its link broke.
2. Any other call is sent once. That attempt waits until the deadline; if its link breaks, the call ends with UNKNOWN.
3. An attempt that surely never left is no attempt: either kind is sent again, without a limit but the deadline.
4. After a part of the reply was given to the caller nothing is sent again.

    WAITING ──sent──▶ ASKED ──reply, deadline, cancel, no further attempt──▶ (over)
       ▲ ▲              │ │
       │ └──never left──┘ │
       └──PAUSED ◀─failed─┘

The engine that owns the call moves it along; what it asks here is what may come next. The record is changed in place
instead of being replaced: a call to a server on the same machine takes tens of microseconds in all.
"""

from __future__ import annotations

import enum
import math
from typing import Final, TypeAlias

import attrs

from reliable.config import RetryCause, RetryPolicy
from reliable.types import Frames

__all__ = ["PlainCall", "Stage", "Step", "retry_at", "silent_at"]

_STORY_HEAD: Final = 8
_STORY_MAX: Final = 32

Step: TypeAlias = tuple[float, str, str]
"""When, what, and where: rendered only if the call fails."""


class Stage(enum.Enum):
    """Where a call is."""

    WAITING = "waiting"
    """It may be sent as soon as there is a link."""
    ASKED = "asked"
    """An attempt is under way."""
    PAUSED = "paused"
    """The last attempt failed, and the next one has its time."""


@attrs.define(eq=False)
class PlainCall:
    """An open call."""

    call_id: bytes
    service: bytes
    body: Frames
    deadline: float | None
    started: float
    repeatable: bool
    since: float
    """Since when it is not asked."""
    stage: Stage = Stage.WAITING
    attempts: int = 0
    """The number of the newest one; one that never left gives its number back."""
    failures: int = 0
    """Attempts that stayed silent or were lost."""
    copies: dict[int, int] = attrs.Factory(dict)
    """Where a reply may still come from: link → attempt."""
    ran_max: int = 0
    """How many copies were handed to sockets and are not proven to have stayed there: it ran at most so often."""
    partial: bool = False
    """A part of the reply was given to the caller."""
    due: float = math.inf
    """When the attempt counts as silent, or the pause is over."""
    unsent_s: float = 0.0
    """Time that passed without an attempt under way."""
    address: str = ""
    """Where the newest attempt went."""
    servers: list[str] = attrs.Factory(list)
    story: list[Step] = attrs.Factory(list)

    def sent(self, now: float, address: str, due: float) -> None:
        """A copy of the newest attempt is under way."""
        if self.stage is not Stage.ASKED:
            self.stage = Stage.ASKED
            self.unsent_s += now - self.since
        self.due = due
        self.address = address
        if address not in self.servers:
            self.servers.append(address)
        self.told(now, "sent", address)

    def failed(self, now: float, what: str, stage: Stage, due: float = math.inf) -> None:
        """The attempt came to nothing."""
        self.stage = stage
        self.since = now
        self.due = due
        self.told(now, what, self.address)

    def told(self, now: float, what: str, where: str) -> None:
        """One more step of the story; its beginning and its end are what explains a failure, so the middle goes."""
        if len(self.story) >= _STORY_MAX:
            del self.story[_STORY_HEAD]
        self.story.append((now, what, where))

    def alarm(self) -> float:
        """When something is due about it: infinity for never."""
        return self.due if self.deadline is None else min(self.due, self.deadline)

    def over(self, now: float) -> bool:
        """Whether its time is up."""
        return self.deadline is not None and now >= self.deadline

    @property
    def may_have_run(self) -> bool:
        """Whether some copy may have reached a server."""
        return self.ran_max > 0

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent although a copy may have run."""
        return self.repeatable and not self.partial


def silent_at(call: PlainCall, retry: RetryPolicy, now: float) -> float:
    """When an attempt that is sent now counts as silent.

    Never, if no other could follow: then giving it up would only lose a reply that is late.
    """
    if not call.repeatable or retry.attempts == 1 or RetryCause.SILENT not in retry.causes:
        return math.inf
    return now + retry.attempt_timeout_s


def retry_at(call: PlainCall, retry: RetryPolicy, cause: RetryCause, now: float, u: float) -> float | None:
    """When to send it again after one more failure, or None if the policy allows no further attempt.

    May lie behind the deadline: then no attempt fits any more.
    """
    failures = call.failures + 1
    if cause not in retry.causes or (retry.attempts is not None and failures >= retry.attempts):
        return None
    return now + retry.backoff.delay_s(failures, u)
