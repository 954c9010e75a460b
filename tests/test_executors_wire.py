"""What a worker and its handler processes say to each other arrives as it was said."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.executors_wire import (
    Begin,
    Done,
    FromChild,
    MessageBuffer,
    Part,
    Ready,
    Run,
    Taken,
    ToChild,
    encode,
    pack_codec,
    unpack_codec,
)
from reliable.payload import JSON, MSGPACK, RAW, Codec
from reliable.protocol.events import JobError, StartJob
from reliable.status import Status
from reliable.wire.extension import CallFlag


def test_a_job_arrives_whole() -> None:
    """Every field: the handler's process knows as much as a thread would."""
    job = StartJob(
        job=7,
        service=b"s",
        body=[b"a", b""],
        deadline=12.5,
        flags=CallFlag.IDEMPOTENT | CallFlag.WANTS_PROGRESS,
        call_id=b"c" * 16,
        attempt=2,
        delivery=3,
        trace=b"t",
    )
    buffer = MessageBuffer(ToChild)
    buffer.add(encode(Run.of(job)))
    (run,) = buffer.messages()
    assert isinstance(run, Run)
    assert run.start() == job


@pytest.mark.parametrize(
    "result", [[b"a", b""], JobError("T", "text", False), JobError("T", "text", status=Status.TOO_LARGE)]
)
def test_a_result_arrives_whole(result: list[bytes] | JobError) -> None:
    """Also whether it ran, which is what the caller needs most."""
    buffer = MessageBuffer(FromChild)
    buffer.add(encode(Done.of(1, result, 4096)))
    (done,) = buffer.messages()
    assert isinstance(done, Done)
    assert (done.result(), done.memory_bytes) == (result, 4096)


@given(cuts=st.lists(st.integers(1, 40), max_size=20))
def test_messages_are_found_however_the_stream_is_cut(cuts: list[int]) -> None:
    """A socket keeps no boundaries."""
    messages: list[FromChild] = [Ready(), Part(1, [b"x" * 50]), Part(2, []), Ready()]
    data = b"".join(encode(message) for message in messages)
    buffer = MessageBuffer(FromChild)
    found: list[object] = []
    for cut in [*cuts, len(data)]:
        buffer.add(data[:cut])
        data = data[cut:]
        found += buffer.messages()
    assert found == messages


def test_what_is_no_message_is_found_out() -> None:
    """A handler that wrote into the wrong descriptor, or a word that only the other side says."""
    for data in (b"\x00" * 7 + b"\x01\xc1", encode(Taken(1)), b"\xff" * 8):
        buffer = MessageBuffer(FromChild)
        buffer.add(data)
        with pytest.raises((msgspec.MsgspecError, ValueError)):
            list(buffer.messages())


class Mine:
    """A codec of a user's own."""

    name = "mine"

    def encode(self, value: object) -> bytes:
        return b""

    def decode(self, data: bytes) -> object:
        return None


def test_codecs_arrive_as_the_same_ones() -> None:
    """Ours are told apart by identity; a user's own must be picklable."""
    ours: list[Codec] = [MSGPACK, JSON, RAW]
    for codec in ours:
        assert unpack_codec(pack_codec(codec)) is codec
    assert isinstance(unpack_codec(pack_codec(Mine())), Mine)
    broken = Mine()
    broken.hold = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="the codec mine cannot be handed to another process"):
        pack_codec(broken)


def test_the_first_word_carries_what_a_child_needs() -> None:
    """A field that is lost here is lost in every child."""
    begin = Begin(
        handlers=[(b"s", "module", "name", True)],
        codec=pack_codec(JSON),
        parts_ahead_max=5,
        measure_memory=True,
        main={"init_main_from_path": "p"},
    )
    buffer = MessageBuffer(ToChild)
    buffer.add(encode(begin))
    assert list(buffer.messages()) == [begin]
