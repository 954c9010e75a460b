"""What becomes of each call of a client: sent, queued, repeated, hedged, ended."""

from __future__ import annotations

import math
from collections.abc import Callable

from reliable.engine.brokers import Broker
from reliable.engine.client_state import ClientState, LinkEntry, OpenCall
from reliable.engine.hedging import Pair, decides
from reliable.engine.observe import FailedOver, HedgeStarted, RetryRefused
from reliable.errors import LocalProtocolError, RequestError
from reliable.protocol import call_endings
from reliable.protocol.call import first_copy, step
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import (
    Asked,
    CallEvent,
    CallState,
    Deliver,
    Denied,
    GiveUp,
    Missed,
    NoBroker,
    Order,
    Suspect,
    Tick,
    Transmit,
    Waiting,
)
from reliable.protocol.call_facts import Call, Past
from reliable.protocol.events import CallFinished, CallProgress, Send
from reliable.types import Frames
from reliable.wire.extension import CallKind
from reliable.wire.mdp import ClientRequest, Version

__all__ = ["CallDesk"]


class CallDesk:
    """Carries out what the machines of the calls order.

    Args:
        state: The tables.
        suspect: Told of a link of which nothing can be expected any more, why, and when.
    """

    def __init__(self, state: ClientState, suspect: Callable[[int, str, float], None]) -> None:
        self._state = state
        self.suspect = suspect
        self.counters = state.counters
        self._config = state.config
        self._jitter = state.jitter
        self._watch = state.watch
        self._observe = state.watch.saw
        self._brokers = state.brokers
        self._budget = state.budget
        self._hedges = state.hedges
        self._links = state.links
        self._calls = state.calls
        self._free = state.free
        self._alarms = state.alarms
        self._out = state.out

    def start(self, call: Call, now: float) -> None:
        """Take in a call that is made at this moment: send its first copy if that can be, else let it wait."""
        broker = self._brokers.ready(now)
        if broker is not None and broker.link is not None and broker.breaker.closed:
            on = self._links[broker.link]
            # All that a link, a deadline or a size could be in the way of is left to the long way round.
            if on.grant is not None and broker.ready and (call.deadline is None or now < call.deadline):
                asked = first_copy(call, on.grant, self._config, now)
                if asked is not None:
                    self._start_sent(OpenCall(call, asked, now), asked, on, now)
                    return
        waiting = Waiting(Past(phase_at=now), now)
        entry = self._calls[call.call_id] = OpenCall(call, waiting, now)
        self.place(entry, now)
        if isinstance(entry.state, Waiting):
            self.arm(entry)

    def _start_sent(self, entry: OpenCall, asked: Asked, on: LinkEntry, now: float) -> None:
        call = entry.call
        self._calls[call.call_id] = entry
        on.asked[call.call_id] = None
        if self._watch.observer is not None:
            self._watch.stepped(call, Waiting(Past(phase_at=now), now), asked, Tick(), now)
        self._transmit(entry, CallKind.SUBMIT, 1, False, on, now)
        self.arm(entry)

    def replied(self, entry: OpenCall, body: Frames, now: float) -> None:
        """An OK came, which ends the call whichever attempt it answers and whatever its machine is at."""
        old = entry.state
        entry.state = ended = call_endings.replied(old.past, body)
        if isinstance(old, Asked):
            on = self._links.get(old.link)
            if on is not None:
                on.asked.pop(entry.call.call_id, None)
        else:
            entry.unqueue()
        self._over(entry, ended, now)

    def apply(self, entry: OpenCall, event: CallEvent, now: float, u: float = 0.0) -> None:
        """Let the call's machine take a step, and do what it says."""
        old = entry.state
        new, orders = step(entry.call, old, event, self._config, now, u)
        if new is old and not orders:
            return
        entry.state = new
        self._leave(entry, old, new)
        if self._watch.observer is not None:
            self._watch.stepped(entry.call, old, new, event, now)
        for order in orders:
            self._carry_out(entry, order, now)
        if entry.state is not new:
            return
        if isinstance(new, Ended):
            self._over(entry, new, now)
            return
        self.arm(entry)
        if isinstance(new, Waiting):
            self.place(entry, now)

    def _leave(self, entry: OpenCall, old: CallState, new: CallState) -> None:
        call_id = entry.call.call_id
        entry.unqueue()
        old_link = old.link if isinstance(old, Asked) else None
        new_link = new.link if isinstance(new, Asked) else None
        if old_link == new_link:
            return
        if old_link is not None and old_link in self._links:
            self._links[old_link].asked.pop(call_id, None)
        if new_link is not None:
            self._links[new_link].asked[call_id] = None

    def _carry_out(self, entry: OpenCall, order: Order, now: float) -> None:
        match order:
            case Transmit():
                self._transmit(entry, order.kind, order.attempt, order.repeat, self._links[order.link], now)
            case Suspect():
                self.suspect(order.link, order.why, now)
            case Deliver():
                self._deliver(entry, order, now)

    def _transmit(self, entry: OpenCall, kind: CallKind, attempt: int, repeat: bool, on: LinkEntry, now: float) -> None:
        session, number = on.session, on.state.link
        if session is None:
            raise LocalProtocolError(f"link {number} is not ready")
        call = entry.call
        frame = call.frame(kind, attempt, repeat, entry.state.past, session, now).encode()
        body = call.body if kind is CallKind.SUBMIT else [b""]
        frames = ClientRequest(Version.MDP02, call.service, body, [frame]).encode()
        counters = self.counters
        if kind is CallKind.CANCEL:
            counters.cancels += 1
            self._out.append(Send(number, frames))
            return
        counters.attempts += 1
        if kind is CallKind.ATTACH:
            counters.attaches += 1
        elif attempt > 1:
            counters.retries += 1
        self._out.append(Send(number, frames, (call.call_id, attempt)))

    def _deliver(self, entry: OpenCall, order: Deliver, now: float) -> None:
        call_id = entry.call.call_id
        pair = self._hedges.get(call_id)
        if pair is not None:
            if order.partial:
                # The reply has begun; a second one could only be mixed up with it.
                self._silence(self._calls.get(pair.other(call_id)), pair, now)
            call_id = pair.call.call_id
        self._out.append(CallProgress(call_id, order.body, order.partial))

    def arm(self, entry: OpenCall) -> None:
        """Set the call's one alarm."""
        state, call = entry.state, entry.call
        when = math.inf if call.deadline is None else call.deadline
        if isinstance(state, Asked):
            when = min(when, state.silent_at)
        elif isinstance(state, Waiting) and state.not_before > self._state.now:
            when = min(when, state.not_before)
        if when == math.inf:
            self._alarms.clear(call.call_id)
        else:
            self._alarms.set(call.call_id, when)

    def ring(self, entry: OpenCall, now: float) -> None:
        """The call's alarm went off: its deadline, its silence, or the end of its pause."""
        state = entry.state
        heard = self._links[state.link].heard_at if isinstance(state, Asked) else -math.inf
        reached = state.past.attempts or self._brokers.ready(now) is not None
        reach = "" if reached else self._brokers.describe()
        self.apply(entry, Tick(heard, reach), now)
        if isinstance(state, Asked) and not state.heard and heard <= state.asked_at and isinstance(entry.state, Ended):
            # A broker that lives tells of the deadline before it is ours to tell.
            self._state.breaker_failed(self._brokers[state.address])
        if entry.state is state:
            self.arm(entry)
            if isinstance(state, Waiting):
                self.place(entry, now)

    def place(self, entry: OpenCall, now: float) -> None:
        """Send a waiting call if it may be sent now, else let it wait where it will be found."""
        state, call = entry.state, entry.call
        if not isinstance(state, Waiting) or state.not_before > now:
            return
        if call.deadline is not None and (now >= call.deadline or (state.only is None and not call.fits(now))):
            # So shortly before its end a first copy would only turn the proof that nothing ran into a guess.
            return
        if state.only is not None:
            self._send_or_queue(entry, self._brokers[state.only.address], now)
        elif state.avoid:
            other = self._brokers.other(state.avoid, now)
            if other is None:
                self.apply(entry, Missed("", "no other broker", elsewhere=False), now, self._jitter())
            else:
                self._send_or_queue(entry, other, now)
        elif (ready := self._brokers.ready(now)) is not None:
            self._send_or_queue(entry, ready, now)
        elif self._brokers.all_foreign(now):
            self.apply(entry, NoBroker(self._brokers.describe()), now)
        else:
            entry.queue = self._free
            self._free[call.call_id] = None

    def _send_or_queue(self, entry: OpenCall, broker: Broker, now: float) -> None:
        if broker.link is None or not broker.ready:
            entry.queue = broker.bound
            broker.bound[entry.call.call_id] = None
            return
        waiting = entry.state
        on = self._links[broker.link]
        if on.grant is not None and isinstance(waiting, Waiting):
            if waiting.extra and not entry.prepaid and not self._budget.take():
                self._refuse_retry(entry, "the retry budget is spent", now)
                return
            entry.prepaid = False
            if waiting.only is None and not broker.breaker.closed:
                broker.breaker.sent(now)
                self._watch.breaker(broker.address, "open", "half-open")
            before = entry.state.past.address
            self.apply(entry, on.grant, now)
            if before and before != broker.address and isinstance(entry.state, Asked):
                self.counters.failovers += 1
                self._observe(FailedOver(entry.call.call_id, before, broker.address))

    def _refuse_retry(self, entry: OpenCall, why: str, now: float) -> None:
        self.counters.retries_refused += 1
        self._observe(RetryRefused(entry.call.call_id, why))
        self.apply(entry, Denied(why), now)

    def _over(self, entry: OpenCall, ended: Ended, now: float) -> None:
        """A call ended, or one of a pair."""
        call_id = entry.call.call_id
        del self._calls[call_id]
        self._alarms.clear(call_id)
        if entry.muted:
            return
        pair = self._hedges.get(call_id)
        if pair is None:
            self.finish(entry.call, ended, now)
            return
        other = self._calls.get(pair.other(call_id))
        decided = decides(ended)
        if not decided and other is not None:
            pair.lost, pair.lost_first = ended, call_id == pair.call.call_id
            return
        if decided:
            self._hedges.measured(pair, now - entry.began)
            self.counters.hedges_won += call_id == pair.hedge_id
            self._silence(other, pair, now)
        elif pair.lost is not None:
            first, second = (pair.lost, ended) if pair.lost_first else (ended, pair.lost)
            ended = call_endings.hedged(first, second)
        self._hedges.drop(pair)
        self._alarms.clear(pair.hedge_id)
        self.finish(pair.call, ended, now)

    def _silence(self, entry: OpenCall | None, pair: Pair, now: float) -> None:
        """The other one of a pair has won."""
        if entry is not None and not entry.muted:
            entry.muted = True
            self._hedges.measured(pair, now - entry.began)
            self.apply(entry, GiveUp("the other of two attempts was answered first"), now)

    def hedge(self, hedge_id: bytes, now: float) -> None:
        """The first attempt has had its time: send a second one beside it, if that can help."""
        pair = self._hedges.get(hedge_id)
        first = None if pair is None else self._calls.get(pair.call.call_id)
        if pair is None or first is None or not isinstance(first.state, Asked) or first.state.past.partial:
            return
        broker = self._brokers.ready(now, {first.state.address}) or self._brokers.ready(now)
        if broker is None or len(self._calls) >= self._config.limits.calls_in_flight_max:
            return
        if not self._hedges.pay(pair):
            self.counters.retries_refused += 1
            self._observe(RetryRefused(pair.call.call_id, "the hedge budget is spent"))
            return
        self.counters.hedges += 1
        self._observe(HedgeStarted(pair.call.call_id, hedge_id, now - first.began))
        entry = OpenCall(pair.call.hedged(hedge_id), Waiting(Past(phase_at=now), now), now)
        self._calls[hedge_id] = entry
        self._send_or_queue(entry, broker, now)
        if isinstance(entry.state, Waiting):
            self.arm(entry)

    def finish(self, call: Call, ended: Ended, now: float) -> None:
        """Tell the user."""
        if isinstance(ended.result, RequestError):
            self.counters.failed += 1
        else:
            self.counters.ok += 1
        self._out.append(CallFinished(call.call_id, ended.result, ended.outcome))
        if self._watch.observer is not None:
            self._watch.ended(call, ended, now)
