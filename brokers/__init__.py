"""Brokers that people run: Majordomo (7/MDP and 18/MDP on one socket), and the two pirate queues."""

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.queue_shell import ParanoidQueue, SimpleQueue
from brokers.queueing import QueueConfig, QueueSnapshot
from brokers.shell import MajordomoBroker
from brokers.snapshot import BrokerSnapshot

__all__ = [
    "BrokerConfig",
    "BrokerSnapshot",
    "MajordomoBroker",
    "MajordomoEngine",
    "ParanoidQueue",
    "QueueConfig",
    "QueueSnapshot",
    "SimpleQueue",
]
