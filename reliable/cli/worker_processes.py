"""Keeps the worker processes of ``reliable worker --processes N`` and ``--reload``.

* A process that dies unexpectedly is replaced: at once after it had lived for a while, later and later otherwise.
* One that ended by itself, drained, stays away; and what cannot even be loaded at first is not tried again.
* A signal is passed on, and so is the second one. Whoever does not end in time is killed.
* No process outlives this one: Linux kills them with it, elsewhere they notice that their standard input ends.

They are in process groups of their own: Ctrl-C must reach them once, through us, since twice means at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import random
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import click

import reliable
from reliable.cli.exits import one_line
from reliable.cli.processes import watch_stdin
from reliable.config import Backoff
from reliable.status import ExitCode

__all__ = ["Processes", "die_with", "tell_loaded"]

_RESTART: Final = Backoff(initial_s=0.5, delay_s_max=30.0)
_LIVED_S: Final = 10.0
"""A process that ran for so long was well: its end is not counted with earlier ones."""
_UNTOLD_DRAIN_S: Final = 10.0
_CLOSE_S: Final = 5.0
"""What a process gets beyond its drain, to be gone."""
_NOW_S: Final = 3.0
"""What it gets after the second signal."""
_PR_SET_PDEATHSIG: Final = 1
_SIGNAL_BASE: Final = 128
"""What a shell adds to the number of the signal that a program died of."""


# --- in the child ---------------------------------------------------------------------------------


def die_with(parent: int) -> None:
    """From now on this process ends when the one that started it does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ExitCode.OK)


def tell_loaded(fd: int, drain_s: float) -> None:
    """Tell the parent that the target could be loaded, and how long a drain may take."""
    with contextlib.suppress(OSError):  # the parent is gone, and so are we in a moment
        os.write(fd, b"%f\n" % drain_s)
    os.close(fd)


# --- in the parent --------------------------------------------------------------------------------


class _Life:
    """One process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, told: int, loaded: Callable[[], None]) -> None:
        self._process = process
        self._told = told
        self._on_loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._killers: list[asyncio.TimerHandle] = []
        self._drain_s = _UNTOLD_DRAIN_S
        self.loaded = False
        self.asked = False
        """It was told to end."""
        self._loop.add_reader(told, self._hear)

    @classmethod
    async def start(cls, arguments: Sequence[str], loaded: Callable[[], None]) -> _Life:
        """Start ``reliable worker`` with these arguments.

        Raises:
            OSError: The system has no room for it.
        """
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "reliable", "worker"),
                *("--stop-on-eof", f"--supervised={os.getpid()}:{theirs}", *arguments),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(theirs,),
                process_group=0,
                env=_environment(),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours, loaded)

    def _hear(self) -> None:
        data = os.read(self._told, 64)
        with contextlib.suppress(ValueError):  # empty, if it ended without a word
            self._drain_s = float(data)
            self.loaded = True
        self._hang_up()
        if self.loaded:
            self._on_loaded()

    def _hang_up(self) -> None:
        if self._told >= 0:
            self._loop.remove_reader(self._told)
            os.close(self._told)
            self._told = -1

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lived(self) -> bool:
        """Whether it was well for a while."""
        return self.loaded and self._loop.time() - self._began >= _LIVED_S

    def ask(self, *, now: bool = False) -> None:
        """Tell it to end: drained, or at once if it was asked before. It is killed if it does not."""
        self.asked = True
        limit_s = _NOW_S if now else self._drain_s + _CLOSE_S
        self._killers.append(self._loop.call_later(limit_s, self._send, signal.SIGKILL))
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self) -> int:
        """Its exit code, when it has ended; a signal counts as in a shell."""
        try:
            code = await self._process.wait()
        finally:
            for killer in self._killers:
                killer.cancel()
            self._hang_up()
        if self.asked and code == -signal.SIGTERM:
            return ExitCode.OK  # asked before it could do anything
        return _SIGNAL_BASE - code if code < 0 else code


class Processes:
    """Runs a number of worker processes until they are told to end.

    Args:
        arguments: Of ``reliable worker``, for each.
        count: How many.
        watching: Reports changed files to the function it is given, until cancelled; every report replaces all
            processes. None: nothing is watched.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        count: int,
        watching: Callable[[Callable[[Sequence[str]], None]], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._arguments = arguments
        self._count = count
        self._watching = watching
        self._lives: set[_Life] = set()
        self._signals = 0
        self._stopping = asyncio.Event()
        self._loadable = asyncio.Event()
        """Some process could load the target, so that more of them make sense."""
        self._changed = asyncio.Event()
        """Set for a moment: whoever waits goes on."""
        self._edition = 0
        """How often files changed."""
        self._code = int(ExitCode.OK)

    async def run(self, *, stop_on_eof: bool = False) -> int:
        """Until all have ended; the highest of their exit codes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if stop_on_eof:
            watch_stdin(functools.partial(self._stop_from_anywhere, loop))
        watch = asyncio.create_task(self._watching(self._reload)) if self._watching is not None else None
        if watch is not None:
            watch.add_done_callback(self._watch_ended)
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(self._count):
                    group.create_task(self._keep(place))
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.wait([watch])
        return self._code

    def _stop_from_anywhere(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Drain; the second time, end at once."""
        self._signals += 1
        self._stopping.set()
        self._loadable.set()
        for life in self._lives:
            life.ask(now=self._signals > 1)

    def _watch_ended(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled() and (error := watch.exception()) is not None:
            click.echo(f"reliable worker: files cannot be watched: {one_line(str(error))}", err=True)
            self._code = max(self._code, ExitCode.FAILURE)
            self.stop()

    def _reload(self, paths: Sequence[str]) -> None:
        if self._stopping.is_set():
            return
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        click.echo(f"reliable worker: {paths[0]}{more} changed; starting again", err=True)
        self._edition += 1
        self._changed.set()
        self._changed.clear()
        for life in self._lives:
            if not life.asked:
                life.ask()

    async def _keep(self, place: int) -> None:
        """One place, with one process at a time."""
        if place > 0:
            await self._loadable.wait()
        deaths, code = 0, int(ExitCode.OK)
        while not self._stopping.is_set():
            code, life = await self._one_life()
            if self._stopping.is_set():
                break
            if life is not None and life.asked:
                deaths = 0
                continue
            if life is not None and code in (ExitCode.OK, ExitCode.TIMEOUT):
                break
            if not self._loadable.is_set() and code < _SIGNAL_BASE and self._watching is None:
                # It has said why, and the next one would say the same.
                self.stop()
                break
            deaths = 1 if life is not None and life.lived else deaths + 1
            await self._pause(life, code, deaths)
        self._code = max(self._code, code)

    async def _one_life(self) -> tuple[int, _Life | None]:
        """Start a process and stay with it; its exit code, and itself unless it could not be started."""
        edition = self._edition
        try:
            life = await _Life.start(self._arguments, self._loadable.set)
        except OSError as error:
            click.echo(f"reliable worker: a process cannot be started: {error}", err=True)
            return ExitCode.FAILURE, None
        self._lives.add(life)
        if self._stopping.is_set():
            life.ask(now=self._signals > 1)
        elif self._edition != edition:
            life.ask()
        try:
            return await life.end(), life
        finally:
            self._lives.discard(life)

    async def _pause(self, life: _Life | None, code: int, deaths: int) -> None:
        """Wait before the next start: for the backoff, or, where files are watched, for a change too."""
        broken = self._watching is not None and life is not None and not life.loaded and code < _SIGNAL_BASE
        delay_s = _RESTART.delay_s(deaths - 1, random.random()) if deaths > 1 else 0.0
        soon = f"another one starts in {delay_s:.1f} s" if delay_s > 0 else "another one starts"
        then = "waiting for a change" if broken else soon
        if life is not None:
            click.echo(f"reliable worker: process {life.pid} ended, {_how(code)}; {then}", err=True)
        events = [asyncio.create_task(event.wait()) for event in (self._stopping, self._changed)]
        await asyncio.wait(events, timeout=None if broken else delay_s, return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()


def _how(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"signal {code - _SIGNAL_BASE} ({signal.Signals(code - _SIGNAL_BASE).name})"
    return f"exit code {code}"


def _environment() -> dict[str, str]:
    """Ours, with the place this package was imported from: the children must run the same code."""
    place = str(Path(reliable.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": place if not inherited else os.pathsep.join([place, inherited])}
