"""A file that shows whether a worker is well, for probes that cannot ask it: written anew each second.

It holds ``ready`` while the worker is registered with a broker, else ``waiting``. It grows old when nothing in the
process gets to run any more. With ``AsyncWorker`` that is when its event loop stands still; with ``Worker``, whose loop
has a thread of its own, when some handler holds the interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from reliable import AsyncWorker, Worker

__all__ = ["HealthFile"]

_INTERVAL_S: Final = 1.0


class HealthFile:
    """Keeps the file.

    Args:
        path: Where; the folder must exist. None keeps none.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            self._write(False)

    def _write(self, ready: bool) -> None:
        assert self._path is not None
        # Whoever reads it in between must not find it empty.
        new = self._path.with_name(f".{self._path.name}.new")
        new.write_text("ready\n" if ready else "waiting\n")
        new.replace(self._path)

    def _remove(self) -> None:
        assert self._path is not None
        self._path.unlink(missing_ok=True)

    def _look(self, worker: Worker | AsyncWorker) -> None:
        snapshot = worker.snapshot()
        with contextlib.suppress(OSError):  # a full disk is no reason to stop serving; the file grows old
            self._write(snapshot is not None and snapshot.registered > 0)

    @contextlib.contextmanager
    def kept(self, worker: Worker) -> Iterator[None]:
        """Keep it meanwhile, by a thread."""
        if self._path is None:
            yield
            return
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(_INTERVAL_S):
                self._look(worker)

        thread = threading.Thread(target=keep, name="health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_INTERVAL_S)
            self._remove()

    @contextlib.asynccontextmanager
    async def kept_in_loop(self, worker: AsyncWorker) -> AsyncIterator[None]:
        """Keep it meanwhile, by a task."""
        if self._path is None:
            yield
            return

        async def keep() -> None:
            while True:
                await asyncio.sleep(_INTERVAL_S)
                self._look(worker)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            self._remove()
