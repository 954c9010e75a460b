"""Settings as frozen values, and the pure arithmetic on them.

Durations are float seconds and end in ``_s``; sizes end in ``_bytes``; the qualifier comes last. ``None`` means no
limit, and zero is refused where it would mean "at once, for ever". Bad settings raise ``ValueError`` when built.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import attrs
from attrs import validators

__all__ = [
    "Backoff",
    "BreakerPolicy",
    "ClientConfig",
    "Dialect",
    "Freelance",
    "Heartbeat",
    "HedgePolicy",
    "Limits",
    "RetryBudget",
    "RetryCause",
    "RetryPolicy",
    "TransportConfig",
    "WorkerConfig",
]

_EXPONENT_MAX = 64


def _positive(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive and finite, not {value!r}")


def _positive_or_none(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _positive(_, attribute, value)


def _at_least_one_or_none(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{attribute.name} must be at least 1, not {value!r}")


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be zero or more, not {value!r}")


class Dialect(enum.Enum):
    """What a client speaks, and to whom."""

    MDP = "mdp"
    """To a Majordomo broker of this library: MDP 0.2 with the extension, agreed on by a hello."""
    MDP01 = "mdp/0.1"
    """To any Majordomo broker, in the bytes of 7/MDP alone."""
    MDP02 = "mdp/0.2"
    """The same in those of 18/MDP."""
    REQ = "req"
    """Lazy Pirate: to any REP or ROUTER server, without a broker."""
    PPP = "ppp"
    """To the front side of a Paranoid Pirate queue (6/PPP), which is the same on the wire as ``req``."""
    FREELANCE = "freelance"
    """To a list of servers that speak 10/FLP, without a broker."""


def _dialect(value: str | Dialect) -> Dialect:
    try:
        return Dialect(value)
    except ValueError:
        names = ", ".join(repr(dialect.value) for dialect in Dialect)
        raise ValueError(f"a dialect must be one of {names}, not {value!r}") from None


class RetryCause(enum.Enum):
    """Why an attempt failed, as far as trying again is concerned."""

    SILENT = "silent"
    """Nothing was heard in time."""
    LOST = "lost"
    """The link broke."""
    OVERLOADED = "overloaded"
    NO_SERVICE = "no-service"


def _causes(value: Iterable[RetryCause]) -> frozenset[RetryCause]:
    return frozenset(value)


@attrs.frozen(kw_only=True)
class Backoff:
    """Exponential waiting with full jitter: somewhere between nothing and a bound that doubles."""

    initial_s: float = attrs.field(default=0.05, validator=_positive)
    """Upper bound of the first wait."""
    factor: float = attrs.field(default=2.0, validator=validators.and_(validators.ge(1.0), validators.le(1000.0)))
    """What the bound grows by from one wait to the next, 1 to 1000."""
    delay_s_max: float = attrs.field(default=2.0, validator=_positive)
    """No wait is longer."""

    def delay_s(self, attempt: int, u: float) -> float:
        """Seconds to wait after the ``attempt``-th attempt (1 is the first); ``u`` in [0, 1) is the jitter."""
        exponent = min(max(attempt - 1, 0), _EXPONENT_MAX)
        return float(u * min(self.delay_s_max, self.initial_s * self.factor**exponent))


@attrs.frozen(kw_only=True)
class RetryBudget:
    """A bucket of tokens that all calls of a client share: each call puts a share of one in, each extra attempt takes
    one out. With an empty bucket there are no extra attempts, so that a server in trouble is not asked ever more."""

    ratio: float = attrs.field(default=0.1, validator=validators.and_(validators.ge(0.0), validators.le(10.0)))
    """Extra attempts per call in the long run."""
    tokens_max: float = attrs.field(default=100.0, validator=_positive)
    """What the bucket holds at most, and at the start: the extra attempts of a short trouble."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How a client goes on after an attempt stayed silent or failed."""

    attempts: int | None = attrs.field(default=5, validator=_at_least_one_or_none)
    """How many attempts of one call may fail; then it ends. A wait for a broker that cannot be reached is no attempt,
    nor is asking a broker that answers "still queued" or "still running". None: only the deadline ends it."""
    attempt_timeout_s: float = attrs.field(default=2.5, validator=_positive)
    """Silence after which an attempt counts as failed. Longer runs are fine: the broker answers for them."""
    backoff: Backoff = attrs.field(factory=Backoff)
    causes: frozenset[RetryCause] = attrs.field(default=frozenset(RetryCause), converter=_causes)
    """Which failures are followed by another attempt at all; what may be repeated is decided beside this."""
    budget: RetryBudget | None = attrs.field(factory=RetryBudget)
    """Over all calls of the client; None is no limit."""

    @classmethod
    def never(cls) -> RetryPolicy:
        """One attempt, which may stay silent until the deadline."""
        return cls(attempts=1)


@attrs.frozen(kw_only=True)
class HedgePolicy:
    """A second attempt, sent while the first is still waited for; the first answer wins, the other is cancelled.

    Only for calls that were declared idempotent: both may run.
    """

    delay_s: float | None = attrs.field(default=None, validator=_positive_or_none)
    """How long the first attempt has for itself."""
    percentile: float | None = attrs.field(
        default=None, validator=validators.optional(validators.and_(validators.gt(0.0), validators.lt(100.0)))
    )
    """In place of ``delay_s``: the time within which this share of the service's calls were answered lately, in
    percent. Until enough calls were measured there are no hedges."""
    budget: RetryBudget = attrs.field(factory=lambda: RetryBudget(ratio=0.1, tokens_max=10.0))

    def __attrs_post_init__(self) -> None:
        if (self.delay_s is None) == (self.percentile is None):
            raise ValueError("HedgePolicy must be given either delay_s or percentile")


@attrs.frozen(kw_only=True)
class BreakerPolicy:
    """When a client stops asking a broker that fails, and when it tries again."""

    failures: int | None = attrs.field(default=5, validator=_at_least_one_or_none)
    """Failures in a row, of attempts or of connecting, that open the breaker; None: it never opens."""
    pause: Backoff = attrs.field(factory=lambda: Backoff(initial_s=0.5, delay_s_max=5.0))
    """How long it stays open, growing from one time to the next; then one call is let through to try."""


@attrs.frozen(kw_only=True)
class Freelance:
    """How servers without a broker are used (10/FLP)."""

    ping_interval_s: float = attrs.field(default=1.0, validator=_positive)
    ping_timeout_s: float = attrs.field(default=3.0, validator=_positive)
    """Silence after which a server counts as gone; 2 to 3 intervals."""
    shotgun: bool = False
    """Send each idempotent call to all servers at once and take the first answer, instead of one after the other."""

    def __attrs_post_init__(self) -> None:
        if self.ping_timeout_s < 2 * self.ping_interval_s:
            raise ValueError("Freelance.ping_timeout_s must be at least twice ping_interval_s")


@attrs.frozen(kw_only=True)
class Heartbeat:
    """Heartbeats of MDP, between loops; the ones of ZMTP, between processes, are in ``TransportConfig``."""

    interval_s: float = attrs.field(default=1.0, validator=_positive)
    """How often we say something to a silent peer."""
    timeout_s: float = attrs.field(default=3.0, validator=_positive)
    """Silence after which a peer is no longer taken for live; 3 to 5 intervals."""

    def __attrs_post_init__(self) -> None:
        if self.timeout_s < 2 * self.interval_s:
            raise ValueError("Heartbeat.timeout_s must be at least twice interval_s")


@attrs.frozen(kw_only=True)
class Limits:
    """What a client or worker holds at most."""

    calls_in_flight_max: int = attrs.field(default=10_000, validator=validators.ge(1))
    message_bytes_max: int = attrs.field(default=64 * 1024 * 1024, validator=validators.ge(1024))
    """Of one message, all frames together."""
    replies_kept_bytes_max: int = attrs.field(default=16 * 1024 * 1024, validator=validators.ge(0))
    """Replies that a worker keeps to answer a repeated delivery from."""
    replies_kept_max: int = attrs.field(default=10_000, validator=validators.ge(1))
    stream_parts_max: int = attrs.field(default=10_000, validator=validators.ge(1))
    """Parts of one streamed reply that a client holds for a reader that does not keep up."""


@attrs.frozen(kw_only=True)
class TransportConfig:
    """Options of each link: of its ZeroMQ socket, and how often its times are checked. ZMTP heartbeats are answered by
    libzmq itself: they prove process and link."""

    heartbeat_interval_s: float = attrs.field(default=1.0, validator=_positive)
    heartbeat_timeout_s: float = attrs.field(default=3.0, validator=_positive)
    """Also bounds how long TCP may leave data unacknowledged (TCP_MAXRT) and is sent as the TTL."""
    connect_timeout_s: float = attrs.field(default=1.0, validator=_positive)
    handshake_timeout_s: float = attrs.field(default=2.0, validator=_positive)
    resolve_timeout_s: float = attrs.field(default=2.0, validator=_positive)
    """How long a host name may take to resolve before the next broker is tried."""
    linger_s: float = attrs.field(default=0.1, validator=_not_negative)
    """How long a socket that says goodbye may take to send it."""
    time_check_s: float | None = attrs.field(default=60.0, validator=_positive_or_none)
    """How often a link asks where its broker's clock stands, since deadlines on the wire are counted from the link's
    hello. They are off by at most the difference of the clocks' rates times twice this: at 100 ppm and 60 s, by 12 ms.
    None: never, and then that error grows for as long as the link lives. Only in dialect ``mdp``."""


@attrs.frozen(kw_only=True)
class ClientConfig:
    """All settings of a client."""

    timeout_s: float | None = attrs.field(default=30.0, validator=_positive_or_none)
    """Of a call that names none."""
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    reconnect: Backoff = attrs.field(factory=lambda: Backoff(initial_s=0.1, delay_s_max=1.0))
    """Before a broker that was just lost or unreachable is tried again."""
    hello_timeout_s: float = attrs.field(default=1.0, validator=_positive)
    """Silence to a hello after which the broker is not usable for now."""
    dialect: Dialect = attrs.field(default=Dialect.MDP, converter=_dialect)
    correlate: bool = True
    """In dialect ``req``, put a number in front of each request, as a REQ socket with ZMQ_REQ_CORRELATE does, and take
    no reply without it: then not even a server that answers twice can answer another call. Every REP socket gives it
    back; False is for ROUTER servers that count frames."""
    hedge: HedgePolicy | None = None
    """For calls declared idempotent that say nothing else; None is no hedging."""
    breaker: BreakerPolicy = attrs.field(factory=BreakerPolicy)
    stagger_s: float = attrs.field(default=0.25, validator=_positive)
    """How long a broker may take to come up before the next one in the list is tried beside it."""
    return_after_s: float | None = attrs.field(default=30.0, validator=_positive_or_none)
    """How often a client that had to fail over looks whether an earlier broker of its list is back; None: never."""
    freelance: Freelance = attrs.field(factory=Freelance)
    limits: Limits = attrs.field(factory=Limits)
    transport: TransportConfig = attrs.field(factory=TransportConfig)


@attrs.frozen(kw_only=True)
class WorkerConfig:
    """All settings of a worker."""

    concurrency: int = attrs.field(default=1, validator=validators.and_(validators.ge(1), validators.le(10_000)))
    """Handlers that run at once; the credit that the worker's brokers share."""
    heartbeat: Heartbeat = attrs.field(factory=Heartbeat)
    reconnect: Backoff = attrs.field(factory=lambda: Backoff(initial_s=0.1, delay_s_max=2.0))
    hello_timeout_s: float = attrs.field(default=1.0, validator=_positive)
    started_after_s: float = attrs.field(default=0.2, validator=_positive)
    """A handler that runs longer is reported as started, so that the broker knows where the request is."""
    drain_timeout_s: float = attrs.field(default=10.0, validator=_positive)
    """How long running handlers may take after the worker was asked to stop."""
    replies_kept_s: float = attrs.field(default=60.0, validator=_positive)
    stream_parts_ahead_max: int = attrs.field(default=100, validator=validators.ge(1))
    """Parts of one streamed reply that a generator may be ahead of the worker's loop; then it waits."""
    cancel_grace_s: float = attrs.field(default=1.0, validator=_positive)
    """How long a handler in a process may go on after it was told that nobody waits; then the process is killed."""
    process_spares: int = attrs.field(default=1, validator=validators.and_(validators.ge(0), validators.le(1000)))
    """Handler processes beyond those that can be busy at once: after a crash the next request need not wait until a
    process has started."""
    process_requests_max: int | None = attrs.field(default=None, validator=_at_least_one_or_none)
    """Requests after which a handler process is replaced; None: never for that."""
    process_memory_bytes_max: int | None = attrs.field(default=None, validator=_at_least_one_or_none)
    """Resident memory above which a handler process is replaced after its request; None: never for that."""
    process_start_timeout_s: float = attrs.field(default=30.0, validator=_positive)
    """How long a handler process may take to import its handlers."""
    process_restart: Backoff = attrs.field(factory=lambda: Backoff(initial_s=0.1, delay_s_max=5.0))
    """Before a handler process is started again, from its second death in a row on; at most 0.2 s while those that die
    had come up well."""
    limits: Limits = attrs.field(factory=Limits)
    transport: TransportConfig = attrs.field(factory=TransportConfig)
