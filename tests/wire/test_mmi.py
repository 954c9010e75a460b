"""8/MMI: names that the broker answers itself, and the two questions that our peers ask."""

from __future__ import annotations

import pytest

from reliable.wire import mmi
from reliable.wire.mdp import ClientRequest, Version, decode_at_broker


@pytest.mark.parametrize("name", [b"mmi.", b"mmi.service", b"mmi.service2", b"mmi.reliable"])
def test_names_with_the_exact_prefix_are_the_brokers_own(name: bytes) -> None:
    """8/MMI: handled inside the broker, never queued, never sent to a worker."""
    assert mmi.is_reserved(name)


@pytest.mark.parametrize("name", [b"mmi", b"Mmi.x", b"xmmi.service", b"MMI.service", b" mmi.x", b""])
def test_names_that_only_resemble_the_prefix_are_ordinary_services(name: bytes) -> None:
    """A substring or case-folded match would take services away from users."""
    assert not mmi.is_reserved(name)


@pytest.mark.parametrize(
    ("version", "frames"),
    [
        (Version.MDP01, [b"", b"MDPC01", b"mmi.service", b"echo"]),
        (Version.MDP02, [b"MDPC02", b"\x01", b"mmi.service", b"echo"]),
    ],
)
def test_the_service_query_is_an_ordinary_client_request(version: Version, frames: list[bytes]) -> None:
    """Brokers of others answer it too."""
    assert mmi.service_query(version, b"echo") == frames


def test_the_hello_is_a_plain_01_request_without_a_frame_in_front() -> None:
    """It is the first thing a broker of others hears from us: anything but plain MDP could kill the connection."""
    frames = mmi.hello_request(b"hello frame")
    assert frames == [b"", b"MDPC01", b"mmi.reliable", b"hello frame"]
    assert decode_at_broker(frames) == ClientRequest(Version.MDP01, b"mmi.reliable", [b"hello frame"])


def test_codes_are_ascii_text() -> None:
    """8/MMI: three digits in one body frame."""
    assert (mmi.FOUND, mmi.NOT_FOUND, mmi.NOT_IMPLEMENTED) == (b"\x32\x30\x30", b"\x34\x30\x34", b"\x35\x30\x31")


def test_our_own_queries_lie_inside_the_reserved_space() -> None:
    """Otherwise a worker could register them."""
    assert mmi.is_reserved(mmi.SERVICE_QUERY)
    assert mmi.is_reserved(mmi.STATUS_QUERY)
    assert mmi.STATUS_QUERY == b"mmi.reliable.status"


def test_the_question_about_the_time_and_its_answer_have_these_bytes() -> None:
    """Other programs write and read them."""
    stamp = bytes(range(8))
    assert mmi.time_query(stamp) == [b"", b"MDPC01", b"mmi.reliable.time", stamp]
    told = mmi.time_answer(stamp, 86_400_012)
    assert told == [stamp, bytes.fromhex("0000000005265c0c")]
    assert mmi.read_time_answer([*told, b"more"]) == (stamp, 86_400_012)


@pytest.mark.parametrize("frames", [[], [bytes(8)], [bytes(7), bytes(8)], [bytes(8), bytes(9)]])
def test_what_is_no_answer_about_the_time_is_none(frames: list[bytes]) -> None:
    """A peer may send anything."""
    assert mmi.read_time_answer(frames) is None
