"""Aliases and Protocols that several layers share; no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = ["Clock", "Frames", "IdSource", "Jitter", "Observer"]

Frames: TypeAlias = list[bytes]
"""One multipart message, or the part of it that is somebody's body."""

Clock: TypeAlias = Callable[[], float]
"""A monotonic clock in seconds."""

IdSource: TypeAlias = Callable[[int], bytes]
"""Gives that many bytes that nobody else has: ``os.urandom`` in the shells, a counter in tests."""

Jitter: TypeAlias = Callable[[], float]
"""Gives a number in [0, 1): ``random.random`` in the shells, a fixed value in tests."""


class Observer(Protocol):
    """Receives frozen observations (``reliable.engine.observe``); must neither block nor raise."""

    def __call__(self, observation: object, /) -> None: ...
