"""Brokers that people run: Majordomo (7/MDP and 18/MDP on one socket)."""

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.shell import MajordomoBroker
from brokers.snapshot import BrokerSnapshot

__all__ = ["BrokerConfig", "BrokerSnapshot", "MajordomoBroker", "MajordomoEngine"]
