"""Handlers that other processes can import: well-behaved ones, and ones that crash, hang and shout."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from reliable import current_request

__all__ = [
    "add",
    "allocate_too_much",
    "bad_memory",
    "count",
    "count_later",
    "describe_request",
    "endless",
    "fork_and_leave",
    "hang",
    "hold_the_lock",
    "imported_by",
    "later",
    "leave",
    "patient",
    "pid",
    "raise_value_error",
    "raw_echo",
    "shout",
    "steps",
    "stubborn",
    "terminate_self",
]


_IMPORTED_BY = os.getpid()


def imported_by() -> int:
    """Which process imported this module, for the one that answers."""
    return _IMPORTED_BY


def add(a: int, b: int) -> int:
    """What every service has first."""
    return a + b


def pid() -> int:
    """Which process it is."""
    return os.getpid()


def raw_echo(frame: bytes) -> bytes:
    """Bytes as they are."""
    return frame


def raise_value_error() -> None:
    """An error that is one."""
    raise ValueError("told so")


def bad_memory() -> None:
    """What a faulty C extension does."""
    ctypes.string_at(0)


def leave(code: int) -> None:
    """End the process without a word."""
    os._exit(code)


def fork_and_leave() -> None:
    """End the process, and leave a child of its own behind that has all its descriptors."""
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
    os._exit(3)


def terminate_self() -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def allocate_too_much() -> None:
    """More than there is."""
    bytearray(1 << 62)


def hang(seconds: float) -> str:
    """Busy in Python code, deaf to everything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return "done"


def hold_the_lock(seconds: int) -> None:
    """In a C call that keeps the interpreter lock."""
    ctypes.PyDLL(None).sleep(seconds)


def shout() -> str:
    """Garbage to every stream there is."""
    os.write(1, os.urandom(100_000))
    os.write(2, b"\x00\xff" * 10)
    print("\x1b[2J garbage", flush=True)
    sys.stderr.flush()
    return "fine"


def count(to: int) -> Iterator[int]:
    """A stream."""
    yield from range(to)


async def count_later(to: int) -> AsyncIterator[int]:
    """The same from a coroutine."""
    for number in range(to):
        yield number


async def later(value: str) -> str:
    """A coroutine."""
    return value


def endless(path: str) -> Iterator[int]:
    """A stream that ends when it is closed, and leaves a note then."""
    try:
        while True:
            yield 1
            time.sleep(0.005)
    finally:
        Path(path).write_text("closed")


def patient(path: str) -> None:
    """Waits until it is told that nobody waits any more, and leaves a note."""
    if current_request().wait_cancelled(10):
        Path(path).write_text("cancelled")


def stubborn() -> None:
    """Says that it began, and does not care who waits."""
    current_request().progress(b"began")
    threading.Event().wait(30)


def steps() -> str:
    """News on the way."""
    for number in range(3):
        current_request().progress(b"%d" % number)
    return "done"


def describe_request() -> list[object]:
    """What a handler can know."""
    request = current_request()
    return [request.service, request.call_id, request.attempt, request.delivery, request.remaining_s, request.cancelled]
