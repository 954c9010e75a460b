"""The broker as a process: binding, stopping, standing still."""

from __future__ import annotations

import errno
import logging
import signal
import socket as stdlib_socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from brokers import BrokerConfig, MajordomoBroker
from reliable import Client, ClosedError, Worker
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, QUICK_WORKER, Stage, eventually, worker_process
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_an_address_in_use_is_an_error_that_names_it(stage: Stage) -> None:
    """The most common one; libzmq's own text leaves the address out."""
    first = stage.broker()
    with MajordomoBroker([first.endpoint]) as second:
        with pytest.raises(OSError, match=f"{first.endpoint}: the address is in use") as caught:
            second.bind()
        assert caught.value.errno == errno.EADDRINUSE


def test_an_ipc_address_in_use_is_not_taken_from_who_has_it(stage: Stage, tmp_path: Path) -> None:
    """libzmq alone would replace the socket file, and every client of the first broker would end at the second."""
    address = f"ipc://{tmp_path}/b"
    first = stage.broker(address)
    with MajordomoBroker([address]) as second:
        with pytest.raises(OSError, match="the address is in use") as caught:
            second.bind()
        assert caught.value.errno == errno.EADDRINUSE
    with Client(first.endpoint, config=QUICK_CLIENT) as client:
        assert client.request("mmi.service", b"x") == [b"404"]


def test_an_ipc_file_that_a_dead_broker_left_is_no_hindrance(tmp_path: Path) -> None:
    """A killed broker cannot clean up; its successor must start without a hand."""
    path = tmp_path / "b"
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    assert path.exists()
    with MajordomoBroker([f"ipc://{path}"]) as broker:
        broker.bind()
        assert broker.endpoints == [f"ipc://{path}"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "nonsense", "tcp://203.0.113.1:5555", "ipc:///no/such/dir/x"])
def test_an_address_that_cannot_be_bound_is_an_oserror(address: str) -> None:
    """One class for all of them, with the address in front."""
    with MajordomoBroker([address]) as broker, pytest.raises(OSError, match=address):
        broker.bind()


def test_port_zero_takes_a_free_one_and_tells_which(tmp_path: Path) -> None:
    """So that tests and supervisors need not guess; several addresses are all listened on."""
    with MajordomoBroker(["tcp://127.0.0.1:0", f"ipc://{tmp_path}/b"]) as broker:
        broker.bind()
        thread = threading.Thread(target=broker.run)
        thread.start()
        tcp, ipc = broker.endpoints
        assert not tcp.endswith(":0")
        for endpoint in (tcp, ipc):
            with Client(endpoint, config=QUICK_CLIENT) as client:
                assert client.request("mmi.service", b"x") == [b"404"]
        broker.stop()
        thread.join(5)
    with pytest.raises(ClosedError):
        broker.bind()


def test_no_address_is_misuse() -> None:
    """And so is a bare string, whose letters would be taken for addresses."""
    with pytest.raises(ValueError, match="at least one address"):
        MajordomoBroker([])
    with pytest.raises(ValueError, match="list"):
        MajordomoBroker("tcp://127.0.0.1:5555")


def test_stop_before_run_is_not_lost(endpoint: str) -> None:
    """A signal may come before the loop begins."""
    broker = MajordomoBroker([endpoint])
    broker.stop()
    running = threading.Thread(target=broker.run, daemon=True)
    running.start()
    running.join(5)
    assert not running.is_alive()


def test_each_run_has_its_own_life_and_its_own_routing_ids() -> None:
    """A restarted broker that hands out the ids of its former life lets replies reach the wrong peer."""
    code = """
import sys, zmq
from brokers import MajordomoBroker
broker = MajordomoBroker([sys.argv[1]])
broker.bind()
peer = zmq.Context.instance().socket(zmq.DEALER)
peer.connect(broker.endpoints[0])
peer.send(b"x")
print(broker._socket.recv_multipart()[0].hex(), broker.life.hex(), flush=True)
broker.close()
peer.close(0)
"""
    seen = [
        subprocess.run([sys.executable, "-c", code, free_endpoint()], capture_output=True, timeout=20, check=True)
        for _ in range(2)
    ]
    first, second = (done.stdout.split() for done in seen)
    assert first[0] != second[0]
    assert first[1] != second[1]


_BROKER = """
import logging, signal, sys
from brokers import BrokerConfig, MajordomoBroker
from reliable.config import Heartbeat
logging.basicConfig(stream=sys.stderr)
broker = MajordomoBroker([sys.argv[1]], BrokerConfig(heartbeat=Heartbeat(interval_s=0.2, timeout_s=0.8)))
signal.signal(signal.SIGTERM, lambda *_: broker.stop())
broker.bind()
print("ready", flush=True)
broker.run()
"""


def test_sigterm_ends_the_loop_at_once(endpoint: str) -> None:
    """``stop`` may be called from a signal handler, while the loop sleeps."""
    that_sleeps_long = _BROKER.replace("interval_s=0.2, timeout_s=0.8", "interval_s=60.0, timeout_s=180.0")
    assert that_sleeps_long != _BROKER
    with worker_process(that_sleeps_long, endpoint) as broker:
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(10) == 0


@pytest.mark.slow
def test_a_broker_that_stood_still_does_not_blame_its_workers(endpoint: str) -> None:
    """After SIGSTOP and SIGCONT it reads what had come before it judges who was silent."""
    with worker_process(_BROKER, endpoint) as broker, Client(endpoint, config=QUICK_CLIENT) as client:
        worker = Worker(endpoint, config=QUICK_WORKER)
        worker.service("echo", raw=True)(lambda frame: frame)
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert worker.wait_ready(5)
        stats = worker.stats()
        assert stats is not None
        broker.send_signal(signal.SIGSTOP)
        time.sleep(0.7)  # Longer than an interval, shorter than everybody's patience.
        broker.send_signal(signal.SIGCONT)
        assert client.request("echo", b"x", timeout=3.0) == [b"x"]
        assert stats.registrations == 1
        worker.stop()
        thread.join(5)


def test_a_stall_is_logged_as_our_own(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log must not go looking for the network."""
    broker = stage.broker(config=QUICK_BROKER)
    engine = broker.broker._engine
    assert engine is not None
    receive = engine.receive

    def slow(frames: list[bytes], now: float) -> None:
        engine.receive = receive  # type: ignore[method-assign]
        time.sleep(0.5)
        receive(frames, now)

    engine.receive = slow  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "reliable.broker"), Client(broker.endpoint, config=QUICK_CLIENT) as client:
        assert client.request("mmi.service", b"x") == [b"404"]
        eventually(lambda: "that delay is mine" in caplog.text, "the stall is logged")
    assert broker.broker.snapshot().counters["stalls"] == 1


@pytest.mark.slow
def test_idle_brokers_sleep(stage: Stage) -> None:
    """No spinning on an edge that was never consumed."""
    with worker_process(_BROKER, free_endpoint()) as broker:
        time.sleep(0.3)  # Start-up is over.
        before = _cpu_s(broker.pid)
        time.sleep(1.0)
        assert _cpu_s(broker.pid) - before < 0.1


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_frame_above_the_limit_costs_the_sender_its_connection_only(stage: Stage) -> None:
    """Memory is bounded before the engine sees anything."""
    broker = stage.broker(config=BrokerConfig(message_bytes_max=100_000))
    with Client(broker.endpoint, config=QUICK_CLIENT) as bystander:
        assert bystander.request("mmi.service", b"x") == [b"404"]
        with zmq.Context() as context, context.socket(zmq.DEALER) as hostile:
            hostile.linger = 0
            hostile.connect(broker.endpoint)
            hostile.send_multipart([b"MDPC02", b"\x01", b"x", bytes(50_000_000)])
            assert bystander.request("mmi.service", b"y") == [b"404"]
        links = bystander.stats()
        assert (links.links_opened, links.links_lost) == (1, 0)
