"""What every benchmark is given, and how it says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

__all__ = ["Bounds", "Say"]

Say = Callable[[str, str], None]
"""Called with ``"progress"`` or ``"line"``, and a text."""
_ROUNDS_MIN: Final = 1


@attrs.frozen(kw_only=True)
class Bounds:
    """How much is measured."""

    rounds: int
    """Turns of each contestant."""
    seconds: float
    """No round begins after so long, but the first is always made."""

    def numbers(self) -> Iterator[int]:
        """The numbers of the rounds, until one of the two ends them."""
        end = time.monotonic() + self.seconds
        for number in range(self.rounds):
            if number >= _ROUNDS_MIN and time.monotonic() >= end:
                return
            yield number
