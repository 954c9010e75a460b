"""Workers of both shells: registration, drain, cancellation, misuse."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from reliable import AsyncWorker, Worker, WorkerConfig, current_request
from tests.support.loopback import QUICK_WORKER, ShellKind, Stage, eventually
from tests.support.ports import free_endpoint


def test_a_draining_worker_finishes_what_runs_and_takes_nothing_new(stage: Stage, shell: ShellKind) -> None:
    """What it holds is answered by it, what comes after by another worker; no caller notices."""
    broker = stage.broker()
    release, entered = threading.Event(), threading.Event()
    old = shell.worker(broker.endpoint)

    @old.service("who", raw=True)
    def who(frame: bytes) -> bytes:
        entered.set()
        release.wait(5)
        return b"old"

    running = shell.run(old)
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.request, "who", b"")
        assert entered.wait(5)
        old.stop()
        second = pool.submit(client.request, "who", b"")
        time.sleep(0.1)  # The second request must not have been handed to the old one.
        new = shell.worker(broker.endpoint)
        new.service("who", raw=True)(lambda frame: b"new")
        shell.run(new)
        assert second.result(5) == [b"new"]
        release.set()
        assert first.result(5) == [b"old"]
    assert running.stop() == 0


def test_a_drain_ends_at_its_deadline_and_counts_what_was_left(stage: Stage, shell: ShellKind) -> None:
    """A handler that hangs must not keep a process from being replaced."""
    broker = stage.broker()
    release, entered = threading.Event(), threading.Event()
    worker = shell.worker(broker.endpoint)

    @worker.service("hang", raw=True)
    def hang(frame: bytes) -> bytes:
        entered.set()
        release.wait(10)
        return frame

    running = shell.run(worker)
    client = shell.client(broker.endpoint, timeout=3.0)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "hang", b"")
        assert entered.wait(5)
        began = time.monotonic()
        assert running.stop(0.3) == 1
        assert time.monotonic() - began < 1.5
        assert reply.exception(5) is not None
        release.set()


def test_a_handler_is_told_that_nobody_waits_any_more(stage: Stage, shell: ShellKind) -> None:
    """Plain handlers look at a flag."""
    broker = stage.broker()
    seen = threading.Event()
    worker = shell.worker(broker.endpoint)

    @worker.service("patient", raw=True)
    def patient(frame: bytes) -> bytes:
        if current_request().wait_cancelled(5):
            seen.set()
        return frame

    shell.run(worker)
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "patient", b"")
        eventually(lambda: any(view.in_hand for view in broker.broker.snapshot().workers), "the handler runs")
        client.close()
        assert reply.exception(5) is not None
    assert seen.wait(5)


def test_as_many_handlers_run_at_once_as_were_asked_for_and_no_more(stage: Stage, shell: ShellKind) -> None:
    """Concurrency is what the broker is told, so what does not fit waits there, where others can take it."""
    broker = stage.broker()
    lock, now, most = threading.Lock(), [0], [0]
    worker = shell.worker(broker.endpoint, concurrency=3)

    @worker.service("busy", raw=True)
    def busy(frame: bytes) -> bytes:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return frame

    shell.run(worker)
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(client.request, "busy", b"") for _ in range(12)]:
            done.result(5)
    assert most[0] == 3


def test_several_services_of_one_worker_share_it(stage: Stage, shell: ShellKind) -> None:
    """One registration, one credit."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    for name in ("a", "b", "c"):
        worker.service(name, raw=True)(lambda frame, name=name: name.encode())
    shell.run(worker)
    client = shell.client(broker.endpoint)
    assert [client.request(name, b"") for name in ("a", "b", "c")] == [[b"a"], [b"b"], [b"c"]]
    assert len(broker.broker.snapshot().workers) == 1


@pytest.mark.slow
def test_heartbeats_go_on_while_a_handler_runs(stage: Stage, shell: ShellKind) -> None:
    """A handler longer than every timeout: the broker goes on to know that the worker is at it."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("long", raw=True)
    def long(frame: bytes) -> bytes:
        time.sleep(2.0)
        return frame

    shell.run(worker)
    client = shell.client(broker.endpoint)
    states = set()
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "long", b"x")
        while not reply.done():
            states |= {view.state for view in broker.broker.snapshot().workers}
            time.sleep(0.02)
        assert reply.result() == [b"x"]
    assert states <= {"idle", "working"}
    assert "working" in states


def test_a_worker_can_run_again_after_it_was_stopped(stage: Stage, shell: ShellKind) -> None:
    """Each run is a new registration."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    for number in range(2):
        running = shell.run(worker)
        assert shell.client(broker.endpoint).request("echo", b"%d" % number) == [b"%d" % number]
        assert running.stop() == 0


def test_a_worker_that_was_told_to_stop_before_it_ran_does_not_run(shell: ShellKind, endpoint: str) -> None:
    """A signal between construction and run must not get lost."""
    worker = shell.worker(endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    worker.stop()
    running = shell.run(worker, ready=False)
    eventually(lambda: running.ended, "the worker ends")
    assert running.stop() == 0


# --- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_services_are_checked_where_they_are_declared(kind: type[Worker] | type[AsyncWorker]) -> None:
    """Not at the first call, and with the name in the text."""
    worker = kind(free_endpoint())
    worker.service("taken")(lambda: None)
    with pytest.raises(ValueError, match="has a handler for 'taken'"):
        worker.service("taken")(lambda: None)
    with pytest.raises(ValueError, match=r"mmi\."):
        worker.service("mmi.mine")(lambda: None)
    with pytest.raises(ValueError, match="not printable"):
        worker.service("two words")(lambda: None)
    with pytest.raises(ValueError, match="drain"):
        worker.stop(-1)


def test_a_worker_needs_a_broker_and_a_service(endpoint: str) -> None:
    """Both may be given later, so this is found when it runs."""
    worker = Worker()
    with pytest.raises(ValueError, match="at least one broker"):
        worker.run()
    worker.brokers = [endpoint]
    with pytest.raises(ValueError, match="no service"):
        worker.run()


def test_concurrency_of_the_call_goes_before_the_one_of_the_settings() -> None:
    """And is checked in the same place."""
    config = attrs.evolve(QUICK_WORKER, concurrency=5)
    assert Worker(config=config)._setup.config.concurrency == 5
    assert Worker(config=config, concurrency=2)._setup.config.concurrency == 2
    with pytest.raises(ValueError, match="concurrency"):
        Worker(config=WorkerConfig(), concurrency=0)
