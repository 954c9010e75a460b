"""Virtual time: a clock that moves only when told, and what is going to happen on it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

__all__ = ["Agenda", "Appointment", "VirtualClock"]

_AT_ONCE_MAX: Final = 100_000


class VirtualClock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self, start_s: float = 10_000.0) -> None:
        """Start at ``start_s``; not at zero, so that nothing can take a reading of the clock for a duration."""
        self.reading = start_s
        """In seconds; to be moved by ``advance_to`` alone."""

    def __call__(self) -> float:
        """The reading, in seconds."""
        return self.reading

    def advance_to(self, when: float) -> None:
        """Move to ``when``.

        Raises:
            ValueError: That is in the past.
        """
        if when < self.reading:
            raise ValueError(f"time does not run backwards: {when} < {self.reading}")
        self.reading = when


class Appointment:
    """Something that will happen once, unless it is cancelled."""

    __slots__ = ("_action", "when")

    def __init__(self, when: float, action: Callable[[], object]) -> None:
        self.when = when
        self._action: Callable[[], object] | None = action

    @property
    def open(self) -> bool:
        """Whether it is still going to happen."""
        return self._action is not None

    def cancel(self) -> None:
        """Make it not happen; harmless if it already has."""
        self._action = None

    def keep(self) -> None:
        """Let it happen now."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Agenda:
    """What is going to happen, by time and, at one time, in order of entry: the only order there is in a world."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.happened = 0
        """How many appointments were kept so far."""
        self._heap: list[tuple[float, int, Appointment]] = []
        self._order = itertools.count()

    def at(self, when: float, action: Callable[[], object]) -> Appointment:
        """Let ``action`` happen at ``when``, or now if that has passed."""
        now = self.clock.reading
        if when < now:
            when = now
        appointment = Appointment(when, action)
        heapq.heappush(self._heap, (when, next(self._order), appointment))
        return appointment

    def after(self, delay_s: float, action: Callable[[], object]) -> Appointment:
        """Let ``action`` happen ``delay_s`` seconds from now."""
        return self.at(self.clock.reading + delay_s, action)

    def run_until(self, when: float) -> None:
        """Let everything happen that is due up to and including ``when``, then stand at ``when``.

        Raises:
            RuntimeError: So much happens at one moment that time seems to stand still.
        """
        at_once = 0
        heap, clock = self._heap, self.clock
        while heap and heap[0][0] <= when:
            due, _, appointment = heapq.heappop(heap)
            if not appointment.open:
                continue
            if due > clock.reading:
                at_once = 0
                clock.advance_to(due)
            else:
                at_once += 1
                if at_once > _AT_ONCE_MAX:
                    raise RuntimeError(f"time stands still at {due}: {at_once} things happened at once")
            self.happened += 1
            appointment.keep()
        self.clock.advance_to(max(when, self.clock()))
