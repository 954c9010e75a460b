"""Requests and replies as many as a broker can take, from one process that does as little as possible for each.

``python -m tests.support.mdp_load ENDPOINT``; for each line of JSON that it reads it makes the calls asked for and
prints how many there were, and how many a second.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import Final

import msgspec
import zmq

from reliable.messages import read_message, send_message
from reliable.types import Frames
from reliable.wire.extension import (
    NO_LIFE,
    TOKEN_BYTES,
    Hello,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
)
from reliable.wire.mdp import (
    ClientRequest,
    Version,
    WorkerHeartbeat,
    WorkerReady,
    WorkerReply,
    WorkerRequest,
    decode_at_worker,
)
from reliable.wire.mmi import hello_request
from tests.support.commands import ROOT

__all__ = ["LoadFigures", "LoadOrder", "MdpLoad"]

_SERVICE: Final = b"load"
_CREDIT: Final = 200
_BODY: Final = [b"x" * 100]
_BEAT_S: Final = 0.3
_ANSWER_S_MAX: Final = 60.0


class LoadOrder(msgspec.Struct, frozen=True):
    """How to call."""

    seconds: float
    rate: float = 0.0
    """Requests a second; 0: as many as come back, with ``at_once`` under way."""
    at_once: int = 100
    flood: int = 0
    """Requests on top, all together, every so often."""
    flood_every_s: float = 1.0
    patience_s: float = 5.0
    """How long to wait at the end for what is still under way."""


class LoadFigures(msgspec.Struct, frozen=True):
    """What became of it."""

    sent: int
    answered: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


class _Load:
    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._client, self._worker = self._socket(endpoint), self._socket(endpoint)
        self._request = ClientRequest(Version.MDP01, _SERVICE, _BODY).encode()
        self._poller = zmq.Poller()
        self._poller.register(self._client, zmq.POLLIN)
        self._poller.register(self._worker, zmq.POLLIN)
        self._beat_at = 0.0
        self.sent = self.answered = 0
        self._register()

    def _socket(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.LINGER, 0)
        socket.connect(endpoint)
        return socket

    def _register(self) -> None:
        instance = os.urandom(16)
        send_message(self._worker, hello_request(Hello(Role.WORKER, instance).encode()))
        assert self._worker.poll(10_000)
        self._worker.recv_multipart()
        ready = ReadyExtension(instance, _CREDIT, (ServiceOffer(_SERVICE, True),), NO_LIFE, ())
        send_message(self._worker, WorkerReady(Version.MDP02, _SERVICE, ready.encode()).encode())

    def _turn(self, wait_s: float) -> None:
        self._poller.poll(max(0, int(wait_s * 1000)))
        for _ in range(100):
            if read_message(self._client) is None:
                break
            self.answered += 1
        for _ in range(100):
            frames = read_message(self._worker)
            if frames is None:
                break
            self._serve(frames)
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + _BEAT_S
            send_message(self._worker, WorkerHeartbeat(Version.MDP02).encode())

    def _serve(self, frames: Frames) -> None:
        command = decode_at_worker(frames)
        if isinstance(command, WorkerRequest):
            report = Report(command.address[:TOKEN_BYTES], ReportKind.RESULT, True).encode()
            send_message(self._worker, WorkerReply(Version.MDP02, report, command.body).encode())

    def _send(self, count: int) -> None:
        self.sent += count
        for _ in range(count):
            send_message(self._client, self._request)

    def make(self, order: LoadOrder) -> LoadFigures:
        """The calls, and a moment for what is still under way."""
        self.sent = self.answered = 0
        began = time.monotonic()
        flood_at, paced = began + order.flood_every_s / 2, 0
        while (now := time.monotonic()) < began + order.seconds:
            if order.rate:
                wanted = int((now - began) * order.rate)
                self._send(wanted - paced)
                paced = wanted
            else:
                self._send(order.at_once - (self.sent - self.answered))
            if order.flood and now >= flood_at:
                flood_at = now + order.flood_every_s
                self._send(order.flood)
            self._turn(0.001)
        seconds = time.monotonic() - began
        while self.answered < self.sent and time.monotonic() < began + seconds + order.patience_s:
            self._turn(0.01)
        return LoadFigures(self.sent, self.answered, seconds)

    def idle(self) -> None:
        """Go on serving until there is something to do."""
        while not select.select([sys.stdin], [], [], 0)[0]:
            self._turn(0.02)


class MdpLoad:
    """The process, as a test sees it."""

    def __init__(self, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.mdp_load", endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def begin(self, order: LoadOrder) -> None:
        """Let it call; ``end`` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        self._until = time.monotonic() + order.seconds + _ANSWER_S_MAX

    def end(self) -> LoadFigures:
        """What became of it."""
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], max(0.0, self._until - time.monotonic()))[0]
        assert ready, "the load does not end"
        return msgspec.json.decode(self._process.stdout.readline(), type=LoadFigures)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate(timeout=20)


def _main(endpoint: str) -> None:
    load = _Load(endpoint)
    while True:
        load.idle()
        line = sys.stdin.readline()
        if not line:
            return
        print(msgspec.json.encode(load.make(msgspec.json.decode(line, type=LoadOrder))).decode(), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
