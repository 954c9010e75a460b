"""MDP 0.1 and 0.2 without anything of ours, by both clients: to our broker, which cannot tell them from strangers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from reliable import AsyncWorker, DeadlineExceeded, Outcome, Worker
from tests.support.loopback import ShellKind, Stage

DIALECTS = ["mdp/0.1", "mdp/0.2"]


def _echo(worker: Worker | AsyncWorker) -> None:
    worker.service("echo", raw=True)(lambda *frames: list(frames))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_worker_of_ours_answers(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """MDP1-9, MDP1-10, MDP2-9, MDP2-10: frames come back unchanged, empty ones too."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    _echo(worker)
    shell.run(worker)
    client = shell.client(broker.endpoint, dialect=dialect)
    for body in ([b"hello"], [b"hello", b"", b"\x00\xff"], [b""]):
        assert client.request("echo", *body) == body


@pytest.mark.parametrize("dialect", DIALECTS)
def test_typed_calls_work_as_well(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """The codec is a matter of both ends, not of what lies between."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("add")
    def add(a: int, b: int) -> int:
        return a + b

    shell.run(worker)
    assert shell.client(broker.endpoint, dialect=dialect).call("add", 1, b=2) == 3


@pytest.mark.parametrize("dialect", DIALECTS)
def test_many_calls_at_once_get_their_own_replies(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """MDP has no request number: a link each, or the replies would be mixed up."""
    broker = stage.broker()
    for _ in range(3):
        worker = shell.worker(broker.endpoint)
        _echo(worker)
        shell.run(worker)
    client = shell.client(broker.endpoint, dialect=dialect)
    words = [b"%d" % number for number in range(100)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda word: client.request("echo", word), words)) == [[word] for word in words]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_broker_is_asked_about_services(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """MMI-3 to MMI-7: as any client of 8/MMI does."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    _echo(worker)
    shell.run(worker)
    client = shell.client(broker.endpoint, dialect=dialect)
    assert client.request("mmi.service", b"echo") == [b"200"]
    assert client.request("mmi.service", b"nobody") == [b"404"]
    assert client.request("mmi.nosuch", b"x") == [b"501"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_service_that_nobody_offers_ends_in_silence(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """MDP has no word for it, so the deadline is the answer; and the next call is not disturbed."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    _echo(worker)
    shell.run(worker)
    client = shell.client(broker.endpoint, dialect=dialect)
    with pytest.raises(DeadlineExceeded) as caught:
        client.request("nobody", b"x", timeout=0.3)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert client.request("echo", b"x") == [b"x"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_broker_that_was_restarted_is_found_again(stage: Stage, shell: ShellKind, dialect: str) -> None:
    """MDP1-13, MDP1-29: idle links broke meanwhile, and nobody notices."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    _echo(worker)
    running = shell.run(worker)
    client = shell.client(broker.endpoint, dialect=dialect)
    assert client.request("echo", b"x") == [b"x"]
    stage.stop(broker)
    stage.broker(broker.endpoint)
    running.wait_registered(1)
    assert client.request("echo", b"y", idempotent=True) == [b"y"]


def test_parts_of_a_reply_are_not_its_end(stage: Stage, shell: ShellKind) -> None:
    """MDP2-48: a reader of one reply gets the last one."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)

    @worker.service("count", raw=True)
    def count(body: bytes) -> Iterator[bytes]:
        for number in range(int(body)):
            yield b"%d" % number

    shell.run(worker)
    client = shell.client(broker.endpoint, dialect="mdp/0.2")
    assert client.request("count", b"3") == [b""]
