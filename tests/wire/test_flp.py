"""10/FLP byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import RemoteProtocolError
from reliable.wire.flp import PING, PONG, FlpMessage, decode_at_client, decode_at_server

SEVEN = bytes.fromhex("0000000000000007")


def test_golden_bytes() -> None:
    """FLP-1, FLP-2: as other implementations of 10/FLP have them."""
    assert PING.hex() == "50494e47" and decode_at_server([PING]) is None
    assert PONG.hex() == "504f4e47" and decode_at_client([PONG]) is None
    request = FlpMessage(SEVEN, [b"hello"])
    assert [frame.hex() for frame in request.encode()] == ["0000000000000007", "68656c6c6f"]
    assert decode_at_server([SEVEN, b"hello"]) == request
    assert decode_at_client([SEVEN, b"world"]) == FlpMessage(SEVEN, [b"world"])


@pytest.mark.parametrize("control", [PING, PONG])
def test_a_message_of_two_frames_is_never_a_ping(control: bytes) -> None:
    """FLP-3: the number of frames tells, since a control frame may be anything."""
    assert decode_at_server([control, b"x"]) == FlpMessage(control, [b"x"])
    assert decode_at_client([control, b"x"]) == FlpMessage(control, [b"x"])


@pytest.mark.parametrize("frames", [[], [b""], [b"PINGS"], [SEVEN]])
def test_a_single_frame_of_another_kind_is_refused(frames: list[bytes]) -> None:
    """FLP-13: dropped by whoever reads it, and nothing else happens."""
    with pytest.raises(RemoteProtocolError):
        decode_at_server(frames)
    with pytest.raises(RemoteProtocolError):
        decode_at_client(frames)


def test_each_side_reads_its_own_word_only() -> None:
    """A PONG at a server, or a PING at a client, comes from somebody who has the roles mixed up."""
    with pytest.raises(RemoteProtocolError):
        decode_at_server([PONG])
    with pytest.raises(RemoteProtocolError):
        decode_at_client([PING])


@given(control=st.binary(max_size=255), body=st.lists(st.binary(max_size=8), min_size=1, max_size=4))
def test_any_control_frame_and_body_come_back(control: bytes, body: list[bytes]) -> None:
    """FLP-2, FLP-4: binary, empty and long control frames, bodies of many frames."""
    message = FlpMessage(control, body)
    assert decode_at_server(message.encode()) == message
    assert decode_at_client(message.encode()) == message
