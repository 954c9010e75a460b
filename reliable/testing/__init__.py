"""What tests of services and of their callers need: brokers, workers, faults, and simulated worlds.

Everything here works with any test runner. With pytest it is also there as fixtures (``reliable_broker`` and others),
without anything to import. Every wait has a bound, and what a block or a test began is gone when it ends.

    with running_broker() as broker, running_worker(add, broker), Client(broker.endpoint) as client:
        assert client.call("add", 2, 3) == 5
"""

from __future__ import annotations

from reliable.testing.brokers import RunningBroker, running_broker
from reliable.testing.clients import close_async_client
from reliable.testing.partitions import Hosts, Partition
from reliable.testing.processes import WorkerProcess
from reliable.testing.proxies import running_proxy, running_toxiproxy
from reliable.testing.serving import Offered, as_worker
from reliable.testing.settings import QUICK_BROKER, QUICK_CLIENT, QUICK_TRANSPORT, QUICK_WORKER
from reliable.testing.simulation import Simulation, SimulationFailed
from reliable.testing.simulation_client import SimulatedCall, SimulatedClient
from reliable.testing.waiting import LeftRunning, eventually
from reliable.testing.workers import RunningWorker, running_worker

__all__ = [
    "QUICK_BROKER",
    "QUICK_CLIENT",
    "QUICK_TRANSPORT",
    "QUICK_WORKER",
    "Hosts",
    "LeftRunning",
    "Offered",
    "Partition",
    "RunningBroker",
    "RunningWorker",
    "SimulatedCall",
    "SimulatedClient",
    "Simulation",
    "SimulationFailed",
    "WorkerProcess",
    "as_worker",
    "close_async_client",
    "eventually",
    "running_broker",
    "running_proxy",
    "running_toxiproxy",
    "running_worker",
]
