"""Settings for tests: as in production, only faster, so that a loss shows within a second."""

from __future__ import annotations

from typing import Final

from brokers.config import BrokerConfig
from reliable.config import Backoff, ClientConfig, Heartbeat, RetryPolicy, TransportConfig, WorkerConfig

__all__ = ["QUICK_BROKER", "QUICK_CLIENT", "QUICK_TRANSPORT", "QUICK_WORKER"]

_HEARTBEAT: Final = Heartbeat(interval_s=0.2, timeout_s=0.8)
_RECONNECT: Final = Backoff(initial_s=0.05, delay_s_max=0.2)

QUICK_TRANSPORT: Final = TransportConfig(heartbeat_interval_s=0.3, heartbeat_timeout_s=1.0, connect_timeout_s=0.5)
"""A silent connection is given up after a second."""
QUICK_BROKER: Final = BrokerConfig(heartbeat=_HEARTBEAT, drain_s=0.0)
"""A silent worker is lost after 0.8 s. Told to stop, it goes at once, whatever workers hold."""
QUICK_CLIENT: Final = ClientConfig(
    timeout_s=10.0,
    retry=RetryPolicy(attempts=10, attempt_timeout_s=1.0, backoff=Backoff(initial_s=0.02, delay_s_max=0.2)),
    reconnect=_RECONNECT,
    transport=QUICK_TRANSPORT,
)
"""10 s for a call that names no time; an attempt that stays silent is repeated after a second."""
QUICK_WORKER: Final = WorkerConfig(
    heartbeat=_HEARTBEAT,
    reconnect=_RECONNECT,
    started_after_s=0.1,
    drain_timeout_s=2.0,
    transport=QUICK_TRANSPORT,
)
"""A silent broker is left after 0.8 s."""
