"""Request and reply as a REQ socket and its REP have them on the wire (28/REQREP): an empty frame, then the body.

The dialects ``req`` and ``ppp`` are the same here: the front side of a Paranoid Pirate queue (6/PPP) takes what a REQ
socket sends. Ours are sent by a DEALER, which writes the empty frame itself. A REP server gives back whatever stood in
front of the empty frame, and since nothing does, nothing may stand there in a reply either.

In front of the empty frame a REQ socket with ZMQ_REQ_CORRELATE puts a number, and REP sockets, and ROUTER servers that
keep to 28/REQREP, give it back with everything else that stands there. With a ``mark`` this does the same. Without one
a reply is told by the connection that it comes on, and by nothing else: that is for queues and ROUTER servers that
count frames.
"""

from __future__ import annotations

from collections.abc import Sequence

from reliable.errors import RemoteProtocolError
from reliable.types import Frames

__all__ = ["decode_reply", "encode_request"]


def encode_request(body: Sequence[bytes], mark: bytes = b"") -> Frames:
    """The frames as a DEALER sends them; at least one body frame is needed. ``mark`` is given back by the server."""
    return [mark, b"", *body] if mark else [b"", *body]


def decode_reply(frames: Sequence[bytes], mark: bytes = b"") -> Frames:
    """The body of a reply.

    Raises:
        RemoteProtocolError: It does not begin with the mark, if there is one, and the empty frame, or nothing follows.
    """
    if mark:
        if not frames or frames[0] != mark:
            raise RemoteProtocolError("a reply to something else")
        frames = frames[1:]
    if len(frames) < 2 or frames[0]:
        raise RemoteProtocolError("a reply without the empty frame in front, or without a body")
    return list(frames[1:])
