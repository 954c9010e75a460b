"""Settings as frozen values, and the pure arithmetic on them.

Durations are float seconds and end in ``_s``; sizes end in ``_bytes``; the qualifier comes last. ``None`` means no
limit, and zero is refused where it would mean "at once, for ever". Bad settings raise ``ValueError`` when built.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import validators

__all__ = ["Backoff", "ClientConfig", "Heartbeat", "Limits", "RetryPolicy", "TransportConfig", "WorkerConfig"]

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
class RetryPolicy:
    """How a client goes on after an attempt stayed silent or failed."""

    attempts: int | None = attrs.field(default=5, validator=_at_least_one_or_none)
    """How many attempts of one call may fail; then it ends. A wait for a broker that cannot be reached is no attempt,
    nor is asking a broker that answers "still queued" or "still running". None: only the deadline ends it."""
    attempt_timeout_s: float = attrs.field(default=2.5, validator=_positive)
    """Silence after which an attempt counts as failed. Longer runs are fine: the broker answers for them."""
    backoff: Backoff = attrs.field(factory=Backoff)

    @classmethod
    def never(cls) -> RetryPolicy:
        """One attempt, which may stay silent until the deadline."""
        return cls(attempts=1)


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


@attrs.frozen(kw_only=True)
class TransportConfig:
    """Options of each ZeroMQ socket. ZMTP heartbeats are answered by libzmq itself: they prove process and link."""

    heartbeat_interval_s: float = attrs.field(default=1.0, validator=_positive)
    heartbeat_timeout_s: float = attrs.field(default=3.0, validator=_positive)
    """Also bounds how long TCP may leave data unacknowledged (TCP_MAXRT) and is sent as the TTL."""
    connect_timeout_s: float = attrs.field(default=1.0, validator=_positive)
    handshake_timeout_s: float = attrs.field(default=2.0, validator=_positive)
    resolve_timeout_s: float = attrs.field(default=2.0, validator=_positive)
    """How long a host name may take to resolve before the next broker is tried."""
    linger_s: float = attrs.field(default=0.1, validator=_not_negative)
    """How long a socket that says goodbye may take to send it."""


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
    limits: Limits = attrs.field(factory=Limits)
    transport: TransportConfig = attrs.field(factory=TransportConfig)
