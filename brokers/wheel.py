"""Deadlines in buckets: cheap to set, cheap to drop, never early.

A heap pays for every deadline that is set, and nearly all of them are dropped before they are due. Here a deadline is a
key in the dict of its 50 ms bucket; a heap holds only the numbers of the buckets. So an entry fires up to one bucket
late and never early, and the order is that of setting, which keeps a replay of the same input the same.

An entry belongs to one bucket at most and knows which: an entry that was moved or dropped while its bucket is being
emptied does not fire. Buckets are dicts instead of lists so that dropping an entry frees it at once: a peer that sets
far deadlines and ends its calls early leaves nothing behind.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

__all__ = ["BUCKET_S", "Timed", "Wheel"]

BUCKET_S: Final = 0.05
_NOWHERE: Final = -1
_HEAP_SLACK: Final = 64


class Timed:
    """Something with at most one deadline; the base of everything that the wheel holds."""

    __slots__ = ("bucket",)

    def __init__(self) -> None:
        self.bucket = _NOWHERE
        """Number of the bucket that holds it, or -1."""


class Wheel:
    """All deadlines of one engine.

    Args:
        now: The moment from which time goes on.
        bucket_s: Width of a bucket, which is also the most by which an entry can be late.
    """

    def __init__(self, now: float, bucket_s: float = BUCKET_S) -> None:
        self._bucket_s = bucket_s
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._heap: list[int] = []
        self._passed = self._index(now)
        """The newest bucket that was emptied. Nothing is put there again, so that no caller can spin."""

    def _index(self, when: float) -> int:
        """The newest bucket that is due at ``when``, in the very arithmetic of ``next_deadline``.

        A division alone can come out one lower, since 10001.1 // 0.05 is 200021.0 and 200022 * 0.05 is 10001.1.
        """
        index = int(when / self._bucket_s)
        if index * self._bucket_s > when:
            return index - 1
        return index + 1 if (index + 1) * self._bucket_s <= when else index

    def set(self, entry: Timed, deadline: float) -> None:
        """Fire ``entry`` at ``deadline``, instead of any deadline that it had."""
        # ``_index`` in line: two deadlines are set for each request.
        index = int(deadline / self._bucket_s) + 1
        if index * self._bucket_s <= deadline:
            index += 1
        elif (index - 1) * self._bucket_s > deadline:
            index -= 1
        if index <= self._passed:
            index = self._passed + 1
        if entry.bucket >= 0:
            if entry.bucket == index:
                return
            self.drop(entry)
        bucket = self._buckets.get(index)
        if bucket is None:
            self._buckets[index] = {entry: None}
            heapq.heappush(self._heap, index)
        else:
            bucket[entry] = None
        entry.bucket = index

    def drop(self, entry: Timed) -> None:
        """Forget the deadline of ``entry``, if it has one."""
        index = entry.bucket
        if index < 0:
            return
        entry.bucket = _NOWHERE
        bucket = self._buckets[index]
        del bucket[entry]
        if not bucket:
            del self._buckets[index]
            if len(self._heap) > 2 * len(self._buckets) + _HEAP_SLACK:
                self._heap = list(self._buckets)
                heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[Timed]:
        """Take out what is due, one by one; entries may be set and dropped meanwhile.

        Must be read to its end: only then is ``next_deadline()`` later than ``now``.
        """
        self._passed = max(self._passed, self._index(now))
        while self._heap and self._heap[0] <= self._passed:
            index = heapq.heappop(self._heap)
            bucket = self._buckets.get(index)
            if bucket is None:
                continue
            for entry in list(bucket):
                if entry.bucket == index:
                    self.drop(entry)
                    yield entry

    def next_deadline(self) -> float | None:
        """The moment at which the first bucket is due, or None if there is none."""
        while self._heap and self._heap[0] not in self._buckets:
            heapq.heappop(self._heap)
        return self._heap[0] * self._bucket_s if self._heap else None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))
