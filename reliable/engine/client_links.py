"""The links of a client: opened when some call needs one, and what their ends mean for the calls."""

from __future__ import annotations

from collections.abc import Iterable

from reliable.config import RetryCause
from reliable.engine.brokers import Broker
from reliable.engine.client_calls import CallDesk
from reliable.engine.client_state import ClientState, LinkEntry, OpenCall
from reliable.engine.observe import BrokerFound, LinkLost
from reliable.protocol import link
from reliable.protocol.call_events import Grant, Lost, Missed, NoBroker, Waiting
from reliable.protocol.call_facts import Session

__all__ = ["LinkDesk"]


class LinkDesk:
    """Opens links and passes on what happens to them.

    Args:
        state: The tables.
    """

    def __init__(self, state: ClientState) -> None:
        self._state = state
        self._desk = CallDesk(state, self.suspect)
        self._links = state.links
        self._calls = state.calls
        self._free = state.free
        self._brokers = state.brokers
        self._config = state.config
        self._out = state.out
        self._jitter = state.jitter
        self._count = 0

    @property
    def calls(self) -> CallDesk:
        """Who is told."""
        return self._desk

    def suspect(self, number: int, why: str, now: float) -> None:
        """Nothing can be expected of this link any more."""
        self.event(number, link.CloseNow(why), now)

    def close_all(self, why: str, now: float) -> None:
        """The client is being closed; cancels are on their way, and are let out."""
        for entry in self._links.values():
            close = link.CloseNow(why, isinstance(entry.state, link.Ready | link.Checking))
            entry.state, effects = link.step(entry.state, close, self._state.hello, self._config, now)
            self._out.extend(effects)
            entry.broker.link, entry.broker.ready = None, False
        self._links.clear()

    def open_needed(self, now: float) -> None:
        """Open what waiting calls need; for those that any broker may serve, the next in the list."""
        for broker in self._brokers.all:
            if broker.bound and broker.link is None and self._brokers.free_at(broker) <= now:
                self._open_link(broker, now)
        if self._free:
            next_broker = self._brokers.next_to_try(now)
            if next_broker is not None:
                self._open_link(next_broker, now)
            self._serve_free(now)
        if self._calls and self._brokers.return_at <= now:
            earlier = self._brokers.return_now(now)
            if earlier is not None:
                self._open_link(earlier, now)

    def _serve_free(self, now: float) -> None:
        """Calls that waited for a breaker go as soon as it lets them."""
        if self._brokers.ready(now) is None:
            # Thousands may wait here, and this is asked at every event.
            return
        for call_id in list(self._free):
            if self._brokers.ready(now) is None:
                return
            self._place_all((call_id,), now)

    def _open_link(self, broker: Broker, now: float) -> None:
        self._count += 1
        number = self._count
        state, effects = link.open_link(number, broker.address, self._config, now)
        self._links[number] = LinkEntry(state, broker, due=state.expires)
        broker.link, broker.opened_at = number, now
        self._out.extend(effects)

    def event(self, number: int, event: link.LinkEvent, now: float) -> None:
        """Something happened to a link; unknown numbers are links that we have closed."""
        entry = self._links.get(number)
        if entry is None:
            return
        old = entry.state
        entry.state, effects = link.step(old, event, self._state.hello, self._config, now)
        self._out.extend(effects)
        if entry.state is old:
            return
        entry.due = link.expiry(entry.state)
        match entry.state:
            case link.Greeting():
                self._state.counters.links_opened += 1
            case link.Ready():
                self._reckon(entry, entry.state)
                if isinstance(old, link.Greeting):
                    self._link_ready(entry, entry.state, now)
                elif isinstance(old, link.Checking):
                    self._brokers.checked(entry.broker, now)
                    self._place_all((*entry.broker.bound, *self._free), now)
            case link.Checking():
                self._brokers.checking(entry.broker, now)
            case link.Over():
                self._link_over(entry, entry.state, old, now)
            case link.Opening():
                pass

    def _reckon(self, entry: LinkEntry, state: link.Ready) -> None:
        time = state.time
        entry.session = Session(self._state.client_id, state.peer.life, time.t0, time.t1, time.at)
        entry.grant = Grant(state.link, state.address, state.peer.life, state.peer.max_message_bytes)

    def _link_ready(self, entry: LinkEntry, state: link.Ready, now: float) -> None:
        life = state.peer.life
        restarted = self._brokers.found(entry.broker, life, now)
        self._state.counters.brokers_restarted += restarted
        self._state.watch.saw(BrokerFound(state.address, life, restarted))
        self._place_all((*entry.broker.bound, *self._free), now)

    def _place_all(self, call_ids: Iterable[bytes], now: float) -> None:
        for call_id in call_ids:
            # One of a pair may end the other.
            waiting = self._calls.get(call_id)
            if waiting is not None:
                waiting.unqueue()
                self._desk.place(waiting, now)

    def _link_over(self, entry: LinkEntry, over: link.Over, old: link.LinkState, now: float) -> None:
        """Everything that was outstanding on it is lost, and everybody who waits for its broker hears of it."""
        del self._links[over.link]
        broker = entry.broker
        why = over.reason
        self._count_end(over, old)
        self._state.watch.saw(LinkLost(over.address, why))
        waiting = list(broker.bound)
        foreign = over.fate is link.Fate.FOREIGN
        if foreign:
            self._brokers.foreign(broker, why, now)
        else:
            self._brokers.failed(broker, why, now, self._jitter())
        asked = list(entry.asked)
        if asked:
            self._state.breaker_failed(broker)
        # A link is only ever closed by us, while calls are on it, because it was silent.
        lost = Lost(over.link, why, RetryCause.SILENT if over.fate is link.Fate.CLOSED else RetryCause.LOST)
        paid = len(asked) > 1 and self._state.budget.take()
        for on_it in filter(None, map(self._calls.get, asked)):
            on_it.prepaid = paid
            self._desk.apply(on_it, lost, now, self._jitter())
        for bound in filter(None, map(self._calls.get, waiting)):
            self._missed(bound, over.address, why, foreign, now)
        if foreign and self._brokers.all_foreign(now):
            for free in filter(None, map(self._calls.get, list(self._free))):
                self._desk.apply(free, NoBroker(self._brokers.describe()), now)

    def _missed(self, entry: OpenCall, address: str, why: str, foreign: bool, now: float) -> None:
        state = entry.state
        avoid: frozenset[str] = frozenset()
        if isinstance(state, Waiting):
            avoid = state.avoid if state.only is None else frozenset({state.only.address})
        elsewhere = bool(avoid) and self._brokers.other(avoid, now) is not None
        self._desk.apply(entry, Missed(address, why, foreign, elsewhere), now, self._jitter())
        if entry.state is state:
            # Nothing changed for the call, but another broker may be the one to wait for.
            entry.unqueue()
            self._desk.place(entry, now)

    def _count_end(self, over: link.Over, old: link.LinkState) -> None:
        counters = self._state.counters
        if over.fate is link.Fate.SILENT:
            counters.hellos_unanswered += 1
        elif isinstance(old, link.Opening):
            counters.links_refused += 1
        elif over.fate is not link.Fate.FOREIGN:
            counters.links_lost += 1
