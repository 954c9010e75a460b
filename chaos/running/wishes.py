"""What a request of the load asks of whoever works on it. Imports nothing of ours, as ``chaos.running.recorder``."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Final

import attrs

__all__ = ["Wish", "fulfil"]

_US_PER_S: Final = 1_000_000


@attrs.frozen(kw_only=True)
class Wish:
    """What a request asks of its handler."""

    work_s: float = 0.0
    hold_gil_s: float = 0.0
    die: bool = False
    slow_every: int = 0
    """Of the runs of a worker with this wish, each so many-th is slow; 0: none."""
    slow_s: float = 0.0
    """How much longer a slow one takes, unless it is told that nobody waits any more."""


def fulfil(wish: Wish) -> None:
    """Do as the request says."""
    if wish.die:
        os.kill(os.getpid(), signal.SIGKILL)
    if wish.hold_gil_s:
        # A call by way of PyDLL keeps the interpreter lock: no other thread of this process runs meanwhile.
        ctypes.PyDLL(None).usleep(int(wish.hold_gil_s * _US_PER_S))
    if wish.work_s:
        time.sleep(wish.work_s)
