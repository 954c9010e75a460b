"""A scenario as a frozen value: who takes part, what is asked, what breaks when, and what is demanded."""

from __future__ import annotations

from typing import Any, Final

import attrs

from chaos.running.faults import Fault, HoldGil, Kill, LinkDown, Loss, Mute, Partition, Poison, SlowReplies, Toxics

__all__ = ["Clients", "Demands", "Guest", "Kind", "Scenario", "Topology", "shortened"]

_HEARTBEAT_S_MIN: Final = 0.25
_SHORT_WORKERS_MIN: Final = 2
_SHORT_ANSWERED: Final = 0.5


class Kind:
    """What is called, and what is said of it; the values are the names in reports."""

    SAFE = "idempotent"
    """By caller and service: may be repeated by anyone."""
    DECLARED = "declared"
    """The service says that it is idempotent, the caller says nothing."""
    ONCE = "once"
    """The service says that it is not, the caller says nothing."""
    CAREFUL = "careful"
    """The caller says that it is not, against the service."""
    STREAM = "stream"
    """A reply in parts, by a service that may not be repeated."""
    STREAM_AGAIN = "stream again"
    """A reply in parts, by a service that may be repeated, and whose caller says so too."""
    PROGRESS = "progress"
    """Idempotent, and wants to know how far it is."""
    ONE_WAY = "one-way"
    """Without a reply, to a service that may not be repeated."""
    HEDGED = "hedged"
    """Idempotent, and sent a second time if the first one takes long."""
    HEDGED_ONCE = "hedged once"
    """The caller wants it hedged; the service says that it is not idempotent, and that counts."""
    NEWCOMER = "newcomer"
    """Idempotent, by a client of its own that is made for it."""
    POISON = "poison"
    """Idempotent, and kills the worker."""
    HOLD = "gil"
    """Holds the worker's interpreter lock."""
    GUEST = "guest"
    """Of a worker that is not ours."""


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive, not {value!r}")


@attrs.frozen(kw_only=True)
class Clients:
    """Clients of one sort, and the load that each of them makes."""

    count: int = attrs.field(default=1, validator=_positive)
    shell: str = attrs.field(default="asyncio", validator=attrs.validators.in_(("asyncio", "blocking")))
    dialect: str = "mdp"
    rate: float = attrs.field(default=25.0, validator=_positive)
    """Calls per second, of each, whatever became of the earlier ones."""
    timeout_s: float = attrs.field(default=4.0, validator=_positive)
    work_s: float = 0.01
    """What a call costs its worker."""
    body_bytes: int = 64
    parts: int = attrs.field(default=4, validator=_positive)
    """Of each streamed reply."""
    hedge_s: float = attrs.field(default=0.1, validator=_positive)
    """How long the first attempt of a hedged call has for itself."""
    mix: tuple[tuple[str, int], ...] = (
        (Kind.SAFE, 4),
        (Kind.DECLARED, 2),
        (Kind.ONCE, 2),
        (Kind.CAREFUL, 1),
        (Kind.STREAM, 1),
    )
    """Kinds of calls and their weights."""


@attrs.frozen(kw_only=True)
class Topology:
    """Who takes part, and how fast they notice things."""

    brokers: int = 1
    workers: int = 3
    concurrency: int = 2
    servers: int = 0
    """Servers without a broker, for clients of dialect ``req`` or ``freelance``."""
    queue: bool = False
    """A Paranoid Pirate queue in place of brokers, for clients of dialect ``ppp``."""
    clients: tuple[Clients, ...] = (Clients(),)
    heartbeat_s: float = attrs.field(default=0.5, validator=_positive)
    """Of brokers, workers and ZMTP; a peer silent for three of them is not taken for live."""
    attempt_timeout_s: float = attrs.field(default=1.0, validator=_positive)


@attrs.frozen(kw_only=True)
class Demands:
    """What is demanded besides the rules that always hold (see ``chaos.running.checks``)."""

    recovery_s: float = attrs.field(default=5.0, validator=_positive)
    """After the last fault: until every client has got a reply to a new call, and every worker is in service."""
    answered_min: float = 0.0
    """Share of the calls made during the faults that must be answered."""
    no_worker_lost: bool = False
    """No worker may be taken for lost: nothing that happens here kills one."""
    streams_cut: bool = False
    """Streams must have been cut in their middle, or nothing was shown."""
    queued_max: int | None = None
    """A broker may never report more queued requests than this; None is its own limit only."""


@attrs.frozen(kw_only=True)
class Guest:
    """A worker of somebody else, in place of ours: run by ``reliable worker``, so that its executions are not seen."""

    target: str
    """``module:object``."""
    calls: tuple[tuple[str, tuple[Any, ...]], ...]
    """Services and the arguments to call them with, in turn."""


@attrs.frozen(kw_only=True)
class Scenario:
    """One thing that goes wrong, and a system that it happens to."""

    name: str
    title: str
    """One line for lists: what goes wrong."""
    promise: str
    """One line for reports: what must hold all the same."""
    topology: Topology = attrs.field(factory=Topology)
    faults: tuple[Fault, ...] = ()
    quiet_s: float = 0.0
    """How long the load goes on at least before the healed phase."""
    healed_s: float = attrs.field(default=2.0, validator=_positive)
    """Load after the recovery, in which every call must succeed."""
    demands: Demands = attrs.field(factory=Demands)
    control: bool = False
    """Run raw REQ/REP beside it, under the same faults."""
    guest: Guest | None = None
    short_factor: float = attrs.field(default=0.2, validator=_positive)
    """What times are multiplied with in the short form."""

    @property
    def needs_namespace(self) -> bool:
        """Whether packets must vanish."""
        return any(isinstance(fault, Loss | Partition) for fault in self.faults)

    @property
    def needs_toxiproxy(self) -> bool:
        """Whether a proxy must stand in a link."""
        return any(isinstance(fault, Toxics | LinkDown) for fault in self.faults)

    @property
    def needs_mute(self) -> bool:
        """Whether a broker that says nothing is part of it."""
        return any(isinstance(fault, Mute) for fault in self.faults)

    @property
    def takes_guests(self) -> bool:
        """Whether another worker can take the place of ours: not where requests must do harm."""
        return self.topology.brokers > 0 and not any(
            isinstance(fault, HoldGil | Poison | SlowReplies) for fault in self.faults
        )

    @property
    def dialects(self) -> frozenset[str]:
        """What the clients speak."""
        return frozenset(clients.dialect for clients in self.topology.clients)

    def proxied(self, link: str) -> bool:
        """Whether the proxy stands in this link."""
        return any(isinstance(fault, Toxics | LinkDown) and fault.link == link for fault in self.faults)


def shortened(scenario: Scenario) -> Scenario:
    """The short form: the same faults and demands in less time.

    Heartbeats shrink with the rest, down to a floor. What is demanded of recovery does not, as processes take their
    time to start however short the run is. For the same reason fewer answers are demanded meanwhile: half of them, and
    none where processes are killed, since nobody can answer while the only one who could is starting.
    """
    factor = scenario.short_factor
    answered = 0.0 if any(isinstance(fault, Kill | Poison) for fault in scenario.faults) else _SHORT_ANSWERED
    topology = scenario.topology
    clients = tuple(
        attrs.evolve(clients, timeout_s=max(1.0, clients.timeout_s * factor)) for clients in topology.clients
    )
    heartbeat_s = max(min(topology.heartbeat_s, _HEARTBEAT_S_MIN), topology.heartbeat_s * factor)
    return attrs.evolve(
        scenario,
        topology=attrs.evolve(
            topology,
            workers=min(topology.workers, max(_SHORT_WORKERS_MIN, topology.workers - 1)),
            clients=clients,
            heartbeat_s=heartbeat_s,
            attempt_timeout_s=max(0.4, topology.attempt_timeout_s * factor),
        ),
        faults=tuple(
            attrs.evolve(fault, at_s=fault.at_s * factor, for_s=fault.for_s * factor) for fault in scenario.faults
        ),
        quiet_s=scenario.quiet_s * factor,
        healed_s=max(0.4, scenario.healed_s * factor),
        demands=attrs.evolve(scenario.demands, answered_min=scenario.demands.answered_min * answered),
    )
