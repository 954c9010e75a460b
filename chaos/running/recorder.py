"""What worker processes write about their own runs, so that it survives their being killed.

One line of JSON per beginning and per end, each written by one call into a file of the incarnation's own: what the
kernel has taken outlives the process. This module imports nothing of ours, so that a small process stays small.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Final

__all__ = ["SUFFIX", "Recorder"]

SUFFIX: Final = ".runs"
"""Of the files."""


class Recorder:
    """Writes the runs of one process; its methods may be called by any thread.

    Args:
        folder: Where the file goes.
        worker: Name of the incarnation, also of the file.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._descriptor = os.open(folder / f"{worker}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._number = 0

    def begin(self, key: str) -> int:
        """A handler begins to work on this call; the number of the run, for ``end``."""
        with self._lock:
            self._number += 1
            number = self._number
        self._write({"run": number, "key": key, "started": time.monotonic()})
        return number

    def end(self, number: int, *, finished: bool = True) -> None:
        """It left its slot, having done its work or not."""
        self._write({"run": number, "ended": time.monotonic(), "finished": finished})

    def _write(self, value: dict[str, object]) -> None:
        os.write(self._descriptor, json.dumps(value).encode() + b"\n")
