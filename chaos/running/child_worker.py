"""The worker of the scenarios, as a process: it does what each request says, and writes down every run.

``python -m chaos.running.child_worker`` with one argument, the order as JSON. Says "ready" once a broker has taken it
in.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import msgspec

from chaos.running.recorder import Recorder
from chaos.running.wishes import Wish, fulfil
from reliable import AsyncWorker, Worker, current_request
from reliable.config import Backoff, Heartbeat, TransportConfig, WorkerConfig
from reliable.protocol.ppp_worker import PppWorkerConfig
from reliable.sync.ppp_worker import PppWorker

__all__ = [
    "NOTE",
    "ONCE",
    "PARTS",
    "PARTS_AGAIN",
    "SAFE",
    "SERVICES",
    "STEPS",
    "Wish",
    "WorkerOrder",
    "add_services",
    "config_of",
    "main",
]

SAFE: Final = "safe"
ONCE: Final = "once"
PARTS: Final = "parts"
PARTS_AGAIN: Final = "parts-again"
NOTE: Final = "note"
STEPS: Final = "steps"
SERVICES: Final = frozenset({SAFE, ONCE, PARTS, PARTS_AGAIN, NOTE, STEPS})
"""All that the load calls."""
_READY_S_MAX: Final = 60.0


@attrs.frozen(kw_only=True)
class WorkerOrder:
    """How to be."""

    name: str
    """Of the incarnation. A service of that name is offered too, so that the broker's status tells who is who."""
    brokers: list[str]
    folder: str
    concurrency: int
    heartbeat_s: float
    copies: int = 1
    """So many workers in one process, each a worker of its own to the broker."""
    ppp: bool = False
    """A worker of a Paranoid Pirate queue, which knows no services."""


def config_of(order: WorkerOrder) -> WorkerConfig:
    """Settings that notice things as fast as the scenario wants."""
    interval_s, timeout_s = order.heartbeat_s, 3 * order.heartbeat_s
    return WorkerConfig(
        concurrency=order.concurrency,
        heartbeat=Heartbeat(interval_s=interval_s, timeout_s=timeout_s),
        reconnect=Backoff(initial_s=0.1, delay_s_max=0.5),
        transport=TransportConfig(heartbeat_interval_s=interval_s, heartbeat_timeout_s=timeout_s),
    )


def add_services(worker: Worker | AsyncWorker, recorder: Recorder, name: str) -> None:
    """The services that the load calls."""

    slow = itertools.count(1)

    def work(key: bytes, wish: bytes = b"{}", _padding: bytes = b"") -> bytes:
        asked = msgspec.json.decode(wish, type=Wish)
        run = recorder.begin(key.decode())
        if asked.slow_every and next(slow) % asked.slow_every == 0 and current_request().wait_cancelled(asked.slow_s):
            recorder.end(run, finished=False)
            return key
        fulfil(asked)
        recorder.end(run)
        return key

    def note(key: str, work_s: float) -> None:
        run = recorder.begin(key)
        time.sleep(work_s)
        recorder.end(run)

    def parts(key: str, count: int, pause_s: float) -> Iterator[list[object]]:
        run, sent = recorder.begin(key), 0
        try:
            for number in range(count):
                time.sleep(pause_s)
                yield [key, number, f"{name}/{run}"]
                sent += 1
        finally:
            # A stream that nobody reads any more is closed in the middle: it leaves its slot, and has not finished.
            recorder.end(run, finished=sent == count)

    def steps(key: str, count: int, pause_s: float) -> str:
        run = recorder.begin(key)
        for number in range(count):
            current_request().progress(key.encode(), f"{name}/{run}".encode(), str(number).encode())
            time.sleep(pause_s)
        recorder.end(run)
        return key

    worker.service(SAFE, idempotent=True, raw=True)(work)
    worker.service(ONCE, idempotent=False, raw=True)(work)
    worker.service(PARTS, idempotent=False)(parts)
    worker.service(PARTS_AGAIN, idempotent=True)(parts)
    worker.service(NOTE, idempotent=False)(note)
    worker.service(STEPS, idempotent=True)(steps)
    worker.service(name, idempotent=True, raw=True)(work)


def _run_one(order: WorkerOrder) -> None:
    worker = Worker(*order.brokers, config=config_of(order))
    add_services(worker, Recorder(Path(order.folder), order.name), order.name)

    def announce() -> None:
        if worker.wait_ready(_READY_S_MAX):
            print("ready", flush=True)

    threading.Thread(target=announce, name="announce", daemon=True).start()
    worker.run()


async def _run_many(order: WorkerOrder) -> None:
    recorder = Recorder(Path(order.folder), order.name)
    workers = [AsyncWorker(*order.brokers, config=config_of(order)) for _ in range(order.copies)]
    for worker in workers:
        add_services(worker, recorder, order.name)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await asyncio.gather(*(worker.wait_ready(_READY_S_MAX) for worker in workers))
    print("ready", flush=True)
    await asyncio.gather(*running)


def _run_for_queue(order: WorkerOrder) -> None:
    recorder = Recorder(Path(order.folder), order.name)

    def work(key: bytes, wish: bytes = b"{}", _padding: bytes = b"") -> bytes:
        run = recorder.begin(key.decode())
        fulfil(msgspec.json.decode(wish, type=Wish))
        recorder.end(run)
        return key

    config = config_of(order)
    (queue,) = order.brokers
    # The protocol has no word for "taken in": whoever waits for this worker must ask for work.
    print("ready", flush=True)
    ppp = PppWorkerConfig(heartbeat=config.heartbeat, reconnect=config.reconnect)
    PppWorker(queue, work, ppp, config.transport).run()


def main(argument: str) -> None:
    """Work until stopped or killed."""
    order = msgspec.json.decode(argument, type=WorkerOrder)
    if order.ppp:
        _run_for_queue(order)
    elif order.copies == 1:
        _run_one(order)
    else:
        asyncio.run(_run_many(order))


if __name__ == "__main__":
    main(sys.argv[1])
