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
from reliable.wire.extension import (
    ANSWER_KIND,
    CALL_ID_BYTES,
    HELLO_SERVICE,
    MAGIC,
    AnswerFrame,
    CallFrame,
    Place,
    pack_answer,
)
from reliable.wire.mdp import ClientReply, ClientRequest, Version, client_reply

__all__ = ["NO_BODY", "about_call", "is_final", "leaving", "plain_reply", "refusal"]

NO_BODY: Final[Frames] = [b""]
"""MDP asks for at least one body frame."""

_NO_CALL: Final = bytes(CALL_ID_BYTES)
_MS_MAX: Final = 0xFFFFFFFF
_FINAL: Final = frozenset(status for status, rule in STATUS_TABLE.items() if rule.retry is not Retry.NOT_FINAL)


def is_final(status: Status) -> bool:
    """Whether the status ends the attempt: it travels as FINAL, the others as PARTIAL."""
    return status in _FINAL


def leaving(peer: bytes, addresses: Frames, version: Version | None, life: bytes, pause_s: float) -> Frames:
    """What a client is told that has a session here: for so long this broker takes no calls. It is about no call."""
    answer = AnswerFrame(
        Status.OVERLOADED, 0, _NO_CALL, life, Outcome.NOT_EXECUTED, retry_after_ms=_milliseconds(pause_s)
    )
    stack = [*addresses, answer.encode()]
    return [peer, *ClientReply(version or Version.MDP02, HELLO_SERVICE, NO_BODY, stack).encode()]


def _milliseconds(seconds: float) -> int:
    return min(math.ceil(seconds * 1000), _MS_MAX)


def plain_reply(call: Call, body: Frames, final: bool) -> Frames:
    """A reply to a plain client, from the routing id on."""
    return client_reply((call.answer_to,), call.version, call.service.name, body, call.stack, final)


def about_call(
    call: Call, life: bytes, status: Status, outcome: Outcome, body: Frames, *, retry_after_s: float = 0.0
) -> Frames:
    """An answer to the newest attempt of a call that has a record."""
    # An ``AnswerFrame`` in bytes; the object would be looked at by nobody.
    frame = pack_answer(
        MAGIC,
        ANSWER_KIND,
        status,
        call.attempt,
        call.call_id,
        life,
        outcome,
        call.place(),
        call.deliveries if call.deliveries < 0xFFFF else 0xFFFF,
        _milliseconds(retry_after_s) if retry_after_s else 0,
        call.idempotent,
    )
    return client_reply(
        (call.answer_to,), call.version, call.service.name, body, [*call.stack, frame], status in _FINAL
    )


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
        status, frame.attempt, frame.call_id, life, outcome, place, retry_after_ms=_milliseconds(retry_after_s)
    ).encode()
    stack = [*request.stack[:-1], answer]
    return [peer, *ClientReply(request.version, request.service, body, stack, is_final(status)).encode()]
