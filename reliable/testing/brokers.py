"""A broker in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from typing import Final, Protocol

from brokers.config import BrokerConfig
from brokers.shell import MajordomoBroker
from brokers.snapshot import BrokerSnapshot
from chaos.ports import free_port
from reliable.config import TransportConfig
from reliable.testing.settings import QUICK_BROKER, QUICK_TRANSPORT
from reliable.testing.waiting import END_S_MAX, LeftRunning, join

__all__ = ["HasEndpoint", "RunningBroker", "endpoint_of", "running_broker"]

_BIND_TRIES: Final = 5


class HasEndpoint(Protocol):
    """A broker, or a proxy in front of one."""

    @property
    def endpoint(self) -> str:
        """Where to connect."""


def endpoint_of(broker: str | HasEndpoint) -> str:
    """The address of a broker that is given by it, or as something that has it."""
    return broker if isinstance(broker, str) else broker.endpoint


class RunningBroker:
    """A Majordomo broker that serves until ``stop``; it may be started again at the same address, as a new life.

    Args:
        endpoint: Where to listen; None is a free port on 127.0.0.1.
        config: Settings; by default quick ones, for tests.
        transport: Likewise.

    Raises:
        OSError: The address cannot be bound.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        config: BrokerConfig = QUICK_BROKER,
        transport: TransportConfig = QUICK_TRANSPORT,
    ) -> None:
        self._config = config
        self._transport = transport
        self._broker: MajordomoBroker | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.endpoint = endpoint or ""
        """Where clients and workers connect."""
        self._start(endpoint)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint}{'' if self.running else ' stopped'}>"

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def life(self) -> bytes:
        """8 bytes that name this run; another one after ``start``."""
        assert self._broker is not None
        return self._broker.life

    def snapshot(self) -> BrokerSnapshot:
        """How it sees itself: services, workers, queues, counters."""
        assert self._broker is not None
        return self._broker.snapshot()

    def start(self) -> None:
        """Serve again, at the same address, knowing nothing of before. Nothing if it runs.

        Raises:
            OSError: Somebody has taken the address meanwhile.
        """
        if not self.running:
            self._start(self.endpoint)

    def stop(self, drain_s: float | None = None) -> None:
        """End as SIGTERM ends it: clients and workers are told. A second time does nothing.

        Args:
            drain_s: How long to wait for what workers hold; None: as in ``config``, which says not at all if it is the
                quick one.

        Raises:
            LeftRunning: It does not end.
            BaseException: What its loop raised, if it ended so.
        """
        if self._broker is None or self._thread is None:
            return
        self._broker.stop(drain_s)
        patience_s = END_S_MAX + (self._config.drain_s if drain_s is None else drain_s)
        join(self._thread, f"the broker at {self.endpoint}", patience_s)
        self._thread = None
        if self._error is not None:
            raise self._error

    def restart(self) -> None:
        """Stop and start: calls that were running end with outcome UNKNOWN, or are made again if they may be."""
        self.stop()
        self.start()

    def _start(self, endpoint: str | None) -> None:
        broker = self._broker = self._bound(endpoint)
        self.endpoint = broker.endpoints[0]
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(broker,), name=f"broker {self.endpoint}", daemon=True)
        self._thread.start()

    def _bound(self, endpoint: str | None) -> MajordomoBroker:
        for attempt in range(1, _BIND_TRIES + 1):
            address = endpoint or f"tcp://127.0.0.1:{free_port()}"
            broker = MajordomoBroker([address], self._config, self._transport)
            try:
                broker.bind()
            except OSError as error:
                # Another process may take the port between the look and the bind.
                if endpoint is not None or error.errno != errno.EADDRINUSE or attempt == _BIND_TRIES:
                    raise
            else:
                return broker
        raise AssertionError("unreachable: the last try raises")

    def _run(self, broker: MajordomoBroker) -> None:
        try:
            broker.run()
        except BaseException as error:
            self._error = error


@contextlib.contextmanager
def running_broker(
    endpoint: str | None = None,
    *,
    config: BrokerConfig = QUICK_BROKER,
    transport: TransportConfig = QUICK_TRANSPORT,
) -> Iterator[RunningBroker]:
    """A broker that serves inside the block; see ``RunningBroker``.

    Raises:
        OSError: The address cannot be bound.
        LeftRunning: It does not end.
    """
    broker = RunningBroker(endpoint, config=config, transport=transport)
    try:
        yield broker
    except BaseException:
        # What went wrong in the block is what its writer must see.
        with contextlib.suppress(LeftRunning):
            broker.stop()
        raise
    broker.stop()
