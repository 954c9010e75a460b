"""Many calls straight to a list of servers that speak 10/FLP, without a broker: dialect ``freelance``.

There is one link per server, and it carries any number of calls: each request goes out under a control frame (CCF) of
its own, the call's id and the number of the attempt. A reply counts if that call is open and was sent on that link;
then it ends the call, whichever attempt it answers, so a second reply finds nothing. Ids are never used twice, and 20
bytes cannot be taken for ``PING``.

The RFC has the client use one ROUTER for all servers. A DEALER per server puts the same bytes on each connection, and
avoids what the ROUTER is known for: there is no identity to agree on, nothing is dropped before the handshake, and what
was sent to a dead server does not wait there for its successor.

A server is usable after it has answered a PING, since a connection proves a process and no more. PINGs go out while
calls are open. Whatever comes is a sign of life; a server from which nothing comes for ``ping_timeout_s`` after a PING
is gone: its link is closed, and its calls go to the next server if they may be repeated.

Sequentially, an attempt that stays silent moves on to the next server. The link stays, for others may be waiting on it;
the late reply of a call that is still open is as good as any. With ``shotgun`` each attempt of a call that may be
repeated goes to every usable server at once, and also to one that becomes usable meanwhile; the first reply wins.

Order of times, so that a dead server costs a call an attempt and not its deadline: attempt timeout, then ping timeout,
then the total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import attrs

from reliable.config import ClientConfig
from reliable.engine.observe import BrokerFound
from reliable.engine.plain_core import PlainCore
from reliable.engine.plain_links import Link, Server
from reliable.errors import RemoteProtocolError
from reliable.protocol.events import ClientEvent, Received, Send, Submit
from reliable.protocol.plain_call import PlainCall, Stage
from reliable.types import Frames, Jitter, Observer
from reliable.wire.extension import CALL_ID_BYTES
from reliable.wire.flp import PING, FlpMessage, decode_at_client

__all__ = ["FreelanceEngine"]

_PING_TAG: Final = "ping"
"""``Send.tag`` of a PING."""
_ATTEMPT_BYTES: Final = 4


@attrs.define
class _Pulse:
    """When to send the next PING to one server, and since when it owes an answer."""

    ping_at: float = -math.inf
    silent_since: float = math.inf
    resting: bool = False
    """No call is open, so nothing is sent and nothing is made of silence."""


class FreelanceEngine(PlainCore):
    """The client of servers without a broker. Arguments and errors as of ``PlainCore``."""

    links_max = 1

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
        self._settings = config.freelance
        self._pulses: dict[int, _Pulse] = {}

    def handle(self, event: ClientEvent, now: float) -> None:
        """As ``PlainCore.handle``."""
        super().handle(event, now)
        if self._settings.shotgun:
            self._open_links(now)

    def timers(self, now: float) -> None:
        """As ``PlainCore.timers``."""
        super().timers(now)
        if self._settings.shotgun:
            self._open_links(now)

    # --- calls ------------------------------------------------------------------------------------

    def _submit(self, event: Submit, now: float) -> None:
        super()._submit(event, now)
        if self._calls:
            for number, pulse in self._pulses.items():
                if pulse.resting:
                    self._links[number].begun = now
                    self._ping(self._links[number], pulse, now)

    def _is_blast(self, call: PlainCall) -> bool:
        return self._settings.shotgun and call.repeatable

    def _place(self, call: PlainCall, now: float) -> bool:
        if not self._is_blast(call):
            return super()._place(call, now)
        links = [server.idle[0] for server in self._servers.in_order if server.idle]
        if links:
            call.attempts += 1
        for link in links:
            self._ask(call, link, now)
        return bool(links)

    def _key(self, call_id: bytes) -> bytes:
        return call_id

    def _frames(self, call: PlainCall) -> Frames:
        return FlpMessage(call.call_id + call.attempts.to_bytes(_ATTEMPT_BYTES), call.body).encode()

    def _take(self, server: Server) -> Link | None:
        """The one link, which others may use, too."""
        return server.idle[0] if server.idle else None

    def _forsake(self, call: PlainCall) -> None:
        for number in call.copies:
            self._links[number].asked.pop(call.call_id, None)
        call.copies.clear()

    def _give_up(self, call: PlainCall) -> None:
        """Nothing: while the call is open a late reply is welcome, and is told from others by its control frame."""

    # --- links ------------------------------------------------------------------------------------

    def _links_wanted(self, server: Server) -> int:
        return 1

    def _open_links(self, now: float) -> None:
        """With ``shotgun`` to all servers, as long as calls are open."""
        if not self._settings.shotgun:
            super()._open_links(now)
            return
        wake = math.inf
        for server in self._servers if self._calls else ():
            if server.not_before <= now:
                self._top_up(server, now)
            elif not server.links:
                wake = min(wake, server.not_before)
        self._wake_at(wake)

    def _link_up(self, link: Link, now: float) -> None:
        """It is connected; whether anybody serves there is asked first."""
        pulse = self._pulses[link.number] = _Pulse()
        self._ping(link, pulse, now)

    def _ping(self, link: Link, pulse: _Pulse, now: float) -> None:
        self._out.append(Send(link.number, [PING], _PING_TAG))
        pulse.resting = False
        pulse.ping_at = now + self._settings.ping_interval_s
        pulse.silent_since = min(pulse.silent_since, now)
        self._arm_link(link, pulse)

    def _arm_link(self, link: Link, pulse: _Pulse) -> None:
        self._alarms.set(link.key, min(pulse.ping_at, pulse.silent_since + self._settings.ping_timeout_s))

    def _link_rings(self, link: Link, now: float) -> None:
        pulse = self._pulses.get(link.number)
        if pulse is None:
            super()._link_rings(link, now)
        elif now >= pulse.silent_since + self._settings.ping_timeout_s:
            self._link_failed(link, f"no sign of life for {now - pulse.silent_since:.2f} s", now)
        elif not self._calls:
            pulse.resting, pulse.silent_since = True, math.inf
        else:
            self._ping(link, pulse, now)

    def _forget(self, link: Link) -> None:
        super()._forget(link)
        self._pulses.pop(link.number, None)

    def _received(self, event: Received, now: float) -> None:
        link = self._links.get(event.link)
        pulse = self._pulses.get(event.link)
        if link is None or pulse is None:
            self.counters.late_replies += 1
            return
        if pulse.silent_since != math.inf:
            pulse.silent_since = math.inf
            self._arm_link(link, pulse)
        if not link.ready:
            self._usable(link)
            self._observe(BrokerFound(link.server.address, b"", False))
            self._join(link, now)
        try:
            message = decode_at_client(event.frames)
        except RemoteProtocolError as error:
            self._drop(link, str(error))
            return
        if message is not None:
            self._replied(link, message, now)

    def _join(self, link: Link, now: float) -> None:
        """A server came up: attempts that are under way everywhere go to it as well."""
        for call in self._calls.values():
            if self._is_blast(call) and call.stage is Stage.ASKED:
                self._ask(call, link, now)

    def _replied(self, link: Link, message: FlpMessage, now: float) -> None:
        control = message.control
        call = link.asked.get(control[:CALL_ID_BYTES])
        attempt = int.from_bytes(control[CALL_ID_BYTES:])
        if call is None or len(control) != CALL_ID_BYTES + _ATTEMPT_BYTES or not 0 < attempt <= call.attempts:
            self.counters.late_replies += 1
            return
        link.answered = True
        link.server.failures = 0
        self._end(call, message.body, now)
