"""A broker in a process of its own that notes every gap in what it hears of each worker.

``python -m tests.support.counting_broker SETTINGS``; prints ``ready``, then a line with its figures for each line that
it reads, and ends with its standard input.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from typing import Any, Final

import msgspec

from brokers import BrokerConfig, MajordomoBroker, shell
from brokers.peers import Worker
from brokers.workers import WorkerDesk
from reliable.config import Heartbeat
from reliable.messages import read_message
from tests.support.commands import ROOT
from tests.support.farm import raise_limits
from tests.support.starvation import Starvation

__all__ = ["BrokerFigures", "BrokerSettings", "CountingBroker", "Gap"]

_ANSWER_S_MAX: Final = 30.0


class BrokerSettings(msgspec.Struct, frozen=True):
    """What it is told."""

    endpoint: str
    interval_s: float = 1.0
    intervals_s: dict[str, float] = {}
    """How often the worker of this service beats, where it is not as often as the broker."""
    one_message_per_wake_up: bool = False
    """The mistake that brokers are known for."""


class Gap(msgspec.Struct, frozen=True):
    """More than two intervals without a word."""

    service: str
    interval_s: float
    begin: float
    end: float


class BrokerFigures(msgspec.Struct, frozen=True):
    """What it counted since the last time."""

    messages: int
    """Of registered workers."""
    gaps: list[Gap]
    longest: dict[float, float]
    """The longest silence, in intervals, by interval."""
    workers: int
    stuck: int
    gone: int
    replies: int
    starved: list[tuple[float, float, float]]
    cpu_s: float
    """Processor time of this process so far."""


class _Ear:
    """Sees every message of a registered worker before the broker does."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._last: dict[bytes, float] = {}
        self.begin()

    def begin(self) -> None:
        """Forget the figures."""
        self.messages = 0
        self.gaps: list[Gap] = []
        self.longest: dict[float, float] = {}

    def heard(self, worker: Worker) -> None:
        """Something arrived."""
        now = time.monotonic()
        before, self._last[worker.peer] = self._last.get(worker.peer), now
        self.messages += 1
        if before is None:
            return
        service = worker.services[0].name.decode() if worker.services else ""
        interval_s = self._settings.intervals_s.get(service, self._settings.interval_s)
        silent = (now - before) / interval_s
        if silent > self.longest.get(interval_s, 0.0):
            self.longest[interval_s] = silent
        if silent > 2.0:
            self.gaps.append(Gap(service, interval_s, before, now))


def _listen_with(ear: _Ear) -> None:
    inner = WorkerDesk.heard

    def heard(desk: WorkerDesk, worker: Worker) -> bool:
        ear.heard(worker)
        return inner(desk, worker)

    WorkerDesk.heard = heard  # type: ignore[method-assign,assignment]


def _take_one_message_per_wake_up() -> None:
    def read_one(loop: Any) -> None:
        message = read_message(loop._socket)
        if message is not None:
            loop._engine.receive(message, time.monotonic())
        loop._empty = True

    shell._Loop._read_batch = read_one  # type: ignore[method-assign,assignment]


def _main(settings: BrokerSettings) -> None:
    raise_limits()
    ear = _Ear(settings)
    _listen_with(ear)
    if settings.one_message_per_wake_up:
        _take_one_message_per_wake_up()
    heartbeat = Heartbeat(interval_s=settings.interval_s, timeout_s=3 * settings.interval_s)
    broker = MajordomoBroker([settings.endpoint], BrokerConfig(heartbeat=heartbeat))
    broker.bind()
    starvation = Starvation()

    def answer() -> None:
        print("ready", flush=True)
        while sys.stdin.readline():
            snapshot = broker.snapshot()
            figures = BrokerFigures(
                messages=ear.messages,
                gaps=ear.gaps,
                longest=ear.longest,
                workers=len(snapshot.workers),
                stuck=snapshot.counters["workers_stuck"],
                gone=snapshot.counters["workers_gone"],
                replies=snapshot.counters["replies"],
                starved=starvation.samples,
                cpu_s=time.process_time(),
            )
            ear.begin()
            print(msgspec.json.encode(figures).decode(), flush=True)
        broker.stop(0.0)

    threading.Thread(target=answer, daemon=True).start()
    broker.run()


class CountingBroker:
    """The process, as a test sees it."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.counting_broker", msgspec.json.encode(settings).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._line() == b"ready\n"

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], _ANSWER_S_MAX)[0], "the broker does not answer"
        return self._process.stdout.readline()

    def figures(self) -> BrokerFigures:
        """Since the last time."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._line(), type=BrokerFigures, strict=False)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate(timeout=20)


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=BrokerSettings))
