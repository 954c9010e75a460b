"""What was asked and how it ended, and what was run: the facts that checkers judge.

In the manner of Jepsen an operation ends ok, failed or unknown. Here the library itself claims which of the last two it
is, so the history keeps the claim (``Outcome``) beside the executions that really took place.

Nothing in here knows whether the run was simulated or real.
"""

from __future__ import annotations

import enum

import attrs

from reliable.errors import Outcome

__all__ = ["Call", "Dismissal", "End", "Ending", "Execution", "History", "Pause", "Wait"]


class End(enum.Enum):
    """How an operation ended, as its caller was told."""

    OK = "ok"
    FAILED = "failed"
    """An error that says whether it ran."""
    UNKNOWN = "unknown"
    """An error that says it may have run."""
    ACCEPTED = "accepted"
    """A one-way call that a broker holds: it may have run, may run yet, and may be lost."""


@attrs.frozen
class Ending:
    """One end of a call. There must be exactly one."""

    at_s: float
    end: End
    outcome: Outcome
    error: str = ""
    """Name of the error's class; empty for ok."""
    reply: tuple[bytes, ...] = ()


@attrs.define
class Call:
    """One operation."""

    key: bytes
    """Names the call in its body and its reply, independently of the library's own ids."""
    client: str
    service: str
    idempotent: bool | None
    """As said by the caller."""
    invoked_s: float
    deadline_s: float | None
    phase: str = ""
    """Of the scenario: checkers may demand more of a phase without faults."""
    endings: list[Ending] = attrs.field(factory=list)
    abandoned: bool = False
    """Its client was killed: nobody can be told of an end."""
    one_way: bool = False
    hedged: bool = False
    """It may have been sent as two calls beside each other, each of which may run once at a time."""
    parts: list[tuple[bytes, ...]] = attrs.field(factory=list)
    """Of a streamed reply, as its caller got them: key, the word "part", who ran it, number from 0."""
    wants_progress: bool = False
    news: list[tuple[bytes, ...]] = attrs.field(factory=list)
    """Of its progress, as its caller got them: key, the word "news", who runs it, number from 0."""
    answers: int = 0
    """Final answers that reached its client; not counted where nobody looks."""

    @property
    def ending(self) -> Ending | None:
        """The first end, or None."""
        return self.endings[0] if self.endings else None


@attrs.define
class Execution:
    """One run of a handler."""

    key: bytes
    worker: str
    """Process and incarnation."""
    started_s: float
    finished_s: float | None = None
    """None: it was killed in the middle, or still runs."""
    ended_s: float | None = None
    """When the run left its slot, finished or killed."""
    told_s: float | None = None
    """When its worker told the handler that nobody waits any more."""
    plain: bool = False
    """At a worker that knows nothing of deadlines and cancels."""


@attrs.frozen
class Pause:
    """A time in which a process stood still: it can do nothing in time then, and is not blamed for that."""

    from_s: float
    to_s: float


@attrs.frozen
class Wait:
    """How long a process let pass before it connected anew."""

    process: str
    seconds: float


@attrs.frozen
class Dismissal:
    """A broker told a peer to go (DISCONNECT of MDP)."""

    broker: str
    """Process and incarnation."""
    peer: str
    at_s: float
    ours: bool
    """The peer was a worker of ours, connected, and the broker was not about to stop."""


@attrs.define
class History:
    """Everything that a scenario did."""

    calls: dict[bytes, Call] = attrs.field(factory=dict)
    executions: list[Execution] = attrs.field(factory=list)
    capacity: dict[str, int] = attrs.field(factory=dict)
    """How many handlers each worker incarnation may run at once."""
    vetoed: set[str] = attrs.field(factory=set)
    """Services declared as not idempotent by their workers."""
    declared: set[str] = attrs.field(factory=set)
    """Services declared as idempotent by their workers."""
    pauses: dict[str, list[Pause]] = attrs.field(factory=dict)
    """By the name of the process."""
    waits: list[Wait] = attrs.field(factory=list)
    dismissals: list[Dismissal] = attrs.field(factory=list)
    calm: bool = False
    """Nothing was broken on purpose, so that more can be demanded."""
    start_bound_s: float | None = None
    """No call may wait for longer than this beside a worker that has nothing to do; None: not demanded."""
    returns_first: bool = False
    """What came back from a lost worker must be run before what came later; there is one queue."""

    def runs_of(self, key: bytes) -> list[Execution]:
        """All executions of one call, in order of their start."""
        return [run for run in self.executions if run.key == key]

    def repeatable(self, call: Call) -> bool:
        """Whether this call may run more than once: its service's no vetoes, else the caller decides."""
        if call.service in self.vetoed:
            return False
        if call.idempotent is None:
            return call.service in self.declared
        return call.idempotent
