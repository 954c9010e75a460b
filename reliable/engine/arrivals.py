"""Which deliveries have come: what a worker's READY proves to a broker about those that it sent on a broken link.

Deliveries on one link come in the order of their counters. So once every link of this process to a broker life is over,
none that is newer than the newest that came can come any more, and it did not run.
"""

from __future__ import annotations

from typing import Final

from reliable.wire.extension import token_counter

__all__ = ["LIVES_MAX", "Arrivals"]

LIVES_MAX: Final = 10_000


class Arrivals:
    """By broker life, the counter of the newest delivery that has come on any link.

    No life is ever taken out: a worker that comes back to one after others must not take deliveries that it had then
    for ones that never came. Past ``LIVES_MAX`` further ones are not noted, and nothing is said of them.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, int] = {}

    def expect(self, life: bytes) -> None:
        """From now on deliveries of this life may come; to be said before the first one can."""
        if len(self._newest) < LIVES_MAX:
            self._newest.setdefault(life, 0)

    def came(self, life: bytes, token: bytes) -> None:
        """A delivery is here."""
        before = self._newest.get(life)
        if before is not None:
            self._newest[life] = max(before, token_counter(token))

    def newest(self, life: bytes) -> int | None:
        """The counter; 0: none has come. None: that was not noted."""
        return self._newest.get(life)
