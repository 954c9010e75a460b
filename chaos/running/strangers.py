"""Hostile peers: they speak just enough ZMTP to be let in, then say what no honest peer would.

Three sorts, in turn: after a proper handshake a frame whose length is announced as 2**33 bytes and more; rubbish in
place of a greeting; nothing at all. Whoever listens must not keep memory for the first, and must end the first two.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Final

__all__ = ["LENGTHS", "Strangers"]

LENGTHS: Final = (2**33, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Announced lengths of frames, in bytes."""
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_PROPERTY: Final = b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
_BODY: Final = b"\x05READY" + _PROPERTY
_READY: Final = b"\x04" + bytes([len(_BODY)]) + _BODY
_LONG_FRAME: Final = b"\x02"
_RUBBISH: Final = (bytes(200), b"\xff" * 200, b"\x16\x03\x01\x02\x00\x01\x00" * 20, _GREETING.replace(b"NULL", b"EVIL"))
"""The last is a greeting with a mechanism that nobody has."""
_CONNECT_S_MAX: Final = 2.0
_READ_BYTES: Final = 65_536


class Strangers:
    """So many hostile connections to one address.

    Args:
        host: Whom to torment.
        port: Where.
        count: How many.

    Raises:
        OSError: A connection is refused.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        self.mute: list[socket.socket] = []
        self.loud: list[socket.socket] = []
        """Those that said something that must end their connection."""
        try:
            for number in range(count):
                self._connect(host, port, number)
        except OSError:
            self.close()
            raise

    def _connect(self, host: str, port: int, number: int) -> None:
        connection = socket.create_connection((host, port), _CONNECT_S_MAX)
        match number % 3:
            case 0:
                self.loud.append(connection)
                length = LENGTHS[number // 3 % len(LENGTHS)]
                connection.sendall(_GREETING + _READY + _LONG_FRAME + length.to_bytes(8, "big") + b"x" * 64)
            case 1:
                self.loud.append(connection)
                connection.sendall(_RUBBISH[number // 3 % len(_RUBBISH)])
            case _:
                self.mute.append(connection)

    def sent_away(self, wait_s: float) -> int:
        """How many of the loud ones the other side has ended by now, or ends within that time."""
        deadline = time.monotonic() + wait_s
        open_still = list(self.loud)
        while open_still and (remaining_s := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select(open_still, [], [], remaining_s)
            open_still = [one for one in open_still if one not in readable or not _ended(one)]
        return len(self.loud) - len(open_still)

    def close(self) -> None:
        """End all of them."""
        for connection in (*self.mute, *self.loud):
            with contextlib.suppress(OSError):
                connection.close()


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(_READ_BYTES) == b""
    except OSError:
        # A reset is an end as well.
        return True
