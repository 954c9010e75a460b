"""Ports for tests that listen."""

from __future__ import annotations

import random
import socket
from typing import Final

__all__ = ["free_endpoint", "free_port"]

_LOWEST: Final = 20_001
_HIGHEST: Final = 32_767
_given: Final[set[int]] = set()


def free_port() -> int:
    """A free port: odd and below the ephemeral ones.

    A connect to a refused even ephemeral port can connect to itself and so take the port; these cannot.
    """
    for _ in range(1_000):
        port = random.SystemRandom().randrange(_LOWEST, _HIGHEST, 2)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port found")


def free_endpoint() -> str:
    """An address on loopback where nobody listens."""
    return f"tcp://127.0.0.1:{free_port()}"
