"""The PPP worker with real sockets: at our queue, and at a bare ROUTER that plays the guide's."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from brokers.queue_shell import ParanoidQueue
from brokers.queueing import QueueConfig
from reliable.config import Backoff, Heartbeat
from reliable.protocol.ppp_worker import PppWorkerConfig
from reliable.sync.ppp_worker import PppHandler, PppWorker
from tests.support.loopback import QUICK_TRANSPORT, eventually, worker_process
from tests.support.pirates import LazyPirate
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")

BEAT = Heartbeat(interval_s=0.2, timeout_s=0.8)
CONFIG = PppWorkerConfig(heartbeat=BEAT, reconnect=Backoff(initial_s=0.1, delay_s_max=0.4))
_PROCESS = """
import sys
from reliable.sync.ppp_worker import PppWorker
worker = PppWorker(sys.argv[1], lambda frame: frame.upper())
print("ready", flush=True)
sys.exit(worker.run())
"""


@contextlib.contextmanager
def working(url: str, handler: PppHandler) -> Iterator[PppWorker]:
    """A worker in a thread of this process."""
    worker = PppWorker(url, handler, CONFIG, QUICK_TRANSPORT)
    left: list[int] = []
    thread = threading.Thread(target=lambda: left.append(worker.run()))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop(2.0)
        thread.join(10.0)
    assert left == [0]


@contextlib.contextmanager
def queue_at(front: str, back: str) -> Iterator[ParanoidQueue]:
    """A queue in a thread of this process."""
    queue = ParanoidQueue([front], [back], QueueConfig(heartbeat=BEAT), QUICK_TRANSPORT)
    queue.bind()
    thread = threading.Thread(target=queue.run)
    thread.start()
    try:
        yield queue
    finally:
        queue.stop()
        thread.join(10.0)
        assert not thread.is_alive()


def test_requests_are_answered_and_long_runs_keep_their_worker() -> None:
    """PPP-9: the run lasts longer than the liveness; heartbeats go on, so nobody runs it twice."""
    front, back = free_endpoint(), free_endpoint()
    runs: list[bytes] = []

    def handler(*frames: bytes) -> list[bytes]:
        runs.append(frames[0])
        if frames[0] == b"long":
            time.sleep(1.5)
        return [*frames, b"done"]

    with queue_at(front, back) as queue, working(back, handler), LazyPirate(front, timeout_s=5.0, attempts=1) as client:
        assert client.ask(b"short", b"") == [b"short", b"", b"done"]
        assert client.ask(b"long") == [b"long", b"done"]
        assert queue.counters.workers_expired == 0
        assert queue.counters.redelivered == 0
    assert runs == [b"short", b"long"]


def test_a_worker_comes_back_to_a_restarted_queue() -> None:
    """PPP-12: by itself, and under a new connection."""
    front, back = free_endpoint(), free_endpoint()
    with working(back, lambda frame: frame), LazyPirate(front, timeout_s=1.0) as client:
        for life in (b"1", b"2", b"3"):
            with queue_at(front, back):
                assert client.ask(life) == [life]


def test_a_handler_that_raises_gives_its_request_to_another(caplog: pytest.LogCaptureFixture) -> None:
    """6/PPP has no word for "failed", and an empty reply would be taken for a result."""
    front, back = free_endpoint(), free_endpoint()

    def fails(*frames: bytes) -> list[bytes]:
        raise ValueError("no")

    with queue_at(front, back) as queue, working(back, fails) as bad, LazyPirate(front, timeout_s=5.0) as client:
        eventually(lambda: queue.counters.workers_registered == 1, "the failing one is first in the line")
        with working(back, lambda frame: frame):
            eventually(lambda: queue.counters.workers_registered == 2, "the good one is second")
            assert client.ask(b"hello") == [b"hello"]
            assert bad.counters.given_back == 1
    assert "ValueError" in caplog.text


def test_a_queue_that_falls_silent_is_left_with_the_socket_closed_first() -> None:
    """The guide's worker sleeps with its socket open, and whatever is sent there meanwhile is lost."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    queue = context.socket(zmq.ROUTER)
    queue.router_mandatory = 1
    queue.rcvtimeo = 5000
    port = queue.bind_to_random_port("tcp://127.0.0.1")
    try:
        with working(f"tcp://127.0.0.1:{port}", lambda frame: frame):
            first, ready = queue.recv_multipart()
            assert ready == b"\1"
            queue.send_multipart([first, b"client", b"", b"hello"])
            peer, *frames = queue.recv_multipart()
            while frames == [b"\2"]:
                peer, *frames = queue.recv_multipart()
            assert (peer, frames) == (first, [b"client", b"", b"hello"])
            # From here on this queue says nothing any more.
            peer, *frames = queue.recv_multipart()
            while frames == [b"\2"]:
                peer, *frames = queue.recv_multipart()
            assert frames == [b"\1"]
            assert peer != first
            with pytest.raises(zmq.ZMQError) as gone:
                queue.send_multipart([first, b"client", b"", b"lost"], zmq.NOBLOCK)
            assert gone.value.errno == zmq.EHOSTUNREACH
    finally:
        queue.close(linger=0)
        context.term()


def test_sigterm_ends_it_with_its_work_done() -> None:
    """As a process that a supervisor stops."""
    front, back = free_endpoint(), free_endpoint()
    with queue_at(front, back), worker_process(_PROCESS, back) as child, LazyPirate(front) as client:
        assert client.ask(b"hello") == [b"HELLO"]
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


def test_misuse_is_refused() -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="nonsense"):
        PppWorker("nonsense", lambda frame: frame)
    worker = PppWorker(free_endpoint(), lambda frame: frame)
    worker.stop(0.0)
    assert worker.run() == 0
    with pytest.raises(RuntimeError, match="once"):
        worker.run()
    assert worker.counters.requests == 0
