"""What a call is, and what is known of its attempts so far: the values that the call machine passes along.

``Past`` answers the one question on which everything else hangs: may the work have run? Each SUBMIT that was handed to
a socket is a *copy* that may have been dispatched until the opposite is proven, and a proof is one of three:

* the socket says that this message never left (``Unsent``);
* the broker says that it refused this copy before any worker saw it: proves that one copy;
* the broker says of its *record* of the call that it did not run, or that it had none and left a fence: proves every
  copy up to that attempt **at that life**, also one that is still on its way.

ATTACH and CANCEL are never dispatched, so they are no copies.
"""

from __future__ import annotations

import enum
import math
from typing import Final, TypeAlias

import attrs

from reliable.errors import LocalProtocolError, Outcome
from reliable.protocol.events import Submit
from reliable.protocol.session import CLOCK_RATES_APART_MAX
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CALL_ID_BYTES, TRACE_BYTES_MAX, CallFlag, CallFrame, CallKind, Place, body_digest
from reliable.wire.mdp import SERVICE_BYTES_MAX
from reliable.wire.mmi import is_reserved
from reliable.wire.values import value

__all__ = ["ATTEMPT_MAX", "Call", "Past", "Phase", "Session", "Step", "check_submit"]

ATTEMPT_MAX: Final = 0xFFFF
_COPIES_MAX: Final = 64
_STORY_HEAD: Final = 8
_STORY_TAIL: Final = 24
_UNBOUNDED_S: Final = 366 * 86400.0
_MARGIN_SHARE: Final = 0.05
_MARGIN_S_MAX: Final = 0.1
_MARGIN_S_MIN: Final = 0.075
"""A broker may tell up to 50 ms late that time is up, and the word has to travel."""
_MARGIN_SHARE_MAX: Final = 0.25
_ENVELOPE_BYTES: Final = 128

Step: TypeAlias = tuple[float, str, str]
"""When, what, and where: rendered only if the call fails."""


@value(kw_only=True)
class Call:
    """What does not change about a call."""

    call_id: bytes
    service: bytes
    body: Frames
    deadline: float | None
    started: float
    safe: bool
    """It may be sent again although an earlier copy may have run. Only if the caller said so, or for ``mmi.``."""
    unsaid: bool
    """The caller said neither yes nor no, so that the service's declaration counts, which only brokers know."""
    reserved: bool
    """Answered by the broker itself, which keeps no record of it."""
    fail_fast: bool
    wants_progress: bool
    one_way: bool
    flags: CallFlag
    trace: bytes
    digest: bytes
    size_bytes: int
    """Of the whole request, all frames together, rounded up a little."""

    @classmethod
    def from_submit(cls, submit: Submit, now: float) -> Call:
        """The call that a user just made."""
        reserved = is_reserved(submit.service)
        idempotent = True if reserved else submit.idempotent
        # MDP wants at least one body frame; a call without any means the same as one with an empty frame.
        body = submit.body or [b""]
        return cls(
            call_id=submit.call_id,
            service=submit.service,
            body=body,
            deadline=submit.deadline,
            started=now,
            safe=idempotent is True,
            unsaid=idempotent is None,
            reserved=reserved,
            fail_fast=submit.fail_fast,
            wants_progress=submit.wants_progress,
            one_way=submit.one_way,
            flags=_flags(submit, idempotent),
            trace=submit.trace,
            digest=body_digest(submit.service, body),
            size_bytes=sum(map(len, body)) + len(submit.service) + len(submit.trace) + _ENVELOPE_BYTES,
        )

    def hedged(self, call_id: bytes) -> Call:
        """The same work as a call of its own, which runs beside this one."""
        return attrs.evolve(self, call_id=call_id, flags=self.flags | CallFlag.HEDGE)

    def frame(self, kind: CallKind, attempt: int, repeat: bool, past: Past, session: Session, now: float) -> CallFrame:
        """The call frame of one message about this call.

        The moment of the first sending is written rather too early, for a broker whose clock has run at another rate
        since the two were compared. Too late, and a broker that has forgotten the call could take it for one that it
        has never seen.
        """
        first_sent = now if past.first_sent is None else past.first_sent
        return CallFrame(
            kind,
            self.flags | CallFlag.REPEAT if repeat else self.flags,
            attempt,
            self.call_id,
            session.client,
            session.life,
            # Rounded down: for ``first_sent`` the past is the safe side, and no deadline moves behind the caller's.
            math.floor((self._deadline_at_broker(now) - session.t0) * 1000),
            math.floor((first_sent - session.t1 - abs(first_sent - session.at) * CLOCK_RATES_APART_MAX) * 1000),
            self.digest,
            self.trace,
        )

    def _deadline_at_broker(self, now: float) -> float:
        """Earlier than ours by a margin, so that the broker's own verdict still reaches us: it says what ran.

        A call without deadline is given one that each further attempt pushes on, since the broker needs some bound.
        """
        if self.deadline is None:
            return now + _UNBOUNDED_S
        return self.deadline - _margin_s(self.deadline - now)

    def fits(self, when: float) -> bool:
        """Whether sending it at ``when`` can still bring anything.

        Not within the margin before the deadline: that is when brokers tell that time is up, and a further copy would
        only turn their proof that nothing ran into a guess.
        """
        return self.deadline is None or when < self.deadline - _margin_s(self.deadline - self.started)


def _margin_s(remaining_s: float) -> float:
    left_s = max(remaining_s, 0.0)
    return max(min(left_s * _MARGIN_SHARE, _MARGIN_S_MAX), min(left_s * _MARGIN_SHARE_MAX, _MARGIN_S_MIN))


def check_submit(submit: Submit) -> None:
    """Refuse a call that has no form on the wire.

    Raises:
        LocalProtocolError: The size of the call id, of the service's name or of the trace context is not allowed; a
            hedge for a call that is not declared idempotent, is one-way, or has no second id.
    """
    if len(submit.call_id) != CALL_ID_BYTES:
        raise LocalProtocolError(f"a call id has {CALL_ID_BYTES} bytes, not {len(submit.call_id)}")
    if not 0 < len(submit.service) <= SERVICE_BYTES_MAX:
        raise LocalProtocolError(f"a service name has 1 to {SERVICE_BYTES_MAX} bytes, not {len(submit.service)}")
    if len(submit.trace) > TRACE_BYTES_MAX:
        raise LocalProtocolError(f"a trace context has at most {TRACE_BYTES_MAX} bytes, not {len(submit.trace)}")
    if submit.hedge is not None:
        if len(submit.hedge_id) != CALL_ID_BYTES or submit.hedge_id == submit.call_id:
            raise LocalProtocolError("a hedge needs a call id of its own")
        if submit.idempotent is not True or submit.one_way:
            raise LocalProtocolError("only a call that is declared idempotent and wants its reply can be hedged")


@value
class Session:
    """What a call frame needs to know of the link it goes out on; the times as in ``reliable.protocol.session``."""

    client: bytes
    life: bytes
    t0: float
    t1: float
    at: float


def _flags(submit: Submit, idempotent: bool | None) -> CallFlag:
    flags = 0
    if idempotent is not None:
        flags = _IDEMPOTENT if idempotent else _NOT_IDEMPOTENT
    if submit.fail_fast:
        flags |= _FAIL_FAST
    if submit.wants_progress:
        flags |= _WANTS_PROGRESS
    if submit.one_way:
        flags |= _ONE_WAY
    return _FLAGS[flags]


# Joining flags of an enum takes longer than all the rest of a call frame.
_FLAGS: Final = [CallFlag(number) for number in range(256)]
_IDEMPOTENT: Final = int(CallFlag.IDEMPOTENT)
_NOT_IDEMPOTENT: Final = int(CallFlag.NOT_IDEMPOTENT)
_FAIL_FAST: Final = int(CallFlag.FAIL_FAST)
_WANTS_PROGRESS: Final = int(CallFlag.WANTS_PROGRESS)
_ONE_WAY: Final = int(CallFlag.ONE_WAY)


class Phase(enum.Enum):
    """What a call is waiting for, as far as its client knows."""

    UNSENT = 0
    QUEUED = 1
    RUNNING = 2
    SILENT = 3


@value
class Past:
    """What is known of the attempts of one call."""

    attempts: int = 0
    """The number of the newest one."""
    failures: int = 0
    """How many count against ``RetryPolicy.attempts``."""
    misses: int = 0
    """Tries in a row to reach the one broker that knows what became of the call."""
    unsent: int = 0
    """Messages in a row that the socket did not take."""
    copies: tuple[tuple[bytes, int], ...] = ()
    """Life and attempt of each SUBMIT that is not proven to have run nowhere."""
    untracked: bool = False
    """There were too many copies to keep count of: it may have run, for good."""
    known: bytes = b""
    """The newest life that showed that it holds a record of the call."""
    first_sent: float | None = None
    """When the oldest copy that may have run was sent."""
    address: str = ""
    """Of the newest attempt."""
    brokers: tuple[str, ...] = ()
    """All addresses that it was sent to, each once."""
    phase: Phase = Phase.UNSENT
    phase_at: float | None = None
    """Since when it is in that phase; None: it has just begun."""
    spent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Seconds in each phase before this one."""
    status: Status | None = None
    """The newest one heard."""
    place: Place = Place.UNSAID
    partial: bool = False
    """A part of the reply was given to the caller: nothing may run a second time."""
    vouched: bool = False
    """A broker has said that the service declares itself idempotent; means something if the caller said nothing."""
    retry_after_s: float | None = None
    story: tuple[Step, ...] = ()

    @classmethod
    def of_first_copy(cls, life: bytes, address: str, now: float) -> Past:
        """The past of a call of which the first copy was sent when it was made."""
        return cls(
            attempts=1,
            copies=((life, 1),),
            first_sent=now,
            address=address,
            brokers=(address,),
            phase=Phase.SILENT,
            phase_at=now,
            story=((now, "sent", address),),
        )

    @property
    def may_have_run(self) -> bool:
        """Whether some copy is not proven to have run nowhere."""
        return bool(self.copies) or self.untracked or self.partial

    def joined(self, outcome: Outcome) -> Outcome:
        """What may be said of the call if its last news says ``outcome``."""
        if outcome is Outcome.NOT_EXECUTED and self.may_have_run:
            return Outcome.UNKNOWN
        return outcome

    @property
    def outcome(self) -> Outcome:
        """What may be said of the call if nothing more is heard."""
        return self.joined(Outcome.NOT_EXECUTED)

    def repeats(self, life: bytes) -> bool:
        """Whether a copy sent to ``life`` now repeats work that may have run at another one."""
        return self.untracked or any(copy[0] != life for copy in self.copies)

    def known_to(self, life: bytes) -> bool:
        """Whether a copy was sent to ``life``, so that it may hold a record of the call."""
        return any(copy[0] == life for copy in self.copies)

    def sent(self, kind: CallKind, attempt: int, life: bytes, address: str, now: float) -> Past:
        """Another attempt was handed to the socket."""
        if self.attempts == 0 and kind is CallKind.SUBMIT and not self.may_have_run:
            return self._sent_first(attempt, life, address, now)
        what = "asked what became of it" if kind is CallKind.ATTACH else "sent"
        story = _told(self.story, (now, what, address))
        brokers = self.brokers if address in self.brokers else (*self.brokers, address)
        past = attrs.evolve(
            self,
            attempts=attempt,
            address=address,
            brokers=brokers,
            story=story,
            phase=Phase.SILENT,
            phase_at=now,
            spent=self.spent_until(now),
        )
        if kind is not CallKind.SUBMIT:
            return past
        # The broker takes first_sent as the moment before which this work cannot have run. Copies that are proven to
        # have run nowhere do not count for that, and counting them would make an old proof look like an old copy.
        first_sent = self.first_sent if self.may_have_run else now
        copies = (*self.copies, (life, attempt))
        if len(copies) > _COPIES_MAX:
            return attrs.evolve(past, copies=(), untracked=True)
        return attrs.evolve(past, copies=copies, first_sent=first_sent)

    def _sent_first(self, attempt: int, life: bytes, address: str, now: float) -> Past:
        """What nearly every call needs, and nothing more; built at once, which is many times cheaper than changed."""
        return Past(
            attempts=attempt,
            unsent=self.unsent,
            failures=self.failures,
            misses=self.misses,
            copies=((life, attempt),),
            first_sent=now,
            address=address,
            brokers=(address,),
            phase=Phase.SILENT,
            phase_at=now,
            spent=self.spent_until(now),
            story=_told(self.story, (now, "sent", address)),
        )

    def proven(self, life: bytes, attempt: int, *, record: bool) -> Past:
        """A copy, or with ``record`` all up to it, is proven to have run nowhere."""
        if record:
            left = tuple(copy for copy in self.copies if copy[0] != life or copy[1] > attempt)
        else:
            left = tuple(copy for copy in self.copies if copy != (life, attempt))
        return self if len(left) == len(self.copies) else attrs.evolve(self, copies=left)

    def never_left(self, attempt: int) -> Past:
        """The socket did not take this attempt."""
        left = tuple(copy for copy in self.copies if copy[1] != attempt)
        return attrs.evolve(self, copies=left)

    def told(self, now: float, what: str, where: str = "") -> Past:
        """With one more step of the story."""
        return attrs.evolve(self, story=_told(self.story, (now, what, where)))

    def entered(self, phase: Phase, now: float) -> Past:
        """From now on its time goes into another account.

        What was silence up to the broker's word was not: it was spent where the broker says that the call is.
        """
        if phase is self.phase:
            return self
        told = self.phase is Phase.SILENT and phase is not Phase.UNSENT
        before = attrs.evolve(self, phase=phase) if told else self
        return attrs.evolve(self, phase=phase, phase_at=now, spent=before.spent_until(now))

    def spent_until(self, now: float) -> tuple[float, float, float, float]:
        """Seconds in each phase up to ``now``, in the order of ``Phase``."""
        if self.phase_at is None:
            return self.spent
        which = self.phase.value
        return (*self.spent[:which], self.spent[which] + now - self.phase_at, *self.spent[which + 1 :])  # type: ignore[return-value]


def _told(story: tuple[Step, ...], step: Step) -> tuple[Step, ...]:
    """With ``step`` at its end; the beginning and the end are what explains a failure, so the middle goes first."""
    if len(story) < _STORY_HEAD + _STORY_TAIL:
        return (*story, step)
    return (*story[:_STORY_HEAD], *story[_STORY_HEAD + 1 :], step)
