"""8/MMI: questions to the broker itself, carried in ordinary client requests.

Every service that starts with ``mmi.`` is answered inside the broker. Codes are ASCII text in one body frame.
Beside ``mmi.service`` there are two of ours: ``mmi.reliable`` (the hello of ``reliable.wire.extension``) and
``mmi.reliable.status`` (what ``reliable status`` prints, as JSON behind the code).
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
    "hello_request",
    "is_reserved",
    "service_query",
]

RESERVED_PREFIX: Final = b"mmi."
SERVICE_QUERY: Final = b"mmi.service"
STATUS_QUERY: Final = b"mmi.reliable.status"
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
