"""The demo: processes that are killed and frozen while a client has thousands of files hashed through them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

from chaos.ports import free_port
from reliable import AsyncClient
from reliable.cli.demo_children import Child
from reliable.cli.demo_load import IN_FLIGHT, Load, Watcher, source_files
from reliable.cli.demo_plan import WORKERS, Fault, FaultKind, plan_faults
from reliable.cli.demo_report import DemoReport, Injected
from reliable.cli.demo_screen import Screen
from reliable.cli.exits import CommandFailed
from reliable.cli.status import STATUS_SERVICE, parse_status
from reliable.errors import ReliableError

__all__ = ["run_demo"]

_BROKERS: Final = 2
_CONCURRENCY: Final = 8
"""Of each worker; its brokers share it, so about half of it works for the broker in use."""
_LOAD_S: Final = 16.0
"""How long the calls take if nothing goes wrong: the pause of the handler is chosen so."""
_PAUSE_S_MAX: Final = 0.5
_SET_UP_S_MAX: Final = 20.0
_STATUS_TIMEOUT_S: Final = 0.5
_SAMPLE_EVERY_S: Final = 0.3
_SCREEN_EVERY_S: Final = 0.1


class _Counts:
    """What the brokers counted. A counter dies with its broker, so the last value seen of each life is kept."""

    def __init__(self, urls: list[str]) -> None:
        self._clients = {url: AsyncClient(url, timeout=_STATUS_TIMEOUT_S) for url in urls}
        self._requeued: dict[str, int] = {}

    @property
    def requeued(self) -> int:
        """Over all lives."""
        return sum(self._requeued.values())

    async def sample(self, url: str) -> dict[str, Any] | None:
        """Ask one broker now; None if it does not answer, which is nothing unusual here."""
        try:
            snapshot = parse_status(await self._clients[url].request(STATUS_SERVICE, b""))
        except ReliableError:
            return None
        self._requeued[str(snapshot["life"])] = int(snapshot["counters"]["redelivered"])
        return snapshot

    async def watch(self) -> None:
        """Ask all of them now and then, until cancelled."""
        while True:
            await asyncio.gather(*map(self.sample, self._clients))
            await asyncio.sleep(_SAMPLE_EVERY_S)

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()


class _Stage:
    """The processes, and everything that is done to them."""

    def __init__(self) -> None:
        self.urls = [f"tcp://127.0.0.1:{free_port()}" for _ in range(_BROKERS)]
        self.counts = _Counts(self.urls)
        self._children: list[Child] = []
        self._brokers: dict[str, Child] = {}
        self._workers: dict[int, Child] = {}
        self._dead_broker = ""
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all of them and wait until each worker is known to each broker."""
        async with asyncio.timeout(_SET_UP_S_MAX):
            # All at once: workers find their brokers in any order.
            starting = [*map(self._start_broker, self.urls), *map(self._start_worker, range(1, WORKERS + 1))]
            await asyncio.gather(*starting)
            for url in self.urls:
                await self._until_complete(url)

    async def _until_complete(self, url: str) -> None:
        while True:
            snapshot = await self.counts.sample(url)
            services = snapshot["services"] if snapshot is not None else []
            if any(service["name"] == "digest" and service["workers"] >= WORKERS for service in services):
                return
            await asyncio.sleep(0.1)

    async def _start_broker(self, url: str) -> None:
        self._brokers[url] = child = Child(f"broker {self._letter(url)}", ["broker", "--bind", url])
        self._children.append(child)
        await child.start()

    async def _start_worker(self, number: int) -> None:
        arguments = ["worker", "reliable.cli.demo_service:worker", "--concurrency", str(_CONCURRENCY)]
        for url in self.urls:
            arguments += ["--broker", url]
        self._workers[number] = child = Child(f"worker {number}", arguments)
        self._children.append(child)
        await child.start()

    def _letter(self, url: str) -> str:
        return "AB"[self.urls.index(url)]

    async def inject(self, fault: Fault, broker_in_use: str) -> str:
        """Do what the plan says; gives the text for the user."""
        match fault.kind:
            case FaultKind.KILL_BROKER:
                return await self._kill_broker(broker_in_use)
            case FaultKind.RESTART_BROKER:
                await self._start_broker(self._dead_broker)
                return f"broker {self._letter(self._dead_broker)} is back at {self._dead_broker}"
            case _:
                assert fault.worker is not None
                return await self._do_to_worker(fault.kind, fault.worker)

    async def _kill_broker(self, url: str) -> str:
        await self.counts.sample(url)
        child = self._brokers[url]
        await child.kill()
        self._dead_broker = url
        return f"SIGKILL broker {self._letter(url)} (pid {child.pid}), the one in use"

    async def _do_to_worker(self, kind: FaultKind, number: int) -> str:
        child = self._workers[number]
        if kind is FaultKind.FREEZE_WORKER:
            await child.freeze()
            return f"SIGSTOP worker {number} (pid {child.pid})"
        if kind is FaultKind.THAW_WORKER:
            child.send_signal(signal.SIGCONT)
            return f"SIGCONT worker {number} (pid {child.pid})"
        await child.kill()
        # In the background: the next fault must not wait for it.
        replacing = asyncio.create_task(self._start_worker(number))
        self._starting.add(replacing)
        return f"SIGKILL worker {number} (pid {child.pid}), a replacement is started"

    def check(self) -> None:
        """Raise what went wrong in the background: a replacement that did not come up."""
        for task in self._starting:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """End every process, whatever state it is in: not politely, since Ctrl-C must not wait for a drain."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(child.kill() for child in self._children), return_exceptions=True)
        await self.counts.close()


async def run_demo(seed: int, files_max: int | None, screen: Screen) -> DemoReport:
    """Run the demo once.

    Args:
        seed: Fixes which files are taken and who is killed after how many calls.
        files_max: Take so many files at most; None takes all.
        screen: Where progress goes.

    Raises:
        CommandFailed: The processes did not come up.
    """
    root, files = source_files(seed, files_max)
    screen.line(
        f"SHA-256 of {len(files)} files in {root}: {_BROKERS} brokers, {WORKERS} workers, "
        f"{IN_FLIGHT} calls in flight, seed {seed}"
    )
    async with _stage() as stage:
        watcher = Watcher(stage.urls[0])
        async with AsyncClient(*stage.urls, observer=watcher) as client:
            load = Load(client, root, files, _pause_s(len(files)))
            return await _perform(seed, len(files), stage, watcher, load, screen)


def _pause_s(calls: int) -> float:
    at_once = WORKERS * _CONCURRENCY / _BROKERS
    return min(_PAUSE_S_MAX, _LOAD_S * at_once / max(calls, 1))


@contextlib.asynccontextmanager
async def _stage() -> AsyncIterator[_Stage]:
    stage = _Stage()
    try:
        try:
            await stage.start()
        except TimeoutError:
            raise CommandFailed(f"the demo's processes were not ready after {_SET_UP_S_MAX} s") from None
        yield stage
    finally:
        await stage.stop()


async def _perform(seed: int, planned: int, stage: _Stage, watcher: Watcher, load: Load, screen: Screen) -> DemoReport:
    plan = plan_faults(seed, planned)
    injected: list[Injected] = []
    breaking = asyncio.create_task(_break_things(plan, injected, stage, watcher, load, screen))
    showing = asyncio.create_task(_show(load, planned, watcher, screen))
    tasks = [breaking, showing, asyncio.create_task(stage.counts.watch())]
    try:
        await load.run()
        duration_s = load.elapsed_s()
        # The fault that is in hand, say a broker that is just being restarted, is carried through.
        await asyncio.wait({breaking}, timeout=_SET_UP_S_MAX)
        await asyncio.gather(*map(stage.counts.sample, stage.urls))
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        screen.close()
    for result in results:
        if isinstance(result, Exception):
            raise result
    stage.check()
    return DemoReport(
        seed=seed,
        planned=planned,
        calls=load.records(),
        duration_s=duration_s,
        retried=watcher.retried,
        failed_over=watcher.failed_over,
        requeued=stage.counts.requeued,
        faults=tuple(injected),
        missed_faults=tuple(_fault_text(fault) for fault in plan[len(injected) :]),
    )


def _fault_text(fault: Fault) -> str:
    return fault.kind.value if fault.worker is None else f"{fault.kind.value} {fault.worker}"


async def _show(load: Load, planned: int, watcher: Watcher, screen: Screen) -> None:
    while True:
        screen.progress(load.elapsed_s(), load.done, planned, load.in_flight, watcher.retried)
        await asyncio.sleep(_SCREEN_EVERY_S)


async def _break_things(
    plan: tuple[Fault, ...], injected: list[Injected], stage: _Stage, watcher: Watcher, load: Load, screen: Screen
) -> None:
    holds: list[int | None] = [fault.after_calls for fault in plan[1:]]
    try:
        for fault, hold in zip(plan, [*holds, None], strict=True):
            load.hold_at(hold)
            await load.reached(fault.after_calls)
            await load.busy()
            if load.finished:
                return
            done, in_flight = load.done, load.in_flight
            text = f"{await stage.inject(fault, watcher.broker_in_use)} [after {done} calls, {in_flight} in flight]"
            injected.append(Injected(load.elapsed_s(), done, text))
            screen.fault(load.elapsed_s(), text)
    finally:
        load.hold_at(None)
