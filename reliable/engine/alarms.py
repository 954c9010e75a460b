"""One alarm per key, in order of time, cheap to move and to take back."""

from __future__ import annotations

import heapq

__all__ = ["Alarms"]

_SPARE = 64


class Alarms:
    """A heap that forgets lazily.

    Most alarms never ring: a call is answered long before its deadline. So taking one back only forgets the key, and
    moving one to a later time only notes the time; the heap finds out when the old entry comes up. It is rebuilt when
    more than half of it is stale, so it never holds more than twice what is set (and a few).
    """

    def __init__(self) -> None:
        self._when: dict[bytes, float] = {}
        self._entry: dict[bytes, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, bytes]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: bytes, when: float) -> None:
        """Ring for ``key`` at ``when``, and no longer at the time set before."""
        self._when[key] = when
        entry = self._entry.get(key)
        if entry is None or when < entry[0]:
            self._push(key, when)

    def clear(self, key: bytes) -> None:
        """Do not ring for ``key``."""
        if self._when.pop(key, None) is not None:
            del self._entry[key]
            if len(self._heap) > 2 * len(self._when) + _SPARE:
                self._tidy()

    def next(self) -> float | None:
        """The earliest time that is set."""
        heap = self._heap
        while heap:
            when, count, key = heap[0]
            if self._entry.get(key) != (when, count):
                heapq.heappop(heap)
            elif self._when[key] > when:
                heapq.heappop(heap)
                self._push(key, self._when[key])
            else:
                return when
        return None

    def pop_due(self, now: float) -> bytes | None:
        """Take out the key of the earliest alarm that is due, or None."""
        when = self.next()
        if when is None or when > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._when[key], self._entry[key]
        return key

    def _push(self, key: bytes, when: float) -> None:
        self._count += 1
        self._entry[key] = (when, self._count)
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 2 * len(self._when) + _SPARE:
            self._tidy()

    def _tidy(self) -> None:
        self._heap[:] = [entry for entry in self._heap if self._entry.get(entry[2]) == entry[:2]]
        heapq.heapify(self._heap)
