"""What else a client offers, with both shells: one-way calls, questions to the broker, views, proxies, traces."""

from __future__ import annotations

import copy
import inspect
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reliable import (
    JSON,
    RAW,
    BrokerUnreachable,
    Client,
    ClosedError,
    HedgePolicy,
    PayloadError,
    RequestTimeout,
    ServiceNotFound,
    WorkerFailed,
    current_request,
)
from tests.support.callers import Caller
from tests.support.loopback import QUICK_CLIENT, QUICK_WORKER, BrokerThread, ShellKind, Stage, eventually
from tests.support.ports import free_endpoint

_TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Serving:
    def __init__(self, stage: Stage, shell: ShellKind) -> None:
        self.broker: BrokerThread = stage.broker()
        self.ran: list[object] = []
        worker = shell.worker(self.broker.endpoint, concurrency=4)

        @worker.service("math.add")
        def add(a: int, b: int = 0) -> int:
            return a + b

        @worker.service("math")
        def math(*args: int) -> int:
            return len(args)

        @worker.service("trace")
        def trace() -> str:
            return current_request().trace.decode()

        @worker.service("nested")
        def nested() -> object:
            with Client(self.broker.endpoint, config=QUICK_CLIENT) as client:
                return client.call("trace")

        @worker.service("note")
        def note(what: object) -> object:
            time.sleep(0.2)
            self.ran.append(what)
            return what

        @worker.service("raw", raw=True)
        def raw(*frames: bytes) -> list[bytes]:
            return list(frames)

        shell.run(worker)


@pytest.fixture
def serving(stage: Stage, shell: ShellKind) -> _Serving:
    return _Serving(stage, shell)


# --- one-way --------------------------------------------------------------------------------------


def test_a_one_way_call_returns_before_it_has_run(serving: _Serving, shell: ShellKind) -> None:
    """As soon as the broker holds it; it runs although nobody waits."""
    client = Caller.of(shell, serving.broker.endpoint)
    began = time.monotonic()
    assert client.send("note", "x") is None
    assert time.monotonic() - began < 0.19
    assert serving.ran == []
    eventually(lambda: serving.ran == ["x"], "it ran")
    assert client.open_calls == 0


def test_a_one_way_call_that_no_broker_takes_is_an_error(shell: ShellKind, endpoint: str) -> None:
    """One-way is about the reply: that nobody has it, the caller hears."""
    with pytest.raises(BrokerUnreachable):
        Caller.of(shell, endpoint).options(timeout=0.3).send("note", 1)


@pytest.mark.parametrize("dialect", ["mdp/0.1", "mdp/0.2", "req", "ppp", "freelance"])
def test_one_way_calls_need_a_dialect_that_has_them(shell: ShellKind, endpoint: str, dialect: str) -> None:
    """Elsewhere the reply would come to nobody, or nobody would know whether it was taken."""
    with pytest.raises(ValueError, match="no one-way calls"):
        Caller.of(shell, endpoint, dialect=dialect).send("note", 1)


# --- the broker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["mdp", "mdp/0.1", "mdp/0.2"])
def test_ping_measures_a_round_trip(serving: _Serving, shell: ShellKind, dialect: str) -> None:
    """In seconds, and no worker is needed for it."""
    client = Caller.of(shell, serving.broker.endpoint, dialect=dialect)
    client.ping()
    assert 0.0 < client.ping(timeout=2.0) < 0.5


def test_ping_ends_like_a_call(shell: ShellKind, endpoint: str) -> None:
    """It is one."""
    with pytest.raises(BrokerUnreachable):
        Caller.of(shell, endpoint).ping(timeout=0.3)


@pytest.mark.parametrize("dialect", ["req", "ppp", "freelance"])
def test_without_a_majordomo_broker_nobody_can_be_asked(shell: ShellKind, endpoint: str, dialect: str) -> None:
    """Said at once and in words, not by a timeout."""
    client = Caller.of(shell, endpoint, dialect=dialect)
    with pytest.raises(ValueError, match="nobody to ask"):
        client.ping()
    with pytest.raises(ValueError, match="nobody to ask"):
        client.wait_ready("math")


def test_wait_ready_waits_for_broker_and_workers(stage: Stage, shell: ShellKind) -> None:
    """Whatever starts first: scripts need not sleep."""
    endpoint = free_endpoint()
    client = Caller.of(shell, endpoint)
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(client.wait_ready, "echo", 2)
        time.sleep(0.1)  # Refused connects.
        stage.broker(endpoint)
        for count in range(2):
            worker = shell.worker(endpoint, config=QUICK_WORKER)
            worker.service("echo", raw=True)(lambda frame: frame)
            assert not ready.done(), count
            shell.run(worker)
        assert ready.result(5) is None
    client.wait_ready("echo", timeout=0.5)


def test_wait_ready_says_what_is_missing(serving: _Serving, shell: ShellKind, endpoint: str) -> None:
    """The broker, or how many workers: two different things to look for."""
    client = Caller.of(shell, serving.broker.endpoint)
    began = time.monotonic()
    with pytest.raises(ServiceNotFound, match=r"1 of 2 live workers for 'math'"):
        client.wait_ready("math", 2, timeout=0.4)
    with pytest.raises(ServiceNotFound, match=r"0 of 1"):
        client.options(timeout=0.3).wait_ready("nobody")
    with pytest.raises(BrokerUnreachable):
        Caller.of(shell, endpoint).wait_ready("math", timeout=0.3)
    assert time.monotonic() - began < 2.0
    with pytest.raises(ValueError, match="at least 1"):
        client.wait_ready("math", 0)


@pytest.mark.parametrize("dialect", ["mdp/0.1", "mdp/0.2"])
def test_wait_ready_asks_other_brokers_as_the_rfc_has_it(serving: _Serving, shell: ShellKind, dialect: str) -> None:
    """By 8/MMI, which knows whether there is a worker, not how many."""
    client = Caller.of(shell, serving.broker.endpoint, dialect=dialect)
    client.wait_ready("math", timeout=2.0)
    with pytest.raises(ServiceNotFound):
        client.wait_ready("nobody", timeout=0.3)
    with pytest.raises(ValueError, match="how many workers"):
        client.wait_ready("math", 2)


def test_wait_ready_ends_when_the_client_is_closed(stage: Stage, shell: ShellKind) -> None:
    """Within a second, from another thread."""
    broker = stage.broker()
    client = Caller.of(shell, broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(client.wait_ready, "nobody")
        eventually(lambda: client.client.snapshot() is not None, "it asks")
        client.close()
        assert isinstance(ready.exception(1), Exception)


# --- views and proxies ----------------------------------------------------------------------------


def test_a_service_is_an_object(serving: _Serving, shell: ShellKind) -> None:
    """Attributes are names of services, as workers register the methods of an object."""
    client = Caller.of(shell, serving.broker.endpoint)
    math = client.proxy("math")
    assert client.ask(math.add, 1, b=2) == 3
    assert client.ask(math, 1, 2, 3) == 3
    with pytest.raises(ServiceNotFound):
        client.ask(math.options(fail_fast=True).sub, 1)
    assert math.options(timeout=2.0).add is not None
    with pytest.raises(ValueError, match="empty"):
        client.proxy("")


def test_a_proxy_has_no_methods_that_nobody_wrote(shell: ShellKind, endpoint: str) -> None:
    """copy, pickle, inspect and debuggers look for names with underscores; none may become a call."""
    math = Caller.of(shell, endpoint).proxy("math")
    for name in ("_private", "__deepcopy__", "__wrapped__", "__len__"):
        with pytest.raises(AttributeError, match=name):
            getattr(math, name)
    assert not inspect.iscoroutinefunction(math.__call__) or shell.name == "asyncio"
    assert repr(copy.copy(math)).endswith("ServiceProxy math>")
    assert not hasattr(math, "__iter__")


def test_options_add_up(serving: _Serving, shell: ShellKind) -> None:
    """A view of a view keeps what it is not told to change; the codec too."""
    client = Caller.of(shell, serving.broker.endpoint)
    view = client.options(codec=RAW).options(timeout=2.0)
    assert view.call("raw", b"1", b"2") == [b"1", b"2"]
    assert view.map("raw", [b"1"]).__next__() == b"1"
    with pytest.raises(WorkerFailed, match="not MessagePack"):
        client.options(codec=JSON).call("math", 1)
    with pytest.raises(RequestTimeout):
        client.options(timeout=0.05).options(idempotent=True).call("note", 1)
    assert view.submit("raw", b"x").result() == b"x"


@pytest.mark.parametrize("method", ["call", "submit", "stream", "send", "map"])
def test_text_where_bytes_are_due_is_explained(shell: ShellKind, endpoint: str, method: str) -> None:
    """The most common slip with raw services, in whatever way it is called; nothing is sent."""
    client = Caller.of(shell, endpoint).options(codec=RAW)
    with pytest.raises(PayloadError, match="must be bytes, not str"):
        made = getattr(client, method)("raw", ["text"] if method == "map" else "text")
        list(made)
    with pytest.raises(PayloadError, match="must be bytes, not str"):
        Caller.of(shell, endpoint).request("raw", b"1", "text")
    with pytest.raises(PayloadError, match="must be bytes, not str"):
        client.options(trace="00-text").request("raw", b"1")


def test_a_closed_client_refuses_all_calls_and_a_view_of_it_too(shell: ShellKind, endpoint: str) -> None:
    """With one error, whatever is called."""
    client = Caller.of(shell, endpoint)
    view = client.options(timeout=1.0)
    client.close()
    for one in (client, view):
        for act in (
            lambda one=one: one.call("math"),
            lambda one=one: one.request("math"),
            lambda one=one: one.submit("math"),
            lambda one=one: one.stream("math"),
            lambda one=one: list(one.map("math", [1])),
            lambda one=one: one.send("math"),
            lambda one=one: one.ping(),
            lambda one=one: one.wait_ready("math"),
            lambda one=one: one.ask(one.proxy("math").add),
        ):
            with pytest.raises(ClosedError):
                act()
    assert not client.cancel(b"x" * 16)


def test_hedging_needs_a_call_that_may_run_twice(serving: _Serving, shell: ShellKind) -> None:
    """Refused here, where the mistake is; by settings it is only for calls that say so."""
    client = Caller.of(shell, serving.broker.endpoint)
    policy = HedgePolicy(delay_s=5.0)
    with pytest.raises(ValueError, match="idempotent=True"):
        client.request("raw", b"", hedge=policy)
    assert client.request("raw", b"x", hedge=policy, idempotent=True) == [b"x"]
    assert client.request("raw", b"x", hedge=None) == [b"x"]


# --- traces ---------------------------------------------------------------------------------------


def test_a_trace_context_goes_along(serving: _Serving, shell: ShellKind) -> None:
    """Given for a call, by the source of the client, or inherited from the request that is being handled."""
    asked: list[bool] = []

    def source() -> bytes:
        asked.append(True)
        return b"of the source"

    client = Caller.of(shell, serving.broker.endpoint, trace_source=source)
    assert client.options(trace=_TRACE).call("trace") == _TRACE.decode()
    assert asked == []
    assert client.call("trace") == "of the source"
    assert client.submit("trace").result() == "of the source"
    assert list(client.stream("trace")) == ["of the source"]
    assert len(asked) == 3
    assert client.options(trace=_TRACE).call("nested") == _TRACE.decode()
    assert client.options(trace=b"").call("trace") == ""
    with pytest.raises(ValueError, match="255 bytes"):
        client.options(trace=bytes(256)).call("trace")


def test_a_trace_source_that_fails_costs_no_call(serving: _Serving, shell: ShellKind) -> None:
    """Watching must not break what is watched."""

    def source() -> bytes:
        raise ValueError("no tracer")

    client = Caller.of(shell, serving.broker.endpoint, trace_source=source)
    assert client.call("trace") == ""
