"""Netstrings of JSON, as the mesh sends them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.bench.mesh_node import decode_netstring, encode_netstring

VALUES = st.dictionaries(st.text(), st.text() | st.integers())


@given(VALUES, VALUES)
def test_what_is_written_is_read_and_the_rest_is_left(first: object, second: object) -> None:
    """Two messages in one packet are two messages."""
    data = encode_netstring(first) + encode_netstring(second)
    found = decode_netstring(data)
    assert found is not None and found[0] == first
    assert decode_netstring(found[1]) == (second, b"")


@given(VALUES)
def test_a_part_is_not_taken_for_the_whole(value: object) -> None:
    """TCP gives bytes, not messages."""
    data = encode_netstring(value)
    assert [decode_netstring(data[:end]) for end in range(len(data))] == [None] * len(data)


def test_something_else_is_refused() -> None:
    """Rather than waited for."""
    with pytest.raises(ValueError, match="comma"):
        decode_netstring(b"2:{};")
