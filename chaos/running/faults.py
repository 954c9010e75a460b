"""What can be done to a running system: one frozen value per fault, in seconds from the start of the load.

``scaled`` gives the same fault in a shorter run: moments and durations shrink, sizes and shares do not. How each of
them is done and proven is in ``chaos.running.acts``.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeAlias, assert_never

import attrs

from chaos.toxi.toxics import (
    Bandwidth,
    Blackhole,
    Direction,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Toxic,
)

__all__ = [
    "CLIENTS",
    "WORKERS",
    "Burst",
    "Descriptors",
    "Fault",
    "Freeze",
    "HoldGil",
    "Hostile",
    "Kill",
    "LinkDown",
    "Loss",
    "Mute",
    "Partition",
    "Poison",
    "SlowReplies",
    "Storm",
    "Toxics",
]

CLIENTS: Final = "clients"
"""The link between clients and whoever serves them."""
WORKERS: Final = "workers"
"""The link between workers and brokers."""


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be zero or more, not {value!r}")


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive, not {value!r}")


def _toxic_text(toxic: Toxic) -> str:
    match toxic:
        case Latency():
            return f"latency {toxic.latency_s * 1000:.0f}±{toxic.jitter_s * 1000:.0f} ms"
        case Bandwidth():
            return f"{toxic.bytes_per_s // 1000} KB/s"
        case Blackhole():
            return "data vanishes"
        case Slicer():
            return f"slices of {toxic.average_bytes} B"
        case ResetPeer():
            return f"resets after {toxic.after_s:g} s"
        case LimitData():
            return f"cut after {toxic.limit_bytes} B"
        case SlowClose():
            return f"ends told {toxic.delay_s:g} s late"
        case _:
            assert_never(toxic)


def _link(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in (CLIENTS, WORKERS):
        raise ValueError(f"{attribute.name} must be {CLIENTS!r} or {WORKERS!r}, not {value!r}")


_at: Any = attrs.field(validator=_not_negative)
_for: Any = attrs.field(validator=_positive)


class _Timed(Protocol):
    """What all faults have."""

    @property
    def at_s(self) -> float: ...
    @property
    def for_s(self) -> float: ...
    def text(self) -> str: ...


@attrs.frozen(kw_only=True)
class Kill:
    """SIGKILL; a new process takes the place ``for_s`` later."""

    at_s: float = _at
    for_s: float = _for
    target: str
    """``broker 1``, ``worker 2``, ``server 1``; ``worker ?`` takes one that the seed chooses."""

    def text(self) -> str:
        """For people."""
        return f"SIGKILL {self.target}"


@attrs.frozen(kw_only=True)
class Freeze:
    """SIGSTOP, and SIGCONT ``for_s`` later."""

    at_s: float = _at
    for_s: float = _for
    target: str

    def text(self) -> str:
        """For people."""
        return f"SIGSTOP {self.target}"


@attrs.frozen(kw_only=True)
class Toxics:
    """A link through Toxiproxy suffers."""

    at_s: float = _at
    for_s: float = _for
    link: str = attrs.field(default=CLIENTS, validator=_link)
    toxics: tuple[Toxic, ...]
    directions: tuple[Direction, ...] = (Direction.TO_CLIENT,)

    def text(self) -> str:
        """For people."""
        what = " + ".join(map(_toxic_text, self.toxics))
        ways = {Direction.TO_CLIENT: f"to {self.link}", Direction.TO_SERVER: f"from {self.link}"}
        if len(set(self.directions)) == len(ways):
            return f"{what} to and from {self.link}"
        return f"{what} {' and '.join(ways[direction] for direction in self.directions)}"


@attrs.frozen(kw_only=True)
class LinkDown:
    """A link through Toxiproxy is cut, so that its connections end and new ones are refused; again and again."""

    at_s: float = _at
    for_s: float = _for
    link: str = attrs.field(default=CLIENTS, validator=_link)

    def text(self) -> str:
        """For people."""
        return f"link of {self.link} down"


@attrs.frozen(kw_only=True)
class Loss:
    """Each packet between two sides vanishes with this chance, either way."""

    at_s: float = _at
    for_s: float = _for
    link: str = attrs.field(default=CLIENTS, validator=_link)
    share: float = attrs.field(default=0.1, validator=_positive)

    def text(self) -> str:
        """For people."""
        return f"{self.share:.0%} of packets lost between {self.link} and broker"


@attrs.frozen(kw_only=True)
class Partition:
    """All packets between two sides vanish and nobody is told; one way or both."""

    at_s: float = _at
    for_s: float = _for
    link: str = attrs.field(default=CLIENTS, validator=_link)
    to: str = ""
    """``"clients"`` or ``"broker"`` and the like: only packets to that side vanish. Empty: both ways."""

    def text(self) -> str:
        """For people."""
        way = f" (only to {self.to})" if self.to else ""
        return f"silent partition of {self.link} and broker{way}"


@attrs.frozen(kw_only=True)
class Poison:
    """Requests that kill whichever worker touches them; killed workers are started again until ``for_s`` is over."""

    at_s: float = _at
    for_s: float = _for
    count: int = 1

    def text(self) -> str:
        """For people."""
        return f"{self.count} request{'s' * (self.count > 1)} that kill{'s' * (self.count == 1)} the worker"


@attrs.frozen(kw_only=True)
class HoldGil:
    """A request whose handler holds the interpreter lock of its worker."""

    at_s: float = _at
    for_s: float = _for

    def text(self) -> str:
        """For people."""
        return f"a handler holds the GIL for {self.for_s:g} s"


@attrs.frozen(kw_only=True)
class Burst:
    """Clients call more often than the workers can serve."""

    at_s: float = _at
    for_s: float = _for
    factor: float = attrs.field(default=10.0, validator=_positive)

    def text(self) -> str:
        """For people."""
        return f"{self.factor:g} times the load"


@attrs.frozen(kw_only=True)
class Storm:
    """Many workers register at once and leave again ``for_s`` later."""

    at_s: float = _at
    for_s: float = _for
    workers: int = 50

    def text(self) -> str:
        """For people."""
        return f"{self.workers} workers register at once"


@attrs.frozen(kw_only=True)
class Mute:
    """Something that takes connections and never says a word stands first in the clients' list of brokers.

    It stands there all the time; what it took by ``at_s + for_s`` is its proof.
    """

    at_s: float = _at
    for_s: float = _for

    def text(self) -> str:
        """For people."""
        return "first broker in the list accepts and stays mute"


@attrs.frozen(kw_only=True)
class SlowReplies:
    """Some replies take long: each worker holds back each so many-th of those that may be hedged or are idempotent."""

    at_s: float = _at
    for_s: float = _for
    every: int = attrs.field(default=5, validator=_positive)
    by_s: float = attrs.field(default=0.8, validator=_positive)

    def text(self) -> str:
        """For people."""
        return f"1 of {self.every} replies takes {self.by_s:g} s longer"


@attrs.frozen(kw_only=True)
class Descriptors:
    """A process may open no more files or connections than it has."""

    at_s: float = _at
    for_s: float = _for
    target: str = "broker 1"

    def text(self) -> str:
        """For people."""
        return f"{self.target} is out of file descriptors"


@attrs.frozen(kw_only=True)
class Hostile:
    """Strangers connect to a broker and announce frames of impossible length, send rubbish, or say nothing."""

    at_s: float = _at
    for_s: float = _for
    peers: int = attrs.field(default=12, validator=_positive)
    target: str = "broker 1"

    def text(self) -> str:
        """For people."""
        return f"{self.peers} hostile peers at {self.target}"


Fault: TypeAlias = (
    Kill
    | Freeze
    | Toxics
    | LinkDown
    | Loss
    | Partition
    | Poison
    | HoldGil
    | Burst
    | Storm
    | Mute
    | SlowReplies
    | Descriptors
    | Hostile
)


def _all_are_timed(fault: Fault) -> _Timed:
    """For the type checker: whatever is added to ``Fault`` has these members."""
    return fault
