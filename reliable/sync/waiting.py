"""How a blocking shell waits: on descriptors, with a way for other threads to wake it."""

from __future__ import annotations

import math
import select
import selectors
import threading
from collections.abc import Callable
from typing import Protocol

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
        try:  # noqa: SIM105 - a context manager takes four times as long, twice per call
            self._lock.release()
        except RuntimeError:
            pass  # it was set already

    def clear(self) -> None:
        """Take back a ``set`` that nobody has waited for."""
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float) -> None:
        """Return when set, which is used up by that, or after ``timeout`` seconds."""
        self._lock.acquire(timeout=timeout)


class SelectorWait:
    """Waits on descriptors and calls back for those that are readable; others may add and wake meanwhile."""

    def __init__(self) -> None:
        self._poll = _poller()
        self._ready: dict[int, Callable[[], None]] = {}
        self._waker = Waker()
        self.watch(self._waker.fileno(), self._waker.clear)
        self.wake: Callable[[], None] = self._waker.wake

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """From now on call ``ready`` when ``fd`` becomes readable."""
        self._poll.register(fd)
        self._ready[fd] = ready

    def unwatch(self, fd: int) -> None:
        """No longer."""
        self._poll.unregister(fd)
        del self._ready[fd]

    def wait(self, timeout: float | None) -> list[Callable[[], None]]:
        """What to call, after at most ``timeout`` seconds; rounds up to the millisecond."""
        found = []
        for fd, _ in self._poll.wait(timeout):
            ready = self._ready.get(fd)
            # Another thread may have unwatched one that has just become readable.
            if ready is not None:
                found.append(ready)
        return found

    def close(self) -> None:
        """Give the descriptors back. Watched sockets are left alone: after fork they are the parent's."""
        self._poll.close()
        self._waker.close()


class _Poller(Protocol):
    def register(self, fd: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def wait(self, timeout: float | None) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class _Epoll:
    """The selectors module costs more than the system call does."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._size = 1

    def register(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._size += 1

    def unregister(self, fd: int) -> None:
        self._size -= 1
        self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is None or timeout == math.inf:
            timeout = -1
        return self._epoll.poll(timeout, self._size)

    def close(self) -> None:
        self._epoll.close()


class _Selector:
    """Where there is no epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return [(key.fd, mask) for key, mask in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


def _poller() -> _Poller:
    return _Epoll() if hasattr(select, "epoll") else _Selector()
