"""The processes that benchmarks talk to; each ends when its standard input does, so that none is left behind.

Run as ``python -m benchmarks.children NAME [ARGUMENT]``. One line on standard output says where it listens, or
``ready``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zmq

from brokers import MajordomoBroker
from reliable import Worker

__all__ = ["ECHO", "child", "main"]

ECHO: Final = "echo"
"""The one service of the worker."""
_ROOT: Final = Path(__file__).resolve().parent.parent
_READY_S_MAX: Final = 20.0
_END_S_MAX: Final = 5.0


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _serve_rep() -> None:
    """The plainest server there is."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REP)
    socket.bind("tcp://127.0.0.1:*")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    while True:
        socket.send(socket.recv())


def _serve_broker() -> None:
    broker = MajordomoBroker(["tcp://127.0.0.1:0"])
    broker.bind()
    print(broker.endpoints[0], flush=True)
    broker.run()


def _serve_worker(url: str) -> None:
    worker = Worker(url)

    @worker.service(ECHO, raw=True)
    def echo(body: bytes) -> bytes:
        return body

    def tell() -> None:
        if worker.wait_ready(_READY_S_MAX):
            print("ready", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    worker.run()


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    end, line = time.monotonic() + _READY_S_MAX, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            chunk = b""
            if selector.select(max(end - time.monotonic(), 0)):
                chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                raise RuntimeError(f"{process.args!r} was not ready within {_READY_S_MAX:g} s")
            line += chunk
    return line.decode().strip()


@contextlib.contextmanager
def child(name: str, *arguments: str) -> Iterator[str]:
    """Run ``rep``, ``broker`` or ``worker`` in a process of its own while the block runs.

    Args:
        name: Which.
        arguments: For ``worker``: the address of the broker.

    Yields:
        Its first line: the address where it listens, or ``ready``.

    Raises:
        RuntimeError: It did not get ready in time.
    """
    command = [sys.executable, "-m", "benchmarks.children", name, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT) as process:
        try:
            yield _first_line(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Be one of them."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    match sys.argv[1:]:
        case ["rep"]:
            _serve_rep()
        case ["broker"]:
            _serve_broker()
        case ["worker", url]:
            _serve_worker(url)
        case other:
            raise SystemExit(f"there is no child {other!r}")


if __name__ == "__main__":
    main()
