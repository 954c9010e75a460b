"""Waiting with an end, for what nothing announces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["END_S_MAX", "READY_S_MAX", "LeftRunning", "eventually", "join"]

END_S_MAX: Final = 10.0
"""What is told to end gets so long."""
READY_S_MAX: Final = 10.0
"""What was started gets so long until it serves."""
_POLL_S: Final = 0.005

T = TypeVar("T")


class LeftRunning(AssertionError):
    """Something that a test began did not end in time."""


def eventually(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """Wait until a condition holds.

    Args:
        condition: Called again and again, every few milliseconds, until what it gives is true.
        timeout: Seconds, at most.
        what: What is waited for, for the error; the condition's name by default.

    Returns:
        What the condition gave.

    Raises:
        AssertionError: It did not hold in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or getattr(condition, '__name__', 'the condition')}")
        time.sleep(_POLL_S)


def join(thread: threading.Thread, what: str, timeout: float = END_S_MAX) -> None:
    """Wait for the end of a thread.

    Raises:
        LeftRunning: It still runs.
    """
    thread.join(timeout)
    if thread.is_alive():
        raise LeftRunning(f"{what} did not end within {timeout:g} s")
