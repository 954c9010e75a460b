"""Many calls to servers and brokers that know nothing of ours: ``mdp/0.1``, ``mdp/0.2``, ``req`` and ``ppp``.

None of these dialects has a request number, so a link carries one request at a time, and its reply is told by the link
that it comes on:

* A call takes an idle link to the preferred server, or waits until one is idle or comes up. There is a pool of links
  per server; a link whose reply came goes back into it.
* An attempt that stays silent, is lost or is cancelled takes its link with it: what may still come on that link is
  never read, so a late reply cannot answer another call.
* What comes on a link that waits for nothing is a reply too many. It is counted, and the link is closed. That also
  holds for a link whose next request is still among our effects: what comes before a request left is no answer to it.

Without a mark in the request (``ClientConfig.correlate``, which ``req`` has and the others have no place for) one thing
cannot be told: a second reply to a request that comes after the *next* request on the same link has left. A REP socket
cannot send one, and a broker must not (7/MDP, 18/MDP); nothing in these dialects would show it.

No socket is a REQ, so there is no state in which it refuses to send, and none that a broken reply locks up.

Everything that is not about this is in ``reliable.engine.plain_core``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reliable.config import ClientConfig, Dialect
from reliable.engine.observe import MessageDropped
from reliable.engine.plain_core import PlainCore
from reliable.engine.plain_links import IDLE_MAX, OPENING_MAX, Link, Server
from reliable.errors import RemoteProtocolError
from reliable.protocol.events import CallProgress, Received
from reliable.protocol.plain_call import PlainCall
from reliable.types import Frames, Jitter, Observer
from reliable.wire.plain import PLAIN_WIRES, REQ_CORRELATED

__all__ = ["PlainEngine"]


class PlainEngine(PlainCore):
    """The client of servers and brokers without request numbers. Arguments and errors as of ``PlainCore``."""

    def __init__(
        self,
        brokers: Sequence[str],
        config: ClientConfig,
        *,
        client_id: bytes,
        jitter: Jitter,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(brokers, config, client_id=client_id, jitter=jitter, observer=observer)
        marked = config.dialect is Dialect.REQ and config.correlate
        self._wire = REQ_CORRELATED if marked else PLAIN_WIRES[config.dialect]

    def _key(self, call_id: bytes) -> bytes:
        """What tells the replies on one link apart; there is one request at a time."""
        return b""

    def _frames(self, call: PlainCall) -> Frames:
        return self._wire.encode(call.call_id, call.service, call.body)

    def _take(self, server: Server) -> Link | None:
        """A link of its own for a call."""
        return server.idle.popleft() if server.idle else None

    def _forsake(self, call: PlainCall) -> None:
        """Nothing is wanted any more of what was sent for the call."""
        for number in list(call.copies):
            self._close(self._links[number])
        call.copies.clear()

    def _give_up(self, call: PlainCall) -> None:
        """Its attempt stayed silent; a reply that is late must not be read."""
        self._forsake(call)

    def _links_wanted(self, server: Server) -> int:
        """How many links should be coming up."""
        return 1 if server.failures else min(len(self._waiting), OPENING_MAX)

    def _link_up(self, link: Link, now: float) -> None:
        """It is connected, and so it may be used."""
        self._alarms.clear(link.key)
        self._usable(link)

    def _received(self, event: Received, now: float) -> None:
        link = self._links.get(event.link)
        if link is None:
            self.counters.late_replies += 1
            return
        if not link.asked or link.batch == self._batch:
            self._unexpected(link, now)
            return
        call = link.asked[b""]
        try:
            body, final = self._wire.decode(call.call_id, call.service, event.frames)
        except RemoteProtocolError as error:
            self._drop(link, str(error))
            return
        link.answered = True
        link.server.failures = 0
        if not final:
            self._partial(call, body)
            return
        call.copies.clear()
        link.asked.clear()
        self._end(call, body, now)
        self._rest(link)

    def _partial(self, call: PlainCall, body: Frames) -> None:
        """A part of the reply: from here on the call is not repeated, so its silence means nothing either."""
        call.partial = True
        call.due = math.inf
        self._arm(call)
        self._out.append(CallProgress(call.call_id, body, True))

    def _rest(self, link: Link) -> None:
        """The link has brought its reply and may carry the next request."""
        idle = link.server.idle
        if len(idle) < IDLE_MAX or self._waiting:
            idle.append(link)
        else:
            self._close(link)

    def _unexpected(self, link: Link, now: float) -> None:
        """A reply too many: nothing was asked on this link, or what was asked has not left yet."""
        self.counters.late_replies += 1
        self._observe(MessageDropped(link.server.address, "a reply that nobody asked for"))
        stayed = self._retract(link)
        self._close(link)
        if not link.answered:
            # It talks to whoever connects; to connect again at once would bring the same.
            self._servers.failed(link.server, "it spoke before it was asked", now, self._jitter())
        for call in stayed:
            self._never_left(call, link.number, now)
