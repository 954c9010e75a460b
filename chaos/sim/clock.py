"""Virtual time: a clock that moves only when told, and what is going to happen on it."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
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

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], object] | None) -> None:
        self.when = when
        self.action = action
        """None when it has happened, or will not."""

    @property
    def open(self) -> bool:
        """Whether it is still going to happen."""
        return self.action is not None

    def cancel(self) -> None:
        """Make it not happen; harmless if it already has."""
        self.action = None


class Agenda:
    """What is going to happen, by time and, at one time, in order of entry: the only order there is in a world."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.happened = 0
        """How many appointments were kept so far."""
        self._heap: list[tuple[float, int, Appointment]] = []
        self._order = itertools.count()
        self._now: deque[Appointment] = deque()
        """What was entered for a moment that had come already: behind all that the heap has for it, which was entered
        before that moment came."""

    def at(self, when: float, action: Callable[[], object]) -> Appointment:
        """Let ``action`` happen at ``when``, or now if that has passed."""
        appointment = Appointment(when, action)
        if when > self.clock.reading:
            heapq.heappush(self._heap, (when, next(self._order), appointment))
        else:
            appointment.when = self.clock.reading
            self._now.append(appointment)
        return appointment

    def after(self, delay_s: float, action: Callable[[], object]) -> Appointment:
        """Let ``action`` happen ``delay_s`` seconds from now."""
        return self.at(self.clock.reading + delay_s, action)

    def at_once(self, appointment: Appointment, action: Callable[[], object]) -> None:
        """Let ``action`` happen now, behind all that is due; the appointment is one that is over, used again."""
        appointment.action = action
        self._now.append(appointment)

    def run_until(self, when: float) -> None:
        """Let everything happen that is due up to and including ``when``, then stand at ``when``.

        Raises:
            RuntimeError: So much happens at one moment that time seems to stand still.
        """
        at_once = 0
        heap, now, clock, pop = self._heap, self._now, self.clock, heapq.heappop
        while True:
            if heap and (heap[0][0] <= clock.reading or (not now and heap[0][0] <= when)):
                due, _, appointment = pop(heap)
            elif now:
                appointment = now.popleft()
                due = clock.reading
            else:
                break
            action = appointment.action
            if action is None:
                continue
            if due > clock.reading:
                at_once = 0
                clock.reading = due
            else:
                at_once += 1
                if at_once > _AT_ONCE_MAX:
                    raise RuntimeError(f"time stands still at {due}: {at_once} things happened at once")
            self.happened += 1
            appointment.action = None
            action()
        self.clock.advance_to(max(when, self.clock()))
