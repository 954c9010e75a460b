"""How a blocking shell waits: on descriptors, with a way for other threads to wake it."""

from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Callable

from reliable.transport import Waker

__all__ = ["SelectorWait", "Signal"]


class Signal:
    """An event for one waiter, made of one lock of the interpreter itself.

    ``threading.Event`` is Python code around such a lock. Ctrl-C can strike inside of it and leave the lock taken; then
    the next thread that touches the event waits for ever. Here there is nothing to strike in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the waiter go, or the next wait return at once."""
        with contextlib.suppress(RuntimeError):
            # It was set already.
            self._lock.release()

    def clear(self) -> None:
        """Take back a ``set`` that nobody has waited for."""
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float) -> None:
        """Return when set, which is used up by that, or after ``timeout`` seconds."""
        self._lock.acquire(timeout=timeout)


class SelectorWait:
    """Waits on descriptors and calls back for those that are readable; others may add and wake meanwhile."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._selector.register(self._waker.fileno(), selectors.EVENT_READ, self._waker.clear)
        self.wake: Callable[[], None] = self._waker.wake

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """From now on call ``ready`` when ``fd`` becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ, ready)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        self._selector.unregister(fd)

    def wait(self, timeout: float | None) -> list[Callable[[], None]]:
        """What to call, after at most ``timeout`` seconds; rounds up to the millisecond."""
        return [key.data for key, _ in self._selector.select(timeout)]

    def close(self) -> None:
        """Give the descriptors back. Watched sockets are left alone: after fork they are the parent's."""
        self._selector.close()
        self._waker.close()
