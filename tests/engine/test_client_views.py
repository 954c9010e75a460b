"""What the client shows of its brokers."""

from __future__ import annotations

from reliable.config import ClientConfig
from reliable.engine.brokers import FOREIGN_S, Brokers
from reliable.engine.client_views import BrokerView


def test_a_broker_is_shown_in_one_word() -> None:
    """Status commands print it; each state asks something else of the reader."""
    brokers = Brokers(["a"], ClientConfig())
    broker = brokers["a"]
    assert BrokerView.of(broker, 0.0) == BrokerView("a", "unknown", "", 0)
    brokers.failed(broker, "refused", 0.0, 0.5)
    assert BrokerView.of(broker, 0.0) == BrokerView("a", "unreachable", "", 1)
    brokers.found(broker, b"life-one", 0.0)
    assert BrokerView.of(broker, 0.0) == BrokerView("a", "usable", b"life-one".hex(), 1)
    brokers.foreign(broker, "501", 0.0)
    assert BrokerView.of(broker, FOREIGN_S - 1).state == "foreign"
    assert BrokerView.of(broker, FOREIGN_S + 1).state == "unreachable"
    for _ in range(5):
        broker.breaker.failed(0.0, 0.0)
    assert BrokerView.of(broker, 0.0).breaker == "open"
