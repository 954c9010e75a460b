"""What only the blocking client can get wrong: who pumps for whom."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reliable import BrokerUnreachable, Client, DeadlineExceeded, Outcome, RequestAbandoned
from reliable.sync.waiting import Signal
from tests.support.loopback import QUICK_CLIENT, ShellKind, Stage, eventually

_QUESTION = ("mmi.service", b"nobody")


@pytest.mark.slow
def test_a_leader_that_does_not_come_back_is_replaced(stage: Stage, shell: ShellKind) -> None:
    """Say, its thread was stopped by a debugger: nobody may wait for ever for somebody else."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("slow", raw=True)
    def slow(frame: bytes) -> bytes:
        time.sleep(0.3)  # Longer than it takes to submit, so that somebody has to wait for the reply.
        return frame

    shell.run(worker)
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        assert client.request("slow", b"1") == [b"1"]
        pump = client._pump
        assert pump is not None
        pump._leader = Signal()
        pump._leader_back = time.monotonic()
        began = time.monotonic()
        assert client.request("slow", b"2") == [b"2"]
        assert time.monotonic() - began < 3.0


def test_a_call_ends_behind_its_deadline_even_if_the_engine_never_says_so(stage: Stage) -> None:
    """Each waiter keeps a bound of its own."""
    broker = stage.broker()
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        assert client.request(*_QUESTION) == [b"404"]
        pump = client._pump
        assert pump is not None
        pump._driver.handle = lambda event: None  # type: ignore[method-assign]
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            client.request(*_QUESTION, timeout=0.3)
        assert 0.3 < time.monotonic() - began < 2.0
        assert caught.value.outcome is Outcome.UNKNOWN


def test_an_interrupt_inside_the_engine_ends_every_call_and_the_next_one_starts_afresh(stage: Stage) -> None:
    """An engine that was left in the middle of a step cannot be trusted with anybody's reply."""
    broker = stage.broker()
    with Client(broker.endpoint, config=QUICK_CLIENT) as client, ThreadPoolExecutor(1) as pool:
        other = pool.submit(client.request, "nobody", b"")
        eventually(lambda: broker.broker.snapshot().services != (), "the other call is there")
        pump = client._pump
        assert pump is not None

        def interrupted(event: object) -> None:
            raise KeyboardInterrupt

        pump._driver.handle = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            client.request(*_QUESTION)
        assert isinstance(other.exception(2), RequestAbandoned)
        assert client.request(*_QUESTION) == [b"404"]
        assert client._pump is not pump


def test_the_lead_is_handed_on_when_the_leaders_call_is_over(stage: Stage, shell: ShellKind) -> None:
    """The first caller ends early; those who followed must not notice, nor wait for their next look."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, concurrency=4)

    @worker.service("sleep", raw=True)
    def sleep(frame: bytes) -> bytes:
        time.sleep(float(frame))
        return frame

    shell.run(worker)
    with Client(broker.endpoint, config=QUICK_CLIENT) as client, ThreadPoolExecutor(4) as pool:
        took: dict[bytes, float] = {}

        def ask(frame: bytes) -> None:
            began = time.monotonic()
            assert client.request("sleep", frame) == [frame]
            took[frame] = time.monotonic() - began

        asked = [pool.submit(ask, b"%.2f" % (0.1 * number)) for number in range(1, 5)]
        for done in asked:
            done.result(10)
        assert all(seconds < float(frame) + 0.3 for frame, seconds in took.items()), took


def test_a_shorter_deadline_of_a_later_call_is_kept(endpoint: str, no_leaks: None) -> None:
    """The leader waits until its own; it must be woken for an earlier one."""
    with (
        socket.create_server(("127.0.0.1", int(endpoint.rpartition(":")[2]))),
        Client(endpoint) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        # The peer accepts and says nothing, so that the next thing to happen is the end of the handshake's 2 s.
        long = pool.submit(client.request, "nobody", b"", timeout=20.0)
        eventually(lambda: (snapshot := client.snapshot()) is not None and snapshot.calls == 1, "the first is there")
        time.sleep(0.1)  # It leads.
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            client.request("nobody", b"", timeout=0.2)
        assert time.monotonic() - began < 0.45
        client.close()
        assert long.exception(5) is not None


def test_a_client_without_calls_has_no_thread(stage: Stage) -> None:
    """Importing and using the library starts nothing behind the user's back."""
    broker = stage.broker()
    before = set(threading.enumerate())
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        assert client.request(*_QUESTION) == [b"404"]
        assert set(threading.enumerate()) == before


def test_threads_that_come_and_go_leave_nothing_behind(stage: Stage) -> None:
    """Two hundred short-lived threads: each finds the client as the last one left it."""
    broker = stage.broker()
    with Client(broker.endpoint, config=QUICK_CLIENT) as client:
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                assert client.request(*_QUESTION) == [b"404"]
            except BaseException as error:
                errors.append(error)

        for _ in range(20):
            threads = [threading.Thread(target=ask) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        assert errors == []
        snapshot = client.snapshot()
        assert snapshot is not None
        assert (snapshot.calls, len(snapshot.links)) == (0, 1)
