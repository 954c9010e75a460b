"""The main path, byte for byte: one request in, one out; one reply in, one out."""

from __future__ import annotations

import pytest

from brokers import BrokerConfig, MajordomoEngine
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import (
    AnswerFrame,
    CallFlag,
    CallFrame,
    CallKind,
    Delivery,
    Hello,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
    body_digest,
)
from reliable.wire.mdp import ClientRequest, Version, WorkerReady, WorkerReply, decode_at_client
from reliable.wire.mmi import hello_request

LIFE = b"life-one"


def test_plain_request_and_reply_are_two_messages_in_and_two_out() -> None:
    """Anyone's conforming peers are served at the cost that MDP itself has."""
    engine = MajordomoEngine(BrokerConfig(), life=LIFE, now=0.0)
    engine.receive([b"w", b"", b"MDPW01", b"\1", b"echo"], 0.0)
    assert not engine.outbox
    engine.receive([b"c", b"", b"MDPC01", b"echo", b"hello", b""], 0.0)
    (request,) = engine.outbox
    engine.outbox.clear()
    token = request[4]
    assert request == [b"w", b"", b"MDPW01", b"\2", token, b"", b"hello", b""]
    engine.receive([b"w", b"", b"MDPW01", b"\3", token, b"", b"bye"], 0.0)
    assert list(engine.outbox) == [[b"c", b"", b"MDPC01", b"echo", b"bye"]]
    assert engine.snapshot().usage["deadlines"] == 2, "only the worker's own two are left"


def test_call_of_ours_is_two_messages_in_and_two_out() -> None:
    """The extension adds frames to messages, never messages."""
    engine = MajordomoEngine(BrokerConfig(), life=LIFE, now=0.0)
    engine.receive([b"w", *hello_request(Hello(Role.WORKER, b"w" * 16).encode())], 0.0)
    ready = ReadyExtension(b"w" * 16, 1, (ServiceOffer(b"echo", None),))
    engine.receive([b"w", *WorkerReady(Version.MDP02, b"echo", ready.encode()).encode()], 0.0)
    engine.receive([b"c", *hello_request(Hello(Role.CLIENT, b"c" * 16).encode())], 1.0)
    engine.outbox.clear()
    digest = body_digest(b"echo", [b"hello"])
    frame = CallFrame(CallKind.SUBMIT, CallFlag.NONE, 1, b"i" * 16, b"c" * 16, LIFE, 5000, 0, digest, b"trace")
    engine.receive([b"c", *ClientRequest(Version.MDP02, b"echo", [b"hello"], [frame.encode()]).encode()], 2.0)
    (request,) = engine.outbox
    engine.outbox.clear()
    delivery = Delivery.decode(request[3])
    assert request == [b"w", b"MDPW02", b"\2", request[3], b"", b"hello"]
    assert (delivery.call_id, delivery.deadline_ms, delivery.delivery) == (b"i" * 16, 6000, 1)
    assert (delivery.digest, delivery.trace, delivery.service) == (digest, b"trace", b"echo")
    report = Report(delivery.token, ReportKind.RESULT).encode()
    engine.receive([b"w", *WorkerReply(Version.MDP02, report, [b"bye"]).encode()], 3.0)
    (answer,) = engine.outbox
    reply = decode_at_client(answer[1:])
    said = AnswerFrame.decode(reply.stack[0])
    assert (answer[0], reply.body, reply.final) == (b"c", [b"bye"], True)
    assert (said.status, said.outcome, said.deliveries, said.life) == (Status.OK, Outcome.EXECUTED, 1, LIFE)


@pytest.mark.parametrize("life", [b"", b"short", bytes(8), b"too-long-"])
def test_life_must_be_eight_bytes_and_not_zero(life: bytes) -> None:
    """Zero stands for "any life" on the wire."""
    with pytest.raises(ValueError, match="life"):
        MajordomoEngine(BrokerConfig(), life=life, now=0.0)


def test_empty_message_is_ignored() -> None:
    """A ROUTER never gives one; a test double may."""
    engine = MajordomoEngine(BrokerConfig(), life=LIFE, now=0.0)
    engine.receive([], 0.0)
    engine.receive([b"peer", b""], 0.0)
    assert not engine.outbox
