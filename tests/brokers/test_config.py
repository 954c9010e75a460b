"""Settings of the broker: what is refused when they are built."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from brokers.config import BrokerConfig
from reliable.config import Heartbeat

COUNTS = [
    field.name for field in attrs.fields(BrokerConfig) if field.name.endswith("_max") or field.name == "delivery_cap"
]
DURATIONS = [field.name for field in attrs.fields(BrokerConfig) if field.name.endswith("_s")]


def build(name: str, value: Any) -> BrokerConfig:
    """Settings with one value changed, whatever its type."""
    return BrokerConfig(**{name: value})


def test_defaults_are_valid_and_frozen() -> None:
    """Whoever starts a broker without a setting gets a working one that nobody changes under it."""
    config = BrokerConfig()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.limbo_s = 2.0  # type: ignore[misc]
    assert config.heartbeat == Heartbeat()


@pytest.mark.parametrize("name", COUNTS)
def test_every_bound_refuses_values_below_its_least(name: str) -> None:
    """A bound of zero or less would refuse everything, or nothing, for ever."""
    with pytest.raises((ValueError, TypeError), match=name):
        build(name, -1)


@pytest.mark.parametrize("name", COUNTS)
def test_bounds_are_whole_numbers(name: str) -> None:
    """Half a request is a typing error worth hearing about at once."""
    with pytest.raises(TypeError, match=name):
        build(name, 1.5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", DURATIONS)
def test_durations_are_positive_and_finite(name: str, value: float) -> None:
    """Zero means at once, for ever; infinity is what None is for. Only a drain may take no time: there is none then."""
    if name == "drain_s" and value == 0.0:
        assert build(name, value).drain_s == 0.0
        return
    with pytest.raises(ValueError, match=name):
        build(name, value)


def test_only_the_overdue_slot_may_wait_for_ever() -> None:
    """None switches a timeout off; the others have none, for something would wait without an end."""
    assert BrokerConfig(overdue_slot_s=None).overdue_slot_s is None
    for name in set(DURATIONS) - {"overdue_slot_s"}:
        with pytest.raises(TypeError):
            build(name, None)


def test_reply_cache_may_be_off() -> None:
    """Zero bytes is a sensible choice: ids are still remembered, bodies are not."""
    assert BrokerConfig(reply_cache_bytes_max=0).reply_cache_bytes_max == 0


def test_retry_after_fits_into_its_field() -> None:
    """It travels as 32 bits of milliseconds; a setting that does not fit would break each refusal."""
    assert BrokerConfig(retry_after_s=86_400.0).retry_after_s == 86_400.0
    with pytest.raises(ValueError, match="retry_after_s"):
        BrokerConfig(retry_after_s=86_401.0)
