"""Lazy Pirate: both clients against plain REP and ROUTER servers that crash, stall and answer what nobody asked."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from reliable import AttemptsExhausted, BrokerLost, BrokerUnreachable, DeadlineExceeded, Outcome, RequestError
from reliable.config import Backoff, RetryPolicy
from tests.support.loopback import QUICK_CLIENT, ShellKind
from tests.support.plain_servers import PlainServer, plain_server
from tests.support.ports import free_endpoint

LAZY = attrs.evolve(
    QUICK_CLIENT,
    retry=RetryPolicy(attempts=3, attempt_timeout_s=0.3, backoff=Backoff(initial_s=0.02, delay_s_max=0.1)),
)


@pytest.mark.parametrize("dialect", ["req", "ppp"])
def test_a_plain_rep_server_answers(shell: ShellKind, dialect: str) -> None:
    """LP-1: a request of any frames, and the service is not sent at all."""
    with plain_server("rep") as server:
        client = shell.client(server.endpoint, dialect=dialect)
        for body in ([b"hello"], [b"", b"x"], [b""]):
            assert client.request("anything", *body) == body


def test_many_calls_at_once_get_their_own_replies(shell: ShellKind) -> None:
    """LP-4: each on a link of its own, though the server serves one after the other."""
    with plain_server("rep") as server, ThreadPoolExecutor(20) as pool:
        client = shell.client(server.endpoint, dialect="req")
        words = [b"%d" % number for number in range(200)]
        assert list(pool.map(lambda word: client.request("echo", word), words)) == [[word] for word in words]


def test_a_silent_server_is_asked_exactly_as_often_as_the_policy_says(shell: ShellKind) -> None:
    """LP-2, LP-3, LP-5: counted at the server, which here takes every copy and answers none in time."""
    with plain_server("loud") as server:
        client = shell.client(server.endpoint, dialect="req", config=LAZY)
        begun = time.monotonic()
        with pytest.raises(AttemptsExhausted) as caught:
            client.request("echo", b"late 1", idempotent=True)
        assert 0.9 <= time.monotonic() - begun < 3.0
        assert caught.value.attempts == 3 and caught.value.outcome is Outcome.UNKNOWN
        assert client.request("echo", b"next") == [b"next"], "no late reply comes for another call"
        server.wait_taken("next")
        assert server.taken("late 1") == 3


def test_a_call_that_is_not_idempotent_arrives_once(shell: ShellKind) -> None:
    """It waits for the one reply that there may be, longer than an attempt takes."""
    with plain_server("loud") as server:
        client = shell.client(server.endpoint, dialect="req", config=LAZY)
        assert client.request("echo", b"late 2") == [b"late 2"]
        with pytest.raises(DeadlineExceeded) as caught:
            client.request("echo", b"late 3", timeout=0.2)
        assert caught.value.outcome is Outcome.UNKNOWN
        assert client.request("echo", b"next") == [b"next"]
        server.wait_taken("next")
        assert [server.taken(word) for word in ("late 2", "late 3")] == [1, 1]


@pytest.mark.parametrize("word", ["twice", "garbage"])
def test_what_nobody_asked_for_answers_nobody(shell: ShellKind, word: str) -> None:
    """LP-4: a second reply on the link, and one that is none."""
    with plain_server("loud") as server:
        client = shell.client(server.endpoint, dialect="req", config=LAZY)
        for number in range(20):
            body = f"{word} {number}".encode()
            assert client.request("echo", body) == [body]
            # Long enough for the second copy to be on its way before anything else is.
            time.sleep(0.01)


def test_a_crash_ends_a_call_that_is_not_idempotent_at_once(shell: ShellKind) -> None:
    """Nobody is left who could answer, so waiting for the deadline would be a waste."""
    with plain_server("rep") as server:
        client = shell.client(server.endpoint, dialect="req", config=LAZY)
        begun = time.monotonic()
        with pytest.raises(BrokerLost) as caught:
            client.request("echo", b"crash", timeout=20.0)
        assert caught.value.outcome is Outcome.UNKNOWN
        assert time.monotonic() - begun < 5.0
        assert server.child.wait(5.0) == 3


def test_nobody_at_the_address_means_that_nothing_ran(shell: ShellKind) -> None:
    """The one proof that there is without a reply."""
    client = shell.client(free_endpoint(), dialect="req", config=LAZY)
    with pytest.raises(BrokerUnreachable) as caught:
        client.request("echo", b"x", timeout=0.5)
    assert caught.value.outcome is Outcome.NOT_EXECUTED


class _Guide:
    """The lpserver of the guide: crashes and overloads at random; somebody starts it again when it has crashed."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.crashes = 0
        self.outputs: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._up = threading.Event()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with plain_server("rep", self.endpoint) as server:
                self._up.set()
                self._until_it_ends(server)
            # Only now all of it was read: a reply can be faster than the note of its request.
            self.outputs.append(server.child.output())

    def _until_it_ends(self, server: PlainServer) -> None:
        muted_at = None
        while not self._stopped.wait(0.02):
            if not server.child.alive:
                self.crashes += 1
                return
            if muted_at is None and "took mute" in server.child.output():
                muted_at = time.monotonic()
            if muted_at is not None and time.monotonic() > muted_at + 0.5:
                # The overload of the guide's server passes; a REP that is stuck in one request has to be replaced.
                return

    def __enter__(self) -> _Guide:
        self._thread.start()
        assert self._up.wait(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(20.0)

    def taken(self, word: str) -> int:
        return sum(output.splitlines().count(f"took {word}") for output in self.outputs)


@pytest.mark.slow
def test_every_call_ends_however_often_the_server_crashes_and_stalls(shell: ShellKind, rng: random.Random) -> None:
    """LP-2, LP-3, LP-4, LP-5: no hang, no reply of another call, never more copies than attempts."""
    ends: dict[str, object] = {}
    endpoint = free_endpoint()
    config = attrs.evolve(LAZY, retry=attrs.evolve(LAZY.retry, attempts=4))
    with _Guide(endpoint) as guide:
        client = shell.client(endpoint, dialect="req", config=config)
        for number in range(24):
            chance = rng.random()
            idempotent = chance < 0.5 or None
            word = f"w{number}"
            if number % 6 == 3:
                word = "crash" if chance < 0.5 else f"mute{number}"
            begun = time.monotonic()
            try:
                reply = client.request("echo", word.encode(), timeout=4.0, idempotent=idempotent)
                assert reply == [word.encode()], "somebody else's reply"
                ends[word] = 1
            except RequestError as error:
                ends[word] = error
            assert time.monotonic() - begun < 5.0, "a call outlived its deadline"
    assert guide.crashes or any("mute" in output for output in guide.outputs), "no fault happened"
    for word, end in ends.items():
        if word == "crash":
            continue
        if isinstance(end, RequestError):
            assert guide.taken(word) <= end.attempts <= 4
            assert end.outcome is not Outcome.NOT_EXECUTED or not guide.taken(word)
        else:
            assert guide.taken(word) >= 1
    assert sum(end == 1 for end in ends.values()) > 12, "hardly anything worked"
