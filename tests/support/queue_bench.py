"""A bench for the engines of the pirate queues: literal time, named peers, every message kept.

It stands where the shell stands: takes messages out, files them under the peer they go to, and calls
``engine.unsent`` for peers that a test calls unreachable or full. Time moves only in ``advance``, which visits each
deadline of the engine on its way and checks that none is left behind.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from brokers.paranoid import ParanoidEngine
from brokers.queueing import QueueConfig, QueueEngine, Side
from brokers.simple import SimpleEngine
from reliable.types import Frames

__all__ = ["HEARTBEAT", "LIFE", "READY", "START", "QueueBench", "paranoid", "simple"]

LIFE: Final = b"life-one"
START: Final = 1000.0
READY: Final = b"\1"
HEARTBEAT: Final = b"\2"
_STEPS_MAX: Final = 100_000


class QueueBench:
    """An engine, a clock that is a number, and the mail of every peer."""

    def __init__(self, engine: QueueEngine) -> None:
        self.engine = engine
        self.now = START
        self.unreachable: set[bytes] = set()
        self.full: set[bytes] = set()
        self.journal: list[tuple[float, Side, Frames]] = []
        """Everything that was delivered to anybody, in order, routing id first."""
        self._mail: dict[tuple[Side, bytes], list[Frames]] = defaultdict(list)

    def client(self, peer: bytes, *frames: bytes) -> None:
        """A client's message as the front ROUTER gives it."""
        self.engine.receive_frontend([peer, *frames], self.now)
        self.pump()

    def ask(self, peer: bytes, *body: bytes) -> None:
        """A request of a REQ socket."""
        self.client(peer, b"", *body)

    def worker(self, peer: bytes, *frames: bytes) -> None:
        """A worker's message as the back ROUTER gives it."""
        self.engine.receive_backend([peer, *frames], self.now)
        self.pump()

    def pump(self) -> None:
        """Deliver the outbox, or tell the engine what could not be."""
        for _ in range(_STEPS_MAX):
            outgoing = self.engine.take()
            if outgoing is None:
                return
            side, message = outgoing
            if message[0] in self.unreachable or message[0] in self.full:
                self.engine.unsent(side, message, message[0] in self.unreachable, self.now)
            else:
                self.journal.append((self.now, side, message))
                self._mail[side, message[0]].append(message[1:])
        raise AssertionError("the outbox does not run dry: each unsent message leads to another one")

    def advance(self, seconds: float) -> None:
        """Let time pass, carrying out every deadline at its moment."""
        end = self.now + seconds
        for _ in range(_STEPS_MAX):
            due = self.engine.next_deadline()
            self.now = end if due is None else min(end, max(due, self.now))
            self.engine.timers(self.now)
            self.pump()
            due = self.engine.next_deadline()
            assert due is None or due > self.now, f"timers() left a deadline at {due}, and it is {self.now}"
            if self.now >= end:
                return
        raise AssertionError("the engine's deadlines do not move on")

    def at_worker(self, peer: bytes) -> list[Frames]:
        """What this worker got since the last look, without routing id."""
        return self._mail.pop((Side.BACKEND, peer), [])

    def at_client(self, peer: bytes) -> list[Frames]:
        """The same of a client."""
        return self._mail.pop((Side.FRONTEND, peer), [])

    def requests(self, peer: bytes) -> list[Frames]:
        """The requests among what this worker got since the last look."""
        return [frames for frames in self.at_worker(peer) if frames != [HEARTBEAT]]

    def request(self, peer: bytes) -> Frames:
        """The one request among them."""
        (frames,) = self.requests(peer)
        return frames

    @property
    def idle(self) -> list[bytes]:
        """Idle workers, in the order of their use."""
        return [bytes.fromhex(view.peer) for view in self.engine.snapshot(self.now).workers if not view.busy]

    @property
    def busy(self) -> set[bytes]:
        """Workers that hold a request."""
        return {bytes.fromhex(view.peer) for view in self.engine.snapshot(self.now).workers if view.busy}

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self.engine.snapshot(self.now).queued


def paranoid(config: QueueConfig | None = None, *, life: bytes = LIFE) -> QueueBench:
    """A bench with a Paranoid Pirate queue."""
    return QueueBench(ParanoidEngine(config or QueueConfig(), life=life))


def simple(config: QueueConfig | None = None) -> QueueBench:
    """A bench with a Simple Pirate queue."""
    return QueueBench(SimpleEngine(config or QueueConfig()))
