"""The loops that are timed: closed and open, blocking and asyncio."""

from __future__ import annotations

import asyncio
import time

import pytest

from reliable import QueueFull
from reliable.bench.callers import Taken, asyncio_loop, blocking_loop

STALL_S = 0.2


class _Server:
    """Takes no time, but stalls once: in its third call, and then fails."""

    def __init__(self) -> None:
        self.calls = 0

    def one(self) -> None:
        self.calls += 1
        if self.calls == 3:
            time.sleep(STALL_S)
            raise QueueFull("full")

    async def async_one(self) -> None:
        self.one()


def _run(kind: str, server: _Server, **options: object) -> Taken:
    if kind == "blocking":
        return blocking_loop(server.one, **options)  # type: ignore[arg-type]  # checked by the commands that use it
    return asyncio.run(asyncio_loop(server.async_one, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_stall_shows_in_every_call_that_was_due_meanwhile(kind: str) -> None:
    """The one mistake that load generators make: to send less while the server is slow, and call that fast."""
    server = _Server()
    found = _run(kind, server, loop="open", rate=100.0, seconds=0.3, in_flight=1)
    assert len(found.each_ns) == len(found.service_ns) == server.calls == 30
    assert found.failed == 1
    waited = [taken for taken in found.each_ns if taken > STALL_S * 1e9 / 4]
    assert len(waited) >= 10, "those due in three quarters of the stall"
    assert sum(taken > STALL_S * 1e9 / 4 for taken in found.service_ns) <= len(waited) - 8


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("in_flight", [1, 5])
def test_a_closed_loop_makes_so_many_calls(kind: str, in_flight: int) -> None:
    """Shared by all that make them, not for each."""
    server = _Server()
    found = _run(kind, server, loop="closed", calls=17, in_flight=in_flight)
    assert len(found.each_ns) == server.calls == 17
    assert found.each_ns == found.service_ns and found.failed == 1
    assert found.whole_ns > STALL_S * 1e9
