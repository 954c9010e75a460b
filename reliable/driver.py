"""What both shells do with an engine: feed it, carry out its effects, and know how long nothing will happen.

The shells differ only in how they wait and in what they do with the effects that are not about links.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reliable.engine.base import Engine
from reliable.protocol.events import CloseLink, LinkClosed, LinkOpened, OpenLink, Received, Send, Unsent
from reliable.transport import LinkTable
from reliable.types import Clock

__all__ = ["Driver"]

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")


class Driver(Generic[EventT, EffectT]):
    """Binds an engine to its links. Not thread-safe.

    Args:
        engine: Decides.
        links: Its sockets.
        perform: Carries out every effect that is not about a link.
        clock: The one clock of this engine.
    """

    def __init__(
        self,
        engine: Engine[EventT | LinkOpened | LinkClosed | Received | Unsent, EffectT],
        links: LinkTable,
        perform: Callable[[EffectT], None],
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._links = links
        self._perform = perform
        self._clock = clock
        self._due: float | None = None
        """The engine's next deadline as it was when ``wait_s`` was last asked; that is always before anybody waits."""

    def handle(self, event: EventT) -> None:
        """Feed one event of the user or of a handler, and carry out what follows from it."""
        self._take_in(first=True)
        now = self._clock()
        self._engine.handle(event, now)
        self._carry_out(now)
        self._settle()

    def turn(self) -> None:
        """Take in everything that has arrived, carry out everything that is due; afterwards it is right to wait."""
        self._take_in()
        self._settle()

    def _take_in(self, *, first: bool = False) -> None:
        """What arrived goes before what is due: a reply that is here is no timeout. ``first``: there is more to come,
        after which effects are carried out in any case."""
        now = self._clock()
        events = self._links.drain(now)
        for event in events:
            self._engine.handle(event, now)
        if self._due is not None and self._due <= now:
            self._engine.timers(now)
        elif first and not events:
            return
        self._carry_out(now)

    def _settle(self) -> None:
        """Read until nothing is left to read: what was sent meanwhile may have consumed the edge of a descriptor."""
        while self._links.dirty:
            now = self._clock()
            events = self._links.drain(now)
            for event in events:
                self._engine.handle(event, now)
            if events:
                self._carry_out(now)

    def _carry_out(self, now: float) -> None:
        while effects := self._engine.effects():
            for effect in effects:
                self._carry_out_one(effect, now)

    def _carry_out_one(self, effect: EffectT, now: float) -> None:
        if isinstance(effect, Send):
            if not self._links.send(effect.link, effect.frames):
                self._engine.handle(Unsent(effect.link, effect.tag), now)
        elif isinstance(effect, OpenLink):
            self._links.open(effect.link, effect.address, now)
        elif isinstance(effect, CloseLink):
            self._links.close(effect.link, linger=effect.linger)
        else:
            self._perform(effect)

    def wait_s(self) -> float | None:
        """Seconds until ``turn`` must be called although nothing arrived; None: no such time."""
        self._due = due = self._engine.next_deadline()
        opening = self._links.next_deadline()
        if due is None or (opening is not None and opening < due):
            due = opening
        return None if due is None else max(0.0, due - self._clock())
