"""Messages in words: what a reader of a failing trace gets to see."""

from __future__ import annotations

import pytest

from chaos.sim.describe import describe_from_broker, describe_to_broker
from chaos.sim.random_world import run_world
from reliable.types import Frames
from reliable.wire.extension import (
    CallFlag,
    CallFrame,
    CallKind,
    Delivery,
    DeliveryKind,
    Hello,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
    make_token,
)
from reliable.wire.mdp import ClientRequest, Version, WorkerHeartbeat, WorkerReady, WorkerReply, WorkerRequest
from reliable.wire.mmi import hello_request

LIFE = b"\xab" * 8
TOKEN = make_token(LIFE, 12)
READY = ReadyExtension(b"i" * 16, 4, (ServiceOffer(b"echo"),))
CALL = CallFrame(CallKind.ATTACH, CallFlag.IDEMPOTENT, 3, b"\xcd" * 16, b"i" * 16, LIFE, 1500, 0, b"d" * 16)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (hello_request(Hello(Role.WORKER, b"\x01" * 16).encode()), ["hello of worker 01010101"]),
        (
            ClientRequest(Version.MDP02, b"echo", [b"k1"], [CALL.encode()]).encode(),
            ["request echo [k1]", "ATTACH cdcdcdcd attempt 3", "IDEMPOTENT", "for ababab", "due 1500 ms"],
        ),
        (
            WorkerReady(Version.MDP02, b"echo", READY.encode()).encode(),
            ["READY echo", "credit 4", "no tokens"],
        ),
        (
            WorkerReply(Version.MDP02, Report(TOKEN, ReportKind.ERROR, False).encode(), [b"TypeError"]).encode(),
            ["final reply ERROR token ababab.12", "not executed", "[TypeError]"],
        ),
        (WorkerReply(Version.MDP01, b"strange", [b""]).encode(), ["b'strange'"]),
        ([b"junk"], ["invalid"]),
        ([b""], ["NoneType"]),
    ],
)
def test_what_is_said_to_a_broker(frames: Frames, words: list[str]) -> None:
    """Who, what, about which call, and by when."""
    text = describe_to_broker(frames)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (
            WorkerRequest(Version.MDP02, Delivery(TOKEN, DeliveryKind.RUN, delivery=2).encode(), [b"k1"]).encode(),
            ["REQUEST RUN token ababab.12", "delivery 2", "[k1]"],
        ),
        (WorkerHeartbeat(Version.MDP01).encode(), ["WorkerHeartbeat"]),
        ([b"junk"], ["invalid"]),
    ],
)
def test_what_a_broker_says(frames: Frames, words: list[str]) -> None:
    """The same for the other direction."""
    text = describe_from_broker(frames)
    assert all(word in text for word in words), text


def test_every_message_of_a_world_can_be_told_in_words() -> None:
    """A trace with messages that nobody understands, ours among them, would be of no use."""
    trace = run_world(11, verbose=True).trace
    assert [line for line in trace if "invalid" in line] == []
    for words in ("SUBMIT", "REQUEST RUN", "RESULT", "hello answer [200]", "WorkerHeartbeat", "READY echo"):
        assert any(words in line for line in trace), words
