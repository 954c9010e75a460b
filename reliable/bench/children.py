"""The processes that a benchmark starts: each answers one line of JSON with another, and ends when its input does.

A child is in a process group of its own, so that Ctrl-C on the terminal reaches the command alone, which then ends the
children. If the command is killed, their input ends, and so do they.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

import reliable
from reliable.errors import ReliableError

__all__ = ["READY_S_MAX", "Child", "ChildFailed"]

READY_S_MAX: Final = 60.0
"""A child that is not ready after so long never will be."""
_END_S_MAX: Final = 5.0


class ChildFailed(ReliableError):
    """A process of a benchmark could not do its part; the text has what it said."""


class Child:
    """One ``python -m reliable.bench.child ROLE`` process.

    Args:
        role: What it is; see ``reliable.bench.child``.
        arguments: What the role takes, as JSON can say it.
    """

    def __init__(self, role: str, **arguments: Any) -> None:
        self.role = role
        self._unread = b""
        command = [sys.executable, "-m", "reliable.bench.child", role, msgspec.json.encode(arguments).decode()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), process_group=0
        )
        self._facts: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ready(self) -> dict[str, Any]:
        """Wait until it is ready.

        Returns:
            What it says of itself: mostly ``url``, where it listens.

        Raises:
            ChildFailed: It ended, failed, or is not ready in time.
        """
        if self._facts is None:
            self._facts = self.answer(READY_S_MAX)
        return self._facts

    @property
    def url(self) -> str:
        """Where it listens; waits until it is ready."""
        return str(self.ready()["url"])

    def tell(self, **command: Any) -> None:
        """Give it something to do; ``answer`` says what came of it."""
        self.ready()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildFailed(f"the process {self.role!r} is gone") from error

    def answer(self, seconds_max: float) -> dict[str, Any]:
        """Wait for its next line.

        Raises:
            ChildFailed: It ended, failed, or says nothing for so long.
        """
        found: dict[str, Any] = msgspec.json.decode(self._line(seconds_max))
        if "error" in found:
            raise ChildFailed(f"the process {self.role!r} failed: {found['error']}")
        return found

    def ask(self, seconds_max: float = READY_S_MAX, **command: Any) -> dict[str, Any]:
        """``tell`` and ``answer``."""
        self.tell(**command)
        return self.answer(seconds_max)

    def _line(self, seconds_max: float) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + seconds_max
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(end - time.monotonic(), 0)):
                    raise ChildFailed(f"the process {self.role!r} said nothing for {seconds_max:g} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 20)
                if not chunk:
                    raise ChildFailed(f"the process {self.role!r} ended")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """End it. A second time does nothing."""
        assert self._process.stdin is not None and self._process.stdout is not None
        # It may be gone already, with our last line unread.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S_MAX)
        finally:
            # Also at a second Ctrl-C: it must not stay. One that has ended is left alone.
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def _environment() -> dict[str, str]:
    """Ours, with the place this package was imported from: the children must run the same code."""
    place = str(Path(reliable.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": place if not inherited else os.pathsep.join([place, inherited])}
