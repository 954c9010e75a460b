"""What the broker knows of each request: records, hand-overs, fences, and how much of it may be forgotten.

Rules (docs/explanation/who-may-repeat-what):

* The record of a request in flight is its own entry against duplicates. It is never evicted.
* ``unproven`` counts hand-overs that are not proven to have left the handler untouched. It goes down only on proof: the
  message was never sent, or one of our workers gave it back unstarted. "May have run" means that it is not zero.
* A finished call stays known until its deadline + grace. Over the cap the oldest is forgotten, and the *horizon* moves
  behind the moment at which it was first seen: a call first sent before the horizon may have run and left no trace.
  The horizon starts at the start of this life, since a call first sent before that may have run in the life before.
* Of replies the bodies go first; the id stays and says that the reply was evicted.
* A *fence* is the promise that a call which was asked for and not found will not run, should a copy still arrive.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from brokers.wheel import Timed
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag, Place
from reliable.wire.mdp import Version

if TYPE_CHECKING:
    from brokers.peers import ClientPeer, Worker
    from brokers.services import Service

__all__ = [
    "DONE",
    "FRAME_BYTES",
    "HELD",
    "QUEUED",
    "Call",
    "CallState",
    "CallTable",
    "Fence",
    "HandOver",
    "LateTokens",
    "size_of",
    "weight",
]

_IDEMPOTENT: Final = int(CallFlag.IDEMPOTENT)
_NOT_IDEMPOTENT: Final = int(CallFlag.NOT_IDEMPOTENT)

FRAME_BYTES: Final = 64
"""What a frame costs beside its bytes, so that a message of countless empty frames is not free."""


def size_of(body: Frames) -> int:
    """Bytes of a body, all frames together; most have one."""
    return len(body[0]) if len(body) == 1 else sum(map(len, body))


def weight(body: Frames) -> int:
    """Bytes of memory that a body takes, roughly; of a body of one frame it is that frame's length."""
    return len(body[0]) if len(body) == 1 else sum(map(len, body)) + FRAME_BYTES * (len(body) - 1)


class CallState(enum.Enum):
    """Where a request is."""

    QUEUED = "queued"
    HELD = "held"
    """A worker has it, or had it and is in limbo."""
    DONE = "done"


# To look a member up in its enum takes ten times as long as to read a constant: what each request meets has constants.
QUEUED: Final = CallState.QUEUED
HELD: Final = CallState.HELD
DONE: Final = CallState.DONE
_ACCEPTED: Final = Status.ACCEPTED
_UNKNOWN: Final = Outcome.UNKNOWN
_NOT_EXECUTED: Final = Outcome.NOT_EXECUTED
_ENDED: Final = Place.ENDED
_RUNNING: Final = Place.RUNNING
_DELIVERED: Final = Place.DELIVERED


class Call(Timed):
    """One request, of a client of ours (``call_id`` is set) or of a plain one."""

    __slots__ = (
        "answer_to",
        "attempt",
        "body",
        "broken_stream",
        "call_id",
        "client_key",
        "collected",
        "collected_bytes",
        "deadline",
        "deliveries",
        "digest",
        "first_seen",
        "flags",
        "held",
        "idempotent",
        "instance",
        "others",
        "ours",
        "outcome",
        "peer",
        "prior",
        "quiet",
        "reply",
        "service",
        "size",
        "stack",
        "state",
        "status",
        "streamed",
        "trace",
        "unproven",
        "urgent",
        "version",
        "weight",
    )

    def __init__(
        self,
        call_id: bytes,
        ours: bool,
        service: Service,
        body: Frames,
        size: int,
        peer: ClientPeer,
        answer_to: bytes,
        stack: Frames,
        version: Version,
        client_key: bytes,
        deadline: float,
        now: float,
        attempt: int = 1,
        flags: int = 0,
        digest: bytes = bytes(16),
        instance: bytes = bytes(16),
        trace: bytes = b"",
        prior: bool = False,
    ) -> None:
        self.bucket = -1
        self.call_id = call_id
        """Of a plain request: the token of its first hand-over, so that our workers notice a redelivery."""
        self.ours = ours
        self.service = service
        self.body = body
        self.size = size
        self.weight = size if len(body) == 1 else size + FRAME_BYTES * (len(body) - 1)
        self.peer = peer
        self.answer_to = answer_to
        """Routing id of the newest attempt."""
        self.stack = stack
        """Address frames between routing id and our frame, given back as they came."""
        self.version = version
        self.client_key = client_key
        """Whom fairness and the limit per client take for one client."""
        self.deadline = deadline
        self.first_seen = now
        self.attempt = attempt
        self.flags = flags
        self.digest = digest
        self.instance = instance
        self.trace = trace
        self.prior = prior
        """It may have run here before this record began: it was first sent before the horizon."""
        self.state = QUEUED
        self.quiet = False
        """A one-way call that was accepted: its client wants to hear nothing more, unless it asks."""
        self.urgent = False
        """Goes to the front of its queue."""
        self.idempotent = False
        """As the broker treated it at the last hand-over."""
        self.held: HandOver | None = None
        """The hand-over whose reply is waited for."""
        self.others: list[HandOver] | None = None
        """Hand-overs taken back by time, whose reply is still welcome."""
        self.deliveries = 0
        self.unproven = 0
        self.streamed = False
        """A partial reply was forwarded: nothing may be repeated any more, nor replayed."""
        self.broken_stream = False
        """A partial reply did not reach the client: the final one must not hide the hole."""
        self.collected: Frames | None = None
        self.collected_bytes = 0
        self.status = _ACCEPTED
        self.outcome = _UNKNOWN
        self.reply: Frames | None = None
        """Body of the final answer; None when it was evicted."""

    @property
    def may_have_run(self) -> bool:
        """Whether any hand-over, or a time before this record, may have led to a run."""
        return self.unproven > 0 or self.prior

    def proven_outcome(self) -> Outcome:
        """What a refusal may claim."""
        return _UNKNOWN if self.unproven > 0 or self.prior else _NOT_EXECUTED

    def may_repeat(self) -> bool:
        """Whether it is safe to run it (again, and concurrently), by the call, the service, and 7/MDP.

        A service's "no" goes before everything, and is remembered, for the worker that said it may be the lost one.
        """
        declared = self.service.idempotent
        if declared is False or self.flags & _NOT_IDEMPOTENT:
            return False
        return not self.ours or bool(self.flags & _IDEMPOTENT) or declared is True

    def place(self) -> Place:
        """Where it is, for the caller's story."""
        held = self.held
        if held is not None and self.state is HELD and not (held.limbo or held.worker.stuck):
            return _RUNNING if held.started else _DELIVERED
        if self.state is QUEUED:
            return Place.QUEUED if self.service.has_live_worker() else Place.QUEUED_NO_WORKER
        if self.state is DONE or held is None:
            return _ENDED
        return Place.LIMBO if held.limbo else Place.STUCK


class HandOver(Timed):
    """One delivery: a request in the hands of one worker, under a token of its own.

    Its deadline in the wheel is, in turn: until when it must be started, or be given back; the end of limbo; the end of
    an overdue run.
    """

    __slots__ = ("at", "call", "instance", "limbo", "partials", "recalled", "started", "stopped", "token", "worker")

    def __init__(self, token: bytes, call: Call, worker: Worker, now: float) -> None:
        self.bucket = -1
        self.token = token
        self.call = call
        self.worker = worker
        self.instance = worker.instance
        self.at = now
        self.started = False
        self.partials = 0
        self.limbo = False
        self.recalled = False
        """Its worker was asked to give it back."""
        self.stopped = False
        """Its worker was told that nobody waits for it: what its handler says from then on may be due to that."""

    @property
    def current(self) -> bool:
        """Whether its call still waits for this hand-over's reply."""
        return self.call.held is self


class Fence(Timed):
    """Attempts of a call up to this one are refused."""

    __slots__ = ("attempt", "call_id", "first_seen")

    def __init__(self, call_id: bytes, attempt: int, now: float) -> None:
        self.bucket = -1
        self.call_id = call_id
        self.attempt = attempt
        self.first_seen = now


class CallTable:
    """Calls of our clients by id: in flight, finished, and fenced.

    Args:
        now: The start of this life.
        finished_max: Finished calls to remember.
        reply_bytes_max: Bytes of their replies to keep.
        fences_max: Fences to remember.
    """

    def __init__(self, now: float, *, finished_max: int, reply_bytes_max: int, fences_max: int) -> None:
        self.horizon = now
        self.calls: dict[bytes, Call] = {}
        self._finished: OrderedDict[bytes, Call] = OrderedDict()
        self._finished_max = finished_max
        self._cached: OrderedDict[bytes, int] = OrderedDict()
        self._reply_bytes = 0
        self._reply_bytes_max = reply_bytes_max
        self._fences: OrderedDict[bytes, Fence] = OrderedDict()
        self._fences_max = fences_max
        self.forgotten = 0
        self.evicted = 0

    def finish(self, call: Call) -> Sequence[Timed]:
        """Keep ``call`` as finished, with its reply as far as there is room.

        Returns:
            What was forgotten in its stead; their deadlines are to be dropped.
        """
        self._finished[call.call_id] = call
        if call.reply:
            self.cache(call)
        if len(self._finished) <= self._finished_max:
            return ()
        dropped: list[Timed] = []
        while len(self._finished) > self._finished_max:
            _, oldest = self._finished.popitem(last=False)
            self._uncache(oldest.call_id)
            oldest.reply = None
            del self.calls[oldest.call_id]
            self._forget(oldest.first_seen)
            dropped.append(oldest)
        return dropped

    def cache(self, call: Call) -> None:
        """Count the reply of a finished call, and evict the oldest bodies until all fit."""
        if not call.reply:
            return
        if call.call_id in self._cached:
            self._uncache(call.call_id)
        size = weight(call.reply)
        self._cached[call.call_id] = size
        self._reply_bytes += size
        while self._reply_bytes > self._reply_bytes_max:
            oldest = next(iter(self._cached))
            self._uncache(oldest)
            self.calls[oldest].reply = None
            self.evicted += 1

    def _uncache(self, call_id: bytes) -> None:
        self._reply_bytes -= self._cached.pop(call_id, 0)

    def drop(self, call: Call) -> None:
        """Its deadline + grace is over: a repetition would come too late to be run."""
        self._uncache(call.call_id)
        call.reply = None
        self._finished.pop(call.call_id, None)
        self.calls.pop(call.call_id, None)

    def _forget(self, first_seen: float) -> None:
        self.horizon = max(self.horizon, math.nextafter(first_seen, math.inf))
        self.forgotten += 1

    def fence(self, call_id: bytes, attempt: int, now: float) -> tuple[Fence, Fence | None]:
        """Promise that no attempt up to this one will run.

        Returns:
            The fence, and the one that had to go for it.
        """
        fence = self._fences.get(call_id)
        if fence is not None:
            fence.attempt = max(fence.attempt, attempt)
            return fence, None
        fence = self._fences[call_id] = Fence(call_id, attempt, now)
        if len(self._fences) <= self._fences_max:
            return fence, None
        _, oldest = self._fences.popitem(last=False)
        self._forget(oldest.first_seen)
        return fence, oldest

    def fenced(self, call_id: bytes, attempt: int) -> bool:
        """Whether this attempt was promised not to run."""
        if not self._fences:
            return False
        fence = self._fences.get(call_id)
        return fence is not None and attempt <= fence.attempt

    def drop_fence(self, fence: Fence) -> None:
        """Its call's deadline + grace is over."""
        self._fences.pop(fence.call_id, None)

    def usage(self) -> dict[str, int]:
        """How full it is."""
        return {
            "calls": len(self.calls),
            "finished_calls": len(self._finished),
            "reply_cache_bytes": self._reply_bytes,
            "fences": len(self._fences),
        }


class LateTokens:
    """Hand-overs taken from a worker, whose late reply is still understood; bounded, the oldest go first."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._by_token: OrderedDict[bytes, HandOver] = OrderedDict()

    def add(self, hand_over: HandOver) -> None:
        """Remember it."""
        self._by_token[hand_over.token] = hand_over
        if len(self._by_token) > self._maximum:
            self._by_token.popitem(last=False)

    def get(self, token: bytes, worker: Worker) -> HandOver | None:
        """The hand-over under ``token``, if it was given to this worker (on this connection or an earlier one)."""
        hand_over = self._by_token.get(token)
        if hand_over is None:
            return None
        if hand_over.worker is worker or (worker.instance and hand_over.instance == worker.instance):
            return hand_over
        return None

    def find(self, token: bytes) -> HandOver | None:
        """The hand-over under ``token``, whoever had it."""
        return self._by_token.get(token)

    def pop(self, token: bytes) -> None:
        """It was answered, or is held again."""
        self._by_token.pop(token, None)

    def __len__(self) -> int:
        return len(self._by_token)
