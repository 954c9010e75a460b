"""Roles: our broker, and a worker with one service that gives back what it gets."""

from __future__ import annotations

import threading
from typing import Final

from brokers import BrokerConfig, MajordomoBroker
from reliable import Worker
from reliable.bench.child import Channel
from reliable.errors import ReliableError
from reliable.handling import ExecutorName

__all__ = ["ECHO", "LOOPBACK", "broker", "worker"]

ECHO: Final = "echo"
"""The one service of the workers."""
LOOPBACK: Final = "tcp://127.0.0.1:0"
"""No benchmark listens anywhere else."""
_READY_S_MAX: Final = 20.0


def broker(channel: Channel) -> None:
    """A broker with default settings."""
    ours = MajordomoBroker([LOOPBACK], BrokerConfig())
    ours.bind()
    channel.say(url=ours.endpoints[0])
    ours.run()


def worker(channel: Channel, url: str, concurrency: int = 1, executor: ExecutorName | None = None) -> None:
    """A blocking worker.

    Args:
        channel: To the command.
        url: Of its broker.
        concurrency: Requests handled at once.
        executor: Where handlers run; None is the library's default.
    """
    ours = Worker(url, concurrency=concurrency)

    @ours.service(ECHO, raw=True, executor=executor)
    def echo(body: bytes) -> bytes:
        return body

    def tell() -> None:
        if ours.wait_ready(_READY_S_MAX):
            channel.say(ready=True)
        else:
            channel.say(error=f"no broker at {url}")

    threading.Thread(target=tell, daemon=True).start()
    ours.run()
    raise ReliableError("the worker ended by itself")
