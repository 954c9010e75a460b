"""Freelance: both clients straight to a list of 10/FLP servers, of which most die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import attrs
import pytest

from reliable import BrokerLost, BrokerUnreachable, Outcome
from reliable.config import Backoff, Freelance, RetryPolicy
from tests.support.loopback import QUICK_CLIENT, ShellKind, eventually
from tests.support.plain_servers import PlainServer, plain_server

CONFIG = attrs.evolve(
    QUICK_CLIENT,
    retry=RetryPolicy(attempts=6, attempt_timeout_s=1.0, backoff=Backoff(initial_s=0.02, delay_s_max=0.1)),
    freelance=Freelance(ping_interval_s=0.3, ping_timeout_s=0.9),
)


@pytest.fixture
def three() -> Iterator[list[PlainServer]]:
    """Servers a, b and c."""
    with ExitStack() as stack:
        yield [stack.enter_context(plain_server("flp", name=name)) for name in "abc"]


def _addresses(servers: list[PlainServer]) -> list[str]:
    return [server.endpoint for server in servers]


def test_the_first_server_of_the_list_answers(shell: ShellKind, three: list[PlainServer]) -> None:
    """FLP-1, FLP-2, FLP-4, FLP-6: behind a PING, under a control frame; the service is not sent."""
    client = shell.client(*_addresses(three), dialect="freelance", config=CONFIG)
    for body in ([b"x"], [b"", b"y"]):
        assert client.request("anything", *body) == [b"a", *body]


def test_many_calls_share_the_link_to_a_server(shell: ShellKind, three: list[PlainServer]) -> None:
    """FLP-10, FLP-12: each gets its own reply."""
    client = shell.client(*_addresses(three), dialect="freelance", config=CONFIG)
    words = [b"%d" % number for number in range(200)]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda word: client.request("echo", word), words))
    assert [reply[1:] for reply in replies] == [[word] for word in words]


def test_a_call_survives_two_servers_of_three(shell: ShellKind, three: list[PlainServer]) -> None:
    """FLP-11: the servers are killed one after the other while they hold the call."""
    a, b, c = three
    client = shell.client(*_addresses(three), dialect="freelance", config=CONFIG)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.request, "echo", b"mute@ab", idempotent=True, timeout=15.0)
        for server in (a, b):
            eventually(lambda server=server: server.taken("mute@ab") >= 1, "it has the call")  # type: ignore[misc]
            server.child.kill()
        assert call.result(10.0) == [b"c", b"mute@ab"]
    assert c.child.alive


def test_a_frozen_server_costs_an_attempt(shell: ShellKind, three: list[PlainServer]) -> None:
    """FLP-9, FLP-11: its connection stands, and nothing comes."""
    client = shell.client(*_addresses(three), dialect="freelance", config=CONFIG)
    assert client.request("echo", b"x")[0] == b"a"
    three[0].child.pause()
    begun = time.monotonic()
    assert client.request("echo", b"x", idempotent=True) == [b"b", b"x"]
    assert time.monotonic() - begun < 3.0
    begun = time.monotonic()
    assert client.request("echo", b"x") == [b"b", b"x"]
    assert time.monotonic() - begun < 0.5, "the good one is kept"


def test_a_call_that_is_not_idempotent_ends_with_its_server(shell: ShellKind, three: list[PlainServer]) -> None:
    """It may have run there, and nobody else may run it."""
    a, b, _ = three
    client = shell.client(*_addresses(three), dialect="freelance", config=CONFIG)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.request, "echo", b"mute@a", timeout=15.0)
        eventually(lambda: a.taken("mute@a") == 1, "a has the call")
        a.child.kill()
        with pytest.raises(BrokerLost) as caught:
            call.result(10.0)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert b.taken("mute@a") == 0


def test_all_servers_down_and_one_that_returns(shell: ShellKind) -> None:
    """FLP-14: an error by the deadline, and the same client goes on when a server is back."""
    with plain_server("flp", name="a") as first:
        endpoint = first.endpoint
        client = shell.client(endpoint, dialect="freelance", config=CONFIG)
        assert client.request("echo", b"x") == [b"a", b"x"]
        first.child.kill()
        with pytest.raises((BrokerUnreachable, BrokerLost)):
            client.request("echo", b"x", timeout=1.0)
    with plain_server("flp", endpoint, "again"):
        assert client.request("echo", b"x", timeout=8.0) == [b"again", b"x"]


def test_shotgun_takes_the_first_answer_of_all(shell: ShellKind, three: list[PlainServer]) -> None:
    """One server that does not answer costs nothing at all."""
    config = attrs.evolve(CONFIG, freelance=attrs.evolve(CONFIG.freelance, shotgun=True))
    client = shell.client(*_addresses(three), dialect="freelance", config=config)

    def all_asked() -> bool:
        # The first calls are over before the last server is connected.
        assert client.request("echo", b"x", idempotent=True)[1:] == [b"x"]
        return all(server.taken("x") for server in three)

    eventually(all_asked, "all servers are usable")
    begun = time.monotonic()
    reply = client.request("echo", b"mute@a", idempotent=True)
    assert reply[0] in (b"b", b"c") and time.monotonic() - begun < 0.8
    eventually(lambda: all(server.taken("mute@a") == 1 for server in three), "all were asked")
    assert client.request("echo", b"once")[1:] == [b"once"]
    assert client.request("echo", b"to all", idempotent=True)[1:] == [b"to all"]
    for server in three:
        server.wait_taken("to all")
    assert sum(server.taken("once") for server in three) == 1
