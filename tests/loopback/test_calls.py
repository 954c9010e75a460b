"""Calls from end to end, with both shells: each ends with its reply or with the right error, in time."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from brokers import BrokerConfig
from reliable import (
    JSON,
    MSGPACK,
    BrokerUnreachable,
    Client,
    ClosedError,
    Codec,
    DeadlineExceeded,
    Limits,
    MessageTooLarge,
    Outcome,
    PayloadError,
    RequestAbandoned,
    RequestError,
    RequestTimeout,
    ServiceNotFound,
    WorkerFailed,
    current_request,
)
from tests.support.loopback import QUICK_BROKER, QUICK_CLIENT, QUICK_WORKER, ShellKind, Stage, eventually
from tests.support.ports import free_endpoint


def test_frames_come_back_as_they_were_sent(stage: Stage, shell: ShellKind) -> None:
    """Empty ones and any bytes included: nothing between caller and handler looks into a body."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda *frames: list(frames))
    shell.run(worker)
    client = shell.client(broker.endpoint)
    for body in ([b"hello"], [b"", b"\x00\xff", b""], [b""], [b"MDPC01"], [bytes(300_000)]):
        assert client.request("echo", *body) == body
    assert client.request("echo") == [b""]


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=lambda codec: codec.name)
def test_a_typed_call_is_a_function_call(stage: Stage, shell: ShellKind, codec: Codec) -> None:
    """Positional and named arguments go in, the value comes out."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, codec=codec)

    @worker.service("describe")
    def describe(name: str, *, times: int = 1) -> dict[str, object]:
        return {"name": name * times, "none": None}

    shell.run(worker)
    client = shell.client(broker.endpoint, codec=codec)
    assert client.call("describe", "ab", times=2) == {"name": "abab", "none": None}
    assert client.call("describe", "ab") == {"name": "ab", "none": None}


def test_a_handler_that_raises_is_told_as_executed(stage: Stage, shell: ShellKind) -> None:
    """The caller must know that the work began, and get the name and text of what went wrong."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("fail")
    def fail() -> None:
        raise ZeroDivisionError("nothing to divide by")

    shell.run(worker)
    with pytest.raises(WorkerFailed, match="nothing to divide by") as caught:
        shell.client(broker.endpoint).call("fail")
    error = caught.value
    assert (error.remote_type, error.remote_message) == ("ZeroDivisionError", "nothing to divide by")
    assert (error.outcome, error.service, error.attempts) == (Outcome.EXECUTED, "fail", 1)


@pytest.mark.parametrize("body", [b"\xc1", b"\x92\x91\x01\x80", b"\x92\x90\x81\xa1x\x01"])
def test_arguments_that_do_not_fit_never_enter_the_handler(stage: Stage, shell: ShellKind, body: bytes) -> None:
    """Not decodable, one too many, or a name that is not there: it is known that nothing ran."""
    entered = threading.Event()
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("strict")
    def strict() -> None:
        entered.set()

    shell.run(worker)
    with pytest.raises(WorkerFailed) as caught:
        shell.client(broker.endpoint).request("strict", body)
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert not entered.is_set()


def test_a_result_that_cannot_be_written_is_the_handlers_failure(stage: Stage, shell: ShellKind) -> None:
    """It ran; the caller must not be told otherwise, nor left waiting."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("odd")(lambda: object())
    shell.run(worker)
    with pytest.raises(WorkerFailed, match="cannot be encoded") as caught:
        shell.client(broker.endpoint).call("odd")
    assert (caught.value.remote_type, caught.value.outcome) == ("PayloadError", Outcome.EXECUTED)


def test_a_call_ends_by_its_deadline_while_the_handler_goes_on(stage: Stage, shell: ShellKind) -> None:
    """The first promise, in its plainest form."""
    release = threading.Event()
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("slow")
    def slow() -> None:
        release.wait(10)

    running = shell.run(worker)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        shell.client(broker.endpoint).request("slow", b"\x92\x90\x80", timeout=0.4)
    assert 0.3 < time.monotonic() - began < 0.6
    assert caught.value.outcome is Outcome.UNKNOWN
    assert isinstance(caught.value, TimeoutError)
    release.set()
    assert running.stop() == 0


@pytest.mark.slow
def test_a_run_longer_than_the_attempt_timeout_is_waited_for(stage: Stage, shell: ShellKind) -> None:
    """The attempt timeout is about silence: the broker answers for a worker that is at it."""
    broker = stage.broker()
    runs: list[float] = []
    worker = shell.worker(broker.endpoint)

    @worker.service("long", idempotent=True)
    def long() -> str:
        runs.append(time.monotonic())
        time.sleep(1.5)
        return "done"

    shell.run(worker)
    config = attrs.evolve(QUICK_CLIENT, retry=attrs.evolve(QUICK_CLIENT.retry, attempt_timeout_s=0.3, attempts=2))
    assert shell.client(broker.endpoint, config=config).call("long") == "done"
    assert len(runs) == 1


def test_fail_fast_ends_at_once_where_nobody_serves(stage: Stage, shell: ShellKind) -> None:
    """By choice; and it is proven that nothing ran."""
    broker = stage.broker()
    client = shell.client(broker.endpoint)
    began = time.monotonic()
    with pytest.raises(ServiceNotFound) as caught:
        client.request("nobody", b"", fail_fast=True)
    assert time.monotonic() - began < 1.0
    assert caught.value.outcome is Outcome.NOT_EXECUTED


@pytest.mark.slow
def test_without_a_worker_the_deadline_says_so(stage: Stage, shell: ShellKind) -> None:
    """Not "timeout", which would leave open whether it ran."""
    broker = stage.broker()
    with pytest.raises(ServiceNotFound) as caught:
        shell.client(broker.endpoint).request("nobody", b"", timeout=1.5)
    assert caught.value.outcome is Outcome.NOT_EXECUTED


def test_a_call_waits_for_a_worker_that_comes_later(stage: Stage, shell: ShellKind) -> None:
    """Start order does not matter, unless the caller says that it does."""
    broker = stage.broker()
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "late", b"x")
        eventually(lambda: broker.broker.snapshot().services != (), "the broker holds the request")
        worker = shell.worker(broker.endpoint)
        worker.service("late", raw=True)(lambda frame: frame + b"!")
        shell.run(worker)
        assert reply.result(5) == [b"x!"]


def test_everything_may_start_before_the_broker(stage: Stage, shell: ShellKind) -> None:
    """Client and worker find it when it comes."""
    endpoint = free_endpoint()
    worker = shell.worker(endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    running = shell.run(worker, ready=False)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(shell.client(endpoint).request, "echo", b"x")
        time.sleep(0.3)  # A few refused connects.
        assert not reply.done()
        stage.broker(endpoint)
        assert reply.result(5) == [b"x"]
    running.wait_ready()


def test_an_unreachable_broker_is_named(shell: ShellKind, endpoint: str) -> None:
    """The first thing that goes wrong for a new user; nothing was sent, and the address is in the text."""
    with pytest.raises(BrokerUnreachable, match=endpoint) as caught:
        shell.client(endpoint).request("echo", b"", timeout=0.4)
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert isinstance(caught.value, ConnectionError)


def test_a_handler_knows_its_request(stage: Stage, shell: ShellKind) -> None:
    """Deadline, attempt and delivery are for it to see."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("inspect")
    def inspect() -> list[object]:
        request = current_request()
        request.progress(b"half")
        return [
            request.service,
            request.attempt,
            request.delivery,
            request.cancelled,
            len(request.call_id),
            request.remaining_s,
        ]

    shell.run(worker)
    result = shell.client(broker.endpoint, timeout=3.0).call("inspect")
    assert isinstance(result, list)
    assert result[:5] == ["inspect", 1, 1, False, 16]
    assert 1.0 < result[5] <= 3.0


def test_a_call_from_a_handler_does_not_outlive_the_deadline_it_works_for(stage: Stage, shell: ShellKind) -> None:
    """Work that nobody waits for any more should stop along the whole chain."""
    waited_s: list[float] = []
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("outer")
    def outer() -> None:
        began = time.monotonic()
        with Client(broker.endpoint, config=QUICK_CLIENT) as nested, contextlib.suppress(RequestError):
            nested.request("nobody", b"", timeout=30.0)
        waited_s.append(time.monotonic() - began)

    shell.run(worker)
    with contextlib.suppress(RequestTimeout):
        shell.client(broker.endpoint, timeout=0.8).call("outer")
    eventually(lambda: bool(waited_s), "the handler gave up")
    assert waited_s[0] < 1.0


def test_current_request_is_for_handlers_only() -> None:
    """Elsewhere there is none to tell of."""
    with pytest.raises(LookupError, match="inside a handler"):
        current_request()


def test_a_request_above_the_limit_is_never_sent(stage: Stage, shell: ShellKind) -> None:
    """Ours or the broker's: typed, at once, and nothing ran."""
    broker = stage.broker(config=attrs.evolve(QUICK_BROKER, message_bytes_max=100_000))
    client = shell.client(broker.endpoint)
    with pytest.raises(MessageTooLarge) as caught:
        client.request("any", bytes(200_000))
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    small = shell.client(broker.endpoint, config=attrs.evolve(QUICK_CLIENT, limits=Limits(message_bytes_max=2_000)))
    with pytest.raises(MessageTooLarge):
        small.request("any", bytes(3_000))


def test_a_reply_above_the_limit_is_an_error_not_silence(stage: Stage, shell: ShellKind) -> None:
    """It ran, and the caller hears why there is no result."""
    broker = stage.broker(config=attrs.evolve(QUICK_BROKER, message_bytes_max=100_000))
    worker = shell.worker(broker.endpoint)
    worker.service("big", raw=True)(lambda frame: bytes(200_000))
    shell.run(worker)
    with pytest.raises(MessageTooLarge, match="the reply has 200") as caught:
        shell.client(broker.endpoint).request("big", b"")
    assert caught.value.outcome is Outcome.EXECUTED


def test_ipc_works_as_tcp_does(stage: Stage, shell: ShellKind, tmp_path: Path) -> None:
    """For processes of one machine."""
    broker = stage.broker(f"ipc://{tmp_path}/broker")
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    assert shell.client(broker.endpoint).request("echo", b"x") == [b"x"]


def test_closing_ends_calls_that_wait(stage: Stage, shell: ShellKind) -> None:
    """Within a second, from another thread, with an error that does not claim to know."""
    broker = stage.broker()
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(client.request, "nobody", b"") for _ in range(3)]
        eventually(lambda: broker.broker.snapshot().counters["requests"] >= 3, "the broker has the calls")
        began = time.monotonic()
        client.close()
        for reply in replies:
            assert isinstance(reply.exception(2), RequestAbandoned)
        assert time.monotonic() - began < 1.0
    with pytest.raises(ClosedError):
        client.request("nobody", b"")
    client.close()


def test_misuse_is_refused_before_anything_is_sent(shell: ShellKind, endpoint: str) -> None:
    """With texts that say what to write instead."""
    client = shell.client(endpoint)
    with pytest.raises(PayloadError, match="must be bytes, not str"):
        client.request("echo", "text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not printable ASCII"):
        client.request("two words", b"")
    with pytest.raises(ValueError, match="positive number of seconds"):
        client.request("echo", b"", timeout=0)
    with pytest.raises(PayloadError, match="cannot be encoded"):
        client.call("echo", object())


def test_the_queue_limit_of_a_broker_is_an_answer(stage: Stage, shell: ShellKind) -> None:
    """Refused at once and proven not to have run: not kept in silence until the deadline."""
    broker = stage.broker(config=BrokerConfig(queued_max=2, heartbeat=QUICK_BROKER.heartbeat))
    client = shell.client(broker.endpoint, timeout=1.0)
    with ThreadPoolExecutor(6) as pool:
        errors = [reply.exception(5) for reply in [pool.submit(client.request, "nobody", b"") for _ in range(6)]]
    assert all(isinstance(error, RequestError) and error.outcome is Outcome.NOT_EXECUTED for error in errors), errors
    assert broker.broker.snapshot().counters["overloaded"] > 0


def test_results_are_kept_apart_for_many_callers(stage: Stage, shell: ShellKind) -> None:
    """Thirty-two threads on one client: everybody gets the reply to its own question, and nobody waits for ever."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, concurrency=4, config=QUICK_WORKER)
    worker.service("double", idempotent=True)(lambda number: number * 2)
    shell.run(worker)
    client = shell.client(broker.endpoint)

    def ask(first: int) -> None:
        for number in range(first, first + 25):
            assert client.call("double", number) == number * 2

    with ThreadPoolExecutor(32) as pool:
        for done in [pool.submit(ask, 1000 * thread) for thread in range(32)]:
            done.result(30)
