"""A broker's loop that stands still, and knows it."""

from __future__ import annotations

import logging
import time

import pytest
import zmq

from brokers import BrokerConfig, shell
from brokers.majordomo import MajordomoEngine
from reliable import Client, ClientConfig, Frames
from reliable.config import Heartbeat, RetryPolicy
from reliable.wire.mdp import ClientRequest, Version
from tests.support.loopback import Stage, eventually

_INTERVAL_S = 1.0
_PATIENT = ClientConfig(timeout_s=20.0, retry=RetryPolicy(attempts=1, attempt_timeout_s=20.0), hello_timeout_s=5.0)


class _StandsStill(MajordomoEngine):
    """A request whose body says ``still`` costs that many seconds."""

    def receive(self, frames: Frames, now: float) -> None:
        if frames[-1].startswith(b"still "):
            time.sleep(float(frames[-1].removeprefix(b"still ")))
        super().receive(frames, now)


@pytest.mark.parametrize(("seconds", "told"), [("0.5", False), ("1.2", True)])
def test_a_stall_is_noticed_before_it_costs_anybody_anything(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: str,
    told: bool,
) -> None:
    """The shortest time that a peer is given is half a second in limbo, which is less than a heartbeat interval."""
    monkeypatch.setattr(shell, "MajordomoEngine", _StandsStill)
    config = BrokerConfig(heartbeat=Heartbeat(interval_s=_INTERVAL_S, timeout_s=3 * _INTERVAL_S))
    broker = stage.broker(config=config)
    with caplog.at_level(logging.WARNING, "reliable.broker"), Client(broker.endpoint, config=_PATIENT) as client:
        client.request("mmi.service", b"x")
        client.request("mmi.service", f"still {seconds}".encode())
        eventually(lambda: broker.broker.snapshot().counters["stalls"] >= 1, "it knows")
    texts = [record.message for record in caplog.records]
    assert any(text.startswith("late by 1." if told else f"late by {seconds}") for text in texts) is told


def test_a_stall_under_load_does_not_lead_to_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """What came meanwhile is read for a while only: to read all of it first, while more comes, is the next stall."""
    monkeypatch.setattr(shell, "MajordomoEngine", _StandsStill)
    stage.broker(endpoint, BrokerConfig(heartbeat=Heartbeat(interval_s=0.2, timeout_s=1.0)))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(endpoint)
        bodies = [b"still 0.5", *[b"still 0.002"] * 750]
        for body in bodies:
            socket.send_multipart(ClientRequest(Version.MDP01, b"mmi.service", [body]).encode())
        waits_s = []
        for _ in bodies:
            began = time.monotonic()
            assert socket.poll(5_000), "no answer"
            socket.recv_multipart()
            waits_s.append(time.monotonic() - began)
    assert max(waits_s[1:]) < 0.8, "answers need not wait until all questions are read"
