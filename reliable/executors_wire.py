"""What a worker and its handler processes say to each other: length-prefixed MessagePack over a socket pair.

Not over standard output, which belongs to the handlers: they may print what they like.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from reliable.payload import JSON, MSGPACK, RAW, Codec
from reliable.protocol.events import JobError, StartJob
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag

__all__ = [
    "Begin",
    "Cancel",
    "Done",
    "FromChild",
    "MessageBuffer",
    "NotReady",
    "Part",
    "Progress",
    "Ready",
    "Run",
    "Taken",
    "ToChild",
    "encode",
    "pack_codec",
    "unpack_codec",
]

_LENGTH: Final = struct.Struct("!Q")
_LENGTH_MAX: Final = 1 << 40


class Begin(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The first word to a child: what it is to be."""

    handlers: list[tuple[bytes, str, str, bool]]
    """Service, module, qualified name, and whether it is raw."""
    codec: bytes
    """By ``pack_codec``: pickle is safe here, since it comes from the very process that starts the child."""
    parts_ahead_max: int
    measure_memory: bool
    main: dict[str, str]
    """How to import the program's main module under another name, if a handler is in there; else empty."""


class Run(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Run a handler; the fields of ``StartJob``."""

    job: int
    service: bytes
    body: Frames
    deadline: float | None
    flags: int
    call_id: bytes
    attempt: int
    delivery: int
    trace: bytes

    @classmethod
    def of(cls, job: StartJob) -> Run:
        """The message for a job. Deadlines mean the same in both processes: the clock is the machine's."""
        return cls(
            job=job.job,
            service=job.service,
            body=job.body,
            deadline=job.deadline,
            flags=int(job.flags),
            call_id=job.call_id,
            attempt=job.attempt,
            delivery=job.delivery,
            trace=job.trace,
        )

    def start(self) -> StartJob:
        """The job again."""
        return StartJob(
            job=self.job,
            service=self.service,
            body=self.body,
            deadline=self.deadline,
            flags=CallFlag(self.flags),
            call_id=self.call_id,
            attempt=self.attempt,
            delivery=self.delivery,
            trace=self.trace,
        )


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Nobody waits for this job any more."""

    job: int


class Taken(msgspec.Struct, tag=True, frozen=True):
    """The worker has one more part of this job."""

    job: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The child has its handlers."""


class NotReady(msgspec.Struct, tag=True, frozen=True):
    """The child cannot have them, and ends."""

    reason: str


class Part(msgspec.Struct, tag=True, frozen=True):
    """A part of a streamed reply."""

    job: int
    body: Frames


class Progress(msgspec.Struct, tag=True, frozen=True):
    """The handler says how far it is."""

    job: int
    body: Frames


class Done(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The handler ended; ``body``, or else the fields of a ``JobError``."""

    job: int
    body: Frames | None = None
    type_name: str = ""
    message: str = ""
    executed: bool = True
    status: int = 0
    memory_bytes: int = 0

    @classmethod
    def of(cls, job: int, result: Frames | JobError, memory_bytes: int) -> Done:
        """The message for a result."""
        if not isinstance(result, JobError):
            return cls(job=job, body=result, memory_bytes=memory_bytes)
        return cls(
            job=job,
            type_name=result.type_name,
            message=result.message,
            executed=result.executed,
            status=int(result.status),
            memory_bytes=memory_bytes,
        )

    def result(self) -> Frames | JobError:
        """The result again."""
        if self.body is not None:
            return self.body
        return JobError(self.type_name, self.message, self.executed, Status(self.status))


ToChild: TypeAlias = Begin | Run | Cancel | Taken
FromChild: TypeAlias = Ready | NotReady | Part | Progress | Done

_OURS: Final[dict[str, Codec]] = {codec.name: codec for codec in (MSGPACK, JSON, RAW)}


def pack_codec(codec: Codec) -> bytes:
    """A codec for another process; ours by name, as they are told by identity.

    Raises:
        TypeError: It cannot be pickled.
    """
    try:
        return pickle.dumps(codec.name if _OURS.get(codec.name) is codec else codec)
    except Exception as error:
        raise TypeError(f"the codec {codec.name} cannot be handed to another process: {error}") from error


def unpack_codec(data: bytes) -> Codec:
    """The codec again."""
    found: Codec | str = pickle.loads(data)
    return _OURS[found] if isinstance(found, str) else found


_encoder = msgspec.msgpack.Encoder()


def encode(message: ToChild | FromChild) -> bytes:
    """The bytes of a message, with their length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class MessageBuffer:
    """Cuts what arrived into messages.

    Args:
        kinds: ``ToChild`` or ``FromChild``.
    """

    def __init__(self, kinds: object) -> None:
        self._decoder = msgspec.msgpack.Decoder(kinds)
        self._buffer = bytearray()

    def add(self, data: bytes) -> None:
        """More bytes."""
        self._buffer += data

    def messages(self) -> Iterator[object]:
        """Every message that is complete.

        Raises:
            msgspec.DecodeError: Bytes that are none; nothing more can be read then.
        """
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _LENGTH_MAX:
                raise msgspec.DecodeError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield self._decoder.decode(body)
