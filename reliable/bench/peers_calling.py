"""What is timed of each contestant: calls one after the other, and calls with many under way."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["AsyncCaller", "BlockingCaller", "Caller", "windowed"]


class Caller(ABC):
    """Makes calls to a server that gives back what it gets."""

    @abstractmethod
    def singly(self, calls: int, body: bytes) -> list[int]:
        """So many calls, one after the other; nanoseconds of each."""

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        """So many calls, with so many under way at any time."""
        raise NotImplementedError(f"{type(self).__name__} has one call under way at a time")


class BlockingCaller(Caller):
    """Of a function that makes one call.

    Args:
        one: Gives the reply to a body.
    """

    def __init__(self, one: Callable[[bytes], bytes]) -> None:
        self._one = one

    def singly(self, calls: int, body: bytes) -> list[int]:
        one, clock, taken = self._one, time.perf_counter_ns, []
        for _ in range(calls):
            begun = clock()
            reply = one(body)
            taken.append(clock() - begun)
            _check(reply, body)
        return taken


class AsyncCaller(Caller):
    """Of a coroutine function that makes one call, in a loop of its own that also runs between the turns.

    Args:
        opened: Gives that function; runs in the loop.
    """

    def __init__(self, opened: Callable[[], Awaitable[Callable[[bytes], Awaitable[bytes]]]]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="bench-loop", daemon=True).start()
        self._one: Callable[[bytes], Awaitable[bytes]] = self._run(opened())

    def singly(self, calls: int, body: bytes) -> list[int]:
        found: list[int] = self._run(self._singly(calls, body))
        return found

    async def _singly(self, calls: int, body: bytes) -> list[int]:
        one, clock, taken = self._one, time.perf_counter_ns, []
        for _ in range(calls):
            begun = clock()
            reply = await one(body)
            taken.append(clock() - begun)
            _check(reply, body)
        return taken

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        self._run(self._together(calls, in_flight, body))

    async def _together(self, calls: int, in_flight: int, body: bytes) -> None:
        numbers = iter(range(calls))

        async def work() -> None:
            for _ in numbers:
                _check(await self._one(body), body)

        await asyncio.gather(*(work() for _ in range(in_flight)))

    def _run(self, what: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await what

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


def windowed(send: Callable[[], None], take: Callable[[], bytes], calls: int, in_flight: int, body: bytes) -> None:
    """Send so many, then one for each reply: for what has sending and receiving apart."""
    first = min(calls, in_flight)
    for _ in range(first):
        send()
    for _ in range(calls - first):
        _check(take(), body)
        send()
    for _ in range(first):
        _check(take(), body)


def _check(reply: bytes, body: bytes) -> None:
    # A loop that measures errors would be fast.
    if reply != body:
        raise RuntimeError(f"the reply has {len(reply)} bytes and is not the request's {len(body)}")
