"""Roles: many clients, or many workers, in one process and one loop, each with sockets of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from reliable import AsyncClient, AsyncWorker, ClientConfig
from reliable.bench.child import Channel
from reliable.bench.servers import ECHO
from reliable.errors import ReliableError

__all__ = ["clients", "workers"]

_CALL_S_MAX: Final = 60.0
_READY_S_MAX: Final = 120.0
_OPENED_AT_ONCE: Final = 50
_READINGS_MAX: Final = 20_000
"""What one answer carries of each turn: every n-th reading if there are more."""


def clients(channel: Channel, url: str) -> None:
    """Clients that call one after the other, each its own next call.

    Command: ``{"clients": N, "body_bytes": B, "seconds": S}``; clients are opened as they are needed, and stay.

    Args:
        channel: To the command.
        url: The broker.
    """
    asyncio.run(_clients(channel, url))


async def _clients(channel: Channel, url: str) -> None:
    opened: list[AsyncClient] = []
    async with contextlib.AsyncExitStack() as stack:
        channel.say(ready=True)
        commands = channel.commands()
        while True:
            command = await asyncio.to_thread(next, commands)
            wanted, body = command["clients"], bytes(command["body_bytes"])
            while len(opened) < wanted:
                fresh = [_client(url) for _ in range(min(wanted - len(opened), _OPENED_AT_ONCE))]
                for client in fresh:
                    opened.append(await stack.enter_async_context(client))
                # A first call opens the connection, which is not what is measured.
                await asyncio.gather(*(client.request(ECHO, b"") for client in fresh))
            channel.say(**await _turn(opened[:wanted], body, command["seconds"]))


def _client(url: str) -> AsyncClient:
    return AsyncClient(url, config=ClientConfig(timeout_s=_CALL_S_MAX))


async def _turn(chosen: list[AsyncClient], body: bytes, seconds: float) -> dict[str, Any]:
    taken: list[int] = []
    failed = 0
    clock = time.perf_counter_ns
    begun = clock()
    end = begun + int(seconds * 1e9)

    async def work(client: AsyncClient) -> None:
        nonlocal failed
        while (sent := clock()) < end:
            try:
                await client.request(ECHO, body)
            except ReliableError:
                failed += 1
            else:
                taken.append(clock() - sent)

    await asyncio.gather(*map(work, chosen))
    step = len(taken) // _READINGS_MAX + 1
    return {"calls": len(taken), "failed": failed, "whole_ns": clock() - begun, "each_ns": taken[::step]}


def workers(channel: Channel, url: str) -> None:
    """Workers that handle one request at a time each, inline.

    Command: ``{"workers": N}``; those that are lacking are started, and the answer comes when all are registered.

    Args:
        channel: To the command.
        url: The broker.
    """
    asyncio.run(_workers(channel, url))


async def _workers(channel: Channel, url: str) -> None:
    started: list[AsyncWorker] = []
    async with asyncio.TaskGroup() as group:
        channel.say(ready=True)
        commands = channel.commands()
        while True:
            command = await asyncio.to_thread(next, commands)
            fresh = [_worker(url) for _ in range(command["workers"] - len(started))]
            for worker in fresh:
                group.create_task(worker.run())
            ready = await asyncio.gather(*(worker.wait_ready(_READY_S_MAX) for worker in fresh))
            if not all(ready):
                raise ReliableError(f"{ready.count(False)} of {len(fresh)} workers found no broker at {url}")
            started += fresh
            channel.say(workers=len(started))


def _worker(url: str) -> AsyncWorker:
    worker = AsyncWorker(url)

    @worker.service(ECHO, raw=True, executor="inline")
    def echo(body: bytes) -> bytes:
        return body

    return worker
