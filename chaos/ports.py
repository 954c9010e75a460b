"""Free ports for servers that are killed and come back.

Never a port of the ephemeral range (32768 and up, as Linux has it), and never an even one: while a server is down, a
client that keeps trying to connect may be given that very port as its own, meet itself, and take the port away.

What is told here is known in this process only. Processes that look for ports at the same time are kept apart by
``RELIABLE_PORTS=21000-21999`` in the environment of each, which its children inherit.
"""

from __future__ import annotations

import os
import random
import socket
from typing import Final

__all__ = ["PORTS_VARIABLE", "free_port", "share_of_ports"]

PORTS_VARIABLE: Final = "RELIABLE_PORTS"
"""Environment variable: the lowest and the highest port to give out, with a dash between."""

_LOWEST: Final = 20_001
_HIGHEST: Final = 32_767
_TRIES: Final = 1_000
_given: Final[set[int]] = set()
"""Ports that this process was told: between being told and being bound a port is still free for others."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens, and which was not given out before.

    Raises:
        OSError: None was found.
        ValueError: ``RELIABLE_PORTS`` is no range.
    """
    generator = random.SystemRandom()
    lowest, highest = _range(os.environ.get(PORTS_VARIABLE, ""))
    for _ in range(_TRIES):
        port = generator.randrange(lowest | 1, highest + 1, 2)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            try:
                candidate.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port between {lowest} and {highest} on {host}")


def share_of_ports(number: int, count: int) -> str:
    """What to set ``RELIABLE_PORTS`` to in process ``number`` (from 0) of ``count``, so that none meets another."""
    each = (_HIGHEST - _LOWEST + 1) // count
    lowest = _LOWEST + number * each
    return f"{lowest}-{lowest + each - 1}"


def _range(text: str) -> tuple[int, int]:
    if not text:
        return _LOWEST, _HIGHEST
    try:
        lowest, highest = map(int, text.split("-"))
    except ValueError:
        lowest = highest = 0
    if not 0 < lowest < highest < 65_536:
        raise ValueError(f"{PORTS_VARIABLE} is no range of ports such as 21000-21999: {text!r}")
    return lowest, highest
