"""Where handler processes come from: copies of a process that has imported the library, or else fresh interpreters.

A copy is up in milliseconds, so that a request after any number of crashes need not wait (``executors_zygote`` has the
reasons why it is safe). Where there can be none, each process is a fresh interpreter, as the zygote itself is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from reliable.executors_zygote import ENDED, FAILED, MESSAGE, READY, STARTED

__all__ = ["ChildProcess", "Origin"]

_REAP_S_MAX: Final = 5.0
_ANSWER_S_MAX: Final = 5.0
"""What a fork may take on a machine that is very busy; then a fresh interpreter is tried."""
_FAILURES_MAX: Final = 3
_PAUSE_S: Final = 0.1
"""Before another zygote, so that one which is killed over and over costs no more than it must."""

_START: Final = """\
import ctypes, os, sys
# Before all else: the imports below take a while, and the worker may be killed meanwhile.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != {parent}:
    os._exit(0)
sys.path[:] = {path!r}
from reliable.{module} import main
main({fd})
"""


def _fresh(module: str, fd: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter that runs ``main`` of one of our modules; it ends with the thread that called this."""
    code = _START.format(parent=os.getpid(), path=sys.path, module=module, fd=fd)
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=(fd,))


class ChildProcess(ABC):
    """A process of ours, from its start to its end. For one thread."""

    pidfd: int | None = None
    """Readable once it has ended; None where there are none."""

    @abstractmethod
    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""

    @abstractmethod
    def wait(self, timeout: float) -> int | None:
        """The same, once it has ended; None if it has not after so many seconds."""

    @abstractmethod
    def _send_kill(self) -> None: ...

    def kill(self) -> None:
        """End it, and wait until it has. One in an uninterruptible system call stays; nobody can change that."""
        self._send_kill()
        self.wait(_REAP_S_MAX)

    def close(self) -> None:
        """Give everything back."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class _Fresh(ChildProcess):
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        with contextlib.suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(process.pid)

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        return self._process.poll()

    def _send_kill(self) -> None:
        self._process.kill()


class _Copy(ChildProcess):
    def __init__(self, pidfd: int) -> None:
        self.pidfd: int | None = pidfd
        self.code: int | None = None
        self.ended = threading.Event()

    def end(self, code: int) -> None:
        self.code = code
        self.ended.set()

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float) -> int | None:
        self.ended.wait(timeout)
        return self.code

    def _send_kill(self) -> None:
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class _Wish:
    """A fork that was asked for."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.process: _Copy | None = None
        self.error: OSError | None = None
        self.given_up = False


class Origin:
    """Starts processes for the threads of one pool.

    The zygote ends with the thread that started it, so it has one of its own here, which also hears what it says.

    Args:
        start_timeout_s: How long the zygote may take until it can fork.
    """

    def __init__(self, start_timeout_s: float) -> None:
        self._start_timeout_s = start_timeout_s
        self._changed = threading.Condition()
        self._link: socket.socket | None = None
        """To a zygote that is ready."""
        self._failures = 0
        """Of zygotes, in a row. Too many, and none is tried any more."""
        self._closing = False
        self._stopper, self._stopped = socket.socketpair()
        self._wishes: deque[_Wish] = deque()
        self._copies: dict[int, _Copy] = {}
        self._thread = threading.Thread(target=self._live, name="reliable-zygote", daemon=True)
        self._thread.start()

    # --- for the threads of the pool --------------------------------------------------------------

    def start(self, theirs: socket.socket) -> ChildProcess:
        """A process that runs ``executors_child.main`` on this end of a pair of sockets.

        Raises:
            OSError: No process can be started.
        """
        copy = self._copy(theirs)
        return _Fresh(_fresh("executors_child", theirs.fileno())) if copy is None else copy

    def _copy(self, theirs: socket.socket) -> _Copy | None:
        """One from the zygote; None if there is no zygote."""
        wish = _Wish()
        with self._changed:
            self._changed.wait_for(
                lambda: self._link is not None or self._failures >= _FAILURES_MAX or self._closing,
                self._start_timeout_s,
            )
            if self._closing:
                raise OSError(errno.ESHUTDOWN, "the worker ends")
            if self._link is None:
                return None
            self._wishes.append(wish)
            try:
                socket.send_fds(self._link, [b"f"], [theirs.fileno()])
            except OSError:
                self._wishes.remove(wish)
                return None
        wish.answered.wait(_ANSWER_S_MAX)
        with self._changed:
            wish.given_up = wish.process is None
        if wish.process is None:
            # Not a fresh interpreter on the same sockets now: the copy may come after all.
            raise wish.error or OSError(errno.ETIMEDOUT, "no process was forked in time")
        return wish.process

    # --- the zygote's thread ----------------------------------------------------------------------

    def _live(self) -> None:
        while not self._closing and self._failures < _FAILURES_MAX:
            try:
                self._one_life()
            except OSError:
                self._failed()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, _PAUSE_S)

    def _failed(self) -> None:
        with self._changed:
            self._failures += 1
            self._changed.notify_all()

    def _one_life(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            process = _fresh("executors_zygote", theirs.fileno())
            theirs.close()
            try:
                self._hear(ours)
            finally:
                with self._changed:
                    had_link, self._link = self._link is not None, None
                    ours.close()
                self._lost(process, had_link)

    def _hear(self, link: socket.socket) -> None:
        poller = select.poll()
        poller.register(link, select.POLLIN)
        poller.register(self._stopped, select.POLLIN)
        ready_by: float | None = time.monotonic() + self._start_timeout_s
        while True:
            wait_ms = None if ready_by is None else max(0.0, ready_by - time.monotonic()) * 1000
            heard = {fd for fd, _ in poller.poll(wait_ms)}
            if self._stopped.fileno() in heard or not heard:
                return
            data, fds, _, _ = socket.recv_fds(link, MESSAGE.size, 1)
            if len(data) < MESSAGE.size:
                return
            kind, pid, number = MESSAGE.unpack(data)
            if kind == READY:
                ready_by = None
                with self._changed:
                    self._link, self._failures = link, 0
                    self._changed.notify_all()
            elif kind == ENDED:
                self._ended(pid, number)
            elif kind in (STARTED, FAILED):
                self._started(pid, number, fds)
            else:
                self._failures = _FAILURES_MAX
                return

    def _started(self, pid: int, number: int, fds: list[int]) -> None:
        with self._changed:
            wish = self._wishes.popleft()
            if fds:
                copy = self._copies[pid] = _Copy(fds[0])
                if wish.given_up:
                    copy._send_kill()
                    copy.close()
                else:
                    wish.process = copy
            else:
                wish.error = OSError(number, os.strerror(number))
            wish.answered.set()

    def _ended(self, pid: int, code: int) -> None:
        copy = self._copies.pop(pid, None)
        if copy is not None:
            copy.end(code)

    def _lost(self, process: subprocess.Popen[bytes], had_link: bool) -> None:
        """The zygote is over, or has to be; the kernel ends its children with it."""
        with self._changed:
            wishes = list(self._wishes)
            self._wishes.clear()
        # It has nothing to tidy up.
        process.kill()
        process.wait()
        for wish in wishes:
            wish.answered.set()
        for copy in self._copies.values():
            copy.end(-signal.SIGKILL)
        self._copies.clear()
        if not had_link:
            self._failed()

    # --- the end ----------------------------------------------------------------------------------

    def begin_close(self) -> None:
        """Start nothing any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """After every process has ended: end the zygote, too.

        Args:
            timeout: Seconds to wait for that.
        """
        self.begin_close()
        self._stopper.close()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._stopped.close()
