"""Wire values: frozen for the type checker, cheap at run time."""

from __future__ import annotations

import attrs

from reliable.wire.values import value


@value
class Pair:
    """Two numbers."""

    one: int
    two: int = 2


def test_a_wire_value_is_compared_hashed_and_copied_like_a_frozen_one() -> None:
    """Tables use them as keys, tests compare them, and a copy with a change is made by attrs."""
    assert {Pair(1): "found"}[Pair(1, 2)] == "found"
    assert attrs.evolve(Pair(1), two=3) == Pair(1, 3) != Pair(1)


def test_a_wire_value_has_slots() -> None:
    """A misspelt field name would otherwise be taken without a word."""
    assert not hasattr(Pair(1), "__dict__")


def test_building_a_wire_value_does_not_go_through_the_checks_of_a_frozen_class() -> None:
    """That is the whole point of it: one assignment per field, no call."""
    assert Pair.__setattr__ is object.__setattr__
