"""``chaos.toxi.toxics``: seconds and bytes outside, the server's units inside, and nothing lost between them."""

from __future__ import annotations

import math

import pytest

from chaos.toxi.toxics import (
    Bandwidth,
    Blackhole,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Toxic,
    from_wire,
)

EXAMPLES: list[tuple[Toxic, str, dict[str, int]]] = [
    (Latency(latency_s=0.3, jitter_s=0.2), "latency", {"latency": 300, "jitter": 200}),
    (Latency(latency_s=0.007), "latency", {"latency": 7, "jitter": 0}),
    (Bandwidth(bytes_per_s=1_000), "bandwidth", {"rate": 1}),
    (SlowClose(delay_s=0.5), "slow_close", {"delay": 500}),
    (Blackhole(), "timeout", {"timeout": 0}),
    (Blackhole(close_after_s=1.5), "timeout", {"timeout": 1500}),
    (ResetPeer(after_s=0.25), "reset_peer", {"timeout": 250}),
    (
        Slicer(average_bytes=20, variation_bytes=10, delay_s=0.0002),
        "slicer",
        {"average_size": 20, "size_variation": 10, "delay": 200},
    ),
    (LimitData(limit_bytes=5_000), "limit_data", {"bytes": 5_000}),
]


@pytest.mark.parametrize(("toxic", "kind", "attributes"), EXAMPLES, ids=repr)
def test_toxic_is_written_in_the_units_of_the_server(toxic: Toxic, kind: str, attributes: dict[str, int]) -> None:
    """Milliseconds, microseconds and kilobytes differ by a factor of a thousand that no server would notice."""
    assert (toxic.kind, toxic.attributes()) == (kind, attributes)


@pytest.mark.parametrize(("toxic", "kind", "attributes"), EXAMPLES, ids=repr)
def test_toxic_is_made_again_from_what_the_server_reports(toxic: Toxic, kind: str, attributes: dict[str, int]) -> None:
    """Reading back proves a fault only if equal means equal."""
    assert from_wire(kind, attributes) == toxic


def test_value_between_two_units_is_refused() -> None:
    """The server holds whole units; half of one would silently become none."""
    with pytest.raises(ValueError, match="cannot hold"):
        Latency(latency_s=0.0005)
    with pytest.raises(ValueError, match="multiple of 1000"):
        Bandwidth(bytes_per_s=1_500)
    assert Slicer(average_bytes=2, delay_s=0.0005).attributes()["delay"] == 500


@pytest.mark.parametrize("value", [-0.001, -1.0, math.inf, math.nan])
def test_durations_are_finite_and_not_negative(value: float) -> None:
    """A negative one is taken by the server as none at all."""
    with pytest.raises(ValueError, match="zero or more"):
        Latency(latency_s=value)


def test_slices_stay_positive() -> None:
    """A variation as large as the average would ask for empty slices."""
    with pytest.raises(ValueError, match="smaller than"):
        Slicer(average_bytes=10, variation_bytes=10)
    with pytest.raises(ValueError, match="must be positive"):
        Bandwidth(bytes_per_s=0)


def test_unknown_toxics_and_missing_attributes_are_refused() -> None:
    """What the server reports is checked like all that comes from outside."""
    with pytest.raises(ValueError, match="unknown toxic"):
        from_wire("lateny", {})
    with pytest.raises(ValueError, match="without 'jitter'"):
        from_wire("latency", {"latency": 1})
