"""How long the threads of a process were ready to run and the kernel let them wait: time that is nobody's mistake.

Two processes that watch each other cannot tell a slow peer from a busy machine by their own clocks. The kernel can: it
counts, for each thread, the time between becoming ready and being run.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

__all__ = ["Starvation", "starved_s"]

_STEP_S: Final = 0.01
_WORTH_S: Final = 0.001

Samples = list[tuple[float, float, float]]
"""Begin and end of spans by the monotonic clock, and the seconds of waiting that ended in each."""


class Starvation:
    """Samples this process from a thread of its own."""

    def __init__(self) -> None:
        self.samples: Samples = []
        self._before: dict[str, int] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._delay_s()
        before = time.monotonic()
        while True:
            time.sleep(_STEP_S)
            now, delay_s = time.monotonic(), self._delay_s()
            if delay_s > _WORTH_S:
                self.samples.append((before, now, delay_s))
            before = now

    def _delay_s(self) -> float:
        """Since the last time, over all threads."""
        total = 0
        for task in Path("/proc/self/task").iterdir():
            try:
                waited = int((task / "schedstat").read_text(encoding="ascii").split()[1])
            except (FileNotFoundError, ProcessLookupError):
                # That thread has just ended.
                continue
            total += waited - self._before.get(task.name, 0)
            self._before[task.name] = waited
        return total / 1e9


def starved_s(samples: Samples, begin: float, end: float) -> float:
    """Seconds of waiting between two moments, as far as the samples can tell."""
    return sum(delay_s for first, last, delay_s in samples if first < end + _STEP_S and last > begin)
