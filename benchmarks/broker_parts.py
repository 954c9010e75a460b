"""What ``benchmarks.broker`` starts: brokers, the C load on them, and what the kernel says they cost.

The C programs in ``benchmarks/c`` are built when they are needed. They load the libzmq that pyzmq has brought along, so
that every broker here runs on the same one.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import zmq

__all__ = ["Broker", "Cost", "Load", "build", "c_broker", "libzmq_path", "our_broker"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_SOURCES: Final = Path(__file__).resolve().parent / "c"
_BUILD_S_MAX: Final = 120.0
_READY_S_MAX: Final = 60.0
_ANSWER_S_MAX: Final = 600.0
_END_S_MAX: Final = 10.0


def libzmq_path() -> str:
    """The file of the libzmq that pyzmq uses in this process.

    Raises:
        RuntimeError: It cannot be told, as where pyzmq has libzmq inside itself.
    """
    assert zmq.zmq_version()  # pyzmq is loaded, and libzmq with it
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.partition("/")[2]
        if "libzmq" in path.rpartition("/")[2]:
            return f"/{path}"
    raise RuntimeError("pyzmq does not use a libzmq that is a file of its own")


def build(name: str, into: Path) -> Path:
    """Compile ``benchmarks/c/NAME.c`` with ``cc``.

    Raises:
        RuntimeError: There is no compiler, or it says no; the text is what it said.
    """
    program = into / name
    command = ["cc", "-std=c11", "-O2", str(_SOURCES / f"{name}.c"), "-o", str(program), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S_MAX, check=False)
    except FileNotFoundError as error:
        raise RuntimeError("the C broker and the load need a C compiler: there is no cc") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return program


@attrs.frozen
class Cost:
    """Processor time of a process, in nanoseconds."""

    main_ns: int
    others_ns: int
    """All threads but the first: libzmq's."""

    def since(self, before: Cost) -> Cost:
        """What was added."""
        return Cost(self.main_ns - before.main_ns, self.others_ns - before.others_ns)

    @property
    def all_ns(self) -> int:
        """Together."""
        return self.main_ns + self.others_ns


class _Child:
    """A process that ends when its standard input does, and that we speak with in lines."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, env={**os.environ, **(env or {})}
        )
        self.pid = self._process.pid

    def line(self, seconds_max: float) -> str:
        """The next line that it prints.

        Raises:
            RuntimeError: It said nothing for so long, or ended.
        """
        assert self._process.stdout is not None
        end, line = time.monotonic() + seconds_max, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                chunk = b""
                if selector.select(max(end - time.monotonic(), 0)):
                    chunk = os.read(self._process.stdout.fileno(), 4096)
                if not chunk:
                    raise RuntimeError(f"{self._command!r} ended, or said nothing for {seconds_max:g} s")
                line += chunk
        return line.decode().strip()

    def tell(self, line: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Broker(_Child):
    """A broker in a process of its own."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        super().__init__(command, env)
        found = re.search(r"tcp://[0-9.:]+", self.line(_READY_S_MAX))
        assert found is not None
        self.url = found[0]

    def cost(self) -> Cost:
        """So far."""
        taken = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            taken[int(task.name)] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
        main_ns = taken.pop(self.pid)
        return Cost(main_ns, sum(taken.values()))

    def memory_bytes(self) -> int:
        """What of it is in memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


class Load(_Child):
    """Clients and workers on one broker: ``benchmarks/c/load.c`` says what the arguments mean."""

    def __init__(
        self,
        program: Path,
        broker: Broker,
        kind: str,
        *,
        clients: int,
        workers: int,
        in_flight: int,
        body_bytes: int,
        beat_s: float = 0.5,
    ) -> None:
        numbers = (clients, workers, in_flight, body_bytes, beat_s)
        super().__init__([str(program), libzmq_path(), broker.url, kind, *map(str, numbers)])
        self.line(_READY_S_MAX)

    def make(self, requests: int) -> float:
        """Make so many requests; the seconds that they took."""
        self.tell(str(requests))
        return float(self.line(_ANSWER_S_MAX))


def c_broker(program: Path) -> Broker:
    """The minimal broker of ``benchmarks/c/broker.c``."""
    return Broker([str(program), libzmq_path()])


def our_broker(*, pure: bool) -> Broker:
    """``reliable broker``, with or without the accelerator."""
    command = [sys.executable, "-m", "brokers", "--bind", "tcp://127.0.0.1:0", "--stop-on-eof", "--log-level", "error"]
    return Broker(command, {"RELIABLE_PURE": "1" if pure else ""})
