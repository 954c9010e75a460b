"""The frames of the extension: golden bytes written by hand from the documented layouts, round trips, and fuzz.

The hex below is the contract with every other language and every older version of ours. It is never to be produced
by the encoders under test: if one of these tests fails, the layout has changed, and with it the version in ``MAGIC``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.errors import Outcome, RemoteProtocolError
from reliable.status import Status
from reliable.wire.extension import (
    CONTROL_TOKEN,
    MAGIC,
    NO_LIFE,
    AnswerFrame,
    CallFlag,
    CallFrame,
    CallKind,
    Delivery,
    DeliveryKind,
    GiveBackReason,
    Hello,
    HelloAnswer,
    Place,
    ReadyExtension,
    Report,
    ReportKind,
    Role,
    ServiceOffer,
    body_digest,
    is_extension,
    make_token,
)

CALL_ID = bytes.fromhex("c0c1c2c3c4c5c6c7c8c9cacbcccdcecf")
CLIENT = bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
LIFE = bytes.fromhex("1112131415161718")
DIGEST = bytes.fromhex("d0d1d2d3d4d5d6d7d8d9dadbdcdddedf")
TOKEN = bytes.fromhex("11121314151617180000000000000007")


class Encodes(Protocol):
    """Any single frame of the extension."""

    def encode(self) -> bytes: ...


def hexed(text: str) -> bytes:
    """Bytes from hex with spaces and line breaks."""
    return bytes.fromhex("".join(text.split()))


GOLDEN: list[tuple[str, Encodes, str, Callable[[bytes], Encodes]]] = [
    (
        "call",
        CallFrame(
            CallKind.SUBMIT,
            CallFlag.IDEMPOTENT | CallFlag.FAIL_FAST,
            2,
            CALL_ID,
            CLIENT,
            LIFE,
            30_000,
            -5,
            DIGEST,
            b"00-ab",
        ),
        """52 4c 58 01  01  21  0002
        c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  1112131415161718
        0000000000007530  fffffffffffffffb  d0d1d2d3d4d5d6d7d8d9dadbdcdddedf  05  30302d6162""",
        CallFrame.decode,
    ),
    (
        "attach",
        CallFrame(CallKind.ATTACH, CallFlag.NOT_IDEMPOTENT, 65535, CALL_ID, CLIENT, NO_LIFE, 1, 0, DIGEST),
        """52 4c 58 01  02  02  ffff
        c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  0000000000000000
        0000000000000001  0000000000000000  d0d1d2d3d4d5d6d7d8d9dadbdcdddedf  00""",
        CallFrame.decode,
    ),
    (
        "cancel",
        CallFrame(CallKind.CANCEL, CallFlag.REPEAT, 1, CALL_ID, CLIENT, LIFE, 256, 255, DIGEST),
        """52 4c 58 01  03  40  0001
        c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  1112131415161718
        0000000000000100  00000000000000ff  d0d1d2d3d4d5d6d7d8d9dadbdcdddedf  00""",
        CallFrame.decode,
    ),
    (
        "answer",
        AnswerFrame(Status.OVERLOADED, 3, CALL_ID, LIFE, Outcome.NOT_EXECUTED, Place.QUEUED, 4, 1500, True),
        """52 4c 58 01  80  12  0003  c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  1112131415161718
        01  01  0004  000005dc  01""",
        AnswerFrame.decode,
    ),
    (
        "answer ok",
        AnswerFrame(Status.OK, 1, CALL_ID, LIFE, Outcome.EXECUTED),
        """52 4c 58 01  80  00  0001  c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  1112131415161718
        02  00  0000  00000000  00""",
        AnswerFrame.decode,
    ),
    (
        "delivery",
        Delivery(TOKEN, DeliveryKind.RUN, CallFlag.IDEMPOTENT, 2, 3, CALL_ID, CLIENT, 30_000, DIGEST, b"tr"),
        """11121314151617180000000000000007  52 4c 58 01  10  01  0002  0003
        c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
        0000000000007530  d0d1d2d3d4d5d6d7d8d9dadbdcdddedf  02  7472""",
        Delivery.decode,
    ),
    (
        "delivery with a service",
        Delivery(TOKEN, DeliveryKind.RUN, call_id=CALL_ID, client=CLIENT, digest=DIGEST, trace=b"tr", service=b"echo"),
        """11121314151617180000000000000007  52 4c 58 01  10  00  0001  0001
        c0c1c2c3c4c5c6c7c8c9cacbcccdcecf  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
        0000000000000000  d0d1d2d3d4d5d6d7d8d9dadbdcdddedf  02  7472  6563686f""",
        Delivery.decode,
    ),
    (
        "delivery of a cancel",
        Delivery(TOKEN, DeliveryKind.CANCEL),
        """11121314151617180000000000000007  52 4c 58 01  11  00  0001  0001
        00000000000000000000000000000000  00000000000000000000000000000000
        0000000000000000  00000000000000000000000000000000  00""",
        Delivery.decode,
    ),
    (
        "report of a result",
        Report(TOKEN, ReportKind.RESULT),
        "11121314151617180000000000000007  52 4c 58 01  20  01  0000",
        Report.decode,
    ),
    (
        "report of an error before the handler",
        Report(TOKEN, ReportKind.ERROR, executed=False),
        "11121314151617180000000000000007  52 4c 58 01  21  00  0000",
        Report.decode,
    ),
    (
        "report of a give-back",
        Report(TOKEN, ReportKind.GIVE_BACK, False, GiveBackReason.BAD_DELIVERY),
        "11121314151617180000000000000007  52 4c 58 01  25  00  0005",
        Report.decode,
    ),
    (
        "report of credit",
        Report(CONTROL_TOKEN, ReportKind.CREDIT, True, 258),
        "00000000000000000000000000000000  52 4c 58 01  26  01  0102",
        Report.decode,
    ),
    (
        "hello",
        Hello(Role.WORKER, CLIENT, 0x0102030405060708),
        "52 4c 58 01  30  02  a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  0102030405060708",
        Hello.decode,
    ),
    (
        "ready",
        ReadyExtension(
            CLIENT,
            4,
            (ServiceOffer(b"echo", True), ServiceOffer(b"pay", False, 2), ServiceOffer(b"x")),
            LIFE,
            (TOKEN,),
            300,
            7,
        ),
        """52 4c 58 01  31  97
        c410 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  c408 1112131415161718
        91 c410 11121314151617180000000000000007  04
        93  93 c404 6563686f c3 c0  93 c403 706179 c2 02  93 c401 78 c0 c0
        cd012c  07""",
        ReadyExtension.decode,
    ),
]


@pytest.mark.parametrize(("value", "layout", "decode"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN])
def test_frames_have_exactly_the_documented_bytes(
    value: Encodes, layout: str, decode: Callable[[bytes], Encodes]
) -> None:
    """Peers of another version or language rely on every single byte."""
    assert value.encode() == hexed(layout)
    assert decode(hexed(layout)) == value


def test_the_answer_to_a_hello_has_exactly_the_documented_frames() -> None:
    """Features and versions, life, size limit: three frames behind the code."""
    answer = HelloAnswer(LIFE, 65536)
    frames = [hexed("00000003 01 01"), LIFE, hexed("0000000000010000")]
    assert answer.encode() == frames
    assert HelloAnswer.decode(frames) == answer
    assert HelloAnswer.decode([*frames, b"of a later version"]) == answer


def test_tokens_name_life_and_delivery() -> None:
    """A token of another life can be told by its first eight bytes."""
    assert make_token(LIFE, 7) == TOKEN
    assert make_token(LIFE, 2**64 - 1)[8:] == b"\xff" * 8


def test_the_digest_of_a_request_is_fixed_and_counts_frame_borders() -> None:
    """It tells a repeated request from another one under the same id, also between peers of two versions."""
    assert body_digest(b"echo", [b"hello"]) == bytes.fromhex("2b7e22515a2fa7b0c249fc34a644a437")
    assert body_digest(b"echo", []) == bytes.fromhex("2640e1efb09079b294f48e272ded3469")
    different = [(b"echo", [b"ab", b"c"]), (b"echo", [b"a", b"bc"]), (b"echo", [b"abc"]), (b"echo", [b"abc", b""])]
    different.append((b"echo" + bytes(7) + b"\x03abc", []))
    assert len({body_digest(service, body) for service, body in different}) == len(different)


def test_an_extension_frame_is_told_by_its_magic() -> None:
    """Address frames of proxies stand beside ours."""
    assert is_extension(MAGIC) and is_extension(MAGIC + b"x")
    assert not is_extension(b"") and not is_extension(MAGIC[:3]) and not is_extension(b"RLX\x02")


# --- round trips ------------------------------------------------------------------------------------

ids = st.binary(min_size=16, max_size=16)
lives = st.binary(min_size=8, max_size=8)
traces = st.binary(max_size=255)
u16 = st.integers(0, 0xFFFF)
names = st.binary(max_size=255)
i64 = st.integers(-(2**63), 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
flags = st.integers(0, 127).map(CallFlag)
offers = st.builds(ServiceOffer, st.binary(min_size=1, max_size=255), st.sampled_from([True, False, None]))

values: dict[str, st.SearchStrategy[Encodes]] = {
    "call": st.builds(CallFrame, st.sampled_from(CallKind), flags, u16, ids, ids, lives, i64, i64, ids, traces),
    "answer": st.builds(
        AnswerFrame,
        st.sampled_from(Status),
        u16,
        ids,
        lives,
        st.sampled_from(Outcome),
        st.sampled_from(Place),
        u16,
        st.integers(0, 2**32 - 1),
        st.booleans(),
    ),
    "delivery": st.builds(
        Delivery, ids, st.sampled_from(DeliveryKind), flags, u16, u16, ids, ids, i64, ids, traces, names
    ),
    "report": st.builds(Report, ids, st.sampled_from(ReportKind), st.booleans(), u16),
    "hello": st.builds(Hello, st.sampled_from(Role), ids, u64),
    "ready": st.builds(
        ReadyExtension,
        ids,
        u16,
        st.lists(offers, min_size=1, max_size=4).map(tuple),
        lives,
        st.lists(ids, max_size=4).map(tuple),
        u64,
        st.none() | u64,
    ),
}
decoders: dict[str, Callable[[bytes], Encodes]] = {
    "call": CallFrame.decode,
    "answer": AnswerFrame.decode,
    "delivery": Delivery.decode,
    "report": Report.decode,
    "hello": Hello.decode,
    "ready": ReadyExtension.decode,
}


@pytest.mark.parametrize("name", values)
@given(data=st.data())
def test_every_frame_comes_back_equal(name: str, data: st.DataObject) -> None:
    """Over the whole range of each field."""
    value = data.draw(values[name])
    assert decoders[name](value.encode()) == value


@given(
    st.builds(
        HelloAnswer,
        lives.filter(lambda life: life != NO_LIFE),
        u64,
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.integers(0, 255),
    )
)
def test_every_answer_to_a_hello_comes_back_equal(answer: HelloAnswer) -> None:
    """Over the whole range of each field."""
    assert HelloAnswer.decode(answer.encode()) == answer


def test_wire_values_cannot_be_changed_by_type_and_can_be_used_as_keys() -> None:
    """They are shared between tables; a copy with one field changed is made by attrs."""
    report = Report(TOKEN, ReportKind.RESULT)
    assert {report: 1}[Report(TOKEN, ReportKind.RESULT)] == 1
    assert attrs.evolve(report, detail=3) == Report(TOKEN, ReportKind.RESULT, True, 3)


# --- hostile bytes ----------------------------------------------------------------------------------


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Anything, or a valid frame of some kind cut, lengthened, or with bytes changed."""
    frame = bytearray(
        draw(st.one_of(st.binary(max_size=120), *[v.map(lambda value: value.encode()) for v in values.values()]))
    )
    for _ in range(draw(st.integers(0, 4))):
        action = draw(st.sampled_from(["cut", "add", "set"]))
        if action == "add":
            frame += draw(st.binary(min_size=1, max_size=3))
        elif frame and action == "cut":
            del frame[draw(st.integers(0, len(frame) - 1)) :]
        elif frame:
            frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)


@pytest.mark.parametrize("name", [name for name in decoders if name != "ready"])
@given(frame=hostile())
def test_arbitrary_bytes_are_refused_or_read_without_loss(name: str, frame: bytes) -> None:
    """Two different frames never mean the same, and no frame raises anything but the one error that engines catch."""
    try:
        value = decoders[name](frame)
    except RemoteProtocolError:
        return
    assert value.encode() == frame


@given(frame=hostile())
def test_arbitrary_bytes_as_a_ready_are_refused_or_read_by_value(frame: bytes) -> None:
    """MessagePack writes one value in several ways, so here the values are compared, not the bytes."""
    try:
        ready = ReadyExtension.decode(frame)
    except RemoteProtocolError:
        return
    assert ReadyExtension.decode(ready.encode()) == ready


@given(
    frames=st.lists(
        st.one_of(st.binary(max_size=10), st.binary(min_size=6, max_size=6), st.binary(min_size=8, max_size=8)),
        max_size=4,
    )
)
def test_arbitrary_frames_as_the_answer_to_a_hello_are_refused_or_read(frames: list[bytes]) -> None:
    """A broker of others might answer 200 to anything."""
    try:
        answer = HelloAnswer.decode(frames)
    except RemoteProtocolError:
        return
    assert answer.encode() == frames[:3]


READY_HEAD = MAGIC + b"\x31"
READY_FIELDS = hexed("c410 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf  c408 1112131415161718  90  01  91 92 c404 6563686f c3")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x98" + READY_FIELDS + b"\x00\x00" + b"\x91" * 100_000, id="nested by the thousand"),
        pytest.param(b"\x97" + READY_FIELDS + b"\x05\xff", id="negative newest"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="four billion elements announced"),
        pytest.param(b"\x96" + READY_FIELDS[:28] + b"\xdd\xff\xff\xff\xff", id="four billion tokens announced"),
        pytest.param(b"\x96" + READY_FIELDS, id="cut"),
        pytest.param(b"\x96" + READY_FIELDS + b"\xff", id="negative size limit"),
        pytest.param(b"\x95" + READY_FIELDS.replace(b"\x90\x01\x91", b"\x90\xff\x91"), id="negative credit"),
        pytest.param(
            b"\x95" + READY_FIELDS.replace(b"\x90\x01\x91", b"\x90\xce\x00\x01\x00\x00\x91"), id="credit 65536"
        ),
        pytest.param(b"\x95" + READY_FIELDS.replace(b"\x91\x92\xc4\x04echo\xc3", b"\x90"), id="no service"),
        pytest.param(b"\x95" + READY_FIELDS.replace(b"\xc4\x04echo", b"\xc4\x00"), id="empty service name"),
        pytest.param(b"\x95" + READY_FIELDS.replace(b"\xc4\x08\x11", b"\xc4\x07"), id="short life"),
        pytest.param(b"\x95" + READY_FIELDS.replace(b"\x90\x01", b"\x91\xc4\x01a\x01"), id="short token"),
    ],
)
def test_a_hostile_ready_is_refused(payload: bytes) -> None:
    """It is the one frame with nested, self-described lengths."""
    with pytest.raises(RemoteProtocolError):
        ReadyExtension.decode(READY_HEAD + payload)


def test_a_ready_of_a_later_version_with_more_fields_is_understood() -> None:
    """Fields may be added at the end without a new magic."""
    ready = ReadyExtension.decode(READY_HEAD + b"\x98" + READY_FIELDS + b"\x05\x07\x93\x01\x02\x03")
    assert ready == ReadyExtension(CLIENT, 1, (ServiceOffer(b"echo", True),), LIFE, (), 5, 7)


def test_a_ready_of_an_earlier_version_says_nothing_of_what_came() -> None:
    """Then nothing is proven by it."""
    ready = ReadyExtension.decode(READY_HEAD + b"\x96" + READY_FIELDS + b"\x05")
    assert ready == ReadyExtension(CLIENT, 1, (ServiceOffer(b"echo", True),), LIFE, (), 5)
    assert ready.newest is None


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(Report(TOKEN, ReportKind.RESULT).encode()[:-3] + b"\x02\x00\x00", id="report: executed 2"),
        pytest.param(
            AnswerFrame(Status.OK, 1, CALL_ID, LIFE, Outcome.EXECUTED).encode()[:-1] + b"\x02",
            id="answer: idempotent 2",
        ),
    ],
)
def test_a_truth_value_is_zero_or_one(frame: bytes) -> None:
    """So that the bytes free for later use stay free."""
    for decode in (Report.decode, AnswerFrame.decode):
        with pytest.raises(RemoteProtocolError):
            decode(frame)
