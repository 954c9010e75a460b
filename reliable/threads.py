"""Threads for handlers.

Not ``ThreadPoolExecutor``: the interpreter joins that one's threads at exit, so one handler that never returns would
keep a worker that was told to stop from ending. These are daemons: a drain waits for them up to its deadline and no
longer.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["HandlerThreads"]


class HandlerThreads:
    """Runs functions, at most ``size`` at once; starts threads as they are needed.

    Args:
        size: Threads at most.
        name: Of the threads, for debuggers.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def run(self, function: Callable[[], None]) -> None:
        """Run ``function`` in one of the threads; it must not raise. Only one thread may call this."""
        self._work.put(function)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._loop, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _loop(self) -> None:
        while (function := self._work.get()) is not None:
            function()
            # Let go of the request before waiting for the next one.
            del function
            self._idle.release()

    def close(self, timeout: float) -> None:
        """Let the threads end when they are done, and wait for those that are idle.

        Args:
            timeout: Seconds; threads in a handler are left to themselves after it.
        """
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                timeout = 0.0
