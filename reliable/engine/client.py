"""Many calls over the links to one or more brokers: queue, correlation, failover, deadlines.

What may be sent is decided per call (``reliable.protocol.call``) and per link (``reliable.protocol.link``), which
broker comes next in ``reliable.engine.brokers``, whether there may be extra attempts in ``budget``, ``breaker`` and
``hedging``. Their parts: the tables (``client_state``), calls (``client_calls``), links (``client_links``); this module
takes events in and messages apart. What they do together:

* A call that may be sent anywhere goes to the preferred broker if its link is ready, else it waits in ``free`` for the
  first link that gets ready. A call that one broker alone may be asked about, or that another one refused, waits in
  ``Broker.bound``.
* There is at most one link per broker. It is opened when some call needs it, and then kept.
* Each call has one alarm: its deadline or, if earlier, the moment at which its silence or its pause ends.
* When a link is over, everything outstanding on it is lost in the same step.

An answer is taken if its link is the one that is open now, the life in it is the one that the link was opened to, and
its call is open. All others are counted and dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from reliable.config import ClientConfig
from reliable.engine.client_links import LinkDesk
from reliable.engine.client_state import ClientState, LinkEntry, OpenCall
from reliable.engine.client_views import BrokerView, LinkView
from reliable.engine.client_views import ClientCounters as ClientCounters
from reliable.engine.client_views import ClientSnapshot as ClientSnapshot
from reliable.engine.observe import CallStarted, MessageDropped
from reliable.errors import LocalProtocolError, RemoteProtocolError
from reliable.protocol import call_endings, link
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import Answered, Asked, GiveUp, NotSent
from reliable.protocol.call_facts import Call, Past, check_submit
from reliable.protocol.events import (
    AbandonAll,
    CancelCall,
    ClientEffect,
    ClientEvent,
    LinkClosed,
    LinkOpened,
    Received,
    Submit,
    Unsent,
)
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.types import Frames, Jitter, Observer
from reliable.wire.extension import CALL_ID_BYTES, HELLO_SERVICE, INSTANCE_BYTES, AnswerFrame
from reliable.wire.mdp import ClientReply, decode_at_client
from reliable.wire.mmi import TIME_QUERY

__all__ = ["ClientEngine"]


_NO_CALL: Final = bytes(CALL_ID_BYTES)


class ClientEngine:
    """The client without its sockets.

    Args:
        brokers: Addresses in order of preference, at least one, each once.
        client_id: 16 bytes that name this client instance; new after fork.
        jitter: Numbers in [0, 1) for backoff.
        observer: Gets observations of ``reliable.engine.observe``.

    Raises:
        ValueError: No broker, one twice, or a client id of another size.
    """

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
        state = self._state = ClientState(brokers, config, client_id, jitter, observer)
        self.counters = state.counters
        self._links = LinkDesk(state)
        self._desk = self._links.calls
        self._closed = False

    # --- the contract -----------------------------------------------------------------------------

    def handle(self, event: ClientEvent, now: float) -> None:
        """Take in what happened.

        Raises:
            LocalProtocolError: Time went backwards, a call id is used twice or has a wrong size, a service name has a
                wrong size, or a link was opened twice. Nothing was changed.
        """
        self._advance(now)
        match event:
            case Received():
                self._received(event, now)
            case Submit():
                self._submit(event, now)
            case LinkOpened():
                self._links.event(event.link, event, now)
            case LinkClosed():
                self._links.event(event.link, event, now)
            case Unsent():
                self._unsent(event, now)
            case CancelCall():
                self._cancel(event.call_id, "cancelled by the caller", now)
            case AbandonAll():
                self._abandon_all(now)
        self._links.open_needed(now)

    def timers(self, now: float) -> None:
        """Carry out everything that is due at ``now``."""
        self._advance(now)
        for number, entry in list(self._state.links.items()):
            if entry.due <= now:
                self._links.event(number, link.LinkTick(), now)
        while (call_id := self._state.alarms.pop_due(now)) is not None:
            entry_due = self._state.calls.get(call_id)
            if entry_due is None:
                self._desk.hedge(call_id, now)
            else:
                self._desk.ring(entry_due, now)
        self._links.open_needed(now)

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""
        state = self._state
        alarm = state.alarms.next()
        when = math.inf if alarm is None else alarm
        for entry in state.links.values():
            if entry.due < when:
                when = entry.due
        for broker in state.brokers.all:
            if broker.bound and broker.link is None:
                when = min(when, state.brokers.free_at(broker))
        if state.free:
            when = min(when, state.brokers.next_try_at(state.now))
        if state.calls and state.brokers.return_at < when:
            when = state.brokers.return_at
        return None if when == math.inf else when

    def effects(self) -> list[ClientEffect]:
        """Take out, in order, what to do; each is given out once."""
        out = self._state.out
        if not out:
            return []
        taken = out.copy()
        out.clear()
        return taken

    def snapshot(self) -> ClientSnapshot:
        """A frozen view."""
        asked = sum(len(entry.asked) for entry in self._state.links.values())
        return ClientSnapshot(
            brokers=tuple(BrokerView.of(broker, self._state.now) for broker in self._state.brokers),
            links=tuple(
                LinkView(number, entry.broker.address, type(entry.state).__name__.lower(), len(entry.asked))
                for number, entry in self._state.links.items()
            ),
            calls=len(self._state.calls),
            waiting=len(self._state.calls) - asked,
            asked=asked,
            next_deadline=self.next_deadline(),
        )

    def _advance(self, now: float) -> None:
        if now < self._state.now:
            raise LocalProtocolError(f"time went back from {self._state.now} to {now}")
        self._state.now = now

    # --- calls from the user ----------------------------------------------------------------------

    def _submit(self, event: Submit, now: float) -> None:
        check_submit(event)
        if event.call_id in self._state.calls:
            raise LocalProtocolError(f"call id {event.call_id.hex()} is in use")
        call = Call.from_submit(event, now)
        self.counters.calls += 1
        self._state.budget.deposit()
        if self._state.watch.observer is not None:
            self._state.watch.saw(CallStarted(call.call_id, call.service))
        refused = self._refused_here(call, now)
        if refused is not None:
            self._desk.finish(call, refused, now)
            return
        if event.hedge is not None:
            delay_s = self._state.hedges.plan(call, event.hedge_id, event.hedge)
            if delay_s is not None:
                self._state.alarms.set(event.hedge_id, now + delay_s)
        self._desk.start(call, now)

    def _refused_here(self, call: Call, now: float) -> Ended | None:
        limits = self._state.config.limits
        if self._closed:
            return call_endings.abandoned(call, Past(), now, "the client is closed")
        if len(self._state.calls) >= limits.calls_in_flight_max:
            return call_endings.queue_full(call, now, limits.calls_in_flight_max)
        if call.size_bytes > limits.message_bytes_max:
            return call_endings.too_large(call, Past(), now, limits.message_bytes_max, "this client")
        return None

    def _cancel(self, call_id: bytes, why: str, now: float) -> None:
        pair = self._state.hedges.get(call_id)
        entry = self._state.calls.get(call_id)
        # The reply may have crossed the cancel; then the call is over, and that is all the caller wants.
        if entry is not None:
            self._desk.apply(entry, GiveUp(why), now)
        hedge = None if pair is None else self._state.calls.get(pair.hedge_id)
        if hedge is not None:
            self._desk.apply(hedge, GiveUp(why), now)

    def _abandon_all(self, now: float) -> None:
        self._closed = True
        for call_id in list(self._state.calls):
            self._cancel(call_id, "the client was closed", now)
        self._links.close_all("the client was closed", now)

    # --- messages ---------------------------------------------------------------------------------

    def _received(self, event: Received, now: float) -> None:
        entry = self._state.links.get(event.link)
        if entry is None:
            self.counters.late_replies += 1
            return
        try:
            reply = decode_at_client(event.frames)
            if not reply.stack and reply.service in (HELLO_SERVICE, TIME_QUERY):
                hello = reply.service == HELLO_SERVICE
                told = link.HelloReply(reply.body) if hello else link.TimeReply(reply.body)
                self._links.event(event.link, told, now)
                return
            answer = _answer_frame(reply)
        except RemoteProtocolError as error:
            self._drop(entry, str(error))
            return
        self._answered(entry, reply, answer, now)

    def _answered(self, entry: LinkEntry, reply: ClientReply, answer: AnswerFrame, now: float) -> None:
        session = entry.session
        if session is None:
            self._drop(entry, "an answer before the hello was answered")
            return
        if answer.life != session.life and answer.status is not Status.WRONG_LIFE:
            self._drop(entry, "an answer of another life")
            return
        entry.heard_at = now
        if answer.call_id == _NO_CALL:
            # About no call: the broker as a whole says that it is about to go.
            self._state.broker_rests(entry.broker, now + answer.retry_after_ms / 1000)
            return
        entry.broker.failures = 0
        breaker = entry.broker.breaker
        if answer.status is Status.OVERLOADED:
            self._state.breaker_failed(entry.broker)
        elif breaker.failures or not breaker.closed:
            self._state.breaker_succeeded(entry.broker)
        asker = self._state.calls.get(answer.call_id)
        if asker is None:
            self.counters.late_replies += 1
            return
        if reply.service != asker.call.service or not 1 <= answer.attempt <= asker.state.past.attempts:
            self._drop(entry, "an answer that does not fit the call")
            return
        if answer.status is Status.OK:
            self._desk.replied(asker, reply.body, now)
            return
        event, u = self._weigh(asker, session.life, answer, reply.body, now)
        self._desk.apply(asker, event, now, u)

    def _weigh(
        self, asker: OpenCall, life: bytes, answer: AnswerFrame, body: Frames, now: float
    ) -> tuple[Answered, float]:
        """The event for the call; whether others could be asked is looked up only if that matters."""
        if STATUS_TABLE[answer.status].retry is not Retry.BY_OUTCOME:
            return Answered(life, answer, body), 0.0
        state = asker.state
        elsewhere = (
            isinstance(state, Asked)
            and answer.status in (Status.NO_SERVICE, Status.OVERLOADED)
            and self._state.brokers.other(state.avoid | {state.address}, now) is not None
        )
        return Answered(life, answer, body, elsewhere), self._state.jitter()

    def _unsent(self, event: Unsent, now: float) -> None:
        self.counters.unsent += 1
        if event.tag == link.HELLO_TAG:
            self._links.event(event.link, event, now)
        elif isinstance(event.tag, tuple):
            call_id, attempt = event.tag
            entry = self._state.calls.get(call_id)
            # Also if the link is over by now: that this message never left is proof all the same.
            if entry is not None:
                self._desk.apply(entry, NotSent(attempt), now, self._state.jitter())

    def _drop(self, entry: LinkEntry, reason: str) -> None:
        self.counters.dropped += 1
        self._state.watch.saw(MessageDropped(entry.broker.address, reason))


def _answer_frame(reply: ClientReply) -> AnswerFrame:
    if len(reply.stack) != 1:
        raise RemoteProtocolError("a reply without an answer frame")
    return AnswerFrame.decode(reply.stack[0])
