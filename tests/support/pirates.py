"""Pirates of the ZeroMQ Guide with bare sockets: lazy clients, and workers as processes.

``python -m tests.support.pirates ppp URL INTERVAL`` is a worker of 6/PPP, ``simple URL`` one of the Simple Pirate. They
share no code with the engines. A body ``hold`` is never answered (the PPP worker goes on heartbeating), all others come
back behind the worker's process id.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zmq

__all__ = ["LazyPirate", "worker_process"]

_ROOT: Final = Path(__file__).parents[2]
_LIVENESS: Final = 3


class LazyPirate:
    """A REQ client that closes its socket and asks again when it hears nothing."""

    def __init__(self, url: str, *, timeout_s: float = 2.0, attempts: int = 10) -> None:
        self._url = url
        self._timeout_ms = round(timeout_s * 1000)
        self._attempts = attempts
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def ask(self, *body: bytes) -> list[bytes]:
        """The reply's frames.

        Raises:
            TimeoutError: All attempts stayed silent.
        """
        for _ in range(self._attempts):
            with self._context.socket(zmq.REQ) as socket:
                socket.linger = 0
                socket.connect(self._url)
                socket.send_multipart(body)
                if socket.poll(self._timeout_ms):
                    return socket.recv_multipart()
        raise TimeoutError(f"{body!r} was not answered")

    def close(self) -> None:
        """Give the sockets back."""
        self._context.term()

    def __enter__(self) -> LazyPirate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def worker_process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that said READY once; killed at the end. Its output has a line for each READY and each ``hold``."""
    command = [sys.executable, "-m", "tests.support.pirates", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"READY\n"
            yield child
        finally:
            child.kill()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _ppp(url: str, interval_s: float) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    while True:
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(url)
            socket.send(b"\1")
            _say("READY")
            _ppp_session(socket, interval_s)


def _ppp_session(socket: zmq.Socket[bytes], interval_s: float) -> None:
    """Until the queue was silent for too long."""
    heard = time.monotonic()
    beat_at = heard + interval_s
    while time.monotonic() < heard + _LIVENESS * interval_s:
        if socket.poll(max(0, round((beat_at - time.monotonic()) * 1000))):
            frames = socket.recv_multipart()
            heard = time.monotonic()
            if frames == [b"\2"]:
                pass
            elif frames[2:] == [b"hold"]:
                _say("hold")
            else:
                socket.send_multipart([*frames[:2], b"%d" % os.getpid(), *frames[2:]])
        if time.monotonic() >= beat_at:
            socket.send(b"\2", zmq.NOBLOCK)
            beat_at = time.monotonic() + interval_s


def _simple(url: str) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(url)
        socket.send(b"\1")
        _say("READY")
        while True:
            frames = socket.recv_multipart()
            if frames[-1] == b"hold":
                _say("hold")
                time.sleep(1000.0)
            socket.send_multipart([*frames[:2], b"%d" % os.getpid(), *frames[2:]])


if __name__ == "__main__":
    if sys.argv[1] == "ppp":
        _ppp(sys.argv[2], float(sys.argv[3]))
    else:
        _simple(sys.argv[2])
