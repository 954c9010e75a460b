"""Brokers by name: names that mean nothing, resolvers that say nothing, and brokers that moved."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs
import pytest

from reliable import BrokerUnreachable, Outcome, RequestError
from reliable.config import Backoff
from reliable.names import LOOKUPS_MAX, Resolver
from tests.support.load import LATE_S_MAX, Ended, Lag, Plan, assert_nothing_is_left, inner_client, make_calls
from tests.support.loopback import QUICK_CLIENT, QUICK_TRANSPORT, AnyClient, ShellKind, Stage, eventually
from tests.support.ports import free_port

_RESOLVE_S: Final = 1.0
_CLIENT: Final = attrs.evolve(
    QUICK_CLIENT,
    stagger_s=0.1,
    reconnect=Backoff(initial_s=0.02, delay_s_max=0.1),
    transport=attrs.evolve(QUICK_TRANSPORT, resolve_timeout_s=_RESOLVE_S),
)
_SHORT: Final = attrs.evolve(_CLIENT, transport=attrs.evolve(QUICK_TRANSPORT, resolve_timeout_s=0.05))
_HANG_S_MAX: Final = 20.0


class Phonebook:
    """A resolver whose answers a test writes; lookups run in the real threads."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.speak = threading.Event()
        """Until it is set, names without an entry are not answered at all."""
        self.hanging = 0
        self._lock = threading.Lock()

    def ask(self, host: str, port: int) -> list[str]:
        """In place of ``reliable.names.resolve``."""
        with self._lock:
            self.asked.append(host)
        if host in self.numbers:
            if not self.numbers[host]:
                raise OSError(errno.ENOENT, "Name or service not known")
            return self.numbers[host]
        self.hanging += 1
        self.speak.wait(_HANG_S_MAX)
        return self.numbers.get(host, [])


@pytest.fixture
def phonebook(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phonebook]:
    """What clients and workers of this test ask."""
    made = Phonebook()

    def resolver(done: Callable[[], None]) -> Resolver:
        return Resolver(done, made.ask)

    monkeypatch.setattr("reliable.transport.Resolver", resolver)
    yield made
    made.speak.set()


def _echo(stage: Stage, shell: ShellKind, *endpoints: str) -> None:
    for endpoint in endpoints:
        stage.broker(endpoint)
    worker = shell.worker(*endpoints, concurrency=4)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    shell.run(worker).wait_registered(len(endpoints))


def _timed(shell: ShellKind, client: AnyClient, plan: Plan) -> tuple[Ended, Lag]:
    ends: list[Ended] = []
    lag = make_calls(shell, client, iter([plan]), 1, ends.append)
    return ends[0], lag


@pytest.mark.parametrize("kind", ["nothing", "mute"])
def test_a_name_that_leads_nowhere_ends_a_call_at_its_deadline_with_the_reason(
    shell: ShellKind, phonebook: Phonebook, kind: str
) -> None:
    """Nothing was sent, and the error says so, and which name it was: the usual slip of the pen in a configuration."""
    if kind == "nothing":
        phonebook.numbers["broker.example"] = []
    client = shell.client(f"tcp://broker.example:{free_port()}", config=_SHORT)
    ended, lag = _timed(shell, client, Plan("echo", [b"x"], 0.4))
    assert lag.excess_s(ended) <= LATE_S_MAX
    assert isinstance(ended.result, BrokerUnreachable)
    assert ended.result.outcome is Outcome.NOT_EXECUTED
    assert "broker.example" in str(ended.result)
    assert_nothing_is_left(client)


@pytest.mark.parametrize("kind", ["nothing", "mute"])
def test_a_name_that_leads_nowhere_hardly_delays_calls_that_another_broker_takes(
    stage: Stage, shell: ShellKind, phonebook: Phonebook, kind: str
) -> None:
    """The next broker of the list is tried beside it after ``stagger_s``, long before the resolver is given up."""
    good = stage.broker()
    worker = shell.worker(good.endpoint)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    shell.run(worker)
    if kind == "nothing":
        phonebook.numbers["broker.example"] = []
    client = shell.client(f"tcp://broker.example:{free_port()}", good.endpoint, config=_CLIENT)
    for number in range(20):
        # The deadline stands for the bound: what comes later than that, beyond the machine's own lag, is too late.
        plan = Plan("echo", [b"%d" % number], _CLIENT.stagger_s + LATE_S_MAX)
        began = time.monotonic()
        ended, lag = _timed(shell, client, attrs.evolve(plan, timeout=5.0))
        assert ended.result == [b"%d" % number]
        took_s = ended.ended - began
        assert took_s - lag.around(began, ended.ended) <= plan.timeout, f"call {number} took {took_s:.3f} s"
    assert "broker.example" in phonebook.asked


def test_a_mute_resolver_delays_no_client_that_does_not_need_it(
    stage: Stage, shell: ShellKind, phonebook: Phonebook
) -> None:
    """libzmq would look names up in its one I/O thread; here every lookup has a thread of its own."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    _echo(stage, shell, endpoint)
    stuck = shell.client(f"tcp://mute.example:{free_port()}", config=_CLIENT)
    client = shell.client(endpoint, config=_CLIENT)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(stuck.request, "echo", b"x", timeout=1.0) for _ in range(4)]
        eventually(lambda: phonebook.hanging > 0, "a lookup hangs")
        for number in range(100):
            ended, _ = _timed(shell, client, Plan("echo", [b"%d" % number], 5.0))
            assert ended.result == [b"%d" % number]
            if all(future.done() for future in waiting):
                break
        for future in waiting:
            assert isinstance(future.exception(10), RequestError)
    stats = inner_client(client).stats()
    assert (stats.retries, stats.failed) == (0, 0)


def test_a_name_that_was_mute_for_long_takes_no_lookup_away_from_others(
    stage: Stage, shell: ShellKind, phonebook: Phonebook
) -> None:
    """Lookups that hang are limited, or threads would pile up; but a broker whose name is fine must stay in reach."""
    port = free_port()
    _echo(stage, shell, f"tcp://127.0.0.1:{port}")
    phonebook.numbers["late.example"] = []
    client = shell.client("tcp://mute.example:5", f"tcp://late.example:{port}", config=_SHORT)
    with pytest.raises(BrokerUnreachable):
        client.request("echo", b"x", timeout=2.0)
    eventually(lambda: phonebook.hanging >= LOOKUPS_MAX, "as many lookups hang as may")
    phonebook.numbers["late.example"] = ["127.0.0.1"]
    assert client.request("echo", b"y", timeout=5.0) == [b"y"]
    assert phonebook.hanging <= LOOKUPS_MAX


def test_a_resolver_that_speaks_again_is_heard(stage: Stage, shell: ShellKind, phonebook: Phonebook) -> None:
    """The network was down when the client started: nobody should have to restart it."""
    port = free_port()
    _echo(stage, shell, f"tcp://127.0.0.1:{port}")
    client = shell.client(f"tcp://slow.example:{port}", config=_SHORT)
    with pytest.raises(BrokerUnreachable):
        client.request("echo", b"x", timeout=0.3)
    phonebook.numbers["slow.example"] = ["127.0.0.1"]
    phonebook.speak.set()
    assert client.request("echo", b"y", timeout=5.0) == [b"y"]


def test_a_broker_that_moved_behind_its_name_is_followed(stage: Stage, shell: ShellKind, phonebook: Phonebook) -> None:
    """As behind every failover of a cloud: the name is asked again at each reconnect, by clients and by workers."""
    port = free_port()
    phonebook.numbers["broker.example"] = ["127.0.0.1"]
    name = f"tcp://broker.example:{port}"
    first = stage.broker(f"tcp://127.0.0.1:{port}")
    worker = shell.worker(name)
    worker.service("echo", raw=True, idempotent=True)(lambda frame: frame)
    shell.run(worker)
    client = shell.client(name, config=_CLIENT)
    assert client.request("echo", b"1") == [b"1"]
    for number, host in enumerate(("127.0.0.2", "127.0.0.3", "127.0.0.1")):
        phonebook.numbers["broker.example"] = [host]
        stage.stop(first)
        first = stage.broker(f"tcp://{host}:{port}")
        assert client.request("echo", b"moved %d" % number) == [b"moved %d" % number]
        assert first.broker.snapshot().counters["replies"] == 1
    assert_nothing_is_left(client)


def test_a_call_under_way_follows_a_broker_that_moves(stage: Stage, shell: ShellKind, phonebook: Phonebook) -> None:
    """The call is idempotent, so whoever waits for it need not even hear of the move."""
    port = free_port()
    phonebook.numbers["broker.example"] = ["127.0.0.1"]
    first = stage.broker(f"tcp://127.0.0.1:{port}")
    client = shell.client(f"tcp://broker.example:{port}", config=_CLIENT)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "echo", b"x", timeout=8.0, idempotent=True)
        eventually(lambda: [s.queued for s in first.broker.snapshot().services] == [1], "the call is queued")
        phonebook.numbers["broker.example"] = ["127.0.0.2"]
        stage.stop(first)
        _echo(stage, shell, f"tcp://127.0.0.2:{port}")
        assert reply.result(10) == [b"x"]
