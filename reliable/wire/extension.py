"""The extension frames of this library: what our peers put where MDP peers look no further.

MDP has no request id, no deadline and no way to say "no". Our peers add them in the one place that every MDP peer
already treats as opaque, the address envelope, so that nobody else notices:

* **call frame** (client → broker) and **answer frame** (broker → client): one frame in front of the delimiter.
* **delivery** (broker → worker) and **report** (worker → broker): inside the single "client address" frame of MDP
  REQUEST and REPLY, behind a 16-byte **token**. Foreign workers get the bare token and echo it.
* **hello**: the body of an ``mmi.reliable`` request, and the frames of its answer.
* **ready**: one extra frame behind the service of a worker's READY.

All integers are big endian. All durations are milliseconds since the session's hello (below), since clocks need not
agree. Decoders raise ``RemoteProtocolError``; nothing here knows the time. The wire page with golden bytes is
``docs/reference/extension.md``.

Session time. Both ends note a moment for each hello: the broker when it *received* the hello request, the peer when it
*sent* the request (t0) and when it *received* the answer (t1). A deadline is written and read by clients against t0
and by workers against t1, so that a transmission delay makes it late, never early. ``first_sent_ms`` is written
against t1, so that it errs to the past: it guards against repeating, and there the past is the safe side. Both moments
are found anew every now and then (``reliable.protocol.session``), for clocks go apart.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.wire.kinds import CallFlag, CallKind, DeliveryKind, GiveBackReason, Place, ReportKind, Role
from reliable.wire.values import value

__all__ = [
    "ANSWER_KIND",
    "BROKER_FEATURES",
    "CALL_ID_BYTES",
    "CONTROL_TOKEN",
    "DIGEST_BYTES",
    "FEATURE_CALLS",
    "FEATURE_SHARED_SESSIONS",
    "HELLO_SERVICE",
    "INSTANCE_BYTES",
    "LIFE_BYTES",
    "MAGIC",
    "NO_LIFE",
    "RESULT_BYTES",
    "TOKEN_BYTES",
    "TRACE_BYTES_MAX",
    "AnswerFrame",
    "CallFlag",
    "CallFrame",
    "CallKind",
    "Delivery",
    "DeliveryKind",
    "GiveBackReason",
    "Hello",
    "HelloAnswer",
    "Place",
    "ReadyExtension",
    "Report",
    "ReportKind",
    "Role",
    "ServiceOffer",
    "body_digest",
    "is_extension",
    "make_token",
    "pack_answer",
    "pack_delivery",
    "token_counter",
]

MAGIC: Final = b"RLX\x01"
"""Three letters and the version of the layout. It opens every frame of this module, but for the hello's answer, and for
deliveries and reports, where it stands behind the token."""
CALL_ID_BYTES: Final = 16
INSTANCE_BYTES: Final = 16
LIFE_BYTES: Final = 8
TOKEN_BYTES: Final = 16
DIGEST_BYTES: Final = 16
NO_LIFE: Final = bytes(LIFE_BYTES)
"""In ``CallFrame.life``: any life will do."""
CONTROL_TOKEN: Final = bytes(TOKEN_BYTES)
"""Stands where a token stands in messages about the worker as a whole (credit)."""
HELLO_SERVICE: Final = b"mmi.reliable"
TRACE_BYTES_MAX: Final = 255

FEATURE_CALLS: Final = 1
FEATURE_SHARED_SESSIONS: Final = 2
BROKER_FEATURES: Final = FEATURE_CALLS | FEATURE_SHARED_SESSIONS


def is_extension(frame: bytes) -> bool:
    """Whether a frame in front of a delimiter is one of ours."""
    return frame[:4] == MAGIC


def make_token(life: bytes, counter: int) -> bytes:
    """The 16 bytes that name one delivery of one broker life."""
    return life + counter.to_bytes(8, "big")


def token_counter(token: bytes) -> int:
    """The number of a delivery within its life: later deliveries have greater ones."""
    return int.from_bytes(token[LIFE_BYTES:], "big")


def body_digest(service: bytes, body: Sequence[bytes]) -> bytes:
    """16 bytes that differ if service or body differ: BLAKE2b over each frame behind its length in 8 bytes."""
    digest = hashlib.blake2b(len(service).to_bytes(8, "big") + service, digest_size=DIGEST_BYTES)
    for frame in body:
        digest.update(len(frame).to_bytes(8, "big"))
        digest.update(frame)
    return digest.digest()


def _require(ok: bool, what: str) -> None:
    if not ok:
        raise RemoteProtocolError(what)


_CALL: Final = struct.Struct(">4sBBH16s16s8sqq16sB")
_CALL_BYTES: Final = _CALL.size
_unpack_call: Final = _CALL.unpack_from


@value
class CallFrame:
    """Client → broker, one frame in front of the delimiter.

    Layout: magic 4, kind 1, flags 1, attempt 2, call id 16, client instance 16, life 8, deadline 8, first sent 8,
    digest 16, length of the trace context 1, trace context.
    """

    kind: CallKind
    flags: CallFlag
    attempt: int
    """1 for the first sending; at most 65535."""
    call_id: bytes
    client: bytes
    """Instance id of the client; new after fork."""
    life: bytes
    """The broker life it is meant for, or ``NO_LIFE``."""
    deadline_ms: int
    """Since this session's hello (t0)."""
    first_sent_ms: int
    """When the first attempt was sent, since this session's hello (t1); negative if before it."""
    digest: bytes
    trace: bytes = b""

    def encode(self) -> bytes:
        """The frame."""
        return (
            _CALL.pack(
                MAGIC,
                self.kind,
                self.flags,
                self.attempt,
                self.call_id,
                self.client,
                self.life,
                self.deadline_ms,
                self.first_sent_ms,
                self.digest,
                len(self.trace),
            )
            + self.trace
        )

    @classmethod
    def decode(cls, frame: bytes) -> CallFrame:
        """Read a frame.

        Raises:
            RemoteProtocolError: Wrong size, magic or kind.
        """
        # Tested in line and not by ``_require``: brokers read one of these for each call.
        if len(frame) < _CALL_BYTES:
            raise RemoteProtocolError("call frame is too short")
        magic, kind, flags, attempt, call_id, client, life, deadline, first, digest, size = _unpack_call(frame)
        if magic != MAGIC or kind not in _CALL_KINDS:
            raise RemoteProtocolError("not a call frame")
        if len(frame) != _CALL_BYTES + size:
            raise RemoteProtocolError("call frame has a wrong length")
        trace = frame[_CALL_BYTES:] if size else b""
        kind, flags = _CALL_KINDS[kind], _FLAGS[flags]
        return cls(kind, flags, attempt, call_id, client, life, deadline, first, digest, trace)


_CALL_KINDS: Final = {int(kind): kind for kind in CallKind}
_FLAGS: Final = tuple(CallFlag(flags) for flags in range(256))
_STATUSES: Final = {int(status): status for status in Status}
_OUTCOMES: Final = {int(outcome): outcome for outcome in Outcome}
_PLACES: Final = {int(place): place for place in Place}
_BOOLS: Final = (False, True)
ANSWER_KIND: Final = 0x80
_ANSWER: Final = struct.Struct(">4sBBH16s8sBBHIB")
pack_answer: Final = _ANSWER.pack
"""``AnswerFrame`` in bytes, without making one: magic, kind, and its fields in their order. Numbers may be enums."""


@value
class AnswerFrame:
    """Broker → client, one frame in front of the delimiter.

    Layout: magic 4, kind 0x80, status 1, attempt 2, call id 16, life 8, outcome 1, place 1, deliveries 2,
    retry-after in ms 4, idempotent 1.
    """

    status: Status
    attempt: int
    """The newest attempt that the broker has seen of this call."""
    call_id: bytes
    life: bytes
    outcome: Outcome
    place: Place = Place.UNSAID
    deliveries: int = 0
    retry_after_ms: int = 0
    """0: not said."""
    idempotent: bool = False
    """Whether the broker treats the call as idempotent."""

    def encode(self) -> bytes:
        """The frame."""
        return pack_answer(
            MAGIC,
            ANSWER_KIND,
            self.status,
            self.attempt,
            self.call_id,
            self.life,
            self.outcome,
            self.place,
            self.deliveries,
            self.retry_after_ms,
            self.idempotent,
        )

    @classmethod
    def decode(cls, frame: bytes) -> AnswerFrame:
        """Read a frame.

        Raises:
            RemoteProtocolError: Wrong size, magic, kind, or a status, outcome or place that does not exist.
        """
        # Tested in line and not by ``_require``: clients read one of these for each call.
        if len(frame) != _ANSWER.size:
            raise RemoteProtocolError("answer frame has a wrong length")
        magic, kind, status, attempt, call_id, life, outcome, place, deliveries, retry, idem = _ANSWER.unpack(frame)
        if magic != MAGIC or kind != ANSWER_KIND:
            raise RemoteProtocolError("not an answer frame")
        if status not in _STATUSES or outcome not in _OUTCOMES or place not in _PLACES or idem > 1:
            raise RemoteProtocolError("answer frame has a status, outcome or place that does not exist")
        return cls(
            _STATUSES[status],
            attempt,
            call_id,
            life,
            _OUTCOMES[outcome],
            _PLACES[place],
            deliveries,
            retry,
            _BOOLS[idem],
        )


_DELIVERY: Final = struct.Struct(">16s4sBBHH16s16sq16sB")
pack_delivery: Final = _DELIVERY.pack
"""The fixed part of a ``Delivery`` in bytes, without making one: token, magic, its further fields in their order up to
the digest, and the length of the trace context; trace context and name of the service come behind."""


@value
class Delivery:
    """Broker → our worker, in place of the client address.

    Layout: token 16, magic 4, kind 1, flags 1, attempt 2, delivery 2, call id 16, client instance 16, deadline 8,
    digest 16, length of the trace context 1, trace context, and to the frame's end the name of the service. MDP itself
    does not tell a worker which service is meant; a worker with one service may do without.
    """

    token: bytes
    kind: DeliveryKind
    flags: CallFlag = CallFlag.NONE
    """``IDEMPOTENT`` is set if and only if the broker treats the call as idempotent."""
    attempt: int = 1
    delivery: int = 1
    call_id: bytes = bytes(CALL_ID_BYTES)
    client: bytes = bytes(INSTANCE_BYTES)
    deadline_ms: int = 0
    """Since this session's hello: the broker counts from its receipt, the worker from the answer's arrival (t1)."""
    digest: bytes = bytes(DIGEST_BYTES)
    trace: bytes = b""
    service: bytes = b""
    """Set for ``RUN``; empty: the first service of the worker."""

    def encode(self) -> bytes:
        """The frame."""
        return (
            pack_delivery(
                self.token,
                MAGIC,
                self.kind,
                self.flags,
                self.attempt,
                self.delivery,
                self.call_id,
                self.client,
                self.deadline_ms,
                self.digest,
                len(self.trace),
            )
            + self.trace
            + self.service
        )

    @classmethod
    def decode(cls, frame: bytes) -> Delivery:
        """Read a frame.

        Raises:
            RemoteProtocolError: Wrong size, magic or kind.
        """
        _require(len(frame) >= _DELIVERY.size, "delivery is too short")
        token, magic, kind, flags, attempt, delivery, call_id, client, deadline, digest, size = _DELIVERY.unpack_from(
            frame
        )
        _require(magic == MAGIC and kind in _DELIVERY_KINDS and flags < 256, "not a delivery")
        end = _DELIVERY.size + size
        _require(end <= len(frame) <= end + 255, "delivery has a wrong length")
        return cls(
            token,
            _DELIVERY_KINDS[kind],
            _FLAGS[flags],
            attempt,
            delivery,
            call_id,
            client,
            deadline,
            digest,
            frame[_DELIVERY.size : end],
            frame[end:],
        )


_DELIVERY_KINDS: Final = {int(kind): kind for kind in DeliveryKind}
_REPORT: Final = struct.Struct(">16s4sBBH")
RESULT_BYTES: Final = struct.pack(">4sBBH", MAGIC, ReportKind.RESULT, True, 0)
"""What stands behind the token in the report of a plain result, which nearly all reports are."""


@value
class Report:
    """Our worker → broker, in place of the client address.

    Layout: token 16, magic 4, kind 1, executed 1, detail 2.
    """

    token: bytes
    kind: ReportKind
    executed: bool = True
    """For ``ERROR``: False if the handler was never entered (say, arguments that do not fit)."""
    detail: int = 0
    """``GIVE_BACK``: a ``GiveBackReason``. ``CREDIT``: how many requests at once. ``ERROR``: 0, or the ``Status`` that
    says why a handler that ran well has no reply (too large, evicted), or that it did not come to an end of its own
    (worker lost): then it may have run in part. A broker that does not know this one takes it for 0."""

    def encode(self) -> bytes:
        """The frame."""
        return _REPORT.pack(self.token, MAGIC, self.kind, self.executed, self.detail)

    @classmethod
    def decode(cls, frame: bytes) -> Report:
        """Read a frame.

        Raises:
            RemoteProtocolError: Wrong size, magic or kind.
        """
        if len(frame) != _REPORT.size:
            raise RemoteProtocolError("report has a wrong length")
        token, magic, kind, executed, detail = _REPORT.unpack(frame)
        if magic != MAGIC or kind not in _REPORT_KINDS or executed > 1:
            raise RemoteProtocolError("not a report")
        return cls(token, _REPORT_KINDS[kind], _BOOLS[executed], detail)


_REPORT_KINDS: Final = {int(kind): kind for kind in ReportKind}
_HELLO_KIND: Final = 0x30
_HELLO: Final = struct.Struct(">4sBB16sQ")
_FEATURES: Final = struct.Struct(">IBB")


@value
class Hello:
    """Client or worker → broker: the one body frame of an ``mmi.reliable`` request.

    Layout: magic 4, kind 0x30, role 1, instance 16, max_message_bytes 8 (0: no limit).
    """

    role: Role
    instance: bytes
    max_message_bytes: int = 0

    def encode(self) -> bytes:
        """The frame."""
        return _HELLO.pack(MAGIC, _HELLO_KIND, self.role, self.instance, self.max_message_bytes)

    @classmethod
    def decode(cls, frame: bytes) -> Hello:
        """Read a frame.

        Raises:
            RemoteProtocolError: Wrong size, magic, kind or role.
        """
        _require(len(frame) == _HELLO.size, "hello has a wrong length")
        magic, kind, role, instance, size = _HELLO.unpack(frame)
        _require(magic == MAGIC and kind == _HELLO_KIND and role in (1, 2), "not a hello")
        return cls(Role(role), instance, size)


@value
class HelloAnswer:
    """Broker → client or worker: the frames behind ``200`` in the answer.

    Frames: features 4 with lowest and highest version 1 + 1, life 8, max_message_bytes 8 (0: no limit).
    """

    life: bytes
    max_message_bytes: int = 0
    features: int = BROKER_FEATURES
    version_min: int = 1
    version_max: int = 1

    def encode(self) -> list[bytes]:
        """The three frames."""
        return [
            _FEATURES.pack(self.features, self.version_min, self.version_max),
            self.life,
            self.max_message_bytes.to_bytes(8, "big"),
        ]

    @classmethod
    def decode(cls, frames: Sequence[bytes]) -> HelloAnswer:
        """Read the frames behind ``200``; further frames are left alone, for later versions.

        Raises:
            RemoteProtocolError: Too few frames, or one of a wrong size.
        """
        _require(
            len(frames) >= 3
            and len(frames[0]) == _FEATURES.size
            and len(frames[1]) == LIFE_BYTES
            and frames[1] != NO_LIFE
            and len(frames[2]) == 8,
            "not an answer to a hello",
        )
        features, low, high = _FEATURES.unpack(frames[0])
        return cls(frames[1], int.from_bytes(frames[2], "big"), features, low, high)


class ServiceOffer(msgspec.Struct, frozen=True, array_like=True):
    """One service of a worker, inside ``ReadyExtension``."""

    name: bytes
    idempotent: bool | None = None
    """True and False are the service's declaration; None leaves it to the caller. False vetoes."""
    at_once: int | None = None
    """How many requests of this service the worker runs at once, within its credit; None: as many as that. Brokers of
    before this field read over it, and the worker lets wait what is too much."""


class _Ready(msgspec.Struct, frozen=True, array_like=True):
    instance: bytes
    last_life: bytes
    tokens: list[bytes]
    credit: int
    services: list[ServiceOffer]
    max_message_bytes: int = 0
    newest: int | None = None


_READY_PREFIX: Final = MAGIC + b"\x31"
_READY_ENCODER: Final = msgspec.msgpack.Encoder()
_READY_DECODER: Final = msgspec.msgpack.Decoder(_Ready)


@value
class ReadyExtension:
    """Our worker → broker: one frame behind the service of READY.

    Layout: magic 4, kind 0x31, then a MessagePack array: instance (bin 16), last life (bin 8), tokens in hand (array
    of bin 16), credit (int), services (array of [name, idempotent, at once]), max_message_bytes (int), newest (int or
    nil).
    """

    instance: bytes
    credit: int
    services: tuple[ServiceOffer, ...]
    """All services of the worker; the one in READY's own frame is the first of them."""
    last_life: bytes = NO_LIFE
    """The broker life that the worker was last registered with on this address."""
    tokens: tuple[bytes, ...] = ()
    """Deliveries of that life that are still in the worker's hands."""
    max_message_bytes: int = 0
    newest: int | None = None
    """The counter of the newest delivery of this life that has reached the process, on any connection; 0: none has.
    None: that proves nothing, since another connection of the process may still be bringing some."""

    def encode(self) -> bytes:
        """The frame."""
        ready = _Ready(
            self.instance,
            self.last_life,
            list(self.tokens),
            self.credit,
            list(self.services),
            self.max_message_bytes,
            self.newest,
        )
        return _READY_PREFIX + _READY_ENCODER.encode(ready)

    @classmethod
    def decode(cls, frame: bytes) -> ReadyExtension:
        """Read a frame.

        Raises:
            RemoteProtocolError: Not ours, not MessagePack, or a value out of range.
        """
        _require(frame[:5] == _READY_PREFIX, "not a ready extension")
        try:
            ready = _READY_DECODER.decode(frame[5:])
        except (msgspec.MsgspecError, RecursionError) as error:  # the second for arrays nested by the thousand
            raise RemoteProtocolError(f"ready extension: {error}") from None
        _require(
            len(ready.instance) == INSTANCE_BYTES
            and len(ready.last_life) == LIFE_BYTES
            and all(len(token) == TOKEN_BYTES for token in ready.tokens)
            and 0 <= ready.credit <= 0xFFFF
            and ready.max_message_bytes >= 0
            and (ready.newest is None or ready.newest >= 0)
            and 1 <= len(ready.services) <= 1024
            and all(0 < len(offer.name) <= 255 for offer in ready.services)
            and all(offer.at_once is None or 0 < offer.at_once <= 0xFFFF for offer in ready.services),
            "ready extension has a value out of range",
        )
        return cls(
            ready.instance,
            ready.credit,
            tuple(ready.services),
            ready.last_life,
            tuple(ready.tokens),
            ready.max_message_bytes,
            ready.newest,
        )
