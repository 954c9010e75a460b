"""The process that handler processes are copied from: it has imported this library, and does nothing but fork.

A fresh interpreter takes a third of a second of processor time until it can import a handler; a copy of this process
takes milliseconds. It is safe to copy: it has one thread, no ZeroMQ context, and none of the worker's descriptors, for
it was started as a fresh interpreter itself. Handlers' modules are imported after the fork, by each process for itself:
what a module opens when it is imported must not be shared.

It waits for nobody's word but the worker's. Its end is the end of its children: the kernel sees to that.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Final

from reliable import executors_child

__all__ = ["ENDED", "FAILED", "MESSAGE", "READY", "STARTED", "UNFIT", "die_with", "main"]

MESSAGE: Final = struct.Struct("!Biq")
"""What it says: kind, process id, and the exit code or error number."""
READY: Final = 1
UNFIT: Final = 2
"""It has more threads than one, so that a copy might miss a lock's owner; some site hook started them."""
STARTED: Final = 3
FAILED: Final = 4
ENDED: Final = 5
_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Be killed by the kernel when the parent ends; at once if it has ended already.

    Args:
        parent: Its process id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def main(fd: int) -> None:
    """Fork whenever the worker asks, until it hangs up.

    Args:
        fd: Our end of a pair of packet sockets.
    """
    os.set_inheritable(fd, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    gc.collect()
    # What is there now is shared with every copy for as long as nobody writes to it.
    gc.freeze()
    given = _Zygote(socket.socket(fileno=fd)).serve()
    if given is not None:
        executors_child.main(given)


class _Zygote:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._selector = selectors.DefaultSelector()
        self._selector.register(link, selectors.EVENT_READ)
        self._children: dict[int, int] = {}
        """Process ids by pidfd."""

    def serve(self) -> int | None:
        """The descriptor that a child is to use, in the child; None at the end, in the zygote."""
        with contextlib.suppress(OSError):  # the worker is gone
            self._link.send(MESSAGE.pack(READY if _is_fit() else UNFIT, 0, 0))
            while True:
                for key, _ in self._selector.select():
                    if key.fd != self._link.fileno():
                        self._buried(key.fd)
                        continue
                    data, fds, _, _ = socket.recv_fds(self._link, 1, 1)
                    if not data:
                        return None
                    given = self._fork(fds[0])
                    if given is not None:
                        return given
        return None

    def _fork(self, given: int) -> int | None:
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(given)
            self._link.send(MESSAGE.pack(FAILED, 0, error.errno or 0))
            return None
        if pid == 0:
            die_with(me)
            self._selector.close()
            self._link.close()
            for pidfd in self._children:
                os.close(pidfd)
            return given
        os.close(given)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._selector.register(pidfd, selectors.EVENT_READ)
        # Before it is waited for: the number cannot belong to another process then.
        socket.send_fds(self._link, [MESSAGE.pack(STARTED, pid, 0)], [pidfd])
        return None

    def _buried(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._link.send(MESSAGE.pack(ENDED, pid, os.waitstatus_to_exitcode(status)))


def _is_fit() -> bool:
    if threading.active_count() > 1 or not hasattr(os, "pidfd_open"):
        return False
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False
