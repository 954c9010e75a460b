"""Messages in and out of ZeroMQ sockets: the one place that moves frames, in two equal ways.

* *accelerated*: ``reliable/_accelerator.pyx``, one call for a whole message or for all that wait, against the libzmq
  that pyzmq has loaded already. Built into the wheel where a C compiler was present.
* *pure*: pyzmq's own C class, one call per frame.

Which one is used is settled at import, see ``implementation`` and ``WHY_NOT_ACCELERATED``; ``RELIABLE_PURE=1`` in the
environment forces the second. Both do the same in every respect but speed, and the same tests say so.

No call here waits. The descriptor of a socket signals an edge only, and a call that finds the socket empty consumes it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import attrs
import zmq
import zmq.backend

from reliable.types import Frames

__all__ = [
    "ACCELERATED",
    "IMPLEMENTATIONS",
    "PURE",
    "WHY_NOT_ACCELERATED",
    "Implementation",
    "has_curve",
    "implementation",
    "libzmq_version",
    "read_message",
    "read_messages",
    "send_message",
]

_READABLE: Final = int(zmq.POLLIN)
# Plain integers: joining two flags of an enum takes longer than handing a frame to libzmq.
_NOW: Final = int(zmq.NOBLOCK)
_NOW_AND_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_MORE: Final = int(zmq.RCVMORE)
_ROUTER: Final = zmq.SocketType.ROUTER
# The C class itself: what pyzmq's own layer adds to it (flags as enums, tracking, copying by threshold) is not used.
_send: Final[Any] = zmq.backend.Socket.send
_recv: Final[Any] = zmq.backend.Socket.recv
_get: Final[Any] = zmq.backend.Socket.get

_ASKED_FIRST: Final = 2
"""To ask whether something is there costs less than half of the ``zmq.Again`` of a receive that finds nothing, but it
costs at every message: after so many of them more are likely, and the rest is received without asking."""

_FUNCTIONS: Final = (
    "zmq_errno",
    "zmq_msg_close",
    "zmq_msg_data",
    "zmq_msg_init",
    "zmq_msg_init_data",
    "zmq_msg_init_size",
    "zmq_msg_more",
    "zmq_msg_recv",
    "zmq_msg_send",
    "zmq_msg_size",
)


@attrs.frozen
class Implementation:
    """One way to move messages.

    Attributes:
        name: ``accelerated`` or ``pure``.
        read_message: See the function of that name.
        read_messages: See the function of that name.
        send_message: See the function of that name.
    """

    name: str
    read_message: Callable[[zmq.Socket[bytes]], Frames | None]
    read_messages: Callable[[zmq.Socket[bytes], int], list[Frames]]
    send_message: Callable[[zmq.Socket[bytes], Frames], None]


def _receive(socket: zmq.Socket[bytes]) -> Frames:
    """One message; raises ``zmq.Again`` if there is none."""
    if socket.type is _ROUTER:
        # The sender's id, which is never alone: the one frame that need not be asked whether more follow.
        frames: Frames = [_recv(socket, _NOW)]
        more = True
    else:
        # As a frame object, which knows it. To ask the socket costs more, and either more than to receive.
        frame = _recv(socket, _NOW, False)
        frames, more = [frame.bytes], frame.more
    try:
        while more:
            frame = _recv(socket, _NOW, False)
            frames.append(frame.bytes)
            more = frame.more
    except BaseException:
        # Ctrl-C, or no memory: the rest must not be taken for a message of its own.
        while _get(socket, _MORE):
            _recv(socket, _NOW, False)
        raise
    return frames


def _pure_read_message(socket: zmq.Socket[bytes]) -> Frames | None:
    if not _get(socket, _EVENTS) & _READABLE:
        return None
    try:
        return _receive(socket)
    except zmq.Again:
        return None


def _pure_read_messages(socket: zmq.Socket[bytes], limit: int) -> list[Frames]:
    messages: list[Frames] = []
    try:
        while len(messages) < limit:
            if len(messages) < _ASKED_FIRST and not _get(socket, _EVENTS) & _READABLE:
                break
            messages.append(_receive(socket))
    except zmq.Again:
        pass  # read empty
    except zmq.ZMQError:
        # What came before the end of the context or the socket is not lost; the next call raises.
        if not messages:
            raise
    return messages


def _pure_send_message(socket: zmq.Socket[bytes], frames: Frames) -> None:
    sent = 0
    try:
        for frame in frames[:-1]:
            _send(socket, frame, _NOW_AND_MORE)
            sent += 1
        _send(socket, frames[-1], _NOW)
    except zmq.Again:
        # The peer went away in the middle of the message. libzmq drops its rest, but wants to be given it: it would
        # take the next message for that.
        if sent:
            for rest in range(sent + 1, len(frames)):
                _send(socket, b"", _NOW_AND_MORE if rest < len(frames) - 1 else _NOW)
        raise


PURE: Final = Implementation("pure", _pure_read_message, _pure_read_messages, _pure_send_message)


def _functions_of_libzmq() -> dict[str, int]:
    """Names to addresses, in the very copy of libzmq that pyzmq uses.

    Raises:
        LookupError: There is none that can be used; the text says why.
    """
    backend = zmq.backend.Socket.__module__
    if backend != "zmq.backend.cython._zmq":
        raise LookupError(f"pyzmq's backend {backend} is not the one compiled for CPython")
    try:
        # Never loads a second copy: it must be there already.
        library = ctypes.CDLL(sys.modules[backend].__file__, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        found = {name: _address(library, name) for name in _FUNCTIONS}
    except (OSError, AttributeError) as error:
        raise LookupError(f"the functions of libzmq cannot be looked up in pyzmq: {error}") from None
    if zmq.zmq_version_info()[0] != 4:
        raise LookupError(f"libzmq {zmq.zmq_version()} may lay out its messages in another way than libzmq 4")
    return found


def _address(library: ctypes.CDLL, name: str) -> int:
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address


def _accelerated() -> Implementation:
    """Raises ``LookupError``: it cannot be used; the text says why."""
    if os.environ.get("RELIABLE_PURE", "0") not in ("", "0"):
        raise LookupError("RELIABLE_PURE is set")
    try:
        import reliable._accelerator as accelerator
    except ImportError as error:
        if error.name == "reliable._accelerator" and isinstance(error, ModuleNotFoundError):
            raise LookupError("it was not built into this installation") from None
        raise LookupError(f"it cannot be imported: {error}") from None
    accelerator.attach(_functions_of_libzmq())
    return Implementation("accelerated", accelerator.read_message, accelerator.read_messages, accelerator.send_message)


def _choose() -> tuple[Implementation, str | None]:
    try:
        return _accelerated(), None
    except LookupError as error:
        return PURE, str(error)


_chosen, _why_not = _choose()
WHY_NOT_ACCELERATED: Final = _why_not
"""Why the accelerator is not used, or None if it is."""
ACCELERATED: Final = WHY_NOT_ACCELERATED is None
IMPLEMENTATIONS: Final = (_chosen,) if _chosen is PURE else (_chosen, PURE)
"""All that can be used here, the chosen one first."""


def implementation() -> str:
    """Which of the two ways is used: ``accelerated`` or ``pure``."""
    return _chosen.name


def libzmq_version() -> tuple[int, int, int]:
    """Of the libzmq that pyzmq uses."""
    return zmq.zmq_version_info()


def has_curve() -> bool:
    """Whether that libzmq can encrypt."""
    return zmq.has("curve")


read_message: Final = _chosen.read_message
"""The next message, or None if there is none; the edge of the descriptor is consumed only then.

Args: the socket. Raises ``zmq.ZMQError`` for a closed socket or an ended context.
"""

read_messages: Final = _chosen.read_messages
"""Up to ``limit`` messages, in order. Fewer than that: the socket was read empty.

Args: the socket, and the limit. Raises ``zmq.ZMQError`` as above, but never in place of messages that were received.
"""

send_message: Final = _chosen.send_message
"""Send all frames or none, without waiting.

Args: the socket, and at least one frame.

Raises ``zmq.Again`` if the queue to the peer is full or nobody is connected, ``zmq.ZMQError`` with EHOSTUNREACH if
there is no such peer (ROUTER only). After other errors the socket is of no use any more.
"""
