"""The demo's calls: every file hashed by a worker and here, with a few dozen calls in flight."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from reliable import AsyncClient
from reliable.cli.demo_report import CallRecord
from reliable.engine.observe import AttemptStarted, CallEnded, FailedOver
from reliable.errors import ReliableError
from reliable.types import Frames

__all__ = ["CALL_TIMEOUT_S", "IN_FLIGHT", "Load", "LoopLag", "Watcher", "source_files"]

IN_FLIGHT: Final = 48
CALL_TIMEOUT_S: Final = 15.0
_NEVER_S: Final = 5.0
"""How long past its deadline a call is waited for before it counts as one that never ends."""
_RUN_S_MAX: Final = 150.0
"""No further call is begun after that."""
_LAG_STEP_S: Final = 0.02
_BUSY_CALLS: Final = 8
_FOREIGN_FOLDERS: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})


def source_files(seed: int, files_max: int | None) -> tuple[Path, list[Path]]:
    """The standard library's folder and its Python files, or ``files_max`` of them, chosen by the seed."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path
        for path in root.rglob("*.py")
        if path.is_file() and _FOREIGN_FOLDERS.isdisjoint(path.relative_to(root).parts)
    )
    if files_max is not None and files_max < len(files):
        files = sorted(random.Random(seed).sample(files, files_max))
    return root, files


class Watcher:
    """An observer of the client: which calls were repeated or moved, and which broker is in use."""

    def __init__(self, first_broker: str) -> None:
        self.broker_in_use = first_broker
        self._repeated: set[bytes] = set()
        self._moved: set[bytes] = set()

    def __call__(self, observation: object, /) -> None:
        match observation:
            case AttemptStarted():
                self.broker_in_use = observation.broker
                if observation.attempt > 1:
                    self._repeated.add(observation.call_id)
            case CallEnded() if observation.attempts > 1:
                self._repeated.add(observation.call_id)
            case FailedOver():
                self._moved.add(observation.call_id)
            case _:
                pass

    @property
    def retried(self) -> int:
        """Calls that took more than one attempt so far."""
        return len(self._repeated)

    @property
    def failed_over(self) -> int:
        """Calls with attempts at more than one broker so far."""
        return len(self._moved)


class LoopLag:
    """How late the event loop of the demo itself was: a call must not be blamed for that."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LAG_STEP_S)
            late_s = loop.time() - before - _LAG_STEP_S
            if late_s > _LAG_STEP_S:
                self._late.append((loop.time(), late_s))

    def worst_s(self, since: float, until: float) -> float:
        """The longest delay that was noticed between two moments."""
        return max((late_s for at, late_s in self._late if since <= at <= until), default=0.0)


class Load:
    """Makes the calls and keeps a record of each."""

    def __init__(self, client: AsyncClient, root: Path, files: Sequence[Path], pause_s: float) -> None:
        self._client = client
        self._root = root
        self._files = files
        self._pause = str(pause_s).encode()
        self._records: list[CallRecord] = []
        self._begun = 0
        self._begun_max = len(files)
        self._changed = asyncio.Event()
        self._gate_moved = asyncio.Event()
        self._lag = LoopLag()
        self._begun_at = asyncio.get_running_loop().time()
        self.in_flight = 0
        self.finished = False

    @property
    def done(self) -> int:
        """Calls that are over."""
        return len(self._records)

    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return asyncio.get_running_loop().time() - self._begun_at

    async def reached(self, calls: int) -> None:
        """Wait until so many calls are over, or all of them."""
        while self.done < calls and not self.finished:
            self._changed.clear()
            await self._changed.wait()

    def hold_at(self, calls: int | None) -> None:
        """Begin no more than so many calls until told otherwise, so that the load cannot run away from the plan while a
        process takes its time to start. None lets all of them begin."""
        self._begun_max = len(self._files) if calls is None else calls
        self._gate_moved.set()

    async def busy(self) -> None:
        """Wait until some calls are in flight again, or as many as may be."""
        while self.in_flight < min(_BUSY_CALLS, self._begun_max - self.done) and not self.finished:
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Make all calls; returns when the last one is over."""
        self._begun_at = asyncio.get_running_loop().time()
        lag = asyncio.create_task(self._lag.watch())
        files = iter(self._files)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(self._lane(files))
            self.finished = True
            self._changed.set()
            # One more look at the loop's lag, for the calls that ended last.
            await asyncio.sleep(2 * _LAG_STEP_S)
        finally:
            lag.cancel()

    def records(self) -> tuple[CallRecord, ...]:
        """All calls, each with the lateness of the loop around its end."""
        return tuple(self._with_lag(record) for record in self._records)

    def _with_lag(self, record: CallRecord) -> CallRecord:
        if record.ended_s is None or record.ended_s <= record.deadline_s:
            return record
        lag_s = self._lag.worst_s(self._begun_at + record.deadline_s, self._begun_at + record.ended_s + 2 * _LAG_STEP_S)
        return attrs.evolve(record, lag_s=lag_s)

    async def _lane(self, files: Iterator[Path]) -> None:
        for path in files:
            while self._begun >= self._begun_max:
                self._gate_moved.clear()
                await self._gate_moved.wait()
            if self.elapsed_s() > _RUN_S_MAX:
                return
            self._begun += 1
            content = await asyncio.to_thread(path.read_bytes)
            self.in_flight += 1
            self._changed.set()
            record = await self._call(str(path.relative_to(self._root)), content)
            self.in_flight -= 1
            self._records.append(record)
            self._changed.set()

    async def _call(self, name: str, content: bytes) -> CallRecord:
        started_s = self.elapsed_s()
        # Declared by the service too, but only the caller's word lets the client go to another broker with it.
        request = self._client.request("digest", content, self._pause, timeout=CALL_TIMEOUT_S, idempotent=True)
        reply: Frames = []
        error = ""
        ended_s: float | None
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the reply, and Ctrl-C would
            # then leave this lane at work.
            async with asyncio.timeout(CALL_TIMEOUT_S + _NEVER_S):
                reply = await request
            ended_s = self.elapsed_s()
        except ReliableError as failure:
            # Before TimeoutError: a RequestTimeout is one, and it is a proper end of a call.
            error, ended_s = type(failure).__name__, self.elapsed_s()
        except TimeoutError:
            error, ended_s = "", None
        wrong = bool(reply) and reply != [hashlib.sha256(content).hexdigest().encode()]
        return CallRecord(
            name=name,
            started_s=started_s,
            deadline_s=started_s + CALL_TIMEOUT_S,
            ended_s=ended_s,
            error=error,
            wrong=wrong or (ended_s is not None and not error and not reply),
        )
