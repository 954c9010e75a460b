"""Free ports for servers under test.

Never a port of the ephemeral range (32768 and up, as Linux has it): while a server on such a port is down, a client
that keeps trying to connect to it may be given that very port as its own, meet itself, and take the port away. The
same goes for any other connection that the system happens to make meanwhile.
"""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_FIRST, _LAST = 20_000, 32_767
_TRIES = 200


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port below the ephemeral range on which nobody listens right now.

    Raises:
        OSError: None was found.
    """
    generator = random.Random()
    for _ in range(_TRIES):
        port = generator.randint(_FIRST, _LAST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            try:
                candidate.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on {host}")
