"""Clients, workers, deaths, lies and time in any order: what the Paranoid Pirate queue promises holds in every history.

Hypothesis makes up the history; the machine keeps its own books from what really arrived at the peers. The promises:

* a request is answered at most once, and only the client that sent it gets the answer;
* an answer is the one of a worker that really held that very request;
* a worker has one request at a time, unless it said READY meanwhile;
* idle workers are used in the order in which they became idle, and a heartbeat changes nothing;
* every request ends or waits: the counters account for each of them.
"""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brokers.queueing import QueueConfig, Side
from reliable.types import Frames
from tests.support.queue_bench import HEARTBEAT, READY, paranoid

CONFIG: Final = QueueConfig(expiry_s=20.0, queue_max=6, redeliveries_max=2, workers_max=4)
CLIENTS: Final = (b"client-a", b"client-b", b"client-c")
WORKERS: Final = tuple(b"worker-%d" % number for number in range(5))
workers: Final = st.sampled_from(WORKERS)
pick: Final = st.integers(min_value=0, max_value=10_000)


class Queue(RuleBasedStateMachine):
    """The world around one engine."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = paranoid(CONFIG)
        self.read = 0
        self.owner: dict[bytes, bytes] = {}
        """Body → the client that asked."""
        self.answered: set[bytes] = set()
        self.held: dict[bytes, bytes] = {}
        """Worker → token of what it was handed and has not answered."""
        self.handed: list[tuple[bytes, bytes, bytes]] = []
        """Worker, token and body of each hand-over that arrived."""
        self.line: list[bytes] = []
        """Idle workers before the step."""

    # --- what happens -----------------------------------------------------------------------------

    @rule(client=st.sampled_from(CLIENTS), correlated=st.booleans())
    def ask(self, client: bytes, correlated: bool) -> None:
        """A client asks."""
        body = b"request %d" % len(self.owner)
        self.owner[body] = client
        self.bench.client(client, *([b"\0\0\0\7"] if correlated else []), b"", body)
        self._look(None)

    @rule(worker=workers)
    def ready(self, worker: bytes) -> None:
        """A worker begins, or begins anew."""
        self.bench.unreachable.discard(worker)
        self.held.pop(worker, None)
        self.bench.worker(worker, READY)
        self._look(worker)

    @rule(worker=workers)
    def heartbeat(self, worker: bytes) -> None:
        """A worker lives."""
        self.bench.worker(worker, HEARTBEAT)
        self._look(None)

    @precondition(lambda self: self.held)
    @rule(choice=pick)
    def answer(self, choice: int) -> None:
        """A worker answers what it was handed last."""
        worker = sorted(self.held)[choice % len(self.held)]
        token = self.held.pop(worker)
        self.bench.worker(worker, token, b"", b"answer of", token)
        self._look(worker)

    @precondition(lambda self: self.handed)
    @rule(worker=workers, choice=pick)
    def lie(self, worker: bytes, choice: int) -> None:
        """A worker answers something that it may have had once, or that another one has."""
        holder, token, _ = self.handed[choice % len(self.handed)]
        if self.held.get(worker) == token:
            return
        self.bench.worker(worker, token, b"", b"answer of", token, b"by", holder)
        self._look(None)

    @rule(worker=workers, frames=st.sampled_from([[READY, READY], [b"x"], [CLIENTS[0], b"", b"x"], [b""], [b"x", b""]]))
    def say_junk(self, worker: bytes, frames: Frames) -> None:
        """A worker says what is no READY, no HEARTBEAT and no reply of its own."""
        self.bench.worker(worker, *frames)
        self._look(None)

    @rule(worker=workers, noticed=st.booleans())
    def die(self, worker: bytes, noticed: bool) -> None:
        """A worker's connection ends."""
        self.bench.unreachable.add(worker)
        self.held.pop(worker, None)
        if noticed:
            self.bench.engine.connection_ended(self.bench.now)
        self._look(None)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 2.9, 3.0, 25.0]), kept=st.sets(workers))
    def pass_time(self, seconds: float, kept: set[bytes]) -> None:
        """Time passes; these go on heartbeating."""
        end = self.bench.now + seconds
        while self.bench.now < end:
            self.bench.advance(min(1.0, end - self.bench.now))
            for worker in sorted(kept - self.bench.unreachable):
                self.bench.worker(worker, HEARTBEAT)
        self._look(None)

    @rule(seconds=st.sampled_from([1.5, 10.0]))
    def stall(self, seconds: float) -> None:
        """The queue itself stands still."""
        before = len(self.bench.engine.snapshot(self.bench.now).workers)
        self.bench.now += seconds
        self.bench.engine.stalled(seconds, self.bench.now)
        assert len(self.bench.engine.snapshot(self.bench.now).workers) == before

    # --- what must hold ---------------------------------------------------------------------------

    def _look(self, became_idle: bytes | None) -> None:
        """Read what arrived, and judge it."""
        news, self.read = self.bench.journal[self.read :], len(self.bench.journal)
        served = []
        for _, side, (peer, *frames) in news:
            if side is Side.FRONTEND:
                self._judge_answer(peer, frames)
            elif frames != [HEARTBEAT]:
                token, delimiter, body = frames
                assert delimiter == b""
                assert peer not in self.held, "a second request for a busy worker"
                self.held[peer] = token
                self.handed.append((peer, token, body))
                served.append(peer)
        self._judge_line(became_idle, served)

    def _judge_answer(self, client: bytes, frames: Frames) -> None:
        _, token, *rest = frames[frames.index(b"") + 1 :]
        ((holder, body),) = [(worker, body) for worker, known, body in self.handed if known == token]
        assert self.owner[body] == client, "an answer for somebody else"
        assert body not in self.answered, "answered twice"
        assert not rest or rest[-1] == holder, "answered by somebody else"
        self.answered.add(body)

    def _judge_line(self, became_idle: bytes | None, served: list[bytes]) -> None:
        """Whoever stood in the line before keeps the place; who came new is behind; who was served was in front."""
        before, after = self.line, self.bench.idle
        others = [worker for worker in after if worker in before and worker != became_idle]
        assert others == [worker for worker in before if worker in others]
        if became_idle in after and became_idle not in before:
            assert after[-1] == became_idle
        for worker in served:
            if worker in before:
                assert all(before.index(worker) < before.index(other) for other in others)
        self.line = after

    @invariant()
    def nobody_is_idle_while_a_request_waits(self) -> None:
        """And limits hold."""
        view = self.bench.engine.snapshot(self.bench.now)
        assert not (self.bench.idle and view.queued)
        assert len(view.workers) <= CONFIG.workers_max
        # What a lost worker held comes back even to a full queue: it was let in once.
        assert view.queued <= CONFIG.queue_max + CONFIG.workers_max

    @invariant()
    def every_request_is_accounted_for(self) -> None:
        """Ended in one way, waiting, or held."""
        view = self.bench.engine.snapshot(self.bench.now)
        count = view.counters
        ended = count.replied + count.expired + count.overdue + count.abandoned
        assert count.requests == ended + view.queued + view.held
        assert count.requests + count.dropped_full == len(self.owner)
        assert count.dispatched == len(self.handed)
        assert (view.bytes == 0) == (view.queued + view.held == 0)

    def teardown(self) -> None:
        """Whatever happened: a worker that works gets all that is left."""
        good = b"worker-good"
        self.bench.unreachable |= set(WORKERS)
        self.bench.advance(5.0)
        self.bench.worker(good, READY)
        for _ in range(CONFIG.queue_max + CONFIG.workers_max):
            for token, *_ in self.bench.requests(good):
                self.bench.worker(good, token, b"", b"answer of", token)
        view = self.bench.engine.snapshot(self.bench.now)
        assert (view.queued, view.held, view.bytes) == (0, 0, 0)
        assert self.bench.idle == [good]


Queue.TestCase.settings = settings(
    deadline=None, max_examples=60, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)
TestQueue = Queue.TestCase
TestQueue.__doc__ = "Every history that Hypothesis thinks of."
