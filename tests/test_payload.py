"""Values to frames and back, and errors that say what to write instead."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import PayloadError
from reliable.payload import (
    JSON,
    MSGPACK,
    RAW,
    Codec,
    check_frames,
    decode_call,
    decode_reply,
    encode_call,
    encode_reply,
    raw_reply,
)

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=lambda codec: codec.name)
@given(args=st.lists(_values, max_size=4), kwargs=st.dictionaries(st.text(), _values, max_size=4))
def test_arguments_come_back_as_they_were(codec: Codec, args: list[object], kwargs: dict[str, object]) -> None:
    """A call is a function call: position and name of each argument count."""
    assert decode_call(codec, encode_call(codec, args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=lambda codec: codec.name)
@given(value=_values)
def test_results_come_back_as_they_were(codec: Codec, value: object) -> None:
    """None included: it is a result, not the lack of one."""
    assert decode_reply(codec, encode_reply(codec, value)) == value


def test_messagepack_carries_bytes() -> None:
    """The reason why it is the default."""
    assert decode_reply(MSGPACK, encode_reply(MSGPACK, b"\x00\xff")) == b"\x00\xff"


def test_the_raw_codec_makes_each_argument_a_frame() -> None:
    """So that a typed call can reach a raw handler, and the other way round."""
    assert encode_call(RAW, [b"a", bytearray(b"b")], {}) == [b"a", b"b"]
    assert decode_call(RAW, [b"a", b"b"]) == ([b"a", b"b"], {})
    assert decode_reply(RAW, [b"a"]) == b"a"
    assert decode_reply(RAW, [b"a", b"b"]) == [b"a", b"b"]
    assert encode_reply(RAW, [b"a", b"b"]) == [b"a", b"b"]
    with pytest.raises(PayloadError, match="no named arguments"):
        encode_call(RAW, [], {"a": b""})


def test_text_where_bytes_are_due_is_told_with_the_way_out() -> None:
    """The first mistake that everybody makes."""
    with pytest.raises(PayloadError, match=r"frame 2 must be bytes, not str: write 'hello'\.encode\(\), or use call"):
        check_frames([b"", "hello"])
    with pytest.raises(PayloadError, match="must be bytes, not int"):
        check_frames([5])
    with pytest.raises(PayloadError, match=r"the result must be bytes, not str"):
        raw_reply("done")


def test_frames_are_plain_bytes_and_at_least_one() -> None:
    """MDP has no message without a body."""
    assert check_frames([]) == [b""]
    frames = check_frames([memoryview(b"a"), bytearray(b"b"), b"c"])
    assert frames == [b"a", b"b", b"c"]
    assert all(type(frame) is bytes for frame in frames)


@pytest.mark.parametrize(
    ("value", "frames"),
    [(None, [b""]), (b"a", [b"a"]), ([b"a", b"b"], [b"a", b"b"]), ((b"a",), [b"a"]), ([], [b""])],
)
def test_raw_handlers_return_nothing_bytes_or_several(value: object, frames: list[bytes]) -> None:
    """A handler without a return statement has a reply too."""
    assert raw_reply(value) == frames


def test_values_that_cannot_be_written_are_named() -> None:
    """The error is ours, with the codec's own words behind it."""
    with pytest.raises(PayloadError, match=r"the arguments cannot be encoded as MessagePack: .*object"):
        encode_call(MSGPACK, [object()], {})
    with pytest.raises(PayloadError, match="the result cannot be encoded as JSON"):
        encode_reply(JSON, object())


def test_rich_values_are_written_as_their_plain_form() -> None:
    """What msgspec knows to write is allowed, and arrives as text."""
    assert decode_reply(JSON, encode_reply(JSON, datetime.date(2024, 2, 29))) == "2024-02-29"


@pytest.mark.parametrize("body", [[b"\xc1"], [b""], [b"a", b"b"], [b"\x01"], [b"\x91\x90"], [b"\x92\x90\x81\x01\x02"]])
def test_bodies_that_are_no_call_are_refused(body: list[bytes]) -> None:
    """Whatever arrives: an error that a worker can answer, before any handler is entered."""
    with pytest.raises(PayloadError):
        decode_call(MSGPACK, body)


def test_a_reply_of_several_frames_is_not_guessed_at() -> None:
    """A raw handler behind a typed call: say so."""
    with pytest.raises(PayloadError, match=r"the reply has 2 frames .* use request\(\)"):
        decode_reply(MSGPACK, [b"", b""])


@given(st.binary(max_size=64))
def test_no_bytes_get_past_the_decoders_as_anything_but_payload_errors(data: bytes) -> None:
    """Callers choose by this class alone."""
    ends = []
    for codec in (MSGPACK, JSON):
        for decode in (decode_call, decode_reply):
            try:
                decode(codec, [data])
                ends.append("decoded")
            except PayloadError:
                ends.append("refused")
    assert len(ends) == 4
