"""A worker in a process of its own, to be killed, stopped and continued."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from chaos.process import ChildProcess
from reliable.testing.brokers import HasEndpoint, endpoint_of
from reliable.testing.waiting import END_S_MAX

__all__ = ["WorkerProcess"]

_READY: Final = "^reliable worker: ready at"
_START_S_MAX: Final = 15.0


class WorkerProcess:
    """What ``reliable worker MODULE:OBJECT`` runs, registered with a broker; a context manager that leaves nothing.

    Args:
        target: A worker or a function, as ``module:object``. Whatever this process can import, it can.
        brokers: Where to register: addresses, brokers, or proxies in front of them.
        cwd: Its working directory, where modules are looked for first; None is the present one.
        concurrency: Handlers at once; None leaves it to the worker.
        idempotent: For a function: whether it may run more than once.
        env: Variables on top of those of this process.

    Raises:
        StartFailed: It was not registered within 15 s; its last lines are in the message.
    """

    def __init__(
        self,
        target: str,
        *brokers: str | HasEndpoint,
        cwd: str | Path | None = None,
        concurrency: int | None = None,
        idempotent: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.target = target
        options: list[str] = []
        for broker in brokers:
            options += ["--broker", endpoint_of(broker)]
        if concurrency is not None:
            options += ["--concurrency", str(concurrency)]
        if idempotent is not None:
            options.append("--idempotent" if idempotent else "--not-idempotent")
        self._arguments = ["-m", "reliable", "worker", target, *options]
        self._cwd = cwd
        self._env = {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part), **(env or {})}
        self._child = self._started()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target} pid={self.pid} exit_code={self.exit_code}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its number; another one after ``start``."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._child.alive

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        return self._child.exit_code

    def output(self) -> str:
        """What it printed, the last lines at least, standard output and error together."""
        return self._child.output()

    def kill(self) -> None:
        """SIGKILL; returns when it is dead by that signal.

        Raises:
            FaultUnproven: It had already ended by itself.
        """
        self._child.kill()

    def pause(self) -> None:
        """SIGSTOP; returns when it stands still.

        Raises:
            FaultUnproven: It had ended.
        """
        self._child.pause()

    def resume(self) -> None:
        """SIGCONT; returns when it goes on.

        Raises:
            FaultUnproven: It had ended.
        """
        self._child.resume()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Standing still inside the block."""
        self.pause()
        try:
            yield
        finally:
            if self.alive:
                self.resume()

    def stop(self, timeout: float = END_S_MAX) -> int:
        """SIGTERM: running handlers finish.

        Args:
            timeout: Seconds until it must have ended.

        Returns:
            Its exit code.

        Raises:
            TimeoutError: It still runs.
        """
        return self._child.terminate(timeout)

    def start(self) -> None:
        """Start it again after its end, registered when this returns. Nothing if it runs.

        Raises:
            StartFailed: It was not registered within 15 s.
        """
        if not self.alive:
            self._child.close()
            self._child = self._started()

    def close(self) -> None:
        """Kill it, if it runs, and all that it started."""
        self._child.close()

    def _started(self) -> ChildProcess:
        return ChildProcess.python(
            *self._arguments,
            name=f"worker {self.target}",
            ready=_READY,
            ready_timeout_s=_START_S_MAX,
            env=self._env,
            cwd=self._cwd,
        )
