"""Requests and replies of the dialects without request numbers, against the golden bytes."""

from __future__ import annotations

import pytest

from reliable.config import Dialect
from reliable.errors import RemoteProtocolError
from reliable.wire.plain import PLAIN_WIRES

MDP01, MDP02 = PLAIN_WIRES[Dialect.MDP01], PLAIN_WIRES[Dialect.MDP02]


def hexed(frames: list[bytes]) -> str:
    return " ".join(frame.hex() or "-" for frame in frames)


def test_golden_requests() -> None:
    """MDP1-9, MDP1-12, MDP2-9, MDP2-12, RR-1: byte for byte what brokers and servers of others read."""
    assert hexed(MDP01.encode(b"id", b"echo", [b"hello"])) == "- 4d4450433031 6563686f 68656c6c6f"
    assert (
        hexed(MDP01.encode(b"id", b"echo", [b"hello", b"", b"\x00\xff"])) == "- 4d4450433031 6563686f 68656c6c6f - 00ff"
    )
    assert hexed(MDP01.encode(b"id", b"echo", [b""])) == "- 4d4450433031 6563686f -"
    assert hexed(MDP01.encode(b"id", b"mmi.service", [b"echo"])) == "- 4d4450433031 6d6d692e73657276696365 6563686f"
    assert hexed(MDP02.encode(b"id", b"echo", [b"hello"])) == "4d4450433032 01 6563686f 68656c6c6f"
    for dialect in (Dialect.REQ, Dialect.PPP):
        assert hexed(PLAIN_WIRES[dialect].encode(b"id", b"echo", [b"hello"])) == "- 68656c6c6f"


def test_golden_replies() -> None:
    """MDP1-10, MDP2-10: a body and whether it is the last one."""
    assert MDP01.decode(b"id", b"echo", [b"", b"MDPC01", b"echo", b"hello"]) == ([b"hello"], True)
    assert MDP02.decode(b"id", b"echo", [b"MDPC02", b"\x02", b"echo", b"hello"]) == ([b"hello"], False)
    assert MDP02.decode(b"id", b"echo", [b"MDPC02", b"\x03", b"echo", b"hello", b""]) == ([b"hello", b""], True)
    assert PLAIN_WIRES[Dialect.REQ].decode(b"id", b"echo", [b"", b"hello"]) == ([b"hello"], True)


@pytest.mark.parametrize(
    ("dialect", "frames"),
    [
        (Dialect.MDP01, [b"", b"MDPC01", b"other", b"x"]),
        (Dialect.MDP01, [b"", b"MDPC01", b"Echo", b"x"]),
        (Dialect.MDP01, [b"", b"MDPW01", b"echo", b"x"]),
        (Dialect.MDP01, [b"MDPC01", b"echo", b"x"]),
        (Dialect.MDP01, [b"", b"MDPC01", b"echo"]),
        (Dialect.MDP01, [b"MDPC02", b"\x03", b"echo", b"x"]),
        (Dialect.MDP01, [b"id", b"", b"MDPC01", b"echo", b"x"]),
        (Dialect.MDP02, [b"", b"MDPC01", b"echo", b"x"]),
        (Dialect.MDP02, [b"MDPC02", b"\x03", b"other", b"x"]),
        (Dialect.MDP02, [b"MDPC02", b"\x01", b"echo", b"x"]),
        (Dialect.MDP02, [b"MDPC02", b"\x04", b"echo", b"x"]),
        (Dialect.MDP02, [b"", b"MDPC02", b"\x03", b"echo", b"x"]),
        (Dialect.REQ, [b"x"]),
    ],
)
def test_a_reply_that_does_not_fit_is_refused(dialect: Dialect, frames: list[bytes]) -> None:
    """MDP1-10, MDP1-14, MDP1-18, MDP2-10: another service, header or version is nobody's answer to this."""
    with pytest.raises(RemoteProtocolError):
        PLAIN_WIRES[dialect].decode(b"id", b"echo", frames)
