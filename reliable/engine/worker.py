"""One worker: its jobs, and its conversations with every broker in its list.

What it promises:

* One run for one call, however often and by whomever it is delivered: a delivery of a call that is queued or running
  joins it, one of a call that was answered gets the kept reply (``reliable.engine.replies``), and where the table can
  no longer tell, a call that is not idempotent is not run.
* At most ``WorkerConfig.concurrency`` handlers at once. Each broker gets a share of that as credit; with more brokers
  than handlers the shares add up to more, and the surplus waits in a queue here.
* Each delivery ends with exactly one final report, unless the broker life that it came from is over. What ends while
  the link is down is reported on the next link, if that finds the same life.
* A handler that takes longer than its service allows is answered for with an error. The shell ends it if it can; until
  it does end, it keeps its slot.
* What was reported in the last seconds before a link broke is reported again on the next one, to the same life.
* A call that was cancelled or came too late is given back if it never started. Once started it runs to its end, and
  its delivery still gets the final report, which frees the slot at the broker.
* Nothing is sent on a link before it is open, or after a DISCONNECT was received on it; heartbeats do not depend on
  handlers.

Towards brokers that are not ours (7/MDP): the first service alone, one request at a time, no memory of calls. A reply
is sent only on the link that the request came on. A handler that failed has no words there, so the worker says
DISCONNECT and registers anew, which leaves the request to the broker.

What is left out: shares of brokers that are down are not lent to the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from reliable.config import WorkerConfig
from reliable.engine import reports
from reliable.engine.desk import Desk, SentReport
from reliable.engine.jobs import OverdueJob, ServiceRule
from reliable.engine.observe import BrokerFound
from reliable.engine.worker_links import Links, News, Peer
from reliable.engine.worker_view import BrokerLinkSnapshot, WorkerCounters, WorkerSnapshot
from reliable.errors import LocalProtocolError
from reliable.protocol import registration
from reliable.protocol.events import (
    Drain,
    JobFinished,
    JobPartial,
    JobProgress,
    LinkClosed,
    LinkOpened,
    Received,
    Send,
    Unsent,
    WorkerEffect,
    WorkerEvent,
    WorkerStopped,
)
from reliable.protocol.registration import (
    Delivered,
    Ended,
    Greeted,
    JoinedPlain,
    Leave,
    Over,
    Registered,
    Stalled,
    Tag,
    Terms,
    Ticked,
    Undelivered,
)
from reliable.types import Jitter, Observer
from reliable.wire.extension import (
    INSTANCE_BYTES,
    NO_LIFE,
    Hello,
    ReadyExtension,
    ReportKind,
    Role,
    ServiceOffer,
)
from reliable.wire.mdp import Version, WorkerReady, check_service
from reliable.wire.mmi import hello_request, is_reserved

__all__ = [
    "BrokerLinkSnapshot",
    "OverdueJob",
    "SentReport",
    "ServiceRule",
    "WorkerCounters",
    "WorkerEngine",
    "WorkerSnapshot",
]


class WorkerEngine:
    """Decides everything for one worker; a shell carries it out. Obeys ``reliable.engine.base``.

    Args:
        brokers: Addresses, each registered with.
        services: What to offer; brokers that are not ours get the first one alone.
        config: All settings.
        instance: 16 bytes that no other worker has; new after fork.
        jitter: Spreads reconnects.
        observer: Hears of decisions.
        rules: Of services that have a timeout or a concurrency of their own.

    Raises:
        ValueError: No broker, no service, a service twice, or a name that no broker takes.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        services: Sequence[ServiceOffer],
        config: WorkerConfig,
        *,
        instance: bytes,
        jitter: Jitter,
        observer: Observer | None = None,
        rules: Mapping[bytes, ServiceRule] | None = None,
    ) -> None:
        if len(instance) != INSTANCE_BYTES:
            raise ValueError(f"the instance id must have {INSTANCE_BYTES} bytes")
        self._services = _checked_services(services)
        self._config = config
        self._instance = instance
        self._rules = dict(rules or {})
        self.counters = WorkerCounters()
        self._links = Links(self.counters, observer)
        self._links.peers = self._make_peers(brokers, jitter)
        self._desk = Desk(self._links, self._services, self._rules, config, self.counters)
        self._now = -math.inf
        self._begun = False
        self._drain_by: float | None = None
        self._credit_seen_by = math.inf
        """When, in a drain, brokers that did not acknowledge the end of the credit are left all the same."""
        self._stopped = False

    def _make_peers(self, brokers: Sequence[str], jitter: Jitter) -> list[Peer]:
        addresses = list(dict.fromkeys(brokers))
        if not addresses:
            raise ValueError("a worker needs at least one broker")
        hello = hello_request(Hello(Role.WORKER, self._instance, self._config.limits.message_bytes_max).encode())
        share, rest = divmod(self._useful_credit(), len(addresses))
        peers = []
        for index, address in enumerate(addresses):
            terms = Terms(
                address=address,
                service=self._services[0].name,
                hello=hello,
                config=self._config,
                jitter=jitter,
                fresh_link=self._links.fresh_number,
            )
            peers.append(Peer(index, terms, max(1, share + (index < rest))))
        return peers

    def _useful_credit(self) -> int:
        """As many requests as can run at once: more would wait here where others could take them."""
        rooms = [self._rules.get(offer.name, ServiceRule()).concurrency for offer in self._services]
        limited = [room for room in rooms if room is not None]
        most = self._config.concurrency
        return min(most, sum(limited)) if len(limited) == len(rooms) else most

    # --- the contract -----------------------------------------------------------------------------

    @property
    def registered(self) -> int:
        """With how many brokers the worker is registered now."""
        return self._links.registered()

    @property
    def draining(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._drain_by is not None

    @property
    def stopped(self) -> bool:
        """Whether ``WorkerStopped`` was given out."""
        return self._stopped

    def start(self, now: float) -> None:
        """Begin to connect to every broker. Once, before anything else.

        Raises:
            LocalProtocolError: Called twice, or after ``Drain``.
        """
        if self._begun or self.draining:
            raise LocalProtocolError("a worker starts once")
        self._begun = True
        self._now = now
        for peer in self._links.peers:
            peer.state = registration.first(now)
        self.timers(now)

    def handle(self, event: WorkerEvent, now: float) -> None:
        """Take in what happened; never raises for what a broker sent.

        Raises:
            LocalProtocolError: A link or job that was never given out, a job that ended before, or time going back.
        """
        self._check(event, now)
        self._notice_stall(now)
        match event:
            case Received() | LinkOpened() | LinkClosed() | Unsent():
                self._about_link(event, now)
            case JobFinished():
                self._desk.finished(event, now)
            case JobPartial():
                self._desk.partial(event, now)
            case JobProgress():
                self._desk.progress(event, now)
            case Drain():
                self._begin_drain(event.deadline, now)
        self._settle(now)

    def timers(self, now: float) -> None:
        """Carry out everything that is due."""
        self._check_time(now)
        self._notice_stall(now)
        while True:
            self._carry_out_due(now)
            due = self.next_deadline()
            if due is None or due > now:
                return

    def next_deadline(self) -> float | None:
        """When ``timers`` must be called at the latest, or None if nothing is waited for."""
        if self._stopped:
            return None
        due = min(self._links.next_deadline(), self._desk.next_deadline())
        if self._drain_by is not None:
            due = min(due, self._drain_by, self._credit_seen_by)
        return None if math.isinf(due) else due

    def effects(self) -> list[WorkerEffect]:
        """Take out, in order, what to do; each is given out once."""
        return self._links.take_effects()

    def snapshot(self) -> WorkerSnapshot:
        """A frozen view."""
        return WorkerSnapshot(
            brokers=self._links.snapshot(self._now, self.draining),
            running=self._desk.running,
            overrunning=self._desk.overrunning,
            queued=self._desk.queued,
            replies_kept=len(self._desk.replies),
            replies_kept_bytes=self._desk.replies.size_bytes,
            draining=self.draining,
            stopped=self._stopped,
        )

    # --- what holds at every step -----------------------------------------------------------------

    def _check_time(self, now: float) -> None:
        if now < self._now:
            raise LocalProtocolError("time went back")

    def _check(self, event: WorkerEvent, now: float) -> None:
        self._check_time(now)
        match event:
            case Received() | LinkOpened() | LinkClosed() | Unsent():
                if not 0 < event.link <= self._links.numbers_given:
                    raise LocalProtocolError(f"link {event.link} was never given out")
            case JobFinished():
                if not self._desk.runs(event.job):
                    raise LocalProtocolError(f"job {event.job} does not run")
            case JobPartial() | JobProgress():
                # Of a job that ended they are late, not wrong: a handler may outlive its job.
                if not self._desk.knows(event.job):
                    raise LocalProtocolError(f"job {event.job} was never given out")
            case Drain():
                pass

    def _notice_stall(self, now: float) -> None:
        """Brokers are not judged by what they did not say while this process did not run."""
        since, interval_s = self._now, self._config.heartbeat.interval_s
        due = self.next_deadline() if now - since > interval_s else None
        self._now = now
        if due is not None and now - due > interval_s:
            self.counters.stalls += 1
            for peer in self._links.peers:
                # When since the last step it began is not known; the longest it can have been is what counts.
                self._step(peer, Stalled(now - since), now)

    def _carry_out_due(self, now: float) -> None:
        for peer in self._links.peers:
            while (due := registration.deadline(peer.state)) is not None and due <= now:
                self._step(peer, Ticked(), now)
            if peer.resend_at <= now:
                self._desk.resend(peer, now)
        self._desk.carry_out_due(now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._desk.fill_slots(now)
        if self._drain_by is not None and not self._stopped:
            self._go_on_draining(self._drain_by, now)

    # --- links ------------------------------------------------------------------------------------

    def _about_link(self, event: Received | LinkOpened | LinkClosed | Unsent, now: float) -> None:
        peer = self._links.peer_of(event.link)
        match event:
            case Unsent():
                self.counters.unsent += 1
                if isinstance(event.tag, SentReport):
                    self._desk.report_unsent(event.tag, event.link, now)
                elif event.tag in (Tag.HELLO, Tag.READY) and peer is not None:
                    self._step(peer, Undelivered(), now)
            case Received() if peer is not None:
                self._take_in(peer, self._links.received(peer, event, now), now)
            case LinkOpened() | LinkClosed() if peer is not None:
                self._take_in(peer, self._links.opened_or_closed(peer, event, now), now)
            case _:
                # The shell had it in its hands when the engine closed the link.
                pass

    def _step(self, peer: Peer, event: registration.Event, now: float) -> None:
        self._take_in(peer, self._links.step(peer, event, now), now)

    def _take_in(self, peer: Peer, news: Iterable[News], now: float) -> None:
        for item in news:
            match item:
                case Delivered():
                    self._desk.delivered(peer, item.request, now)
                case Greeted():
                    self._register(peer, item, now)
                case JoinedPlain():
                    self.counters.registrations += 1
                    self._desk.void(peer, peer.handovers.values())
                    peer.life = b""
                    peer.message_bytes_max = 0
                case Ended():
                    self._desk.link_ended(peer, now)

    def _register(self, peer: Peer, greeted: Greeted, now: float) -> None:
        restarted = greeted.last_life not in (NO_LIFE, greeted.broker.life)
        if greeted.last_life != greeted.broker.life:
            self._desk.void(peer, peer.handovers.values())
        peer.life = greeted.broker.life
        self._desk.arrivals.expect(peer.life)
        peer.message_bytes_max = greeted.broker.max_message_bytes
        peer.credit_seen = self.draining
        self.counters.registrations += 1
        self.counters.brokers_restarted += restarted
        extension = ReadyExtension(
            self._instance,
            0 if self.draining else peer.credit,
            self._services,
            greeted.last_life,
            tuple(peer.handovers),
            self._config.limits.message_bytes_max,
            self._newest(peer),
        )
        ready = WorkerReady(Version.MDP02, self._services[0].name, extension.encode())
        self._links.emit(Send(greeted.link, ready.encode(), Tag.READY))
        self._links.observe(BrokerFound(peer.terms.address, peer.life, restarted))
        self._desk.resend(peer, now)

    def _newest(self, peer: Peer) -> int | None:
        """What READY says of the deliveries that have come: nothing that comes on another link could then be newer.

        The addresses of one broker may stand in the list more than once.
        """
        others = (other.state for other in self._links.peers if other is not peer)
        if any(isinstance(state, Registered) and state.broker.life == peer.life for state in others):
            return None
        return self._desk.arrivals.newest(peer.life)

    # --- drain ------------------------------------------------------------------------------------

    def _begin_drain(self, deadline: float, now: float) -> None:
        if self._drain_by is not None:
            self._drain_by = min(self._drain_by, deadline)
            return
        self._drain_by = deadline
        self._credit_seen_by = now + self._config.hello_timeout_s
        for peer in self._links.peers:
            if isinstance(peer.state, Registered):
                self._links.report(peer, peer.state.link, reports.credit(0), ReportKind.CREDIT, now)
        self._desk.begin_drain(now)

    def _go_on_draining(self, deadline: float, now: float) -> None:
        too_late = now >= deadline
        if now >= self._credit_seen_by:
            self._credit_seen_by = math.inf
        for peer in self._links.peers:
            if too_late or self._may_leave(peer):
                self._step(peer, Leave(), now)
                self._desk.void(peer, peer.handovers.values())
        if too_late or (not self._desk.running and all(isinstance(peer.state, Over) for peer in self._links.peers)):
            self._stopped = True
            self._links.emit(WorkerStopped(self._desk.running))

    def _may_leave(self, peer: Peer) -> bool:
        if peer.handovers or isinstance(peer.state, Over):
            return False
        return not isinstance(peer.state, Registered) or peer.credit_seen or math.isinf(self._credit_seen_by)


def _checked_services(services: Sequence[ServiceOffer]) -> tuple[ServiceOffer, ...]:
    if not services:
        raise ValueError("a worker needs at least one service")
    names = [check_service(offer.name) for offer in services]
    if len(set(names)) < len(names):
        raise ValueError("a service is offered twice")
    for name in names:
        if is_reserved(name):
            raise ValueError(f"{name!r} is a name that brokers keep for themselves")
    return tuple(services)
