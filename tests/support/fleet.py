"""Worker processes that tests kill, freeze and stop, and the file in which all of them note what they ran."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from tests.support.commands import ROOT
from tests.support.fleet_handlers import LOG_VARIABLE
from tests.support.fleet_worker import Service, Settings

__all__ = ["LONG", "Fleet", "Service", "WorkerProcess", "fleet_in", "sized"]

T = TypeVar("T")

LONG: Final = os.environ.get("RELIABLE_LONG", "") not in ("", "0")
"""Whether the long forms were asked for: what takes a second otherwise takes minutes."""
_READY_S_MAX: Final = 30.0
_END_S_MAX: Final = 20.0


def sized(short: T, long: T) -> T:
    """``long`` if ``RELIABLE_LONG`` is set."""
    return long if LONG else short


class WorkerProcess:
    """One worker."""

    def __init__(self, settings: Settings, log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), LOG_VARIABLE: str(log)}
        command = [sys.executable, "-m", "tests.support.fleet_worker", msgspec.json.encode(settings).decode()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
        self.frozen = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Until it is registered."""
        assert self.process.stdout is not None
        ready = select.select([self.process.stdout], [], [], _READY_S_MAX)[0]
        assert ready, f"the worker is not registered within {_READY_S_MAX} s"
        assert self.process.stdout.readline() == b"ready\n", f"it ended with {self.process.wait(_END_S_MAX)}"

    def kill(self) -> float:
        """SIGKILL; the moment before it."""
        at = time.monotonic()
        self.process.kill()
        return at

    def freeze(self) -> float:
        """SIGSTOP; the moment before it."""
        at = time.monotonic()
        self.process.send_signal(signal.SIGSTOP)
        return at

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(_END_S_MAX)

    def close(self) -> None:
        """End it, in whatever state it is."""
        self.process.kill()
        self.process.wait(_END_S_MAX)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Fleet:
    """All worker processes of one test.

    Args:
        log: Where they note what they run.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.log.touch()
        self._workers: list[WorkerProcess] = []

    def start(
        self,
        endpoint: str,
        *services: Service,
        shell: str = "sync",
        concurrency: int = 1,
        quick: bool = True,
        message_bytes_max: int = 0,
        ready: bool = True,
    ) -> WorkerProcess:
        """A worker; ``ready`` waits until it is registered."""
        settings = Settings(
            brokers=(endpoint,),
            services=services or (Service("job"),),
            shell=shell,
            concurrency=concurrency,
            quick=quick,
            message_bytes_max=message_bytes_max,
        )
        worker = WorkerProcess(settings, self.log)
        self._workers.append(worker)
        if ready:
            worker.wait_ready()
        return worker

    def runs(self) -> Counter[str]:
        """How often each name was run, as the workers noted it."""
        return Counter(line.split()[0] for line in self.log.read_text(encoding="ascii").splitlines())

    def ran_at(self, name: str) -> list[int]:
        """In which processes a name was run, in order."""
        lines = [line.split() for line in self.log.read_text(encoding="ascii").splitlines()]
        return [int(pid) for noted, pid in lines if noted == name]

    def close(self) -> None:
        """End all."""
        for worker in self._workers:
            worker.close()


@contextlib.contextmanager
def fleet_in(folder: Path) -> Iterator[Fleet]:
    """A fleet that is gone at the end."""
    fleet = Fleet(folder / "runs")
    try:
        yield fleet
    finally:
        fleet.close()
