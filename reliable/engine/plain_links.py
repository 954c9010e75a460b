"""The servers of a plain client and the links to them: which server next, which one not yet.

The client stays with the server that answers and moves on to the next in the list when that one cannot be connected,
is lost or turns silent. A server that failed is left alone for a backoff of its own. One that is slow to come up is
waited for during ``stagger_s``, then the next is tried beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from reliable.config import Backoff
from reliable.engine.client_views import BrokerView, LinkView
from reliable.protocol.plain_call import PlainCall

__all__ = ["IDLE_MAX", "LINKS_MAX", "OPENING_MAX", "Link", "Server", "Servers"]

LINKS_MAX: Final = 100
"""To one server. Each costs about four descriptors and three of the thousand sockets of a ZeroMQ context."""
OPENING_MAX: Final = 16
"""Links to one server that come up at the same time."""
IDLE_MAX: Final = 16
"""Links to one server that are kept without a call."""
_WAIT_S_MIN: Final = 0.01
"""Full jitter may come out as nothing; then a refusing address would be tried in a tight loop."""


@attrs.define(eq=False)
class Link:
    """One connection."""

    number: int
    server: Server
    key: bytes
    """Of its alarm."""
    begun: float
    opened: bool = False
    """The connection stands."""
    ready: bool = False
    """Calls may be sent."""
    answered: bool = False
    """It has brought something."""
    asked: dict[bytes, PlainCall] = attrs.Factory(dict)
    """The calls with a copy on it, by what tells their replies apart."""
    batch: int = -1
    """In which batch of effects the newest request was put: until that was taken out, it is still here."""

    def view(self) -> LinkView:
        """For a snapshot."""
        state = "ready" if self.ready else "greeting" if self.opened else "opening"
        return LinkView(self.number, self.server.address, state, len(self.asked))


@attrs.define(eq=False)
class Server:
    """One address of the list."""

    address: str
    index: int
    links: dict[int, Link] = attrs.Factory(dict)
    """All, in whichever state."""
    opening: dict[int, Link] = attrs.Factory(dict)
    """Of these, those that are not ready yet, oldest first."""
    idle: deque[Link] = attrs.Factory(deque)
    """Of these, those that a call may be sent on, longest idle first."""
    failures: int = 0
    """Tries in a row that came to nothing. Only a reply sets it back."""
    not_before: float = -math.inf
    trouble: str = ""
    """Why the last try failed."""

    def slow_at(self, stagger_s: float) -> float:
        """When it has been coming up for too long to be waited for alone; infinity if it is not coming up."""
        for link in self.opening.values():
            return link.begun + stagger_s
        return math.inf

    def worth_waiting(self, stagger_s: float, links_max: int, now: float) -> bool:
        """Whether a call should wait for a link to this server before the next server is looked at."""
        if self.opening:
            return now < self.slow_at(stagger_s)
        return self.not_before <= now and len(self.links) < links_max

    @property
    def up(self) -> bool:
        """Whether some link to it is ready."""
        return len(self.links) > len(self.opening)

    def describe(self) -> str:
        """For an error message."""
        state = self.trouble or "not tried"
        if self.up:
            state = f"all {len(self.links)} links are in use"
        elif self.opening:
            state = f"connecting; before that: {self.trouble}" if self.trouble else "connecting"
        return f"{self.address}: {state}" + (f" ({self.failures} times)" if self.failures > 1 else "")

    def view(self) -> BrokerView:
        """For a snapshot; a plain server does not say which life it has."""
        state = "usable" if self.up else "unreachable" if self.trouble else "unknown"
        return BrokerView(address=self.address, state=state, life="", failures=self.failures)


class Servers:
    """All of them, and the one that is preferred now.

    Raises:
        ValueError: No address, or one twice.
    """

    def __init__(self, addresses: Sequence[str], backoff: Backoff) -> None:
        if not addresses or len(set(addresses)) != len(addresses):
            raise ValueError("a client needs at least one server, and each only once")
        self._list = [Server(address, index) for index, address in enumerate(addresses)]
        self._backoff = backoff
        self.in_order: Sequence[Server] = self._list
        """All, beginning with the preferred one."""

    def __iter__(self) -> Iterator[Server]:
        return iter(self._list)

    @property
    def preferred(self) -> Server:
        """Where calls go while it answers."""
        return self.in_order[0]

    def _prefer(self, index: int) -> None:
        self.in_order = [*self._list[index:], *self._list[:index]]

    def came_up(self, server: Server) -> None:
        """A link to it is ready; it is preferred if the preferred one has none."""
        if not self.preferred.up:
            self._prefer(server.index)

    def passed_over(self, server: Server) -> None:
        """It stayed silent or failed: the next one is preferred."""
        if self.preferred is server:
            self._prefer((server.index + 1) % len(self._list))

    def failed(self, server: Server, why: str, now: float, u: float) -> None:
        """A link to it came to nothing, or broke before it brought anything: it is left alone for a while.

        Several that were opened together fail together, which counts once.
        """
        server.trouble = why
        if server.not_before <= now:
            server.failures += 1
            server.not_before = now + max(_WAIT_S_MIN, self._backoff.delay_s(server.failures, u))
        self.passed_over(server)

    def describe(self) -> str:
        """What is the matter with each, for an error message."""
        return "; ".join(server.describe() for server in self._list)
