"""What the broker says to a client about a call, as frames of the client's own dialect.

Our clients get an answer frame with status and outcome in front of the delimiter. Plain clients only ever get reply
bodies: MDP has no word for anything else, so whatever else ends their requests ends in silence, and is counted.
"""

from __future__ import annotations

import math
from typing import Final

from brokers.records import Call
from reliable.errors import Outcome
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.types import Frames
from reliable.wire.extension import AnswerFrame, CallFrame, Place
from reliable.wire.mdp import ClientReply, ClientRequest

__all__ = ["NO_BODY", "about_call", "is_final", "plain_reply", "refusal"]

NO_BODY: Final[Frames] = [b""]
"""MDP asks for at least one body frame."""

_FINAL: Final = frozenset(status for status, rule in STATUS_TABLE.items() if rule.retry is not Retry.NOT_FINAL)


def is_final(status: Status) -> bool:
    """Whether the status ends the attempt: it travels as FINAL, the others as PARTIAL."""
    return status in _FINAL


def plain_reply(call: Call, body: Frames, final: bool) -> Frames:
    """A reply to a plain client, from the routing id on."""
    return [call.answer_to, *ClientReply(call.version, call.service.name, body, call.stack, final).encode()]


def about_call(
    call: Call, life: bytes, status: Status, outcome: Outcome, body: Frames, *, retry_after_s: float = 0.0
) -> Frames:
    """An answer to the newest attempt of a call that has a record."""
    frame = AnswerFrame(
        status,
        call.attempt,
        call.call_id,
        life,
        outcome,
        call.place(),
        min(call.deliveries, 0xFFFF),
        math.ceil(retry_after_s * 1000),
        call.idempotent,
    ).encode()
    stack = [*call.stack, frame]
    return [call.answer_to, *ClientReply(call.version, call.service.name, body, stack, is_final(status)).encode()]


def refusal(
    peer: bytes,
    request: ClientRequest,
    frame: CallFrame,
    life: bytes,
    status: Status,
    outcome: Outcome,
    *,
    place: Place = Place.UNSAID,
    retry_after_s: float = 0.0,
    body: Frames = NO_BODY,
) -> Frames:
    """An answer to an attempt that has no record, or none of its own."""
    answer = AnswerFrame(
        status, frame.attempt, frame.call_id, life, outcome, place, retry_after_ms=math.ceil(retry_after_s * 1000)
    ).encode()
    stack = [*request.stack[:-1], answer]
    return [peer, *ClientReply(request.version, request.service, body, stack, is_final(status)).encode()]
