"""Which of the calls of a ``map`` is looked at next: what both shells do alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from reliable.errors import RequestError
from reliable.open_calls import OpenCall, carry_out_safely
from reliable.payload import Codec

__all__ = ["REFILL", "MapProgress", "MapWindow", "total_of"]

MapProgress = Callable[[int, int | None], object]
"""Gets how many results were given out, and of how many, if that is known."""

_UNTAKEN_FACTOR: Final = 2
REFILL: Final = 2
"""Items to take before each result: more than are used up, so that the window fills although a result is at hand."""


def total_of(items: object) -> int | None:
    """How many there are, if that can be told without taking any."""
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None


class MapWindow:
    """The calls of one ``map`` that are open or whose result nobody has taken yet.

    Args:
        ordered: Give results in the order of the items, rather than as they come.
        in_flight: Calls that may be open at once. As many more may be over and wait to be taken.
        total: Items in all, if known.
        on_progress: Is told of each result that is given out.
        return_errors: Give a ``RequestError`` as a result instead of raising it.

    Raises:
        ValueError: ``in_flight`` is not at least 1.
    """

    def __init__(
        self,
        *,
        ordered: bool,
        in_flight: int,
        total: int | None,
        on_progress: MapProgress | None,
        return_errors: bool,
    ) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight!r}")
        self._ordered = ordered
        self._in_flight = in_flight
        self._total = total
        self._on_progress = on_progress
        self._return_errors = return_errors
        self._waiting: deque[OpenCall] = deque()
        """In order: all that are in the window. Else: those that are over."""
        self._open: dict[bytes, OpenCall] = {}
        self._touched: deque[OpenCall] = deque()
        self._given = 0
        self.exhausted = False
        """There are no more items."""

    def touch(self, call: OpenCall) -> None:
        """Something happened to a call; may be called from the thread that pumps."""
        self._touched.append(call)

    @property
    def touched(self) -> bool:
        """Whether there is something to ``sort``."""
        return bool(self._touched)

    def add(self, call: OpenCall) -> None:
        """One more call, just before it is opened."""
        self._open[call.submit.call_id] = call
        if self._ordered:
            self._waiting.append(call)

    def sort(self) -> None:
        """See what became of the calls that were touched."""
        while self._touched:
            call = self._touched.popleft()
            call.tell()
            if call.finished is None or self._open.pop(call.submit.call_id, None) is None:
                continue
            if not self._ordered:
                self._waiting.append(call)

    @property
    def has_room(self) -> bool:
        """Whether another call may be opened."""
        if self.exhausted or len(self._open) >= self._in_flight:
            return False
        untaken = len(self._waiting) if self._ordered else len(self._waiting) + len(self._open)
        return untaken < _UNTAKEN_FACTOR * self._in_flight

    @property
    def ready(self) -> bool:
        """Whether ``take`` can be called."""
        return bool(self._waiting) and self._waiting[0].finished is not None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to give."""
        return self.exhausted and not self._open and not self._waiting

    def take(self, codec: Codec) -> object:
        """The next result.

        Raises:
            RequestError: The call failed, and errors are not returned.
            PayloadError: The reply cannot be decoded.
        """
        call = self._waiting.popleft()
        try:
            result = call.value(codec)
        except RequestError as error:
            if not self._return_errors:
                raise
            result = error
        self._given += 1
        if self._on_progress is not None:
            carry_out_safely("on_progress", self._on_progress, self._given, self._total)
        return result

    def open_calls(self) -> Iterator[OpenCall]:
        """Those that are not over yet."""
        return iter([call for call in self._open.values() if call.finished is None])

    def close(self) -> None:
        """Give nothing any more."""
        self.exhausted = True
        self._open.clear()
        self._waiting.clear()
        self._touched.clear()
