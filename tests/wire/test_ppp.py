"""Frames ↔ commands of 6/PPP: golden bytes, round trips, and decoders that survive anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import RemoteProtocolError
from reliable.types import Frames
from reliable.wire.mdp import STACK_FRAMES_MAX
from reliable.wire.ppp import (
    PppHeartbeat,
    PppReady,
    PppReply,
    PppRequest,
    decode_at_queue,
    decode_at_worker,
    split_envelope,
)

CLIENT = bytes.fromhex("006b8b4567")
WORKER = bytes.fromhex("006b8b4568")

AT_QUEUE = [
    ("01", PppReady()),
    ("02", PppHeartbeat()),
    ("006b8b4567 - 68656c6c6f", PppReply([CLIENT], [b"hello"])),
    ("006b8b4567 - 68656c6c6f - 00ff", PppReply([CLIENT], [b"hello", b"", b"\x00\xff"])),
    ("006b8b4567 - -", PppReply([CLIENT], [b""])),
    ("006b8b4567 006b8b4568 - 01", PppReply([CLIENT, WORKER], [b"\1"])),
    ("- 68656c6c6f", PppReply([], [b"hello"])),
    ("- 02", PppReply([], [b"\2"])),
]
AT_WORKER = [
    ("02", PppHeartbeat()),
    ("006b8b4567 - 68656c6c6f", PppRequest([CLIENT], [b"hello"])),
    ("006b8b4567 - 68656c6c6f - 00ff", PppRequest([CLIENT], [b"hello", b"", b"\x00\xff"])),
    ("- 68656c6c6f", PppRequest([], [b"hello"])),
    ("- 01", PppRequest([], [b"\1"])),
    ("68656c6c6f", PppRequest([], [b"hello"], delimited=False)),
    ("68656c6c6f 00ff", PppRequest([], [b"hello", b"\x00\xff"], delimited=False)),
]
BAD_AT_QUEUE = ["01 01", "02 02", "0100", "0200", "00", "03", "68656c6c6f", "01 -", "006b8b4567 -", "01 02 03"]
BAD_AT_WORKER = ["01", "006b8b4567 -", "68656c6c6f -"]


def frames_of(text: str) -> Frames:
    """``-`` is an empty frame, the others are hex."""
    return [b"" if frame == "-" else bytes.fromhex(frame) for frame in text.split()]


@pytest.mark.parametrize(("text", "command"), AT_QUEUE, ids=[text for text, _ in AT_QUEUE])
def test_golden_messages_of_a_worker(text: str, command: PppReady | PppHeartbeat | PppReply) -> None:
    """PPP-2, PPP-3, PPP-5: workers of other languages send exactly these bytes."""
    assert decode_at_queue(frames_of(text)) == command
    assert command.encode() == frames_of(text)


@pytest.mark.parametrize(("text", "command"), AT_WORKER, ids=[text for text, _ in AT_WORKER])
def test_golden_messages_of_a_queue(text: str, command: PppHeartbeat | PppRequest) -> None:
    """PPP-4: queues of other languages, and applications in their place, send exactly these bytes."""
    assert decode_at_worker(frames_of(text)) == command
    assert command.encode() == frames_of(text)


@pytest.mark.parametrize("text", ["", *BAD_AT_QUEUE])
def test_what_a_worker_may_not_send_is_the_one_error_that_engines_catch(text: str) -> None:
    """PPP-2, PPP-3: a message that only begins like READY must register nobody."""
    with pytest.raises(RemoteProtocolError):
        decode_at_queue(frames_of(text))


@pytest.mark.parametrize("text", ["", *BAD_AT_WORKER])
def test_what_a_queue_may_not_send_is_the_one_error_that_engines_catch(text: str) -> None:
    """A worker's loop must survive a queue of another kind on the other end."""
    with pytest.raises(RemoteProtocolError):
        decode_at_worker(frames_of(text))


def test_the_probe_of_probe_router_is_neither_an_error_nor_a_command() -> None:
    """libzmq sends one empty frame on connect when PROBE_ROUTER is set; the guide's queues take it for a worker."""
    assert decode_at_queue([b""]) is None
    assert decode_at_worker([b""]) is None


@pytest.mark.parametrize("body", [[b"\1"], [b"\2"], [b""], [b"a", b"", b"b"]])
def test_a_bare_answer_that_could_be_misread_gets_its_delimiter_back(body: Frames) -> None:
    """The RFC admits the ambiguity: a content of one frame 01 or 02 would be a READY or a HEARTBEAT."""
    reply = PppRequest([], [b"hello"], delimited=False).reply(body)
    assert reply.encode() == [b"", *body]
    assert decode_at_queue(reply.encode()) == PppReply([], body)


def test_a_bare_request_is_answered_bare() -> None:
    """PPP-8: an application that asks by itself has no addresses; if it leaves the delimiter out it expects none."""
    request = decode_at_worker([b"hello", b"you"])
    assert isinstance(request, PppRequest)
    assert request.reply([b"world", b"too"]).encode() == [b"world", b"too"]


def test_stacks_are_bounded() -> None:
    """A stack is kept for as long as the request; a peer must not choose how much that is."""
    most = [b"x"] * STACK_FRAMES_MAX
    assert split_envelope([*most, b"", b"body"]) == (most, [b"body"])
    with pytest.raises(RemoteProtocolError, match="too many"):
        split_envelope([*most, b"x", b"", b"body"])


frames = st.lists(st.sampled_from([b"", b"\1", b"\2", b"\0", b"\1\0", b"x"]) | st.binary(max_size=4), max_size=6)
addresses = st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=3)
bodies = st.lists(st.binary(max_size=4), min_size=1, max_size=4)


@given(frames)
def test_decoders_know_one_error_only(message: Frames) -> None:
    """Any other exception would come out of somebody's loop."""
    for decode in (decode_at_queue, decode_at_worker):
        try:
            command = decode(message)
        except RemoteProtocolError:
            continue
        assert command is None or command.encode() == message


@given(addresses, bodies)
def test_requests_and_replies_come_back_as_they_were_sent(stack: Frames, body: Frames) -> None:
    """PPP-4, PPP-5: stack and content frames are nobody's but the client's."""
    request = decode_at_worker(PppRequest(stack, body).encode())
    assert request == PppRequest(stack, body)
    assert isinstance(request, PppRequest)
    assert decode_at_queue(request.reply(body).encode()) == PppReply(stack, body)
