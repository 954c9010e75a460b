"""Many calls over the links to one or more brokers: queue, correlation, failover, deadlines.

What may be sent is decided per call (``reliable.protocol.call``) and per link (``reliable.protocol.link``), which
broker comes next in ``reliable.engine.brokers``. This module brings the three together:

* A call that may be sent anywhere goes to the preferred broker if its link is ready, else it waits in ``_free`` for the
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

import attrs

from reliable.config import ClientConfig
from reliable.engine.alarms import Alarms
from reliable.engine.brokers import Broker, Brokers
from reliable.engine.client_views import BrokerView, LinkView
from reliable.engine.client_views import ClientCounters as ClientCounters
from reliable.engine.client_views import ClientSnapshot as ClientSnapshot
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BrokerFound,
    CallEnded,
    FailedOver,
    LinkLost,
    MessageDropped,
    RetryScheduled,
)
from reliable.errors import LocalProtocolError, RemoteProtocolError, RequestError
from reliable.protocol import call_endings, link
from reliable.protocol.call import (
    Answered,
    Asked,
    CallEvent,
    CallState,
    Deliver,
    Ended,
    GiveUp,
    Grant,
    Lost,
    Missed,
    NoBroker,
    NotSent,
    Order,
    Suspect,
    Tick,
    Transmit,
    Waiting,
    step,
)
from reliable.protocol.call_facts import Call, Past, Session, check_submit
from reliable.protocol.events import (
    AbandonAll,
    CallFinished,
    CallProgress,
    CancelCall,
    ClientEffect,
    ClientEvent,
    LinkClosed,
    LinkOpened,
    Received,
    Send,
    Submit,
    Unsent,
)
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.types import Frames, Jitter, Observer
from reliable.wire.extension import HELLO_SERVICE, INSTANCE_BYTES, AnswerFrame, CallKind, Hello, Role
from reliable.wire.mdp import ClientReply, ClientRequest, Version, decode_at_client
from reliable.wire.mmi import hello_request

__all__ = ["ClientEngine"]


@attrs.define
class _Link:
    """One link, whose it is, and the calls whose newest attempt is on it."""

    state: link.LinkState
    broker: Broker
    session: Session | None = None
    heard_at: float = -math.inf
    asked: dict[bytes, None] = attrs.Factory(dict)


@attrs.define
class _Open:
    """One open call, and the queue in which it waits, if in one."""

    call: Call
    state: CallState
    queue: dict[bytes, None] | None = None


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
        self.counters = ClientCounters()
        self._config = config
        self._client_id = client_id
        self._jitter = jitter
        self._observer = observer
        self._hello = hello_request(Hello(Role.CLIENT, client_id, config.limits.message_bytes_max).encode())
        self._brokers = Brokers(brokers, config.reconnect)
        self._links: dict[int, _Link] = {}
        self._calls: dict[bytes, _Open] = {}
        self._free: dict[bytes, None] = {}
        self._alarms = Alarms()
        self._out: list[ClientEffect] = []
        self._link_count = 0
        self._now = -math.inf
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
                self._link_event(event.link, event, now)
            case LinkClosed():
                self._link_event(event.link, event, now)
            case Unsent():
                self._unsent(event, now)
            case CancelCall():
                self._cancel(event.call_id, "cancelled by the caller", now)
            case AbandonAll():
                self._abandon_all(now)
        self._open_links(now)

    def timers(self, now: float) -> None:
        """Carry out everything that is due at ``now``."""
        self._advance(now)
        for number, entry in list(self._links.items()):
            if link.expiry(entry.state) <= now:
                self._link_event(number, link.LinkTick(), now)
        while (call_id := self._alarms.pop_due(now)) is not None:
            self._ring(self._calls[call_id], now)
        self._open_links(now)

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""
        alarm = self._alarms.next()
        when = math.inf if alarm is None else alarm
        for entry in self._links.values():
            when = min(when, link.expiry(entry.state))
        for broker in self._brokers:
            if broker.bound and broker.link is None:
                when = min(when, self._brokers.free_at(broker))
        if self._free and not self._links:
            when = min(when, self._brokers.next_try_at())
        return None if when == math.inf else when

    def effects(self) -> list[ClientEffect]:
        """Take out, in order, what to do; each is given out once."""
        out, self._out = self._out, []
        return out

    def snapshot(self) -> ClientSnapshot:
        """A frozen view."""
        asked = sum(len(entry.asked) for entry in self._links.values())
        return ClientSnapshot(
            brokers=tuple(BrokerView.of(broker, self._now) for broker in self._brokers),
            links=tuple(
                LinkView(number, entry.broker.address, type(entry.state).__name__.lower(), len(entry.asked))
                for number, entry in self._links.items()
            ),
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
        if event.call_id in self._calls:
            raise LocalProtocolError(f"call id {event.call_id.hex()} is in use")
        call = Call.from_submit(event, now)
        self.counters.calls += 1
        refused = self._refused_here(call, now)
        if refused is not None:
            self._finish(call, refused, now)
            return
        entry = _Open(call, Waiting(Past(), now))
        self._calls[call.call_id] = entry
        self._place(entry, now)
        if isinstance(entry.state, Waiting):
            self._arm(entry)

    def _refused_here(self, call: Call, now: float) -> Ended | None:
        limits = self._config.limits
        if self._closed:
            return call_endings.abandoned(call, Past(), now, "the client is closed")
        if len(self._calls) >= limits.calls_in_flight_max:
            return call_endings.queue_full(call, now, limits.calls_in_flight_max)
        if call.size_bytes > limits.message_bytes_max:
            return call_endings.too_large(call, Past(), now, limits.message_bytes_max, "this client")
        return None

    def _cancel(self, call_id: bytes, why: str, now: float) -> None:
        entry = self._calls.get(call_id)
        # The reply may have crossed the cancel; then the call is over, and that is all the caller wants.
        if entry is not None:
            self._apply(entry, GiveUp(why), now)

    def _abandon_all(self, now: float) -> None:
        self._closed = True
        for call_id in list(self._calls):
            self._cancel(call_id, "the client was closed", now)
        for entry in self._links.values():
            ready = isinstance(entry.state, link.Ready)
            # Cancels are on their way; let them out.
            entry.state, effects = link.step(
                entry.state, link.CloseNow("the client was closed", ready), self._hello, self._config, now
            )
            self._out.extend(effects)
            entry.broker.link, entry.broker.ready = None, False
        self._links.clear()

    # --- one call ---------------------------------------------------------------------------------

    def _apply(self, entry: _Open, event: CallEvent, now: float, u: float = 0.0) -> None:
        """Let the call's machine take a step, and do what it says."""
        old = entry.state
        new, orders = step(entry.call, old, event, self._config, now, u)
        if new is old and not orders:
            return
        entry.state = new
        self._leave(entry, old, new)
        if self._observer is not None:
            self._observe_step(self._observer, entry.call, old, new, event, now)
        for order in orders:
            self._carry_out(entry, order, now)
        if entry.state is not new:
            return
        if isinstance(new, Ended):
            del self._calls[entry.call.call_id]
            self._alarms.clear(entry.call.call_id)
            self._finish(entry.call, new, now)
            return
        self._arm(entry)
        if isinstance(new, Waiting):
            self._place(entry, now)

    def _leave(self, entry: _Open, old: CallState, new: CallState) -> None:
        call_id = entry.call.call_id
        if entry.queue is not None:
            entry.queue.pop(call_id, None)
            entry.queue = None
        old_link = old.link if isinstance(old, Asked) else None
        new_link = new.link if isinstance(new, Asked) else None
        if old_link == new_link:
            return
        if old_link is not None and old_link in self._links:
            self._links[old_link].asked.pop(call_id, None)
        if new_link is not None:
            self._links[new_link].asked[call_id] = None

    def _carry_out(self, entry: _Open, order: Order, now: float) -> None:
        match order:
            case Transmit():
                self._transmit(entry, order, now)
            case Suspect():
                self._link_event(order.link, link.CloseNow(order.why), now)
            case Deliver():
                self._out.append(CallProgress(entry.call.call_id, order.body, order.partial))

    def _transmit(self, entry: _Open, order: Transmit, now: float) -> None:
        session = self._links[order.link].session
        if session is None:
            raise LocalProtocolError(f"link {order.link} is not ready")
        call, kind = entry.call, order.kind
        frame = call.frame(kind, order.attempt, order.repeat, entry.state.past, session, now).encode()
        body = call.body if kind is CallKind.SUBMIT else [b""]
        frames = ClientRequest(Version.MDP02, call.service, body, [frame]).encode()
        counters = self.counters
        if kind is CallKind.CANCEL:
            counters.cancels += 1
            self._out.append(Send(order.link, frames))
            return
        counters.attempts += 1
        if kind is CallKind.ATTACH:
            counters.attaches += 1
        elif order.attempt > 1:
            counters.retries += 1
        self._out.append(Send(order.link, frames, (call.call_id, order.attempt)))

    def _arm(self, entry: _Open) -> None:
        """Set the call's one alarm."""
        state, call = entry.state, entry.call
        when = math.inf if call.deadline is None else call.deadline
        if isinstance(state, Asked):
            when = min(when, state.silent_at)
        elif isinstance(state, Waiting) and state.not_before > self._now:
            when = min(when, state.not_before)
        if when == math.inf:
            self._alarms.clear(call.call_id)
        else:
            self._alarms.set(call.call_id, when)

    def _ring(self, entry: _Open, now: float) -> None:
        """The call's alarm went off: its deadline, its silence, or the end of its pause."""
        state = entry.state
        heard = self._links[state.link].heard_at if isinstance(state, Asked) else -math.inf
        reach = "" if state.past.attempts else self._brokers.describe()
        self._apply(entry, Tick(heard, reach), now)
        if entry.state is state:
            self._arm(entry)
            if isinstance(state, Waiting):
                self._place(entry, now)

    def _place(self, entry: _Open, now: float) -> None:
        """Send a waiting call if it may be sent now, else let it wait where it will be found."""
        state, call = entry.state, entry.call
        if not isinstance(state, Waiting) or state.not_before > now:
            return
        if call.deadline is not None and now >= call.deadline:
            return
        if state.only is not None:
            self._send_or_queue(entry, self._brokers[state.only.address], now)
        elif state.avoid:
            other = self._brokers.other(state.avoid, now)
            if other is None:
                self._apply(entry, Missed("", "no other broker", elsewhere=False), now, self._jitter())
            else:
                self._send_or_queue(entry, other, now)
        elif (ready := self._brokers.ready()) is not None:
            self._send_or_queue(entry, ready, now)
        elif self._brokers.all_foreign(now):
            self._apply(entry, NoBroker(self._brokers.describe()), now)
        else:
            entry.queue = self._free
            self._free[call.call_id] = None

    def _send_or_queue(self, entry: _Open, broker: Broker, now: float) -> None:
        if broker.link is None or not broker.ready:
            entry.queue = broker.bound
            broker.bound[entry.call.call_id] = None
            return
        state = self._links[broker.link].state
        if isinstance(state, link.Ready):
            grant = Grant(state.link, state.address, state.peer.life, state.peer.max_message_bytes)
            before = entry.state.past.address
            self._apply(entry, grant, now)
            if before and before != broker.address and isinstance(entry.state, Asked):
                self.counters.failovers += 1
                self._observe(FailedOver(entry.call.call_id, before, broker.address))

    def _finish(self, call: Call, ended: Ended, now: float) -> None:
        failed = isinstance(ended.result, RequestError)
        if failed:
            self.counters.failed += 1
        else:
            self.counters.ok += 1
        self._out.append(CallFinished(call.call_id, ended.result, ended.outcome))
        if self._observer is not None:
            name = type(ended.result).__name__ if failed else ""
            elapsed_s = now - call.started
            self._observer(CallEnded(call.call_id, call.service, ended.outcome, name, ended.past.attempts, elapsed_s))

    # --- links ------------------------------------------------------------------------------------

    def _open_links(self, now: float) -> None:
        """Open what waiting calls need; for those that any broker may serve, the next in the list."""
        for broker in self._brokers:
            if broker.bound and broker.link is None and self._brokers.free_at(broker) <= now:
                self._open_link(broker, now)
        if self._free:
            next_broker = self._brokers.next_to_try(now)
            if next_broker is not None:
                self._open_link(next_broker, now)

    def _open_link(self, broker: Broker, now: float) -> None:
        self._link_count += 1
        number = self._link_count
        state, effects = link.open_link(number, broker.address, self._config, now)
        self._links[number] = _Link(state, broker)
        broker.link = number
        self._out.extend(effects)

    def _link_event(self, number: int, event: link.LinkEvent, now: float) -> None:
        entry = self._links.get(number)
        if entry is None:
            return
        old = entry.state
        entry.state, effects = link.step(old, event, self._hello, self._config, now)
        self._out.extend(effects)
        if entry.state is old:
            return
        match entry.state:
            case link.Greeting():
                self.counters.links_opened += 1
            case link.Ready():
                self._link_ready(entry, entry.state, now)
            case link.Over():
                self._link_over(entry, entry.state, old, now)
            case link.Opening():
                pass

    def _link_ready(self, entry: _Link, state: link.Ready, now: float) -> None:
        life = state.peer.life
        entry.session = Session(self._client_id, life, state.t0, state.t1)
        restarted = self._brokers.found(entry.broker, life)
        self.counters.brokers_restarted += restarted
        self._observe(BrokerFound(state.address, life, restarted))
        for call_id in (*entry.broker.bound, *self._free):
            waiting = self._calls[call_id]
            self._unqueue(waiting)
            self._place(waiting, now)

    def _unqueue(self, entry: _Open) -> None:
        if entry.queue is not None:
            entry.queue.pop(entry.call.call_id, None)
            entry.queue = None

    def _link_over(self, entry: _Link, over: link.Over, old: link.LinkState, now: float) -> None:
        """Everything that was outstanding on it is lost, and everybody who waits for its broker hears of it."""
        del self._links[over.link]
        broker = entry.broker
        why = over.reason
        self._count_end(over, old)
        self._observe(LinkLost(over.address, why))
        waiting = list(broker.bound)
        foreign = over.fate is link.Fate.FOREIGN
        if foreign:
            self._brokers.foreign(broker, why, now)
        else:
            self._brokers.failed(broker, why, now, self._jitter())
        for call_id in list(entry.asked):
            self._apply(self._calls[call_id], Lost(over.link, why), now, self._jitter())
        for call_id in waiting:
            self._missed(self._calls[call_id], over.address, why, foreign, now)
        if foreign and self._brokers.all_foreign(now):
            for call_id in list(self._free):
                self._apply(self._calls[call_id], NoBroker(self._brokers.describe()), now)

    def _missed(self, entry: _Open, address: str, why: str, foreign: bool, now: float) -> None:
        state = entry.state
        avoid: frozenset[str] = frozenset()
        if isinstance(state, Waiting):
            avoid = state.avoid if state.only is None else frozenset({state.only.address})
        elsewhere = bool(avoid) and self._brokers.other(avoid, now) is not None
        self._apply(entry, Missed(address, why, foreign, elsewhere), now, self._jitter())
        if entry.state is state:
            # Nothing changed for the call, but another broker may be the one to wait for.
            self._unqueue(entry)
            self._place(entry, now)

    def _count_end(self, over: link.Over, old: link.LinkState) -> None:
        counters = self.counters
        if over.fate is link.Fate.SILENT:
            counters.hellos_unanswered += 1
        elif isinstance(old, link.Opening):
            counters.links_refused += 1
        elif over.fate is not link.Fate.FOREIGN:
            counters.links_lost += 1

    # --- messages ---------------------------------------------------------------------------------

    def _received(self, event: Received, now: float) -> None:
        entry = self._links.get(event.link)
        if entry is None:
            self.counters.late_replies += 1
            return
        try:
            reply = decode_at_client(event.frames)
            if reply.service == HELLO_SERVICE and not reply.stack:
                self._link_event(event.link, link.HelloReply(reply.body), now)
                return
            answer = _answer_frame(reply)
        except RemoteProtocolError as error:
            self._drop(entry, str(error))
            return
        self._answered(entry, reply, answer, now)

    def _answered(self, entry: _Link, reply: ClientReply, answer: AnswerFrame, now: float) -> None:
        session = entry.session
        if session is None:
            self._drop(entry, "an answer before the hello was answered")
            return
        if answer.life != session.life and answer.status is not Status.WRONG_LIFE:
            self._drop(entry, "an answer of another life")
            return
        entry.heard_at = now
        self._brokers.answered(entry.broker)
        asker = self._calls.get(answer.call_id)
        if asker is None:
            self.counters.late_replies += 1
            return
        if reply.service != asker.call.service or not 1 <= answer.attempt <= asker.state.past.attempts:
            self._drop(entry, "an answer that does not fit the call")
            return
        event, u = self._weigh(asker, session.life, answer, reply.body, now)
        self._apply(asker, event, now, u)

    def _weigh(
        self, asker: _Open, life: bytes, answer: AnswerFrame, body: Frames, now: float
    ) -> tuple[Answered, float]:
        """The event for the call; whether others could be asked is looked up only if that matters."""
        if STATUS_TABLE[answer.status].retry is not Retry.BY_OUTCOME:
            return Answered(life, answer, body), 0.0
        state = asker.state
        elsewhere = (
            isinstance(state, Asked)
            and answer.status in (Status.NO_SERVICE, Status.OVERLOADED)
            and self._brokers.other(state.avoid | {state.address}, now) is not None
        )
        return Answered(life, answer, body, elsewhere), self._jitter()

    def _unsent(self, event: Unsent, now: float) -> None:
        self.counters.unsent += 1
        if event.tag == link.HELLO_TAG:
            self._link_event(event.link, event, now)
        elif isinstance(event.tag, tuple):
            call_id, attempt = event.tag
            entry = self._calls.get(call_id)
            # Also if the link is over by now: that this message never left is proof all the same.
            if entry is not None:
                self._apply(entry, NotSent(attempt), now, self._jitter())

    def _drop(self, entry: _Link, reason: str) -> None:
        self.counters.dropped += 1
        self._observe(MessageDropped(entry.broker.address, reason))

    # --- observations -----------------------------------------------------------------------------

    def _observe(self, observation: object) -> None:
        if self._observer is not None:
            self._observer(observation)

    def _observe_step(
        self, observer: Observer, call: Call, old: CallState, new: CallState, event: CallEvent, now: float
    ) -> None:
        past = new.past
        if isinstance(old, Asked) and isinstance(new, Waiting):
            status = event.answer.status if isinstance(event, Answered) else None
            reason = past.story[-1][1] if past.story else ""
            observer(AttemptEnded(call.call_id, old.past.attempts, old.address, status, past.outcome, reason))
            if now < new.not_before < math.inf:
                observer(RetryScheduled(call.call_id, past.attempts + 1, new.not_before - now))
        if isinstance(new, Asked) and past.attempts != old.past.attempts:
            attach = new.kind is CallKind.ATTACH
            observer(AttemptStarted(call.call_id, past.attempts, new.address, attach))


def _answer_frame(reply: ClientReply) -> AnswerFrame:
    if len(reply.stack) != 1:
        raise RemoteProtocolError("a reply without an answer frame")
    return AnswerFrame.decode(reply.stack[0])
