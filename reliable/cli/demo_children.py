"""The demo's child processes: started, awaited, killed, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import reliable
from reliable.cli.exits import CommandFailed, one_line

__all__ = ["Child"]

_READY_S_MAX: Final = 20.0
_DEATH_S_MAX: Final = 5.0


class Child:
    """One ``reliable …`` process.

    It is in a process group of its own, so that Ctrl-C on the terminal reaches the demo alone. Its standard input is a
    pipe from us: if the demo dies without a clean-up, the input ends and the child stops by itself (and the kernel
    continues a frozen one, since its group is orphaned then).
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=5)
        self._ready = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Process id, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and wait for its readiness line.

        Raises:
            CommandFailed: It ended, or said nothing in time.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "reliable",
            *self._arguments,
            "--stop-on-eof",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            process_group=0,
        )
        assert process.stdout is not None and process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, ready=True)),
            asyncio.create_task(self._read(process.stderr, ready=False)),
        ]
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ended, ready}, timeout=_READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.is_set():
                what = f"ended with {process.returncode}" if ended.done() else f"is not ready after {_READY_S_MAX} s"
                raise CommandFailed(f"{self.name} {what}: {one_line(' '.join(self._tail))}")
        finally:
            ended.cancel()
            ready.cancel()

    async def _read(self, stream: asyncio.StreamReader, ready: bool) -> None:
        while line := await stream.readline():
            self._tail.append(line.decode(errors="replace"))
            if ready:
                self._ready.set()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone already."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def freeze(self) -> None:
        """SIGSTOP, and see it stop.

        Raises:
            CommandFailed: It did not.
        """
        self.send_signal(signal.SIGSTOP)
        for _ in range(100):
            # Looks without taking the news away from asyncio's own wait for its end.
            # It does not block either: WNOHANG.
            if os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:  # noqa: ASYNC222
                return
            await asyncio.sleep(0.01)
        raise CommandFailed(f"{self.name} could not be frozen")

    async def kill(self) -> None:
        """SIGKILL, and see it die. A second time does nothing."""
        if self._process is None:
            return
        self.send_signal(signal.SIGKILL)
        async with asyncio.timeout(_DEATH_S_MAX):
            await self._process.wait()
            await asyncio.gather(*self._readers, return_exceptions=True)


def _environment() -> dict[str, str]:
    """Ours, with the place this package was imported from: the children must run the same code."""
    place = str(Path(reliable.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": place if not inherited else os.pathsep.join([place, inherited])}
