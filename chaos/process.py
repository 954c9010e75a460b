"""Real child processes as things to break: started, killed, paused and resumed, each with proof and within a bound.

A child gets a session of its own, so that signals reach it and what it started, and nothing else. It is not reaped
before ``close``: until then its number cannot be given to another process, and a signal sent late hits nobody else.
Its output is read all the time, so that a full pipe never stops it, and the last lines are kept for error messages.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chaos.injection import FaultUnproven
from reliable.errors import ReliableError

__all__ = ["ChildProcess", "StartFailed"]

_LINES_KEPT = 2_000
_LINE_BYTES_MAX = 65_536
_SIGNAL_TIMEOUT_S = 5.0
_POLL_S_MAX = 0.05
_LAST_WORDS_S = 0.5

_open_children: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


class StartFailed(ReliableError):
    """The child ended, or said nothing that shows readiness, within the time it had."""


class ChildProcess:
    """One running program; a context manager that leaves nothing behind.

    Args:
        argv: Program and arguments.
        name: How messages call it; the program's own name by default.
        ready: A regular expression; the constructor returns when a line of output matches it. None: at once.
        ready_timeout_s: Seconds the child has for that line.
        env: Variables on top of those of this process.
        cwd: Its working directory.
    Raises:
        StartFailed: It was not ready in time; it has been killed, and its last lines are in the message.
        OSError: The program cannot be run.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        ready: str | None = None,
        ready_timeout_s: float = 15.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        command = [str(part) for part in argv]
        if shutil.which(command[0], path=(env or {}).get("PATH")) is None:
            # Said here, as with a helper program in front a wrong name would only show as its exit code.
            raise FileNotFoundError(f"cannot run {command[0]}")
        self.name = name or Path(command[0]).name
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._news = threading.Condition()
        self._output_ended = False
        self._exit_code: int | None = None
        self._closed = False
        self._popen = subprocess.Popen(
            [*_die_with_parent(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        _open_children.add(self)
        assert self._popen.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._popen.stdout,), name=f"output of {self.name}", daemon=True
        )
        self._reader.start()
        if ready is not None:
            self._await_ready(ready, ready_timeout_s)

    @classmethod
    def python(
        cls,
        *args: str | Path,
        name: str = "",
        ready: str | None = None,
        ready_timeout_s: float = 15.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> ChildProcess:
        """Run this very interpreter with ``args``, for instance ``"-m", "brokers", "majordomo"``."""
        argv = [sys.executable, *args]
        return cls(argv, name=name, ready=ready, ready_timeout_s=ready_timeout_s, env=env, cwd=cwd)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self.pid} exit_code={self.exit_code}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Number of the process, and of its process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        if self._exit_code is None:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                self._exit_code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return self._exit_code

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self.exit_code is None

    def output(self) -> str:
        """What it printed, the last lines at least, standard output and error together; all of it once it has ended."""
        ended = not self.alive
        with self._news:
            if ended:
                # Its last words may still be on their way. What it started may hold the pipe open, so not for long.
                self._news.wait_for(lambda: self._output_ended, _LAST_WORDS_S)
            return "\n".join(self._lines)

    def wait_line(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """The first line of output kept so far, or printed within ``timeout_s``, in which ``pattern`` is found.

        Raises:
            StartFailed: It ended, or the time ran out, without such a line.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                found = next((match for line in self._lines if (match := wanted.search(line))), None)
                if found is not None:
                    return found
                remaining_s = deadline - time.monotonic()
                if self._output_ended or remaining_s <= 0:
                    break
                self._news.wait(remaining_s)
        why = "ended" if self._output_ended else f"was given {timeout_s:g} s"
        raise StartFailed(f"{self.name} {why} without a line matching {pattern!r}:\n{self._tail()}")

    def wait(self, timeout_s: float) -> int:
        """Its exit code, as soon as it ends.

        Raises:
            TimeoutError: It still runs after ``timeout_s``.
        """
        if not _until(lambda: not self.alive, timeout_s):
            raise TimeoutError(f"{self.name} still runs after {timeout_s:g} s")
        code = self.exit_code
        assert code is not None
        return code

    def kill(self) -> None:
        """SIGKILL to it and to what it started; returns when it is dead by that signal.

        Raises:
            FaultUnproven: It had already ended by itself.
        """
        self._signal(signal.SIGKILL)
        code = self.wait(_SIGNAL_TIMEOUT_S)
        if code != -signal.SIGKILL:
            raise FaultUnproven(f"{self.name} was to be killed but ended with {code}:\n{self._tail()}")

    def terminate(self, timeout_s: float) -> int:
        """SIGTERM to the child alone; its exit code once it has ended.

        Raises:
            TimeoutError: It still runs after ``timeout_s``.
        """
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
        return self.wait(timeout_s)

    def pause(self) -> None:
        """SIGSTOP to it and to what it started; returns when it stands still.

        Raises:
            FaultUnproven: It had ended, or never stood still.
        """
        self._signal(signal.SIGSTOP)
        flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        self._prove(lambda: os.waitid(os.P_PID, self.pid, flags) is not None, "stand still")

    def resume(self) -> None:
        """SIGCONT after ``pause``; returns when it goes on.

        Raises:
            FaultUnproven: It had ended, or did not go on.
        """
        self._signal(signal.SIGCONT)
        flags = os.WCONTINUED | os.WNOHANG
        self._prove(lambda: os.waitid(os.P_PID, self.pid, flags) is not None, "go on")

    def close(self) -> None:
        """Kill it and what it started, if anything is left of them; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        # The group may outlive its leader; as the leader is not reaped yet, the group's number is still ours.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _until(lambda: not self.alive, _SIGNAL_TIMEOUT_S)
        self._popen.wait(_SIGNAL_TIMEOUT_S)
        self._reader.join(_SIGNAL_TIMEOUT_S)
        if self._popen.stdout is not None and not self._reader.is_alive():
            self._popen.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self.alive:
            raise FaultUnproven(f"{self.name} had already ended with {self.exit_code}:\n{self._tail()}")
        os.killpg(self.pid, number)

    def _prove(self, happened: Callable[[], bool], what: str) -> None:
        if not _until(happened, _SIGNAL_TIMEOUT_S):
            raise FaultUnproven(f"{self.name} (exit code {self.exit_code}) did not {what} in {_SIGNAL_TIMEOUT_S:g} s")

    def _await_ready(self, ready: str, timeout_s: float) -> None:
        try:
            self.wait_line(ready, timeout_s)
        except BaseException:
            self.close()
            raise

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(_LINE_BYTES_MAX):
            with self._news:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._output_ended = True
            self._news.notify_all()

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-20:])


def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _POLL_S_MAX)
    return True


def _die_with_parent() -> list[str]:
    """A prefix that makes the kernel kill the child should this process die without a goodbye.

    The kernel binds the child to the *thread* that started it, so only the main thread asks for it: another one may end
    long before the process does. A function run between fork and exec could do without the helper program, but is not
    safe in a process with threads.
    """
    helper = shutil.which("setpriv")
    if helper is None or threading.current_thread() is not threading.main_thread():
        return []
    return [helper, "--pdeathsig", "KILL", "--"]


@atexit.register
def _close_all() -> None:
    for child in list(_open_children):
        child.close()
