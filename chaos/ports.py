"""Free ports for servers that are killed and come back.

Never a port of the ephemeral range (32768 and up, as Linux has it), and never an even one: while a server is down, a
client that keeps trying to connect may be given that very port as its own, meet itself, and take the port away.
"""

from __future__ import annotations

import random
import socket
from typing import Final

__all__ = ["free_port"]

_LOWEST: Final = 20_001
_HIGHEST: Final = 32_767
_TRIES: Final = 1_000
_given: Final[set[int]] = set()
"""Ports that this process was told: between being told and being bound a port is still free for others."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens, and which was not given out before.

    Raises:
        OSError: None was found.
    """
    generator = random.SystemRandom()
    for _ in range(_TRIES):
        port = generator.randrange(_LOWEST, _HIGHEST + 1, 2)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            try:
                candidate.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST} on {host}")
