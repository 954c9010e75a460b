"""See ``_accelerator.pyx``. May be absent: nothing but ``reliable/messages.py`` imports it."""

from typing import Final

import zmq

from reliable.types import Frames

UNCOPIED_BYTES_MIN: Final[int]
"""Frames of this size or more are lent to libzmq instead of copied."""

def attach(addresses: dict[str, int]) -> None: ...
def read_message(socket: zmq.Socket[bytes], /) -> Frames | None: ...
def read_messages(socket: zmq.Socket[bytes], limit: int, /) -> list[Frames]: ...
def send_message(socket: zmq.Socket[bytes], frames: Frames, /) -> None: ...
