"""A worker in a process of its own: ``python -m tests.support.fleet_worker SETTINGS``, with settings in JSON.

Prints ``ready`` once it is registered; ends as a worker ends, with the number of handlers left as its exit code.
"""

from __future__ import annotations

import asyncio
import sys
import threading

import attrs
import msgspec

from reliable import AsyncWorker, Worker, WorkerConfig
from reliable.handling import ExecutorName
from tests.support import fleet_handlers
from tests.support.loopback import QUICK_WORKER

__all__ = ["Service", "Settings"]

_READY_S_MAX = 60.0


class Service(msgspec.Struct, frozen=True):
    """One name under which a handler is offered: ``stream`` for the one that streams, any other for ``job``."""

    name: str
    idempotent: bool | None = None
    executor: ExecutorName | None = None


class Settings(msgspec.Struct, frozen=True):
    """What the process is told."""

    brokers: tuple[str, ...]
    services: tuple[Service, ...]
    shell: str = "sync"
    concurrency: int = 1
    quick: bool = True
    """With the heartbeats of the tests, or with those that users get."""
    message_bytes_max: int = 0
    """0: as it is."""

    def config(self) -> WorkerConfig:
        """As a worker takes it."""
        config = QUICK_WORKER if self.quick else WorkerConfig()
        if self.message_bytes_max:
            config = attrs.evolve(config, limits=attrs.evolve(config.limits, message_bytes_max=self.message_bytes_max))
        return attrs.evolve(config, drain_timeout_s=10.0)


def _offer(worker: Worker | AsyncWorker, settings: Settings) -> None:
    for service in settings.services:
        handler = fleet_handlers.stream if service.name == "stream" else fleet_handlers.job
        worker.service(service.name, idempotent=service.idempotent, raw=True, executor=service.executor)(handler)


def _run_sync(settings: Settings) -> int:
    worker = Worker(*settings.brokers, concurrency=settings.concurrency, config=settings.config())
    _offer(worker, settings)

    def tell() -> None:
        if worker.wait_ready(_READY_S_MAX):
            print("ready", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    return worker.run()


async def _run_async(settings: Settings) -> int:
    worker = AsyncWorker(*settings.brokers, concurrency=settings.concurrency, config=settings.config())
    _offer(worker, settings)
    running = asyncio.create_task(worker.run())
    telling = asyncio.create_task(worker.wait_ready(_READY_S_MAX))
    await asyncio.wait([running, telling], return_when=asyncio.FIRST_COMPLETED)
    if telling.done() and telling.result():
        print("ready", flush=True)
    telling.cancel()
    return await running


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Settings)
    sys.exit(_run_sync(given) if given.shell == "sync" else asyncio.run(_run_async(given)))
