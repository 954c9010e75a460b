"""Connections whose two ends compare clocks all the time: nothing else may notice."""

from __future__ import annotations

import attrs
import pytest

from tests.support.loopback import (
    QUICK_CLIENT,
    QUICK_TRANSPORT,
    QUICK_WORKER,
    AnyClient,
    BrokerThread,
    ShellKind,
    Stage,
    eventually,
)

EVERY_S = 0.05
OFTEN = attrs.evolve(QUICK_TRANSPORT, time_check_s=EVERY_S)


@attrs.frozen
class Running:
    """A broker, and an echo worker that compares clocks with it twenty times a second."""

    broker: BrokerThread
    client: AnyClient

    def questions(self) -> int:
        """How many questions the broker has answered itself: hellos, and what they ask about the time."""
        return self.broker.broker.snapshot().counters["management"]

    def wait_for_questions(self, count: int) -> None:
        """Until so many more have been asked, by the worker at least."""
        enough = self.questions() + count
        eventually(lambda: self.questions() >= enough, "the worker has asked a few times")


@pytest.fixture
def running(stage: Stage, shell: ShellKind) -> Running:
    """All of it, and a client that compares clocks as often."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, config=attrs.evolve(QUICK_WORKER, transport=OFTEN))

    @worker.service("echo", raw=True)
    def echo(body: bytes) -> bytes:
        return body

    shell.run(worker)
    return Running(broker, shell.client(broker.endpoint, config=attrs.evolve(QUICK_CLIENT, transport=OFTEN)))


def test_calls_go_on_while_clocks_are_compared(running: Running) -> None:
    """A link that is never idle is asked like any other."""
    client = running.client
    made = 0

    def enough() -> bool:
        nonlocal made
        for _ in range(20):
            made += 1
            body = b"%d" % made
            assert client.request("echo", body, timeout=2.0, idempotent=False) == [body]
        return running.questions() > 30

    eventually(enough, "both ends have asked a dozen times")
    assert made >= 20


def test_the_first_call_after_a_pause_is_answered(running: Running) -> None:
    """A blocking client asks then, and the call waits for it; the other kind has asked all the time."""
    client = running.client
    assert client.request("echo", b"1") == [b"1"]
    for number in range(5):
        running.wait_for_questions(6)
        body = b"%d" % number
        assert client.request("echo", body, timeout=2.0, idempotent=False) == [body]
