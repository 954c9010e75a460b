"""What the engines of all plain dialects do alike: calls and their attempts, servers, links, timers.

A *plain* server or broker knows nothing of this library. Here is decided when a call is sent, when it is given up, sent
again or ended (``reliable.protocol.plain_call`` says what may be), and to which server links are opened
(``reliable.engine.plain_links`` says which). How requests share links and how replies are told apart is left to
``reliable.engine.plain``, where a link carries one request at a time, and ``reliable.engine.plain_freelance``, where
requests have numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from reliable.config import ClientConfig, Dialect, RetryCause
from reliable.engine.alarms import Alarms
from reliable.engine.budget import TokenBucket
from reliable.engine.client_views import ClientCounters, ClientSnapshot
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    FailedOver,
    LinkLost,
    MessageDropped,
    RetryRefused,
    RetryScheduled,
)
from reliable.engine.plain_links import LINKS_MAX, Link, Server, Servers
from reliable.errors import LocalProtocolError, Outcome, RequestError
from reliable.protocol import plain_endings as endings
from reliable.protocol.call_facts import check_submit
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CancelCall,
    ClientEffect,
    ClientEvent,
    CloseLink,
    LinkClosed,
    LinkOpened,
    OpenLink,
    Received,
    Send,
    Submit,
    Unsent,
)
from reliable.protocol.plain_call import PlainCall, Stage, retry_at, silent_at
from reliable.types import Frames, Jitter, Observer
from reliable.wire.extension import INSTANCE_BYTES
from reliable.wire.mmi import is_reserved

__all__ = ["PlainCore"]

_SPARE_S: Final = 1.0
"""What the transport may take beyond its own limits before a link that says nothing is given up."""
_ENVELOPE_BYTES: Final = 32
_OPENING: Final = b"open"
"""Key of the alarm at which waiting calls may be helped by time alone."""


class PlainCore(ABC):
    """The client of plain servers, without its sockets.

    Args:
        brokers: Addresses in order of preference, at least one, each once.
        client_id: 16 bytes that name this client instance; plain servers do not learn it.
        jitter: Numbers in [0, 1) for backoff.
        observer: Gets observations of ``reliable.engine.observe``.

    Raises:
        ValueError: No broker, one twice, or a client id of another size.
    """

    links_max = LINKS_MAX
    """Links to one server."""

    def __init__(
        self,
        brokers: Sequence[str],
        config: ClientConfig,
        *,
        client_id: bytes,
        jitter: Jitter,
        observer: Observer | None = None,
    ) -> None:
        if len(client_id) != INSTANCE_BYTES:
            raise ValueError(f"a client id has {INSTANCE_BYTES} bytes, not {len(client_id)}")
        self.counters = ClientCounters()
        self._config = config
        self._retry = config.retry
        self._jitter = jitter
        self._observer = observer
        self._questions = config.dialect in (Dialect.MDP01, Dialect.MDP02)
        """Whether there is a broker that answers names with ``mmi.`` itself."""
        self._servers = Servers(brokers, config.reconnect)
        self._budget = TokenBucket(config.retry.budget)
        self._links: dict[int, Link] = {}
        self._calls: dict[bytes, PlainCall] = {}
        self._waiting: dict[bytes, PlainCall] = {}
        """Calls that may be sent and have no link, in order."""
        self._alarms = Alarms()
        self._out: list[ClientEffect] = []
        self._batch = 0
        self._link_count = 0
        self._now = -math.inf
        self._closed = False

    # --- the contract -----------------------------------------------------------------------------

    def handle(self, event: ClientEvent, now: float) -> None:
        """Take in what happened.

        Raises:
            LocalProtocolError: Time went backwards, a call id is used twice or has a wrong size, a service name has a
                wrong size, the call is one-way, or a link was opened twice. Nothing was changed.
        """
        self._advance(now)
        match event:
            case Received():
                self._received(event, now)
            case Submit():
                self._submit(event, now)
            case LinkOpened():
                self._link_opened(event.link, now)
            case LinkClosed():
                self._link_closed(event, now)
            case Unsent():
                self._unsent(event, now)
            case CancelCall():
                self._cancel(event.call_id, "cancelled by the caller", now)
            case AbandonAll():
                self._abandon_all(now)
        if self._waiting:
            self._serve(now)

    def timers(self, now: float) -> None:
        """Carry out everything that is due at ``now``."""
        self._advance(now)
        while (key := self._alarms.pop_due(now)) is not None:
            call = self._calls.get(key)
            if call is not None:
                self._ring(call, now)
            elif key != _OPENING:
                self._link_rings(self._links[int.from_bytes(key)], now)
        if self._waiting:
            self._serve(now)

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""
        return self._alarms.next()

    def effects(self) -> list[ClientEffect]:
        """Take out, in order, what to do; each is given out once."""
        out, self._out = self._out, []
        self._batch += 1
        return out

    def snapshot(self) -> ClientSnapshot:
        """A frozen view."""
        asked = sum(call.stage is Stage.ASKED for call in self._calls.values())
        return ClientSnapshot(
            brokers=tuple(server.view() for server in self._servers),
            links=tuple(link.view() for link in self._links.values()),
            calls=len(self._calls),
            waiting=len(self._calls) - asked,
            asked=asked,
            next_deadline=self.next_deadline(),
        )

    def _advance(self, now: float) -> None:
        if now < self._now:
            raise LocalProtocolError(f"time went back from {self._now} to {now}")
        self._now = now

    # --- calls from the user ----------------------------------------------------------------------

    def _submit(self, event: Submit, now: float) -> None:
        check_submit(event)
        if event.one_way:
            raise LocalProtocolError(f"there are no one-way calls in dialect {self._config.dialect.value}")
        if event.call_id in self._calls:
            raise LocalProtocolError(f"call id {event.call_id.hex()} is in use")
        call = PlainCall(
            event.call_id,
            event.service,
            # None of these dialects has a message without a body.
            event.body or [b""],
            event.deadline,
            now,
            event.idempotent is True or (self._questions and is_reserved(event.service)),
            now,
        )
        self.counters.calls += 1
        if self._observer is not None:
            self._observer(CallStarted(call.call_id, call.service))
        refused = self._refused_here(call, now)
        if refused is not None:
            self._end(call, refused, now)
            return
        self._budget.deposit()
        self._calls[call.call_id] = call
        if self._waiting or call.over(now) or not self._place(call, now):
            self._wait(call)

    def _refused_here(self, call: PlainCall, now: float) -> RequestError | None:
        limits = self._config.limits
        if self._closed:
            return endings.abandoned(call, now, "the client is closed")
        if len(self._calls) >= limits.calls_in_flight_max:
            return endings.queue_full(call, now, limits.calls_in_flight_max)
        size = sum(map(len, call.body)) + len(call.service) + _ENVELOPE_BYTES
        if size > limits.message_bytes_max:
            return endings.too_large(call, now, size, limits.message_bytes_max)
        return None

    def _cancel(self, call_id: bytes, why: str, now: float) -> None:
        call = self._calls.get(call_id)
        # The reply may have crossed the cancel; then the call is over, and that is all the caller wants.
        if call is not None:
            self._end(call, endings.abandoned(call, now, why), now)

    def _abandon_all(self, now: float) -> None:
        self._closed = True
        for call_id in list(self._calls):
            self._cancel(call_id, "the client was closed", now)
        for link in list(self._links.values()):
            self._close(link)
        self._alarms.clear(_OPENING)

    # --- one call ---------------------------------------------------------------------------------

    def _wait(self, call: PlainCall) -> None:
        call.stage = Stage.WAITING
        call.due = math.inf
        self._waiting[call.call_id] = call
        self._arm(call)

    def _arm(self, call: PlainCall) -> None:
        when = call.alarm()
        if when == math.inf:
            self._alarms.clear(call.call_id)
        else:
            self._alarms.set(call.call_id, when)

    def _place(self, call: PlainCall, now: float) -> bool:
        """Send it if there is a link that it should take now."""
        for server in self._servers.in_order:
            link = self._take(server)
            if link is not None:
                call.attempts += 1
                self._ask(call, link, now)
                return True
            if server.worth_waiting(self._config.stagger_s, self.links_max, now):
                return False
        return False

    def _ask(self, call: PlainCall, link: Link, now: float) -> None:
        """Put one copy of the newest attempt on a link."""
        attempt, before, address = call.attempts, call.address, link.server.address
        moved = bool(before) and before != address and call.stage is not Stage.ASKED
        counters = self.counters
        counters.attempts += 1
        if attempt > 1:
            counters.retries += 1
        call.ran_max += 1
        call.copies[link.number] = attempt
        link.asked[self._key(call.call_id)] = call
        link.batch = self._batch
        self._out.append(Send(link.number, self._frames(call), (call.call_id, attempt)))
        call.sent(now, address, silent_at(call, self._retry, now))
        self._arm(call)
        if moved:
            counters.failovers += 1
            self._observe(FailedOver(call.call_id, before, address))
        if self._observer is not None:
            self._observer(AttemptStarted(call.call_id, attempt, address, False))

    def _ring(self, call: PlainCall, now: float) -> None:
        """The call's alarm went off: its deadline, its silence, or the end of its pause."""
        if call.over(now):
            self._time_up(call, now)
        elif call.stage is Stage.PAUSED:
            self._wait(call)
        else:
            self._silent(call, now)

    def _time_up(self, call: PlainCall, now: float) -> None:
        self._end(call, endings.at_deadline(call, now, self._servers.describe()), now)

    def _silent(self, call: PlainCall, now: float) -> None:
        when = retry_at(call, self._retry, RetryCause.SILENT, now, self._jitter())
        if when is not None and call.deadline is not None and when >= call.deadline:
            # No other attempt fits, so this one may have all the time that is left.
            call.due = math.inf
            self._arm(call)
            return
        why = f"nothing was heard for {self._retry.attempt_timeout_s:.2f} s"
        for number, attempt in call.copies.items():
            if attempt == call.attempts:
                self._servers.passed_over(self._links[number].server)
        self._give_up(call)
        self._failed(call, when, RetryCause.SILENT, why, now)

    def _failed(self, call: PlainCall, when: float | None, cause: RetryCause, why: str, now: float) -> None:
        """An attempt of a call that may be repeated came to nothing; the next one is due at ``when``, if any."""
        call.failures += 1
        call.failed(now, why, Stage.PAUSED)
        if self._observer is not None:
            self._observer(AttemptEnded(call.call_id, call.attempts, call.address, None, Outcome.UNKNOWN, why))
        if when is not None and not self._budget.take():
            when, why = None, f"the retry budget is used up, after {why}"
            self.counters.retries_refused += 1
            self._observe(RetryRefused(call.call_id, "budget"))
        if when is None:
            lost = cause is RetryCause.LOST and cause not in self._retry.causes
            end = endings.server_lost if lost else endings.exhausted
            self._end(call, end(call, now, why), now)
            return
        if self._observer is not None:
            self._observer(RetryScheduled(call.call_id, call.attempts + 1, when - now))
        if when <= now:
            self._wait(call)
        else:
            call.due = when
            self._arm(call)

    def _lost(self, call: PlainCall, link: Link, why: str, now: float) -> None:
        """A link with a copy of the call on it is over."""
        call.copies.pop(link.number, None)
        if call.stage is not Stage.ASKED or call.copies:
            # A copy that was given up already, or one of several.
            return
        if not call.may_repeat:
            self._end(call, endings.server_lost(call, now, why), now)
            return
        when = retry_at(call, self._retry, RetryCause.LOST, now, self._jitter())
        self._failed(call, when, RetryCause.LOST, f"link lost: {why}", now)

    def _never_left(self, call: PlainCall, number: int, now: float) -> None:
        """A copy of the call is proven to have stayed here: as if it had not been sent."""
        del call.copies[number]
        call.ran_max -= 1
        if call.stage is Stage.ASKED and not call.copies:
            call.attempts -= 1
            call.failed(now, "the socket did not take it", Stage.WAITING)
            self._wait(call)

    def _end(self, call: PlainCall, result: Frames | RequestError, now: float) -> None:
        """The one way in which a call ends."""
        call_id = call.call_id
        if self._calls.pop(call_id, None) is not None:
            self._alarms.clear(call_id)
            if self._waiting.pop(call_id, None) is not None and not self._waiting:
                self._alarms.clear(_OPENING)
            if call.copies:
                self._forsake(call)
        outcome, name = Outcome.EXECUTED, ""
        if isinstance(result, RequestError):
            self.counters.failed += 1
            outcome, name = result.outcome, type(result).__name__
        else:
            self.counters.ok += 1
        self._out.append(CallFinished(call_id, result, outcome))
        if self._observer is not None:
            elapsed_s = now - call.started
            self._observer(CallEnded(call_id, call.service, outcome, name, call.attempts, elapsed_s))

    # --- what the dialects do in ways of their own ------------------------------------------------

    @abstractmethod
    def _key(self, call_id: bytes) -> bytes:
        """What tells the replies on one link apart."""

    @abstractmethod
    def _frames(self, call: PlainCall) -> Frames:
        """The request of the newest attempt."""

    @abstractmethod
    def _take(self, server: Server) -> Link | None:
        """A link for a call, if there is one now."""

    @abstractmethod
    def _forsake(self, call: PlainCall) -> None:
        """Nothing is wanted any more of what was sent for the call."""

    @abstractmethod
    def _give_up(self, call: PlainCall) -> None:
        """The newest attempt of the call stayed silent."""

    @abstractmethod
    def _links_wanted(self, server: Server) -> int:
        """How many links to it should be coming up."""

    @abstractmethod
    def _link_up(self, link: Link, now: float) -> None:
        """It is connected."""

    def _link_rings(self, link: Link, now: float) -> None:
        """The alarm of a link that is coming up: the transport should have spoken long ago."""
        self._link_failed(link, "the connection came to nothing and the transport did not say so", now)

    @abstractmethod
    def _received(self, event: Received, now: float) -> None:
        """A message came."""

    # --- messages ---------------------------------------------------------------------------------

    def _retract(self, link: Link) -> list[PlainCall]:
        """Take back requests for this link that are still among the effects; the calls whose copies they were."""
        if link.batch != self._batch:
            return []
        kept: list[ClientEffect] = []
        calls = []
        for effect in self._out:
            if isinstance(effect, Send) and effect.link == link.number and isinstance(effect.tag, tuple):
                call = link.asked.pop(self._key(effect.tag[0]), None)
                if call is not None:
                    calls.append(call)
                    continue
            kept.append(effect)
        self._out = kept
        return calls

    def _unsent(self, event: Unsent, now: float) -> None:
        """The socket did not take a message; whatever is wrong with it, it is not used again."""
        self.counters.unsent += 1
        link = self._links.get(event.link)
        if isinstance(event.tag, tuple):
            call_id, attempt = event.tag
            call = self._calls.get(call_id)
            if call is not None and call.copies.get(event.link) == attempt:
                if link is not None:
                    link.asked.pop(self._key(call_id), None)
                self._never_left(call, event.link, now)
        if link is not None:
            self._close(link)
            self._over(link, "the socket did not take a message", now)

    def _drop(self, link: Link, reason: str) -> None:
        self.counters.dropped += 1
        self._observe(MessageDropped(link.server.address, reason))

    # --- links ------------------------------------------------------------------------------------

    def _serve(self, now: float) -> None:
        """Send what can be sent of the calls that wait, and have links opened for the others."""
        while self._waiting:
            call = next(iter(self._waiting.values()))
            if call.over(now):
                self._time_up(call, now)
            elif self._place(call, now):
                del self._waiting[call.call_id]
            else:
                break
        self._open_links(now)

    def _open_links(self, now: float) -> None:
        """To the first server that may be tried, and beside one that is slow to come up to the next."""
        stagger_s = self._config.stagger_s
        wake = math.inf
        if self._waiting:
            for server in self._servers.in_order:
                if server.not_before <= now:
                    self._top_up(server, now)
                else:
                    wake = min(wake, server.not_before)
                slow_at = server.slow_at(stagger_s)
                if now < slow_at < math.inf:
                    wake = min(wake, slow_at)
                    break
        self._wake_at(wake)

    def _wake_at(self, when: float) -> None:
        """When waiting calls may be helped by time alone."""
        if when == math.inf:
            self._alarms.clear(_OPENING)
        else:
            self._alarms.set(_OPENING, when)

    def _top_up(self, server: Server, now: float) -> None:
        room = self.links_max - len(server.links)
        for _ in range(min(self._links_wanted(server) - len(server.opening), room)):
            self._open(server, now)

    def _open(self, server: Server, now: float) -> None:
        self._link_count += 1
        number = self._link_count
        link = Link(number, server, number.to_bytes(8), now)
        self._links[number] = server.links[number] = server.opening[number] = link
        limits = self._config.transport
        patience_s = limits.resolve_timeout_s + limits.connect_timeout_s + limits.handshake_timeout_s + _SPARE_S
        self._alarms.set(link.key, now + patience_s)
        self._out.append(OpenLink(number, server.address))

    def _link_opened(self, number: int, now: float) -> None:
        link = self._links.get(number)
        if link is None:
            return
        if link.opened:
            raise LocalProtocolError(f"link {number} was opened twice")
        link.opened = True
        self.counters.links_opened += 1
        self._link_up(link, now)

    def _usable(self, link: Link) -> None:
        """Calls may be sent on it from now on."""
        server = link.server
        link.ready = True
        del server.opening[link.number]
        server.idle.append(link)
        server.trouble = ""
        self._servers.came_up(server)

    def _link_closed(self, event: LinkClosed, now: float) -> None:
        link = self._links.get(event.link)
        if link is not None:
            why = f"{event.end.value}: {event.detail}" if event.detail else event.end.value
            stayed = self._retract(link)
            self._forget(link)
            for call in stayed:
                self._never_left(call, link.number, now)
            self._over(link, why, now)

    def _link_failed(self, link: Link, why: str, now: float) -> None:
        """We close it, for its silence."""
        self._close(link)
        self._over(link, why, now)

    def _over(self, link: Link, why: str, now: float) -> None:
        """A link came to nothing or broke: so did everything on it."""
        counters = self.counters
        if link.opened:
            counters.links_lost += 1
        else:
            counters.links_refused += 1
        self._observe(LinkLost(link.server.address, why))
        if link.answered:
            # It has done its work; the next link to it may be opened at once.
            link.server.trouble = why
            self._servers.passed_over(link.server)
        else:
            self._servers.failed(link.server, why, now, self._jitter())
        asked, link.asked = link.asked, {}
        for call in asked.values():
            self._lost(call, link, why, now)

    def _close(self, link: Link) -> None:
        """Nothing on it is of interest any more."""
        self._out.append(CloseLink(link.number))
        self._forget(link)

    def _forget(self, link: Link) -> None:
        number, server = link.number, link.server
        del self._links[number], server.links[number]
        server.opening.pop(number, None)
        if link in server.idle:
            server.idle.remove(link)
        self._alarms.clear(link.key)

    # --- observations -----------------------------------------------------------------------------

    def _observe(self, observation: object) -> None:
        if self._observer is not None:
            self._observer(observation)
