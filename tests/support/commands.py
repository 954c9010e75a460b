"""Runs the command line as its users do: in processes of their own, every wait with an end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "WAIT_S_MAX", "Running", "only_line", "run_command", "running"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
WAIT_S_MAX: Final = 40.0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}


def run_command(
    *arguments: str, module: str = "reliable", stdin: bytes = b"", cwd: Path = ROOT, wait_s_max: float = WAIT_S_MAX
) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m reliable …`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=stdin,
        capture_output=True,
        timeout=wait_s_max,
        cwd=cwd,
        env=_environment(),
        check=False,
    )


def only_line(output: bytes) -> str:
    """The one line that was printed."""
    lines = output.decode().splitlines()
    assert len(lines) == 1, f"expected one line, got {lines}"
    return lines[0]


class Running:
    """A command that goes on until it is stopped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._unread = b""

    def line(self, wait_s_max: float = WAIT_S_MAX) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        end = time.monotonic() + wait_s_max
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(left, 0))[0] if left > 0 else []
            assert ready, f"no line within {wait_s_max} s; so far {self._unread!r}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"its output ended, exit code {self.process.poll()}: {self.errors()!r}"
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S_MAX)

    def errors(self) -> str:
        """Standard error of a process that has ended or is about to."""
        self.process.wait(WAIT_S_MAX)
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextmanager
def running(*arguments: str, module: str = "reliable", cwd: Path = ROOT) -> Iterator[Running]:
    """Start ``python -m reliable …``; it is gone when the block ends."""
    process = _start(arguments, module, cwd)
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S_MAX)


def _start(arguments: Sequence[str], module: str, cwd: Path) -> subprocess.Popen[bytes]:
    """The bare process, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=_environment(),
    )
