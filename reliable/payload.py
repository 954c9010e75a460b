"""Codecs: how ``call`` and typed handlers turn values into frames.

``request`` and raw handlers carry bytes and use none of this. Pickle is not among the codecs: loading a pickle runs
what its sender likes. A codec of your own is any object with ``name``, ``encode`` and ``decode``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from reliable.errors import PayloadError
from reliable.types import Frames

__all__ = [
    "JSON",
    "MSGPACK",
    "RAW",
    "Codec",
    "check_frames",
    "decode_call",
    "decode_reply",
    "encode_call",
    "encode_reply",
    "raw_reply",
]


class Codec(Protocol):
    """Turns one value into bytes and back.

    Both methods may raise anything; the callers below wrap it in ``PayloadError``.
    """

    @property
    def name(self) -> str:
        """For error texts."""

    def encode(self, value: object) -> bytes:
        """The bytes of a value."""

    def decode(self, data: bytes) -> object:
        """The value of bytes that ``encode`` made."""


class _Msgpack:
    name = "MessagePack"

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode

    def encode(self, value: object) -> bytes:
        return self._encode(value)

    def decode(self, data: bytes) -> object:
        value: object = self._decode(data)
        return value


class _Json:
    name = "JSON"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode

    def encode(self, value: object) -> bytes:
        return self._encode(value)

    def decode(self, data: bytes) -> object:
        value: object = self._decode(data)
        return value


class _Raw:
    """Bytes as they are: positional arguments of a call become frames, one each."""

    name = "raw"

    def encode(self, value: object) -> bytes:
        return _as_bytes(value, "a value of the raw codec")

    def decode(self, data: bytes) -> object:
        return data


MSGPACK: Final[Codec] = _Msgpack()
"""MessagePack: compact, carries bytes, the default."""
JSON: Final[Codec] = _Json()
"""JSON: readable everywhere; bytes travel as base64 text, and numbers that JSON does not have (NaN, inf) as null."""
RAW: Final[Codec] = _Raw()
"""No encoding: arguments and results are bytes."""


def _as_bytes(value: object, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        raise PayloadError(f"{what} must be bytes, not str: write {value[:20]!r}.encode(), or use call()")
    raise PayloadError(f"{what} must be bytes, not {type(value).__name__}; call() takes other values")


def check_frames(frames: Iterable[object], what: str = "frame") -> Frames:
    """The frames as plain bytes, at least one.

    Raises:
        PayloadError: One of them is not bytes, bytearray or memoryview.
    """
    checked: Frames = []
    for frame in frames:
        checked.append(frame if type(frame) is bytes else _as_bytes(frame, f"{what} {len(checked) + 1}"))
    return checked or [b""]


def _encode(codec: Codec, value: object, what: str) -> bytes:
    try:
        return codec.encode(value)
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"{what} cannot be encoded as {codec.name}: {error}") from error


def _decode(codec: Codec, frames: Sequence[bytes], what: str) -> object:
    if len(frames) != 1:
        raise PayloadError(f"{what} has {len(frames)} frames where {codec.name} has one: use request() or raw=True")
    try:
        return codec.decode(frames[0])
    except Exception as error:
        raise PayloadError(f"{what} is not {codec.name}: {error}") from error


def encode_call(codec: Codec, args: Sequence[object], kwargs: Mapping[str, object]) -> Frames:
    """The body of a typed call.

    Raises:
        PayloadError: The arguments cannot be encoded; for the raw codec, one is not bytes or has a name.
    """
    if codec is RAW:
        if kwargs:
            raise PayloadError("the raw codec has no named arguments")
        return check_frames(args, "argument")
    return [_encode(codec, [list(args), dict(kwargs)], "the arguments")]


def decode_call(codec: Codec, body: Sequence[bytes]) -> tuple[list[object], dict[str, object]]:
    """Arguments of a typed call.

    Raises:
        PayloadError: The body is not what ``encode_call`` makes.
    """
    if codec is RAW:
        return list(body), {}
    value = _decode(codec, body, "the body of the request")
    match value:
        case [[*args], {**kwargs}] if all(isinstance(name, str) for name in kwargs):
            return args, {str(name): argument for name, argument in kwargs.items()}
    raise PayloadError("the body of the request is not [arguments, named arguments]")


def encode_reply(codec: Codec, value: object) -> Frames:
    """The body of a reply.

    Raises:
        PayloadError: The value cannot be encoded.
    """
    if codec is RAW:
        return raw_reply(value)
    return [_encode(codec, value, "the result")]


def decode_reply(codec: Codec, body: Sequence[bytes]) -> object:
    """The value of a reply; the raw codec gives the frame, or a list of them if there are several.

    Raises:
        PayloadError: The body is not what ``encode_reply`` makes.
    """
    if codec is RAW:
        return body[0] if len(body) == 1 else list(body)
    return _decode(codec, body, "the reply")


def raw_reply(value: object) -> Frames:
    """What a raw handler returned, as frames: None is one empty frame, bytes are one, a list or tuple are several.

    Raises:
        PayloadError: It is none of these.
    """
    if value is None:
        return [b""]
    if isinstance(value, (list, tuple)):
        return check_frames(value, "frame")
    return [_as_bytes(value, "the result")]
