"""The bytes that a REQ socket and its REP exchange."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import RemoteProtocolError
from reliable.wire.req import decode_reply, encode_request

BODIES = st.lists(st.binary(max_size=8), min_size=1, max_size=4)


def test_a_request_is_an_empty_frame_and_the_body() -> None:
    """RR-1: what a raw ROUTER sees of a REQ socket, behind the routing id."""
    assert encode_request([b"hello"]) == [b"", b"hello"]
    assert encode_request([b"hello", b"", b"\x00\xff"]) == [b"", b"hello", b"", b"\x00\xff"]
    assert encode_request([b""]) == [b"", b""]


def test_a_reply_is_read_without_its_empty_frame() -> None:
    """RR-10: a REP server puts back what stood in front, which was nothing but the empty frame."""
    assert decode_reply([b"", b"world"]) == [b"world"]
    assert decode_reply([b"", b"", b"x"]) == [b"", b"x"]


@pytest.mark.parametrize("frames", [[], [b""], [b"x"], [b"x", b"y"], [b"x", b"", b"y"]])
def test_what_is_not_a_reply_is_refused(frames: list[bytes]) -> None:
    """Without the delimiter a REQ socket would drop the connection for good; here it is one message less."""
    with pytest.raises(RemoteProtocolError):
        decode_reply(frames)


@given(body=BODIES)
def test_any_body_comes_back_from_an_echo(body: list[bytes]) -> None:
    """Empty frames inside a body are the user's, not delimiters."""
    assert decode_reply(encode_request(body)) == body


def test_a_mark_stands_before_the_empty_frame_and_must_come_back() -> None:
    """RR-10: what a REP socket puts back is everything up to the empty frame, so it can carry a number."""
    assert encode_request([b"hello"], b"mark") == [b"mark", b"", b"hello"]
    assert decode_reply([b"mark", b"", b"world"], b"mark") == [b"world"]


@pytest.mark.parametrize("frames", [[], [b"mark"], [b"mark", b""], [b"", b"world"], [b"other", b"", b"world"]])
def test_a_reply_without_the_mark_belongs_to_something_else(frames: list[bytes]) -> None:
    """A second reply to the request before."""
    with pytest.raises(RemoteProtocolError):
        decode_reply(frames, b"mark")
