"""Answers to clients: in the dialect they asked in, with their own addresses in front."""

from __future__ import annotations

import pytest

from brokers import answers
from brokers.peers import ClientPeer
from brokers.records import Call
from brokers.services import Service
from reliable.errors import Outcome
from reliable.status import Status
from reliable.wire.extension import AnswerFrame, CallFlag, CallFrame, CallKind, Place
from reliable.wire.mdp import ClientRequest, Version, decode_at_client

LIFE = b"life-one"
CALL_ID = b"0123456789abcdef"


def make_call(version: Version, stack: list[bytes]) -> Call:
    """A call of ours behind these proxies."""
    return Call(
        call_id=CALL_ID,
        ours=True,
        service=Service(b"echo"),
        body=[b"hello"],
        size=5,
        peer=ClientPeer(),
        answer_to=b"client",
        stack=stack,
        version=version,
        client_key=b"c",
        deadline=9.0,
        now=0.0,
        attempt=3,
    )


@pytest.mark.parametrize("status", list(Status))
def test_final_statuses_travel_as_final_and_news_as_partial(status: Status) -> None:
    """A plain look at MDP's own command must tell whether more will come."""
    news = {Status.PARTIAL, Status.ACCEPTED, Status.STARTED, Status.PROGRESS}
    assert answers.is_final(status) is (status not in news)


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("stack", [[], [b"proxy-1", b"proxy-2"]])
def test_answer_about_a_call_says_what_is_known(version: Version, stack: list[bytes]) -> None:
    """The newest attempt is answered, through the same proxies, in the same version."""
    call = make_call(version, stack)
    call.deliveries = 70_000
    call.idempotent = True
    message = answers.about_call(call, LIFE, Status.OVERLOADED, Outcome.NOT_EXECUTED, [b"a", b""], retry_after_s=0.0001)
    assert message[0] == b"client"
    reply = decode_at_client(message[1:])
    assert reply.version is version
    assert reply.service == b"echo"
    assert reply.body == [b"a", b""]
    assert reply.stack[:-1] == stack
    assert AnswerFrame.decode(reply.stack[-1]) == AnswerFrame(
        Status.OVERLOADED, 3, CALL_ID, LIFE, Outcome.NOT_EXECUTED, Place.QUEUED_NO_WORKER, 0xFFFF, 1, True
    )


@pytest.mark.parametrize("version", list(Version))
def test_plain_reply_is_plain(version: Version) -> None:
    """A frame of ours in front of a plain client's reply would break it."""
    call = make_call(version, [])
    message = answers.plain_reply(call, [b"x", b"y"], True)
    head = [b"client", b"", b"MDPC01"] if version is Version.MDP01 else [b"client", b"MDPC02", b"\3"]
    assert message == [*head, b"echo", b"x", b"y"]


def test_refusal_needs_no_record() -> None:
    """Refusing must cost no memory."""
    frame = CallFrame(CallKind.SUBMIT, CallFlag.NONE, 2, CALL_ID, bytes(16), LIFE, 1000, 0, bytes(16))
    request = ClientRequest(Version.MDP02, b"echo", [b"hello"], [b"proxy", frame.encode()])
    message = answers.refusal(b"peer", request, frame, LIFE, Status.NO_SERVICE, Outcome.NOT_EXECUTED)
    reply = decode_at_client(message[1:])
    assert message[0] == b"peer"
    assert reply.final
    assert reply.body == [b""]
    assert reply.stack[:-1] == [b"proxy"]
    assert AnswerFrame.decode(reply.stack[-1]) == AnswerFrame(Status.NO_SERVICE, 2, CALL_ID, LIFE, Outcome.NOT_EXECUTED)
