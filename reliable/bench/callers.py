"""Role: calls by our classes, blocking or asyncio, in a closed or an open loop, and how long each took."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import attrs

from reliable import AsyncClient, Client, ClientConfig, ReliableError
from reliable.bench.child import Channel
from reliable.bench.schedule import due_times
from reliable.config import Dialect

__all__ = ["CALL_S_MAX", "Taken", "asyncio_loop", "blocking_loop", "caller"]

CALL_S_MAX: Final = 10.0
"""The deadline of each call: one that is not answered counts as failed, with the time that it took."""
_WARM_UP_CALLS: Final = 50


@attrs.define
class Taken:
    """What a loop measured, in nanoseconds."""

    each_ns: list[int] = attrs.field(factory=list)
    """Per call: from when it was due to its end. In a closed loop a call is due when it is sent."""
    service_ns: list[int] = attrs.field(factory=list)
    """Per call: from when it was sent to its end."""
    failed: int = 0
    whole_ns: int = 0
    """From the first call to the end of the last."""
    cpu_ns: int = 0
    """Processor time of this whole process meanwhile."""


def caller(
    channel: Channel, url: str, service: str, *, kind: str = "blocking", body_bytes: int = 64, dialect: str = "mdp"
) -> None:
    """Make calls when asked to.

    Commands: ``{"loop": "closed", "in_flight": N, "seconds": S}``, or with ``"calls": N`` in place of the seconds; and
    ``{"loop": "open", "rate": R, "in_flight": N, "seconds": S, "arrivals": "even", "seed": 0}``.

    Args:
        channel: To the command.
        url: The broker.
        service: What is called; it must give back the body.
        kind: ``blocking`` or ``asyncio``.
        body_bytes: Size of each request.
        dialect: As in ``ClientConfig``.
    """
    config = ClientConfig(dialect=Dialect(dialect), timeout_s=CALL_S_MAX)
    if kind == "asyncio":
        asyncio.run(_serve_asyncio(channel, url, service, bytes(body_bytes), config))
        return
    with Client(url, config=config) as client:
        body = bytes(body_bytes)

        def one() -> None:
            client.request(service, body)

        for _ in range(_WARM_UP_CALLS):
            one()
        channel.say(ready=True)
        channel.serve(lambda command: attrs.asdict(blocking_loop(one, **command)))


async def _serve_asyncio(channel: Channel, url: str, service: str, body: bytes, config: ClientConfig) -> None:
    async with AsyncClient(url, config=config) as client:

        async def one() -> None:
            await client.request(service, body)

        for _ in range(_WARM_UP_CALLS):
            await one()
        channel.say(ready=True)
        commands = channel.commands()
        while True:
            command = await asyncio.to_thread(next, commands)
            channel.say(**attrs.asdict(await asyncio_loop(one, **command)))


def _due(loop: str, calls: int | None, seconds: float, rate: float, arrivals: str, seed: int) -> Iterator[float | None]:
    """Seconds from the start when each call is due; None is as soon as somebody is free."""
    if loop == "open":
        yield from due_times(rate, seconds, arrivals, random.Random(seed))
        return
    end = time.monotonic() + seconds
    made = 0
    while made != calls and time.monotonic() < end:
        yield None
        made += 1


def blocking_loop(
    one: Callable[[], None],
    *,
    loop: str,
    in_flight: int = 1,
    calls: int | None = None,
    seconds: float = 60.0,
    rate: float = 0.0,
    arrivals: str = "even",
    seed: int = 0,
) -> Taken:
    """So many threads share the calls: each takes the next one, waits until it is due, makes it."""
    taken, guard = Taken(), threading.Lock()
    due = _due(loop, calls, seconds, rate, arrivals, seed)
    begun, cpu = time.perf_counter_ns(), time.process_time_ns()

    def work() -> None:
        each: list[int] = []
        service: list[int] = []
        failed = 0
        while True:
            with guard:
                offset = next(due, begun)
            if offset is begun:
                break
            sent = wanted = time.perf_counter_ns() if offset is None else begun + int(offset * 1e9)
            if offset is not None:
                _sleep_until(wanted)
                sent = time.perf_counter_ns()
            try:
                one()
            except ReliableError:
                failed += 1
            done = time.perf_counter_ns()
            each.append(done - wanted)
            service.append(done - sent)
        with guard:
            taken.each_ns += each
            taken.service_ns += service
            taken.failed += failed

    threads = [threading.Thread(target=work) for _ in range(in_flight - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    taken.whole_ns, taken.cpu_ns = time.perf_counter_ns() - begun, time.process_time_ns() - cpu
    return taken


def _sleep_until(wanted_ns: int) -> None:
    left = wanted_ns - time.perf_counter_ns()
    if left > 0:
        time.sleep(left / 1e9)


async def asyncio_loop(
    one: Callable[[], Awaitable[None]],
    *,
    loop: str,
    in_flight: int = 1,
    calls: int | None = None,
    seconds: float = 60.0,
    rate: float = 0.0,
    arrivals: str = "even",
    seed: int = 0,
) -> Taken:
    """The same with tasks."""
    taken = Taken()
    due = _due(loop, calls, seconds, rate, arrivals, seed)
    begun, cpu = time.perf_counter_ns(), time.process_time_ns()

    async def work() -> None:
        for offset in due:
            sent = wanted = time.perf_counter_ns() if offset is None else begun + int(offset * 1e9)
            if offset is not None:
                await asyncio.sleep(max(wanted - time.perf_counter_ns(), 0) / 1e9)
                sent = time.perf_counter_ns()
            try:
                await one()
            except ReliableError:
                taken.failed += 1
            done = time.perf_counter_ns()
            taken.each_ns.append(done - wanted)
            taken.service_ns.append(done - sent)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    taken.whole_ns, taken.cpu_ns = time.perf_counter_ns() - begun, time.process_time_ns() - cpu
    return taken
