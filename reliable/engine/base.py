"""The contract of every engine.

A shell does: carry out effects → wait for input until the next deadline → ``handle`` each → ``timers`` → repeat.
Nothing else decides.

* ``handle`` never raises for a peer's bytes; for our misuse it raises ``LocalProtocolError``, before changing anything.
* ``timers(now)`` carries out everything that is due, so afterwards ``next_deadline()`` is later than ``now`` (or None)
  and no shell can spin.
* ``now`` is a reading of one monotonic clock and never goes backwards.
* Effects come out in order, in one drain; engines never call back.

The broker's engine has ``receive(frames, now)`` in place of ``handle`` and plain frames in its outbox: its hot path
passes nothing else.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["Engine"]

EventT = TypeVar("EventT", contravariant=True)
EffectT = TypeVar("EffectT")


class Engine(Protocol[EventT, EffectT]):
    """What a shell needs to know of an engine."""

    def handle(self, event: EventT, now: float) -> None:
        """Take in what happened."""

    def timers(self, now: float) -> None:
        """Carry out everything that is due at ``now``."""

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""

    def effects(self) -> list[EffectT]:
        """Take out, in order, what to do; each is given out once."""

    def snapshot(self) -> object:
        """A frozen view for tests, logs and status."""
