"""The replies that a worker keeps, to answer a repeated delivery from instead of running it again.

A call reaches a worker twice when the client failed over to another broker, or when a broker hands over again what it
thought lost. While the job runs the engine joins the two; afterwards this table answers. It is bounded three times and
fails closed:

* *seconds*: a reply is kept for ``kept_s``, but not beyond the call's deadline and ``GRACE_S``, when nobody can ask.
* *bytes*: past ``bytes_max`` the oldest bodies go first; the ids stay, and a repeat hears "it ran, the reply is gone".
* *count*: past ``entries_max`` the oldest ids go. For a call that is not idempotent a **horizon** remembers the latest
  deadline among the ids that went too early. A repeat shows the deadline of its call, so one that lies behind the
  horizon might be of an id that went, and must not be run. Idempotent calls may run again, so they leave no trace.

Running jobs are not in here, so no bound ever lets a running call start twice.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

from reliable.protocol.events import JobError
from reliable.types import Frames

__all__ = ["GRACE_S", "Kept", "ReplyTable"]

GRACE_S: Final = 5.0
"""How long beyond a call's deadline anything about it may still be under way."""


@attrs.define(eq=False)
class Kept:
    """What became of one call."""

    call_id: bytes
    digest: bytes
    result: Frames | JobError | None
    """None: it ran, and the body had to go."""
    size_bytes: int
    deadline: float
    """Of the call; infinite if it has none."""
    idempotent: bool
    expires: float


class ReplyTable:
    """Answered calls by id, oldest first."""

    def __init__(self, *, bytes_max: int, entries_max: int, kept_s: float) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._kept_s = kept_s
        self._entries: dict[bytes, Kept] = {}
        self._bodies: deque[Kept] = deque()
        """Entries that have, or had, a body; oldest first. Those without one are passed over."""
        self._bytes = 0
        self._horizon = -math.inf
        self._horizon_endless = False
        self.evicted_bodies = 0
        self.evicted_ids = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of all bodies that are kept."""
        return self._bytes

    def find(self, call_id: bytes, now: float) -> Kept | None:
        """What is kept about the call, if it is still to be used at ``now``."""
        kept = self._entries.get(call_id)
        if kept is not None and kept.expires <= now:
            self._forget(kept, now)
            return None
        return kept

    def keep(
        self,
        call_id: bytes,
        digest: bytes,
        result: Frames | JobError | None,
        *,
        deadline: float,
        idempotent: bool,
        now: float,
    ) -> None:
        """Remember how a call ended.

        Args:
            result: None if the body cannot be given again.
            deadline: Of the call; infinite if it has none.
        """
        self.expire(now)
        expires = min(now + self._kept_s, deadline + GRACE_S)
        kept = Kept(call_id, digest, result, _size(result), deadline, idempotent, expires)
        former = self._entries.pop(call_id, None)
        if former is not None:
            self._drop_body(former)
        self._entries[call_id] = kept
        if kept.size_bytes:
            self._bytes += kept.size_bytes
            self._bodies.append(kept)
        self._trim(now)

    def may_have_run(self, deadline: float) -> bool:
        """Whether a repeat with this deadline, of a call that is not idempotent and not found, may have run here."""
        # Infinite is not behind a finite horizon, and a call without a deadline leaves one that has no end.
        return self._horizon_endless if math.isinf(deadline) else deadline <= self._horizon + GRACE_S

    def expire(self, now: float) -> None:
        """Forget what is too old. No later than ``kept_s`` after it came, each entry is gone."""
        while self._entries:
            kept = next(iter(self._entries.values()))
            if kept.expires > now:
                return
            self._forget(kept, now)

    def _trim(self, now: float) -> None:
        while self._bytes > self._bytes_max:
            kept = self._bodies.popleft()
            if kept.size_bytes:
                self._drop_body(kept)
                self.evicted_bodies += 1
        while self._bodies and not self._bodies[0].size_bytes:
            self._bodies.popleft()
        while len(self._entries) > self._entries_max:
            self._forget(next(iter(self._entries.values())), now)
            self.evicted_ids += 1

    def _forget(self, kept: Kept, now: float) -> None:
        del self._entries[kept.call_id]
        self._drop_body(kept)
        if kept.idempotent or kept.deadline + GRACE_S <= now:
            return
        if math.isinf(kept.deadline):
            self._horizon_endless = True
        else:
            self._horizon = max(self._horizon, kept.deadline)

    def _drop_body(self, kept: Kept) -> None:
        self._bytes -= kept.size_bytes
        kept.size_bytes = 0
        kept.result = None


def _size(result: Frames | JobError | None) -> int:
    if result is None:
        return 0
    if isinstance(result, JobError):
        return len(result.type_name) + len(result.message) + 1
    return sum(map(len, result)) + 1
