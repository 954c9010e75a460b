"""The pirate queues with real sockets: kills, restarts and stalls, by peers that share no code with us."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import zmq

from brokers.queue_shell import ParanoidQueue, PirateQueue, SimpleQueue
from brokers.queueing import QueueConfig
from reliable import ClosedError
from reliable.config import Heartbeat
from tests.support.commands import Running, running
from tests.support.loopback import QUICK_TRANSPORT, eventually
from tests.support.pirates import LazyPirate, worker_process
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")

INTERVAL_S = 0.2
CONFIG = QueueConfig(heartbeat=Heartbeat(interval_s=INTERVAL_S, timeout_s=4 * INTERVAL_S))
ANY = "tcp://127.0.0.1:0"


@contextlib.contextmanager
def serving(queue: PirateQueue) -> Iterator[PirateQueue]:
    """A queue in a thread of this process."""
    queue.bind()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            queue.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=repr(queue))
    thread.start()
    try:
        yield queue
    finally:
        queue.stop()
        thread.join(10.0)
        assert not thread.is_alive(), "the queue does not stop"
    assert not failures, failures


@pytest.fixture
def queue() -> Iterator[PirateQueue]:
    """A Paranoid Pirate queue with quick heartbeats."""
    with serving(ParanoidQueue([ANY], [ANY], CONFIG, QUICK_TRANSPORT)) as made:
        yield made


class Sockets:
    """The bare sockets of a test, which all are closed at its end."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._made: list[zmq.Socket[bytes]] = []

    def new(self, kind: int) -> zmq.Socket[bytes]:
        """One that gives up waiting after a while."""
        socket = self._context.socket(kind)
        socket.rcvtimeo = 5000
        self._made.append(socket)
        return socket

    def connected(self, kind: int, url: str) -> zmq.Socket[bytes]:
        """The same, connected."""
        socket = self.new(kind)
        socket.connect(url)
        return socket

    def close(self) -> None:
        """Close all."""
        for socket in self._made:
            socket.close(linger=0)
        self._context.term()


@pytest.fixture
def sockets(no_leaks: None) -> Iterator[Sockets]:
    """Bare sockets."""
    made = Sockets()
    yield made
    made.close()


def request_at(worker: zmq.Socket[bytes]) -> list[bytes]:
    """The next message that is no heartbeat; those are answered, so that the worker stays known meanwhile."""
    while (frames := worker.recv_multipart()) == [b"\2"]:
        worker.send(b"\2")
    return frames


# --- wire ---


def test_a_plain_req_client_and_a_plain_dealer_worker_are_served(queue: PirateQueue, sockets: Sockets) -> None:
    """PPP-7: both sides connect with the sockets of the guide, and get what the RFC says."""
    worker = sockets.connected(zmq.DEALER, queue.backends[0])
    client = sockets.connected(zmq.REQ, queue.frontends[0])
    client.send_multipart([b"hello", b"", b"\x00\xff"])
    worker.send(b"\1")
    token, delimiter, *body = request_at(worker)
    assert (delimiter, body) == (b"", [b"hello", b"", b"\x00\xff"])
    worker.send_multipart([token, b"", b"world", b""])
    assert client.recv_multipart() == [b"world", b""]


def test_a_client_with_req_correlate_is_served(queue: PirateQueue, sockets: Sockets) -> None:
    """It puts a frame in front of the delimiter, and drops every reply that comes without."""
    worker = sockets.connected(zmq.DEALER, queue.backends[0])
    worker.send(b"\1")
    client = sockets.new(zmq.REQ)
    client.req_correlate = client.req_relaxed = 1
    client.connect(queue.frontends[0])
    client.send(b"hello")
    token, delimiter, body = request_at(worker)
    worker.send_multipart([token, delimiter, body])
    assert client.recv() == b"hello"


def test_peers_that_probe_are_not_taken_for_anything(queue: PirateQueue, sockets: Sockets) -> None:
    """PROBE_ROUTER sends one empty frame on connect."""
    worker, client = sockets.new(zmq.DEALER), sockets.new(zmq.REQ)
    for socket in (worker, client):
        socket.probe_router = 1
    worker.connect(queue.backends[0])
    client.connect(queue.frontends[0])
    client.send(b"hello")
    eventually(lambda: queue.counters.requests == 1, "the request is taken in")
    assert not worker.poll(100)
    worker.send(b"\1")
    assert request_at(worker)[-1] == b"hello"


@pytest.mark.slow
def test_a_silent_worker_hears_heartbeats(queue: PirateQueue, sockets: Sockets) -> None:
    """PPP-10: though nobody says anything; and a worker that goes on without a word is dropped by the queue."""
    worker = sockets.connected(zmq.DEALER, queue.backends[0])
    worker.send(b"\1")
    assert [worker.recv_multipart() for _ in range(3)] == [[b"\2"]] * 3
    eventually(lambda: queue.counters.workers_expired == 1, "the worker is gone")
    while worker.poll(0):
        worker.recv_multipart()
    assert not worker.poll(round(INTERVAL_S * 3000))


def test_a_worker_that_reconnected_is_not_asked_under_its_old_id(queue: PirateQueue, sockets: Sockets) -> None:
    """The guide's queue sends requests to the old one until it expires; they are lost without a word."""
    old = sockets.connected(zmq.DEALER, queue.backends[0])
    old.send(b"\1")
    eventually(lambda: queue.counters.workers_registered == 1, "the old one is registered")
    old.close(linger=0)
    new = sockets.connected(zmq.DEALER, queue.backends[0])
    new.send(b"\1")
    eventually(lambda: queue.counters.workers_registered == 2, "the new one is registered")
    client = sockets.connected(zmq.REQ, queue.frontends[0])
    client.send(b"hello")
    token, _, body = request_at(new)
    new.send_multipart([token, b"", body])
    assert client.recv() == b"hello"


@pytest.mark.slow
def test_drops_are_logged_once_in_a_second(sockets: Sockets, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else is told; and a flood must not become a flood of lines."""
    config = QueueConfig(queue_max=1)
    with (
        caplog.at_level(logging.WARNING, logger="reliable.queue"),
        serving(ParanoidQueue([ANY], [ANY], config, QUICK_TRANSPORT)) as queue,
    ):
        client = sockets.connected(zmq.DEALER, queue.frontends[0])
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            client.send_multipart([b"", b"hello"])
            time.sleep(0.001)
        eventually(lambda: bool(caplog.records), "it is said")
        assert len(caplog.records) <= 2
        assert re.match(r"dropped: \d+ \(the queue is full\)", caplog.records[0].message)


# --- faults ---


def _start_queue(stack: contextlib.ExitStack, front: str, back: str, interval_s: float = INTERVAL_S) -> Running:
    options = ("--frontend", front, "--backend", back, "--heartbeat-interval", str(interval_s))
    queue = stack.enter_context(running("ppp", *options, module="brokers"))
    assert "listening" in queue.line()
    return queue


@pytest.mark.slow
def test_after_a_kill_of_the_queue_workers_come_back_and_clients_go_on() -> None:
    """PPP-12: and no client gets the answer to a question of another one, though routing ids begin anew."""
    front, back = free_endpoint(), free_endpoint()
    wrong: list[str] = []
    served = [0]
    stopped = threading.Event()

    def load(number: int) -> None:
        with LazyPirate(front, timeout_s=1.0, attempts=20) as client:
            count = 0
            while not stopped.is_set():
                count += 1
                body = b"%d of %d" % (count, number)
                reply = client.ask(body)
                if reply[1:] != [body]:
                    wrong.append(f"{body!r} got {reply!r}")
                served[0] += 1

    with contextlib.ExitStack() as stack:
        queue = _start_queue(stack, front, back)
        for _ in range(2):
            stack.enter_context(worker_process("ppp", back, str(INTERVAL_S)))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        threads: list[Future[None]] = [pool.submit(load, number) for number in range(4)]
        try:
            for _ in range(3):
                before = served[0]
                eventually(lambda before=before: served[0] >= before + 50, "requests are answered", 20.0)  # type: ignore[misc]
                queue.process.kill()
                queue.process.wait(5)
                queue = _start_queue(stack, front, back)
            before = served[0]
            eventually(lambda: served[0] >= before + 50, "requests are answered in the last life", 20.0)
        finally:
            stopped.set()
        for thread in threads:
            thread.result(30)
        assert queue.stop() == 0
    assert wrong == []


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_the_request_of_a_worker_that_is_killed_or_frozen_is_answered_by_another(
    fault: signal.Signals, sockets: Sockets
) -> None:
    """PPP-15: a killed one is found by its connection, a frozen one by its silence; the client notices neither."""
    # By silence, or by the next heartbeat, a killed one would be found much later than this test waits.
    interval_s = 30.0 if fault is signal.SIGKILL else INTERVAL_S
    config = QueueConfig(heartbeat=Heartbeat(interval_s=interval_s, timeout_s=4 * interval_s))
    with (
        serving(ParanoidQueue([ANY], [ANY], config, QUICK_TRANSPORT)) as queue,
        worker_process("ppp", queue.backends[0], str(interval_s)) as worker,
    ):
        client = sockets.connected(zmq.REQ, queue.frontends[0])
        client.send(b"hold")
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"hold\n"
        worker.send_signal(fault)
        other = sockets.connected(zmq.DEALER, queue.backends[0])
        other.send(b"\1")
        token, _, body = request_at(other)
        other.send_multipart([token, b"", body, b"answered"])
        assert client.recv_multipart() == [b"hold", b"answered"]
        found = (queue.counters.workers_unreachable, queue.counters.workers_expired)
        assert found == ((1, 0) if fault is signal.SIGKILL else (0, 1))
        worker.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_queue_that_was_frozen_judges_no_worker_by_it(sockets: Sockets) -> None:
    """Worker and request are still there; the worker has said READY once only."""
    front, back = free_endpoint(), free_endpoint()
    with contextlib.ExitStack() as stack:
        queue = _start_queue(stack, front, back, interval_s=0.5)
        worker = sockets.connected(zmq.DEALER, back)
        worker.send(b"\1")
        assert worker.recv_multipart() == [b"\2"]
        queue.process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)  # More than the liveness: what must not be counted.
        queue.process.send_signal(signal.SIGCONT)
        client = sockets.connected(zmq.REQ, front)
        client.send(b"hello")
        token, _, body = request_at(worker)
        worker.send_multipart([token, b"", body])
        assert client.recv() == b"hello"
        assert queue.stop() == 0


def test_sigterm_ends_it_under_load() -> None:
    """Clients that ask all the time must not keep it."""
    front, back = free_endpoint(), free_endpoint()
    with contextlib.ExitStack() as stack:
        queue = _start_queue(stack, front, back)
        stack.enter_context(worker_process("ppp", back, str(INTERVAL_S)))
        stopped = threading.Event()

        def load() -> None:
            with LazyPirate(front, timeout_s=0.5, attempts=1) as client, contextlib.suppress(TimeoutError):
                while not stopped.is_set():
                    client.ask(b"hello")

        pool = stack.enter_context(ThreadPoolExecutor(4))
        threads = [pool.submit(load) for _ in range(4)]
        time.sleep(0.3)
        assert queue.stop() == 0
        assert queue.errors() == ""
        stopped.set()
        for thread in threads:
            thread.result(10)


# --- simple ---


def test_the_simple_queue_leaves_clients_in_the_socket_until_a_worker_is_ready(
    sockets: Sockets,
) -> None:
    """SP-1, SP-2: with the REQ sockets of the guide on both sides, in the order in which workers became ready."""
    with serving(SimpleQueue([ANY], [ANY], None, QUICK_TRANSPORT)) as queue:
        clients = [sockets.connected(zmq.REQ, queue.frontends[0]) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        time.sleep(0.2)  # Long enough for them to be read, if anybody did.
        assert queue.counters.requests == 0
        workers = []
        for number in range(2):
            workers.append(sockets.connected(zmq.REQ, queue.backends[0]))
            workers[-1].send(b"\1")
            eventually(lambda count=number + 1: queue.counters.requests == count, "one request is read")  # type: ignore[misc]
        for worker in workers:
            address, _, body = worker.recv_multipart()
            worker.send_multipart([address, b"", body])
        address, _, body = workers[0].recv_multipart()
        workers[0].send_multipart([address, b"", body])
        assert [client.recv() for client in clients] == [b"0", b"1", b"2"]


def test_the_simple_queue_serves_many_clients() -> None:
    """Each gets its own answer, from several workers, without an end."""
    with serving(SimpleQueue([ANY], [ANY], None, QUICK_TRANSPORT)) as queue, contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker_process("simple", queue.backends[0])) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(8))

        def ask(number: int) -> set[bytes]:
            with LazyPirate(queue.frontends[0]) as client:
                replies = [client.ask(b"%d-%d" % (number, count)) for count in range(50)]
            assert [reply[1] for reply in replies] == [b"%d-%d" % (number, count) for count in range(50)]
            return {reply[0] for reply in replies}

        seen = set().union(*pool.map(ask, range(8)))
        assert seen == {b"%d" % worker.pid for worker in workers}


def test_a_dead_idle_worker_costs_the_simple_queue_no_request() -> None:
    """MANDATORY tells; the guide's queue loses the request, and its client waits for nothing."""
    with serving(SimpleQueue([ANY], [ANY], None, QUICK_TRANSPORT)) as queue, contextlib.ExitStack() as stack:
        dead: subprocess.Popen[bytes] = stack.enter_context(worker_process("simple", queue.backends[0]))
        eventually(lambda: queue.counters.workers_registered == 1, "the first one is ready")
        dead.kill()
        dead.wait(5)
        alive = stack.enter_context(worker_process("simple", queue.backends[0]))
        eventually(lambda: queue.counters.workers_registered == 2, "the second one is ready")
        with LazyPirate(queue.frontends[0], attempts=1, timeout_s=5.0) as client:
            assert client.ask(b"hello") == [b"%d" % alive.pid, b"hello"]


# --- as an object ---


@pytest.mark.parametrize("kind", [ParanoidQueue, SimpleQueue])
def test_an_address_in_use_is_an_error_that_names_it(kind: type[PirateQueue], queue: PirateQueue) -> None:
    """On either side; and nothing is left behind."""
    for sides in (([queue.frontends[0]], [ANY]), ([ANY], [queue.backends[0]])):
        with kind(*sides) as second:
            with pytest.raises(OSError, match="the address is in use") as caught:
                second.bind()
            assert caught.value.errno == errno.EADDRINUSE
            with pytest.raises(ClosedError):
                second.bind()


def test_misuse_is_refused() -> None:
    """A bare string would be taken letter by letter."""
    with pytest.raises(ValueError, match="at least one address"):
        ParanoidQueue([ANY], [])
    with pytest.raises(ValueError, match="list"):
        SimpleQueue(ANY, [ANY])
    with ParanoidQueue([ANY], [ANY]) as queue:
        with pytest.raises(ClosedError):
            queue.snapshot()
        with pytest.raises(ClosedError):
            _ = queue.counters
        queue.bind()
        queue.bind()
        assert queue.snapshot().workers == ()
        assert queue.frontends[0] in repr(queue)


def test_stop_before_run_is_not_lost() -> None:
    """A signal may come before the loop begins."""
    queue = ParanoidQueue([ANY], [ANY])
    queue.stop()
    thread = threading.Thread(target=queue.run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
