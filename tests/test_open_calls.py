"""``reliable.open_calls``: what is kept of a call until somebody reads it."""

from __future__ import annotations

import pytest

from reliable.errors import DeadlineExceeded, Outcome, PayloadError, QueueFull, RequestAbandoned
from reliable.open_calls import NO_PART, OpenCall, carry_out_safely
from reliable.payload import JSON, MSGPACK, RAW
from reliable.protocol.events import CallFinished, CallProgress, Submit
from reliable.types import Frames

_ID = b"c" * 16


def _call(parts_max: int = 0) -> tuple[OpenCall, list[None]]:
    woken: list[None] = []
    submit = Submit(call_id=_ID, service=b"s", body=[b""], deadline=None)
    return OpenCall(submit, lambda: woken.append(None), None, parts_max), woken


def _part(*frames: bytes) -> CallProgress:
    return CallProgress(_ID, list(frames), partial=True)


def test_parts_are_counted_even_if_nobody_reads_them() -> None:
    """So that ``call`` can say what it was that it got."""
    call, woken = _call()
    for _ in range(3):
        call.take(_part(b"\x01"))
    assert (len(call.parts), call.parts_seen, woken) == (0, 3, [])
    call.take(CallFinished(_ID, [b""]))
    assert call.frames() == [b""]
    with pytest.raises(PayloadError, match="in 3 parts"):
        call.value(MSGPACK)


@pytest.mark.parametrize(
    ("parts", "final", "read"),
    [
        ([b"\x01", b"\x02"], [b""], [1, 2]),
        ([b"\x01"], [b"\x07"], [1, 7]),
        ([], [b"\x07"], [7]),
        ([], [b""], []),
    ],
)
def test_the_last_body_is_a_part_unless_it_is_empty(parts: list[bytes], final: Frames, read: list[int]) -> None:
    """As the worker of a generator writes it: what it returned, or nothing."""
    call, _ = _call(10)
    for part in parts:
        call.take(_part(part))
    call.take(CallFinished(_ID, final))
    got = [call.next_part(MSGPACK) for _ in range(len(parts) + 1)]
    assert [one for one in got if one is not NO_PART] == read


def test_an_empty_reply_that_is_no_stream_is_a_part_for_a_codec_that_can_write_it() -> None:
    """For bytes as they are, nothing at all is a value."""
    call, _ = _call(10)
    call.take(CallFinished(_ID, [b""]))
    assert call.next_part(RAW) == b""
    call, _ = _call(10)
    call.take(_part(b""))
    call.take(CallFinished(_ID, [b""]))
    assert [call.next_part(RAW), call.next_part(RAW)] == [b"", NO_PART]
    call, _ = _call(10)
    call.take(CallFinished(_ID, [b"", b""]))
    with pytest.raises(PayloadError, match="2 frames"):
        call.next_part(JSON)


def test_a_reader_that_is_too_far_behind_is_told_after_what_it_has() -> None:
    """However the call ended meanwhile: a hole must not look like the end."""
    for end in (CallFinished(_ID, [b"\x09"]), CallFinished(_ID, RequestAbandoned("x", attempts=2, story=("sent",)))):
        call, _ = _call(2)
        for number in range(4):
            call.take(_part(bytes([number])))
        assert call.overrun
        call.take(end)
        assert [call.next_part(MSGPACK), call.next_part(MSGPACK)] == [0, 1]
        with pytest.raises(QueueFull, match="2 parts behind") as caught:
            call.next_part(MSGPACK)
        assert (caught.value.outcome, caught.value.call_id) == (Outcome.UNKNOWN, _ID)
    assert (caught.value.attempts, caught.value.story) == (2, ("sent",))


def test_the_first_end_stands() -> None:
    """An engine that wakes up late must not take back what a caller was told."""
    call, woken = _call()
    call.expire()
    call.take(CallFinished(_ID, [b"late"]))
    with pytest.raises(DeadlineExceeded):
        call.frames()
    assert len(woken) == 2


def test_news_are_told_in_order_and_a_mistake_in_telling_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The loop that tells them has other calls to look after."""
    told: list[Frames] = []

    def tell(frames: Frames) -> None:
        told.append(frames)
        raise ValueError("a mistake")

    call, woken = _call()
    call.take(CallProgress(_ID, [b"unwanted"], partial=False))
    assert woken == []
    call.on_progress = tell
    for number in range(3):
        call.take(CallProgress(_ID, [b"%d" % number], partial=False))
    call.tell()
    assert told == [[b"0"], [b"1"], [b"2"]]
    assert len(woken) == 3
    assert caplog.text.count("on_progress failed") == 3
    assert "a mistake" in caplog.text


def test_only_errors_are_held_back() -> None:
    """Ctrl-C in a function of the user's is for the user."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out_safely("it", interrupted)
