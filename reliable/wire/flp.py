"""10/FLP: PING and PONG, and requests that carry a control frame of the client's (CCF) which comes back unchanged.

    PING     "PING"              client → server, one frame
    PONG     "PONG"              server → client, one frame
    request  CCF | body(1..n)    two frames or more, whatever the CCF is
    reply    CCF | body(1..n)

A message is told by its number of frames alone: two frames of which the first is ``PING`` are a request. Frames here
are without the routing id that a ROUTER prepends. The RFC has both sides use ROUTER sockets so that one socket can
choose among many servers; what goes over each connection is the same if the client has one DEALER per server, which
needs no agreement about the server's identity and no settling time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire.values import value

__all__ = ["PING", "PONG", "FlpMessage", "decode_at_client", "decode_at_server"]

PING: Final = b"PING"
PONG: Final = b"PONG"


@value
class FlpMessage:
    """A request, or the reply to it."""

    control: bytes
    """The CCF; a server copies it and makes nothing of it."""
    body: Frames

    def encode(self) -> Frames:
        """The frames without routing id."""
        return [self.control, *self.body]


def decode_at_client(frames: Sequence[bytes]) -> FlpMessage | None:
    """Read what a server sent; None is a PONG.

    Raises:
        RemoteProtocolError: No frame, or a single one that is not PONG.
    """
    return _decode(frames, PONG)


def decode_at_server(frames: Sequence[bytes]) -> FlpMessage | None:
    """Read what a client sent; None is a PING.

    Raises:
        RemoteProtocolError: No frame, or a single one that is not PING.
    """
    return _decode(frames, PING)


def _decode(frames: Sequence[bytes], alone: bytes) -> FlpMessage | None:
    if len(frames) >= 2:
        return FlpMessage(frames[0], list(frames[1:]))
    if len(frames) == 1 and frames[0] == alone:
        return None
    raise RemoteProtocolError(f"neither {alone.decode()} nor a control frame with a body")
