"""What a client writes and reads in each dialect whose replies are told by the link that they come on.

Two functions per dialect: the frames of a request, and the body of a reply with whether it is the last one. A reply
that does not belong to a request for this service, or to this dialect, is refused with ``RemoteProtocolError``. The
call id goes along where the dialect has a place for it, and must come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

from reliable.config import Dialect
from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire import req
from reliable.wire.mdp import ClientRequest, Version, decode_at_client

__all__ = ["PLAIN_WIRES", "REQ_CORRELATED", "PlainReply", "PlainWire"]

PlainReply: TypeAlias = tuple[Frames, bool]
"""The body, and False if more will come for the same request."""


@attrs.frozen
class PlainWire:
    """One dialect."""

    encode: Callable[[bytes, bytes, Frames], Frames]
    """Of call id, service and body."""
    decode: Callable[[bytes, bytes, Frames], PlainReply]
    """Of call id, service and what came."""


def _encode_req(call_id: bytes, service: bytes, body: Frames) -> Frames:
    return req.encode_request(body)


def _decode_req(call_id: bytes, service: bytes, frames: Frames) -> PlainReply:
    return req.decode_reply(frames), True


def _encode_marked(call_id: bytes, service: bytes, body: Frames) -> Frames:
    return req.encode_request(body, call_id)


def _decode_marked(call_id: bytes, service: bytes, frames: Frames) -> PlainReply:
    return req.decode_reply(frames, call_id), True


def _mdp(version: Version) -> PlainWire:
    def encode(call_id: bytes, service: bytes, body: Frames) -> Frames:
        return ClientRequest(version, service, body).encode()

    def decode(call_id: bytes, service: bytes, frames: Frames) -> PlainReply:
        reply = decode_at_client(frames)
        if reply.version is not version or reply.stack:
            raise RemoteProtocolError(f"a reply that is not MDP {version.value}")
        if reply.service != service:
            raise RemoteProtocolError("a reply of another service")
        return reply.body, reply.final

    return PlainWire(encode, decode)


_REQ: Final = PlainWire(_encode_req, _decode_req)
REQ_CORRELATED: Final = PlainWire(_encode_marked, _decode_marked)
"""``req`` with the call id in front of the delimiter."""
PLAIN_WIRES: Final = {
    Dialect.MDP01: _mdp(Version.MDP01),
    Dialect.MDP02: _mdp(Version.MDP02),
    Dialect.REQ: _REQ,
    Dialect.PPP: _REQ,
}
