"""What the brokers say about themselves while a scenario runs: queues, tables, and the state of each worker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from reliable import Client
from reliable.config import Backoff, BreakerPolicy, ClientConfig
from reliable.errors import ReliableError
from reliable.wire.mmi import FOUND, STATUS_QUERY

__all__ = ["Sample", "Watch", "read_status"]

_EVERY_S: Final = 0.15
_ANSWER_S_MAX: Final = 0.5
_JOIN_S: Final = 3.0


@attrs.frozen
class Sample:
    """One look at one broker; ``at`` is a reading of the monotonic clock."""

    at: float
    broker: str
    life: str
    queued: int
    over: tuple[str, ...]
    """Tables that hold more than their limit, in words."""
    workers: Mapping[str, str]
    """State by name of the incarnation."""
    counters: Mapping[str, int]


def read_status(broker: str, at: float, snapshot: Mapping[str, Any], own_names: frozenset[str] | None) -> Sample:
    """A sample from what a broker answers.

    Args:
        broker: Its name.
        at: When it was asked.
        snapshot: Its answer.
        own_names: Services that are no worker's name; None: workers have no service of their own name, and are called
            by their instance.
    """
    usage, limits = snapshot.get("usage", {}), snapshot.get("limits", {})
    workers = {}
    for worker in snapshot.get("workers", []):
        if own_names is None:
            names = [str(worker.get("instance") or worker.get("peer"))]
        else:
            names = [name for name in worker["services"] if name not in own_names]
        if names:
            workers[names[0]] = str(worker["state"])
    over = tuple(
        f"{name} {usage[name]} of {limit}"
        for name in usage
        if (limit := limits.get(f"{name}_max")) is not None and usage[name] > limit
    )
    return Sample(at, broker, str(snapshot["life"]), int(usage["queued"]), over, workers, dict(snapshot["counters"]))


class Watch:
    """Looks at all brokers, in a thread, by a way that no fault concerns.

    Args:
        addresses: By the broker's name.
        own_names: As for ``read_status``.
    """

    def __init__(self, addresses: Mapping[str, str], own_names: frozenset[str] | None) -> None:
        self.samples: list[Sample] = []
        config = ClientConfig(
            timeout_s=_ANSWER_S_MAX,
            reconnect=Backoff(initial_s=0.05, delay_s_max=0.1),
            breaker=BreakerPolicy(failures=None),
        )
        self._clients = {name: Client(address, config=config) for name, address in addresses.items()}
        self._own_names = own_names
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; calling it again does nothing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for client in self._clients.values():
            client.close()

    def latest(self, broker: str, since: float) -> Sample | None:
        """The last look at a broker, if it is not older than ``since``."""
        for sample in reversed(self.samples):
            if sample.broker == broker:
                return sample if sample.at >= since else None
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, client in self._clients.items():
                self._look(name, client)
            self._stopping.wait(_EVERY_S)

    def _look(self, name: str, client: Client) -> None:
        try:
            asked = time.monotonic()
            frames = client.request(STATUS_QUERY.decode(), b"", idempotent=True)
        except ReliableError:
            # A broker that is down has nothing to say; its process is watched elsewhere.
            return
        if len(frames) > 1 and frames[0] == FOUND:
            self.samples.append(read_status(name, asked, json.loads(frames[1]), self._own_names))
