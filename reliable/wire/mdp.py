"""MDP 0.1 (7/MDP) and MDP 0.2 (18/MDP) in one module: frames ↔ commands, as seen by broker, client and worker.

The two versions differ in three things only: 0.1 puts an empty frame first, its client has no command byte, and the
numbers of the commands shift. So there is one set of commands here, each with its ``version``, and one table of numbers
per header. Messages are told apart by position, never by length.

Frames in this module are without the routing id that a ROUTER prepends. ``stack`` is whatever stands in front of a
client message's delimiter: addresses of proxies, a REQ_CORRELATE id, and as its last frame our call or answer frame
(``reliable.wire.extension``). 0.2 has no delimiter of its own; with a stack, one is put between stack and header, and
it is accepted only behind a frame of ours (a bare ``"" | MDPC02`` is nobody's dialect of 18/MDP).

Decoders raise ``RemoteProtocolError`` for everything that is not exactly right, and return ``None`` for the single
empty frame that PROBE_ROUTER sends.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire.extension import MAGIC, is_extension
from reliable.wire.values import value

__all__ = [
    "FINAL_OPENING",
    "SERVICE_BYTES_MAX",
    "STACK_FRAMES_MAX",
    "ClientCommand",
    "ClientReply",
    "ClientRequest",
    "Version",
    "WorkerCommand",
    "WorkerDisconnect",
    "WorkerHeartbeat",
    "WorkerReady",
    "WorkerReply",
    "WorkerRequest",
    "check_service",
    "client_reply",
    "decode_at_broker",
    "decode_at_client",
    "decode_at_worker",
    "worker_request",
]

SERVICE_BYTES_MAX: Final = 255
STACK_FRAMES_MAX: Final = 16


class Version(enum.Enum):
    """Which of the two wire formats."""

    MDP01 = "0.1"
    MDP02 = "0.2"


# To look a member up in its enum takes ten times as long as to read a constant, and brokers compare at each message.
_MDP01: Final = Version.MDP01
_MDP02: Final = Version.MDP02


@attrs.frozen
class _Codes:
    """Numbers of the worker commands under one header, and what opens a message."""

    version: Version
    worker_header: bytes
    client_header: bytes
    prefix: tuple[bytes, ...]
    ready: bytes
    request: bytes
    partial: bytes | None
    final: bytes
    heartbeat: bytes
    disconnect: bytes


_V1: Final = _Codes(Version.MDP01, b"MDPW01", b"MDPC01", (b"",), b"\1", b"\2", None, b"\3", b"\4", b"\5")
_V2: Final = _Codes(Version.MDP02, b"MDPW02", b"MDPC02", (), b"\1", b"\2", b"\3", b"\4", b"\5", b"\6")
_CODES: Final = {Version.MDP01: _V1, Version.MDP02: _V2}
_C2_REQUEST: Final = b"\1"
_C2_PARTIAL: Final = b"\2"
_C2_FINAL: Final = b"\3"
_OPENING_02: Final = [b"", b"MDPC02", _C2_REQUEST]
"""Between one of our frames and the service of a request."""
FINAL_OPENING: Final = {codes.version: [*codes.prefix, codes.worker_header, codes.final] for codes in _CODES.values()}
"""What stands in front of the address in a worker's final reply; an empty frame and the body stand behind it."""


@value
class ClientRequest:
    """Client → broker. 0.1: ``stack | "" | MDPC01 | service | body``; 0.2: ``MDPC02 | 01 | service | body``."""

    version: Version
    service: bytes
    body: Frames
    stack: Frames = attrs.Factory(list)

    def encode(self) -> Frames:
        """The frames as a DEALER sends them."""
        if self.version is Version.MDP01:
            return [*self.stack, b"", b"MDPC01", self.service, *self.body]
        front = [*self.stack, b""] if self.stack else []
        return [*front, b"MDPC02", _C2_REQUEST, self.service, *self.body]


@value
class ClientReply:
    """Broker → client: REPLY of 0.1 (always final), PARTIAL or FINAL of 0.2."""

    version: Version
    service: bytes
    body: Frames
    stack: Frames = attrs.Factory(list)
    final: bool = True

    def encode(self) -> Frames:
        """The frames without routing id. A non-final reply has no 0.1 form and is sent as REPLY, for our peers only."""
        return client_reply((), self.version, self.service, self.body, self.stack, self.final)


@value
class WorkerReady:
    """Worker → broker: registers for a service. ``extension`` is the extra frame of our own workers, or empty."""

    version: Version
    service: bytes
    extension: bytes = b""

    def encode(self) -> Frames:
        """The frames as a DEALER sends them."""
        codes = _CODES[self.version]
        extra = [self.extension] if self.extension else []
        return [*codes.prefix, codes.worker_header, codes.ready, self.service, *extra]


@value
class WorkerRequest:
    """Broker → worker. ``address`` is opaque to the worker and comes back in the reply."""

    version: Version
    address: bytes
    body: Frames

    def encode(self) -> Frames:
        """The frames without routing id."""
        return worker_request((), self.version, self.address, self.body)


@value
class WorkerReply:
    """Worker → broker: REPLY of 0.1 (always final), PARTIAL or FINAL of 0.2."""

    version: Version
    address: bytes
    body: Frames
    final: bool = True

    def encode(self) -> Frames:
        """The frames as a DEALER sends them; ``ValueError`` for a non-final reply in 0.1, which has none."""
        codes = _CODES[self.version]
        code = codes.final if self.final else codes.partial
        if code is None:
            raise ValueError("MDP 0.1 has no partial reply")
        return [*codes.prefix, codes.worker_header, code, self.address, b"", *self.body]


@value
class WorkerHeartbeat:
    """Both ways."""

    version: Version

    def encode(self) -> Frames:
        """The frames without routing id."""
        codes = _CODES[self.version]
        return [*codes.prefix, codes.worker_header, codes.heartbeat]


@value
class WorkerDisconnect:
    """Both ways."""

    version: Version

    def encode(self) -> Frames:
        """The frames without routing id."""
        codes = _CODES[self.version]
        return [*codes.prefix, codes.worker_header, codes.disconnect]


def client_reply(
    front: Sequence[bytes], version: Version, service: bytes, body: Frames, stack: Frames, final: bool
) -> Frames:
    """``ClientReply`` encoded behind ``front``, the routing id: brokers make one for each call, and need no object."""
    if version is _MDP01:
        return [*front, *stack, b"", b"MDPC01", service, *body]
    code = _C2_FINAL if final else _C2_PARTIAL
    if stack:
        return [*front, *stack, b"", b"MDPC02", code, service, *body]
    return [*front, b"MDPC02", code, service, *body]


def worker_request(front: Sequence[bytes], version: Version, address: bytes, body: Frames) -> Frames:
    """``WorkerRequest`` encoded behind ``front``, likewise."""
    if version is _MDP01:
        return [*front, b"", b"MDPW01", _V1.request, address, b"", *body]
    return [*front, b"MDPW02", _V2.request, address, b"", *body]


WorkerCommand: TypeAlias = WorkerReady | WorkerRequest | WorkerReply | WorkerHeartbeat | WorkerDisconnect
ClientCommand: TypeAlias = ClientRequest | ClientReply


@functools.lru_cache(maxsize=1024)
def check_service(name: str | bytes) -> bytes:
    """A service name as users may write it, as bytes.

    Raises:
        ValueError: Empty, longer than 255 bytes, or not printable ASCII without spaces.
    """
    raw = name.encode("utf-8") if isinstance(name, str) else name
    if not raw:
        raise ValueError("the service name is empty")
    if len(raw) > SERVICE_BYTES_MAX:
        raise ValueError(f"the service name has {len(raw)} bytes; {SERVICE_BYTES_MAX} are allowed")
    if not all(33 <= byte < 127 for byte in raw):
        raise ValueError(f"the service name {name!r} is not printable ASCII without spaces")
    return raw


def decode_at_broker(frames: Sequence[bytes], start: int = 0) -> ClientRequest | WorkerCommand | None:
    """Read what a client or worker sent.

    A REQUEST from a worker (wrong direction) is returned as ``WorkerRequest``: valid, but unexpected.

    Args:
        frames: The message.
        start: Where it begins; 1 for a message with the routing id in front.
    """
    size = len(frames) - start
    if size > 3 and type(frames) is list:
        # The two requests that nearly all clients send, told by as few comparisons as it takes. Whatever is not exactly
        # one of them is judged below, where the same rules are written out in full.
        first = frames[start]
        if not first:
            if frames[start + 1] == b"MDPC01" and 0 < len(frames[start + 2]) <= SERVICE_BYTES_MAX:
                return ClientRequest(_MDP01, frames[start + 2], frames[start + 3 :], [])
        elif size > 5 and first[:4] == MAGIC and frames[start + 1 : start + 4] == _OPENING_02:
            service = frames[start + 4]
            if 0 < len(service) <= SERVICE_BYTES_MAX:
                return ClientRequest(_MDP02, service, frames[start + 5 :], [first])
    return _any_at_broker(frames[start:])


def _any_at_broker(frames: Sequence[bytes]) -> ClientRequest | WorkerCommand | None:
    if not frames:
        raise RemoteProtocolError("no frames")
    first = frames[0]
    if first == b"MDPW02":
        return _worker_command(frames, 1, _V2)
    if first == b"MDPC02":
        return _request_02(frames, 0, 0)
    if first == b"":
        if len(frames) == 1:
            return None
        if frames[1] == b"MDPW01":
            return _worker_command(frames, 2, _V1)
        if frames[1] == b"MDPC01":
            return _request(Version.MDP01, frames, 0, 2)
        raise RemoteProtocolError("unknown header behind the empty frame")
    return _stacked_request(frames)


def _stacked_request(frames: Sequence[bytes]) -> ClientRequest:
    index = 1
    for frame in frames[1:STACK_FRAMES_MAX]:
        if not frame:
            break
        index += 1
    header = frames[index + 1] if len(frames) > index + 1 else b""
    if header == b"MDPC02" and not frames[index] and is_extension(frames[index - 1]):
        return _request_02(frames, index, index + 1)
    if header == b"MDPC01" and not frames[index]:
        return _request(Version.MDP01, frames, index, index + 2)
    raise RemoteProtocolError("unknown header")


def _request_02(frames: Sequence[bytes], stack_end: int, header: int) -> ClientRequest:
    if len(frames) <= header + 1 or frames[header + 1] != _C2_REQUEST:
        raise RemoteProtocolError("client command is not REQUEST")
    return _request(Version.MDP02, frames, stack_end, header + 2)


def _request(version: Version, frames: Sequence[bytes], stack_end: int, service: int) -> ClientRequest:
    if len(frames) < service + 2 or not 0 < len(frames[service]) <= SERVICE_BYTES_MAX:
        raise RemoteProtocolError("client REQUEST without service or body")
    return ClientRequest(version, frames[service], list(frames[service + 1 :]), list(frames[:stack_end]))


def _worker_command(frames: Sequence[bytes], start: int, codes: _Codes) -> WorkerCommand:
    """``start`` is the index of the command byte."""
    size = len(frames) - start
    if size < 1:
        raise RemoteProtocolError("worker header without a command")
    code = frames[start]
    version = codes.version
    if code == codes.final or code == codes.request or (codes.partial is not None and code == codes.partial):
        if size < 4 or frames[start + 2] != b"" or not frames[start + 1]:
            raise RemoteProtocolError("REQUEST or REPLY without address, delimiter or body")
        address, body = frames[start + 1], list(frames[start + 3 :])
        if code == codes.request:
            return WorkerRequest(version, address, body)
        return WorkerReply(version, address, body, code == codes.final)
    if code == codes.heartbeat and size == 1:
        return WorkerHeartbeat(version)
    if code == codes.disconnect and size == 1:
        return WorkerDisconnect(version)
    if code == codes.ready:
        return _ready(frames, start, size, version)
    raise RemoteProtocolError("unknown worker command, or one with extra frames")


def _ready(frames: Sequence[bytes], start: int, size: int, version: Version) -> WorkerReady:
    if size not in (2, 3) or not 0 < len(frames[start + 1]) <= SERVICE_BYTES_MAX:
        raise RemoteProtocolError("READY without service, or with extra frames")
    if size == 2:
        return WorkerReady(version, frames[start + 1])
    if not is_extension(frames[start + 2]):
        raise RemoteProtocolError("READY with an extra frame that is not ours")
    return WorkerReady(version, frames[start + 1], frames[start + 2])


def decode_at_client(frames: Sequence[bytes]) -> ClientReply:
    """Read what a broker sent to a client."""
    ours = len(frames) > 5 and frames[2] == b"MDPC02" and frames[3] == _C2_FINAL and is_extension(frames[0])
    if ours and not frames[1] and frames[4]:
        # Nearly all that clients of our own brokers read; the way below comes to the same.
        return ClientReply(Version.MDP02, frames[4], list(frames[5:]), [frames[0]])
    for index in range(min(len(frames) - 1, STACK_FRAMES_MAX + 1)):
        if frames[index] == b"MDPC02" and index == 0:
            return _reply_02(frames, 0)
        if frames[index] == b"":
            if frames[index + 1] == b"MDPC01":
                return _reply(Version.MDP01, frames, index, index + 2, True)
            if frames[index + 1] == b"MDPC02" and index > 0 and is_extension(frames[index - 1]):
                return _reply_02(frames, index + 1)
            break
    raise RemoteProtocolError("unknown header")


def _reply_02(frames: Sequence[bytes], header: int) -> ClientReply:
    code = frames[header + 1] if len(frames) > header + 1 else b""
    if code not in (_C2_PARTIAL, _C2_FINAL):
        raise RemoteProtocolError("client command is neither PARTIAL nor FINAL")
    return _reply(Version.MDP02, frames, max(header - 1, 0), header + 2, code == _C2_FINAL)


def _reply(version: Version, frames: Sequence[bytes], stack_end: int, service: int, final: bool) -> ClientReply:
    if len(frames) < service + 2 or not frames[service]:
        raise RemoteProtocolError("reply without service or body")
    return ClientReply(version, frames[service], list(frames[service + 1 :]), list(frames[:stack_end]), final)


def decode_at_worker(frames: Sequence[bytes]) -> WorkerCommand | ClientReply:
    """Read what a broker sent to a worker; the answer to its hello comes as ``ClientReply``."""
    if frames and frames[0] == b"MDPW02":
        return _worker_command(frames, 1, _V2)
    if len(frames) > 1 and frames[0] == b"" and frames[1] == b"MDPW01":
        return _worker_command(frames, 2, _V1)
    return decode_at_client(frames)
