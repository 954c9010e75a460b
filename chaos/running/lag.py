"""How late this process itself was: a call must not be blamed for a machine that had other things to do."""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["Lag"]

_STEP_S: Final = 0.02


class Lag:
    """Measures in a thread, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lag", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; calling it before ``start`` is fine."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def note(self, at: float, late_s: float) -> None:
        """Somebody else was late, too: an event loop, say."""
        if late_s > _STEP_S:
            self._late.append((at, late_s))

    def worst_s(self, since: float, until: float) -> float:
        """The longest delay noticed between two readings of the monotonic clock, in seconds."""
        return max((late_s for at, late_s in list(self._late) if since <= at and at - late_s <= until), default=0.0)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            before = time.monotonic()
            self._stopped.wait(_STEP_S)
            now = time.monotonic()
            self.note(now, now - before - _STEP_S)
