"""8/MMI: questions to the broker itself, carried in ordinary client requests.

Every service that starts with ``mmi.`` is answered inside the broker. Codes are ASCII text in one body frame.
Beside ``mmi.service`` there are three of ours: ``mmi.reliable`` (the hello of ``reliable.wire.extension``),
``mmi.reliable.time`` (how long ago that hello was, by the broker's clock) and ``mmi.reliable.status`` (what
``reliable status`` prints, as JSON behind the code).
"""

from __future__ import annotations

from typing import Final

from reliable.types import Frames
from reliable.wire.extension import HELLO_SERVICE
from reliable.wire.mdp import ClientRequest, Version

__all__ = [
    "FOUND",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "RESERVED_PREFIX",
    "SERVICE_QUERY",
    "STATUS_QUERY",
    "TIME_QUERY",
    "TIME_STAMP_BYTES",
    "hello_request",
    "is_reserved",
    "read_time_answer",
    "service_query",
    "time_answer",
    "time_query",
]

RESERVED_PREFIX: Final = b"mmi."
SERVICE_QUERY: Final = b"mmi.service"
STATUS_QUERY: Final = b"mmi.reliable.status"
TIME_QUERY: Final = b"mmi.reliable.time"
TIME_STAMP_BYTES: Final = 8
FOUND: Final = b"200"
NOT_FOUND: Final = b"404"
NOT_IMPLEMENTED: Final = b"501"


def is_reserved(service: bytes) -> bool:
    """Whether the broker answers this name itself: an exact byte prefix, so ``Mmi.x`` is an ordinary service."""
    return service.startswith(RESERVED_PREFIX)


def service_query(version: Version, name: bytes) -> Frames:
    """The frames that ask whether a worker is registered for ``name``."""
    return ClientRequest(version, SERVICE_QUERY, [name]).encode()


def hello_request(hello: bytes) -> Frames:
    """The frames of a hello: plain MDP 0.1, which more brokers in the wild understand than 0.2."""
    return ClientRequest(Version.MDP01, HELLO_SERVICE, [hello]).encode()


def time_query(stamp: bytes) -> Frames:
    """The frames that ask how long ago this connection's hello was; ``stamp``: 8 bytes that come back."""
    return ClientRequest(Version.MDP01, TIME_QUERY, [stamp]).encode()


def time_answer(stamp: bytes, since_hello_ms: int) -> Frames:
    """The frames behind ``200`` in the answer to ``time_query``."""
    return [stamp, since_hello_ms.to_bytes(8, "big")]


def read_time_answer(frames: Frames) -> tuple[bytes, int] | None:
    """Stamp and milliseconds; None if it is not an answer to ``time_query``. Further frames are left alone."""
    if len(frames) < 2 or len(frames[0]) != TIME_STAMP_BYTES or len(frames[1]) != 8:
        return None
    return frames[0], int.from_bytes(frames[1], "big")
