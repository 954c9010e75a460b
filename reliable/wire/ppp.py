"""6/PPP, the Paranoid Pirate Protocol: frames ↔ commands, as seen by queue and worker.

Frames in this module are without the routing id that a ROUTER prepends. Worker → queue: READY is exactly one frame
``01``, HEARTBEAT exactly one frame ``02``, everything else a REPLY. Queue → worker: HEARTBEAT, everything else a
REQUEST. REQUEST and REPLY are ``address… | "" | body…``: the stack may be empty, the body has one frame or more.

The RFC also allows content without stack *and* without delimiter, and admits that a content of one frame ``01`` or
``02`` then cannot be told from a command. So everything encoded here has its delimiter, with one exception: the answer
to a request that came without one goes back without one, unless it could be misread.

Decoders raise ``RemoteProtocolError`` for what is not exactly right, and return ``None`` for the single empty frame
that PROBE_ROUTER sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire.mdp import STACK_FRAMES_MAX
from reliable.wire.values import value

__all__ = [
    "HEARTBEAT",
    "READY",
    "PppHeartbeat",
    "PppReady",
    "PppReply",
    "PppRequest",
    "QueueCommand",
    "WorkerCommand",
    "decode_at_queue",
    "decode_at_worker",
    "split_envelope",
]

READY: Final = b"\1"
HEARTBEAT: Final = b"\2"
_MISREAD: Final = (READY, HEARTBEAT)


@value
class PppReady:
    """Worker → queue: begins a conversation."""

    def encode(self) -> Frames:
        """The frames as a DEALER sends them."""
        return [READY]


@value
class PppHeartbeat:
    """Either direction."""

    def encode(self) -> Frames:
        """The frames without routing id."""
        return [HEARTBEAT]


@value
class PppRequest:
    """Queue → worker. The stack is opaque to the worker and comes back in the reply."""

    stack: Frames
    body: Frames
    delimited: bool = True
    """False: it came as bare content, without stack and empty frame."""

    def encode(self) -> Frames:
        """The frames without routing id."""
        return _encode(self.stack, self.body, self.delimited)

    def reply(self, body: Frames) -> PppReply:
        """The reply to it, with the same stack."""
        return PppReply(self.stack, body, self.delimited)


@value
class PppReply:
    """Worker → queue."""

    stack: Frames
    body: Frames
    delimited: bool = True
    """False: no empty frame in front of the body, if that cannot be misread."""

    def encode(self) -> Frames:
        """The frames as a DEALER sends them."""
        return _encode(self.stack, self.body, self.delimited)


QueueCommand: TypeAlias = PppReady | PppHeartbeat | PppReply
"""What a queue receives from workers."""
WorkerCommand: TypeAlias = PppHeartbeat | PppRequest
"""What a worker receives from its queue."""


def _encode(stack: Frames, body: Frames, delimited: bool) -> Frames:
    bare = not delimited and not stack and b"" not in body and not (len(body) == 1 and body[0] in _MISREAD)
    return list(body) if bare else [*stack, b"", *body]


def split_envelope(frames: Sequence[bytes]) -> tuple[Frames, Frames]:
    """Stack and body of ``address… | "" | body…``, as clients, queues and workers send them.

    Raises:
        RemoteProtocolError: No empty frame behind at most ``STACK_FRAMES_MAX`` addresses, or no body behind it.
    """
    for index, frame in enumerate(frames[: STACK_FRAMES_MAX + 1]):
        if not frame:
            if index + 1 == len(frames):
                raise RemoteProtocolError("no body behind the delimiter")
            return list(frames[:index]), list(frames[index + 1 :])
    raise RemoteProtocolError("no delimiter, or too many addresses in front of it")


def decode_at_queue(frames: Sequence[bytes]) -> QueueCommand | None:
    """Read what a worker sent."""
    if len(frames) == 1:
        (only,) = frames
        if only == READY:
            return PppReady()
        if only == HEARTBEAT:
            return PppHeartbeat()
        if not only:
            return None
        raise RemoteProtocolError("one frame that is neither READY nor HEARTBEAT")
    return PppReply(*split_envelope(frames))


def decode_at_worker(frames: Sequence[bytes]) -> WorkerCommand | None:
    """Read what a queue, or an application in its place, sent."""
    if not frames:
        raise RemoteProtocolError("no frames")
    if len(frames) == 1:
        (only,) = frames
        if only == HEARTBEAT:
            return PppHeartbeat()
        if not only:
            return None
        if only == READY:
            raise RemoteProtocolError("READY from a queue")
    if b"" not in frames:
        return PppRequest([], list(frames), delimited=False)
    return PppRequest(*split_envelope(frames))
