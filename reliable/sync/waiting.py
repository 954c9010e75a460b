"""How a blocking shell waits: on descriptors, with a way for other threads to wake it."""

from __future__ import annotations

import selectors
from collections.abc import Callable

from reliable.transport import Waker

__all__ = ["SelectorWait"]


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
