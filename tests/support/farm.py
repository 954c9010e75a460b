"""Very many worker engines in one process, each with a connection of its own.

``python -m tests.support.farm SETTINGS``; prints a line with its figures when all engines are registered, then one for
each line that it reads; ends with its standard input.
"""

from __future__ import annotations

import heapq
import os
import random
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import attrs
import msgspec
import zmq

from reliable.config import Backoff, Heartbeat, TransportConfig, WorkerConfig
from reliable.driver import Driver
from reliable.engine.worker import WorkerEngine
from reliable.protocol.events import CancelJob, JobFinished, StartJob, WorkerEffect, WorkerEvent
from reliable.sync.waiting import SelectorWait
from reliable.transport import LinkTable
from reliable.wire.extension import ServiceOffer
from tests.support.commands import ROOT
from tests.support.starvation import Starvation

__all__ = ["Farm", "FarmFigures", "FarmSettings", "raise_limits", "service_of"]

_SOCKETS_PER_ENGINE: Final = 4
_READY_S_MAX: Final = 60.0


def raise_limits() -> int:
    """Let this process open as many descriptors as it may; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def service_of(number: int) -> str:
    """The service that this engine alone offers."""
    return f"engine-{number}"


class FarmSettings(msgspec.Struct, frozen=True):
    """What a farm is told."""

    endpoint: str
    first: int
    """Number of its first engine."""
    engines: int
    interval_s: float = 1.0
    broker_interval_s: float = 1.0
    transport_interval_s: float = 1.0
    held: bool = False
    """Whether the engines wait for ``Farm.begin`` before they connect."""


class FarmFigures(msgspec.Struct, frozen=True):
    """What a farm counts, over all its engines."""

    registered: int
    """Registered now."""
    registrations: int
    """Ever."""
    ready_at: tuple[float, float]
    """Readings of the monotonic clock at which the first and the last engine was registered, newest registrations."""
    heartbeats_sent: int
    served: int
    brokers_silent: int
    disconnects: int
    slow_beats: list[tuple[int, float, float]]
    """Pauses of more than 1.5 intervals between two things that an engine said, with its number: what follows from
    them is not the receiver's fault."""
    broker_gaps: list[tuple[int, float, float]]
    """Silences of the broker of more than two of its intervals, with the number of the engine."""
    broker_longest: float
    """The longest, in intervals."""
    starved: list[tuple[float, float, float]]


class _SharedLinks(LinkTable):
    """Links whose sockets are in a context that others use, too: a context is two threads."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], config: TransportConfig, watcher: _Watcher) -> None:
        super().__init__(config, watcher, lambda: None, message_bytes_max=1 << 20)
        own, self._context = self._context, context
        own.term()


class _Watcher:
    """Notes which engine has something to read."""

    def __init__(self, wait: SelectorWait, awake: Callable[[], None]) -> None:
        self._wait, self._awake = wait, awake
        self.unwatch = wait.unwatch

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """As a selector does, and wake the engine."""

        def both() -> None:
            ready()
            self._awake()

        self._wait.watch(fd, both)


@attrs.define(eq=False)
class _Plot:
    """One engine and what it needs."""

    engine: WorkerEngine
    links: LinkTable
    driver: Driver[WorkerEvent, WorkerEffect]
    due: float = 0.0
    beats: int = 0
    said_at: float = 0.0
    heard_at: float = 0.0
    registrations: int = 0
    ready_at: float = 0.0


class _Field:
    """All engines of the process, and one loop for them."""

    def __init__(self, settings: FarmSettings) -> None:
        raise_limits()
        self._settings = settings
        self._wait = SelectorWait()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, settings.engines * _SOCKETS_PER_ENGINE + 16)
        self._awake: dict[int, None] = {}
        self._heap: list[tuple[float, int]] = []
        self._served = 0
        self._slow_beats: list[tuple[int, float, float]] = []
        self._broker_gaps: list[tuple[int, float, float]] = []
        self._broker_longest_s = 0.0
        self._starvation = Starvation()
        self._plots = [self._plot(number) for number in range(settings.engines)]

    def _plot(self, index: int) -> _Plot:
        interval_s = self._settings.interval_s
        number = self._settings.first + index
        transport = TransportConfig(
            heartbeat_interval_s=self._settings.transport_interval_s,
            heartbeat_timeout_s=3 * self._settings.transport_interval_s,
        )
        config = WorkerConfig(
            heartbeat=Heartbeat(interval_s=interval_s, timeout_s=max(3 * interval_s, 3.0)),
            reconnect=Backoff(initial_s=0.1, delay_s_max=1.0),
            transport=transport,
        )
        rng = random.Random(number)
        engine = WorkerEngine(
            [self._settings.endpoint],
            [ServiceOffer(service_of(number).encode())],
            config,
            instance=os.urandom(16),
            jitter=rng.random,
        )
        watcher = _Watcher(self._wait, lambda: self._awake.__setitem__(index, None))
        links = _SharedLinks(self._context, transport, watcher)

        def perform(effect: WorkerEffect) -> None:
            if isinstance(effect, StartJob):
                self._served += 1
                plot.driver.handle(JobFinished(effect.job, [b"%d" % number]))
            else:
                assert isinstance(effect, CancelJob), effect

        driver: Driver[WorkerEvent, WorkerEffect] = Driver(engine, links, perform, time.monotonic)
        plot = _Plot(engine, links, driver)
        return plot

    def run(self) -> None:
        """Until standard input ends."""
        stdin = sys.stdin.fileno()
        asked: list[None] = []
        self._wait.watch(stdin, lambda: asked.append(None))
        if self._settings.held:
            print("held", flush=True)
            os.read(stdin, 4096)
        for index, plot in enumerate(self._plots):
            plot.engine.start(time.monotonic())
            self._turn(index)
        told = False
        while True:
            due = self._heap[0][0] if self._heap else time.monotonic() + 1.0
            for callback in self._wait.wait(max(0.0, due - time.monotonic())):
                callback()
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                due, index = heapq.heappop(self._heap)
                if self._plots[index].due == due:
                    self._awake[index] = None
            awake, self._awake = self._awake, {}
            for index in awake:
                self._turn(index)
            if not told and all(plot.engine.registered for plot in self._plots):
                told = True
                self._tell()
            if asked:
                asked.clear()
                if not os.read(stdin, 4096):
                    return
                self._tell()

    def _turn(self, index: int) -> None:
        plot = self._plots[index]
        plot.driver.turn()
        self._note(index, plot)
        wait_s = plot.driver.wait_s()
        plot.due = time.monotonic() + (1.0 if wait_s is None else wait_s)
        heapq.heappush(self._heap, (plot.due, index))

    def _note(self, index: int, plot: _Plot) -> None:
        """How regular its heartbeats are, and those of the broker; idle engines say and hear nothing else."""
        counters, now = plot.engine.counters, time.monotonic()
        silent_s = plot.engine.snapshot().brokers[0].last_heard_s
        if not plot.engine.registered or silent_s is None:
            return
        number, heard_at = self._settings.first + index, now - silent_s
        if counters.registrations != plot.registrations:
            plot.registrations = counters.registrations
            plot.ready_at = plot.said_at = plot.heard_at = now
        if counters.heartbeats_sent != plot.beats:
            plot.beats = counters.heartbeats_sent
            if now - plot.said_at > 1.5 * self._settings.interval_s:
                self._slow_beats.append((number, plot.said_at, now))
            plot.said_at = now
        if heard_at > plot.heard_at + 0.001:
            gap_s, interval_s = heard_at - plot.heard_at, self._settings.broker_interval_s
            self._broker_longest_s = max(self._broker_longest_s, gap_s)
            if gap_s > 2 * interval_s:
                self._broker_gaps.append((number, plot.heard_at, heard_at))
            plot.heard_at = heard_at

    def _tell(self) -> None:
        counters = [plot.engine.counters for plot in self._plots]
        ready = [plot.ready_at for plot in self._plots]
        figures = FarmFigures(
            registered=sum(plot.engine.registered for plot in self._plots),
            registrations=sum(each.registrations for each in counters),
            ready_at=(min(ready), max(ready)),
            heartbeats_sent=sum(each.heartbeats_sent for each in counters),
            served=self._served,
            brokers_silent=sum(each.brokers_silent for each in counters),
            disconnects=sum(each.disconnects_received for each in counters),
            slow_beats=self._slow_beats,
            broker_gaps=self._broker_gaps,
            broker_longest=self._broker_longest_s / self._settings.broker_interval_s,
            starved=self._starvation.samples,
        )
        print(msgspec.json.encode(figures).decode(), flush=True)


class Farm:
    """A farm in a process of its own, as a test sees it."""

    def __init__(self, settings: FarmSettings) -> None:
        self.settings = settings
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.farm", msgspec.json.encode(settings).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def begin(self) -> None:
        """Let engines that were held connect."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def wait_held(self) -> None:
        """Until all engines are made."""
        assert self._line(_READY_S_MAX) == b"held\n"

    def wait_ready(self, wait_s_max: float = _READY_S_MAX) -> FarmFigures:
        """Its figures when all engines are registered for the first time."""
        return msgspec.json.decode(self._line(wait_s_max), type=FarmFigures)

    def _line(self, wait_s_max: float) -> bytes:
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], wait_s_max)[0]
        assert ready, f"not all engines are there within {wait_s_max} s"
        line = self._process.stdout.readline()
        assert line, f"the farm ended with {self._process.wait(10)}"
        return line

    def figures(self) -> FarmFigures:
        """Its figures now."""
        self.begin()
        return self.wait_ready()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate(timeout=20)


if __name__ == "__main__":
    _Field(msgspec.json.decode(sys.argv[1], type=FarmSettings)).run()
