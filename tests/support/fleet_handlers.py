"""What workers of the fleet do: every entry into a handler is written to a file before anything else happens."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LOG_VARIABLE", "job", "stream"]

LOG_VARIABLE = "RELIABLE_TEST_LOG"
"""Environment variable that names the file; inherited by processes that handlers run in."""

_log = -1
_measured: tuple[int, float] | None = None
"""An exponent, and how long the power took."""


def _note(line: bytes) -> None:
    """One write of one line at the end of the file: the kernel keeps lines of different processes apart."""
    global _log
    if _log < 0:
        _log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    os.write(_log, line)


def _ran_before(name: bytes) -> bool:
    lines = Path(os.environ[LOG_VARIABLE]).read_bytes().splitlines()
    return any(line.split()[0] == name for line in lines)


def _sleep_with_the_lock(seconds: float) -> None:
    """A C call that keeps the interpreter lock: libc's own sleep, called without letting go of it."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def _wait_with_the_lock(pipe: bytes) -> None:
    """The same until somebody writes a byte into a named pipe."""
    reader = os.open(pipe, os.O_RDWR)
    ctypes.PyDLL(None).read(reader, ctypes.create_string_buffer(1), 1)
    os.close(reader)


def _power_for(seconds: float) -> None:
    """One power of a big integer that takes about so long: the interpreter cannot stop in the midst of it."""
    global _measured
    if _measured is None:
        # In processor time, for a busy machine takes longer at most.
        exponent, took = 20_000, 0.0
        while took < 0.05:
            exponent *= 2
            began = time.thread_time()
            _ = 3**exponent
            took = time.thread_time() - began
        _measured = exponent, took
    exponent, took = _measured
    # Multiplication by Karatsuba: n digits take n ** 1.585.
    _ = 3 ** round(exponent * (seconds / took) ** (1 / 1.585))


def job(action: bytes, name: bytes, argument: bytes = b"0") -> list[bytes]:
    """Note ``name`` and do what ``action`` says.

    ``echo`` at once; ``sleep`` so long; ``first`` the same, but only if nobody ran this name before; ``lock`` and
    ``power`` hold the interpreter lock about so long, ``pipe`` until a byte comes; ``size`` gives so many bytes.

    Returns:
        The name, which process it was in, and how long it really took.
    """
    again = action == b"first" and _ran_before(name)
    _note(b"%s %d\n" % (name, os.getpid()))
    began = time.monotonic()
    extra = []
    match action:
        case b"first" if again:
            pass
        case b"sleep" | b"first":
            time.sleep(float(argument))
        case b"lock":
            _sleep_with_the_lock(float(argument))
        case b"pipe":
            _wait_with_the_lock(argument)
        case b"power":
            _power_for(float(argument))
        case b"size":
            extra = [b"x" * int(argument)]
        case _:
            assert action == b"echo", action
    return [name, b"%d" % os.getpid(), b"%.6f" % (time.monotonic() - began), *extra]


def stream(name: bytes, parts: bytes, size: bytes) -> Iterator[bytes]:
    """Note ``name``, and give so many parts of so many bytes each."""
    _note(b"%s %d\n" % (name, os.getpid()))
    for _ in range(int(parts)):
        yield b"x" * int(size)
