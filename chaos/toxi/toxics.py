"""What Toxiproxy can do to a connection: one frozen class per toxic, in seconds and bytes.

The server counts in milliseconds, microseconds and kilobytes, as whole numbers, and takes any attribute it does not
know without a word: a misspelt one makes a toxic that does nothing. So only these classes write attributes, each
refuses a value that the server could not hold exactly, and each can be made again from what the server reports, which
is how a caller knows that the fault is really there.

A toxic starts with the next piece of data of a connection, so one already open feels it too. ZeroMQ keeps one
connection for all its messages: a ``toxicity`` below 1 is drawn once per connection, not per message.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import attrs

__all__ = [
    "Bandwidth",
    "Blackhole",
    "Direction",
    "Latency",
    "LimitData",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Toxic",
    "from_wire",
]

_MS_PER_S = 1_000
_US_PER_S = 1_000_000
_BYTES_PER_KB = 1_000
# Floats such as 0.3 are not exact multiples of a unit; this far from one is still a rounding error.
_ROUNDING = 1e-6


class Direction(enum.Enum):
    """Which way of the connection a toxic works on; the value is the server's word for it."""

    TO_CLIENT = "downstream"
    TO_SERVER = "upstream"


def _units(name: str, value: float, per_unit: float) -> int:
    scaled = value * per_unit
    whole = round(scaled)
    if abs(scaled - whole) > _ROUNDING:
        raise ValueError(f"{name} is {value!r}, which the proxy cannot hold: its unit is 1/{per_unit:g}")
    return whole


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be zero or more, not {value!r}")


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be positive, not {value!r}")


@attrs.frozen(kw_only=True)
class Latency:
    """Each piece of data arrives later, give or take the jitter; order is kept."""

    kind: ClassVar[str] = "latency"
    latency_s: float = attrs.field(validator=_not_negative)
    jitter_s: float = attrs.field(default=0.0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        self.attributes()

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {
            "latency": _units("latency_s", self.latency_s, _MS_PER_S),
            "jitter": _units("jitter_s", self.jitter_s, _MS_PER_S),
        }

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> Latency:
        """The toxic that the server reports."""
        return cls(latency_s=found["latency"] / _MS_PER_S, jitter_s=found["jitter"] / _MS_PER_S)


@attrs.frozen(kw_only=True)
class Bandwidth:
    """Data flows no faster than this, in thousands of bytes per second."""

    kind: ClassVar[str] = "bandwidth"
    bytes_per_s: int = attrs.field(validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.bytes_per_s % _BYTES_PER_KB:
            raise ValueError(f"bytes_per_s must be a multiple of {_BYTES_PER_KB}, not {self.bytes_per_s!r}")

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {"rate": self.bytes_per_s // _BYTES_PER_KB}

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> Bandwidth:
        """The toxic that the server reports."""
        return cls(bytes_per_s=found["rate"] * _BYTES_PER_KB)


@attrs.frozen(kw_only=True)
class SlowClose:
    """The end of the connection is told later."""

    kind: ClassVar[str] = "slow_close"
    delay_s: float = attrs.field(validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        self.attributes()

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {"delay": _units("delay_s", self.delay_s, _MS_PER_S)}

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> SlowClose:
        """The toxic that the server reports."""
        return cls(delay_s=found["delay"] / _MS_PER_S)


@attrs.frozen(kw_only=True)
class Blackhole:
    """All data vanishes while the connection stays open (the server calls this toxic "timeout").

    Args:
        close_after_s: Close the connection after that long; 0 never does, until the toxic is taken away. An open
            connection without traffic was seen to outlive it.
    """

    kind: ClassVar[str] = "timeout"
    close_after_s: float = attrs.field(default=0.0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        self.attributes()

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {"timeout": _units("close_after_s", self.close_after_s, _MS_PER_S)}

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> Blackhole:
        """The toxic that the server reports."""
        return cls(close_after_s=found["timeout"] / _MS_PER_S)


@attrs.frozen(kw_only=True)
class ResetPeer:
    """The connection is broken off by a TCP reset, at once or after a while; until then its data vanishes."""

    kind: ClassVar[str] = "reset_peer"
    after_s: float = attrs.field(default=0.0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        self.attributes()

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {"timeout": _units("after_s", self.after_s, _MS_PER_S)}

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> ResetPeer:
        """The toxic that the server reports."""
        return cls(after_s=found["timeout"] / _MS_PER_S)


@attrs.frozen(kw_only=True)
class Slicer:
    """Data arrives in small pieces, with a pause after each."""

    kind: ClassVar[str] = "slicer"
    average_bytes: int = attrs.field(validator=_positive)
    variation_bytes: int = attrs.field(default=0, validator=_not_negative)
    delay_s: float = attrs.field(default=0.0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        if self.variation_bytes >= self.average_bytes:
            raise ValueError("variation_bytes must be smaller than average_bytes")
        self.attributes()

    def attributes(self) -> dict[str, int]:
        """The server's names and units; the delay alone is in microseconds."""
        return {
            "average_size": self.average_bytes,
            "size_variation": self.variation_bytes,
            "delay": _units("delay_s", self.delay_s, _US_PER_S),
        }

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> Slicer:
        """The toxic that the server reports."""
        return cls(
            average_bytes=found["average_size"],
            variation_bytes=found["size_variation"],
            delay_s=found["delay"] / _US_PER_S,
        )


@attrs.frozen(kw_only=True)
class LimitData:
    """The connection is closed once that many bytes went through, wherever in a message that falls."""

    kind: ClassVar[str] = "limit_data"
    limit_bytes: int = attrs.field(validator=_not_negative)

    def attributes(self) -> dict[str, int]:
        """The server's names and units."""
        return {"bytes": self.limit_bytes}

    @classmethod
    def from_attributes(cls, found: Mapping[str, int]) -> LimitData:
        """The toxic that the server reports."""
        return cls(limit_bytes=found["bytes"])


Toxic: TypeAlias = Latency | Bandwidth | SlowClose | Blackhole | ResetPeer | Slicer | LimitData

_CLASSES: dict[str, type[Toxic]] = {
    toxic.kind: toxic for toxic in (Latency, Bandwidth, SlowClose, Blackhole, ResetPeer, Slicer, LimitData)
}


def from_wire(kind: str, attributes: Mapping[str, int]) -> Toxic:
    """The toxic that a server reports.

    Raises:
        ValueError: No such toxic, or not its attributes.
    """
    known = _CLASSES.get(kind)
    if known is None:
        raise ValueError(f"unknown toxic {kind!r}")
    try:
        return known.from_attributes(attributes)
    except KeyError as missing:
        raise ValueError(f"toxic {kind!r} was reported without {missing}: {dict(attributes)}") from missing
