"""The same steps on two stages: the virtual network, and libzmq with the options of our shells, over loopback.

On the real stage links go through a TCP forwarder, which can be told to cut them or to lose what clients say. Both
stages give a ROUTER with ROUTER_MANDATORY and clients whose libzmq does not reconnect.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from chaos.sim.clock import Agenda, VirtualClock
from chaos.sim.network import Connection, Network, NetworkModel, SendResult, ServerSocket, Ways
from chaos.sim.trace import Trace
from reliable.config import TransportConfig
from reliable.messages import read_message, send_message
from reliable.protocol.events import LinkClosed, LinkOpened, Received
from reliable.sync.waiting import SelectorWait
from reliable.transport import LinkTable, open_router
from reliable.types import Frames
from tests.support.losing_proxy import LosingProxy
from tests.support.ports import free_endpoint

__all__ = ["RealStage", "SimulatedStage", "Stage", "real_stage", "simulated_stage"]

_CONFIG: Final = TransportConfig(heartbeat_interval_s=0.2, heartbeat_timeout_s=0.6, linger_s=1.0)
_BYTES_MAX: Final = 1_000_000
_WAIT_S: Final = 5.0
_QUIET_S: Final = 0.25
"""Without news for so long, nothing more is under way on loopback."""

Event = LinkOpened | LinkClosed | Received


class Stage(abc.ABC):
    """A bound ROUTER and the links to it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """What the clients were told, in order."""
        self.peers: list[bytes] = []
        """Routing ids, in the order in which the server heard of them."""
        self._links = 0

    def open(self) -> int:
        """A new link; when this returns it is open, or over."""
        self._links += 1
        number = self._links
        self._connect(number)
        self._until(lambda: any(event.link == number for event in self.events))
        return number

    def says(self, link: int) -> list[str]:
        """What a client was told about a link: the number of each message, and its end."""
        self._pump()
        words = []
        for event in self.events:
            if event.link == link and isinstance(event, Received):
                words.append(event.frames[-1].decode())
            elif event.link == link and isinstance(event, LinkClosed):
                words.append(event.end.name)
        return words

    def end_of(self, link: int) -> str:
        """Wait until a link is over, and say how."""
        self._until(lambda: any(event.link == link and isinstance(event, LinkClosed) for event in self.events))
        return self.says(link)[-1]

    def gone(self, peer: bytes) -> str:
        """Send until the server finds a peer gone, and say how it was told."""
        self._until(lambda: self.down(peer, 99) != SendResult.SENT.name)
        return self.down(peer, 99)

    def server_reads(self) -> list[str]:
        """All that there is to read at the server; afterwards nothing more is under way."""
        words = []
        for message in self._read():
            if message[0] not in self.peers:
                self.peers.append(message[0])
            words.append(message[-1].decode())
        return words

    @abc.abstractmethod
    def up(self, link: int, number: int) -> bool:
        """A client sends; whether its socket takes the message."""

    @abc.abstractmethod
    def down(self, peer: bytes, number: int) -> str:
        """The server sends; the name of the result."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Let everything arrive that is under way; nobody reads."""

    @abc.abstractmethod
    def close(self, link: int, *, linger: bool = False) -> None:
        """The client closes a link."""

    @abc.abstractmethod
    def cut(self) -> None:
        """Reset every connection."""

    @abc.abstractmethod
    def swallow(self) -> None:
        """From now on what clients say is lost without a word, on connections that stand."""

    @abc.abstractmethod
    def stop_server(self) -> None:
        """The server goes, with what it had not read."""

    @abc.abstractmethod
    def start_server(self) -> None:
        """Another one binds the same address."""

    @abc.abstractmethod
    def _connect(self, link: int) -> None: ...

    @abc.abstractmethod
    def _pump(self) -> None: ...

    @abc.abstractmethod
    def _until(self, done: Callable[[], bool]) -> None: ...

    @abc.abstractmethod
    def _read(self) -> list[Frames]: ...


class SimulatedStage(Stage):
    """``chaos.sim.network``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.name = "stage"
        self.frozen = False
        self._clock = VirtualClock()
        self._agenda = Agenda(self._clock)
        model = NetworkModel(heartbeat_timeout_s=0.6)
        self._network = Network(self._agenda, random.Random(seed), Trace(self._clock), model)
        self._address = "tcp://b:1"
        self._connections: dict[int, Connection] = {}
        self._server: ServerSocket | None = None
        self.start_server()

    def deliver(self, event: Event) -> None:
        self.events.append(event)

    def _run(self, seconds: float) -> None:
        self._agenda.run_until(self._clock() + seconds)

    def _connect(self, link: int) -> None:
        self._connections[link] = self._network.connect(self, link, self._address)

    def _pump(self) -> None:
        self._run(0.3)

    def _until(self, done: Callable[[], bool]) -> None:
        end = self._clock() + _WAIT_S
        while not done():
            assert self._clock() < end, self.events
            self._run(0.01)

    def _read(self) -> list[Frames]:
        self._run(1.0)
        assert self._server is not None
        messages = list(self._server.inbox)
        self._server.inbox.clear()
        return messages

    def up(self, link: int, number: int) -> bool:
        return self._network.send(self._connections[link], [b"%d" % number]) is SendResult.SENT

    def down(self, peer: bytes, number: int) -> str:
        assert self._server is not None
        return self._server.send([peer, b"%d" % number]).name

    def settle(self) -> None:
        self._run(0.3)

    def close(self, link: int, *, linger: bool = False) -> None:
        self._network.close(self._connections[link], linger=linger)

    def cut(self) -> None:
        self._network.cut(self.name, self._address)

    def swallow(self) -> None:
        self._network.cut(self.name, self._address, silent=True, ways=Ways.UP)

    def stop_server(self) -> None:
        assert self._server is not None
        self._network.close_server(self._server)
        self._server = None

    def start_server(self) -> None:
        self._server = self._network.bind(self, self._address, lambda: None)


class RealStage(Stage):
    """libzmq, as our shells use it."""

    def __init__(self) -> None:
        super().__init__()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoint = free_endpoint()
        self._server: zmq.Socket[bytes] | None = None
        self.start_server()
        self._proxy = LosingProxy(self._endpoint)
        self._wait = SelectorWait()
        self._table = LinkTable(_CONFIG, self._wait, self._wait.wake, message_bytes_max=_BYTES_MAX)

    def shut(self) -> None:
        self._table.shutdown()
        self._wait.close()
        if self._server is not None:
            self._server.close(linger=0)
        self._proxy.close()
        self._context.term()

    def _connect(self, link: int) -> None:
        # A forwarder would accept for a server that is not there.
        address = self._endpoint if self._server is None else self._proxy.endpoint
        self._table.open(link, address, time.monotonic())

    def _pump(self) -> None:
        deadline = time.monotonic() + _QUIET_S
        while time.monotonic() < deadline:
            told = self._turn(deadline)
            if told:
                deadline = time.monotonic() + _QUIET_S

    def _turn(self, deadline: float) -> int:
        known = len(self.events)
        self.events += self._table.drain(time.monotonic())
        while self._table.dirty:
            self.events += self._table.drain(time.monotonic())
        if len(self.events) == known:
            for ready in self._wait.wait(max(0.0, min(deadline - time.monotonic(), 0.05))):
                ready()
        return len(self.events) - known

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not done():
            assert time.monotonic() < deadline, self.events
            self._turn(deadline)

    def _read(self) -> list[Frames]:
        assert self._server is not None
        messages: list[Frames] = []
        while self._server.poll(int(1000 * _QUIET_S)):
            while (message := read_message(self._server)) is not None:
                messages.append(message)
        return messages

    def up(self, link: int, number: int) -> bool:
        return self._table.send(link, [b"%d" % number])

    def down(self, peer: bytes, number: int) -> str:
        assert self._server is not None
        try:
            send_message(self._server, [peer, b"%d" % number])
        except zmq.Again:
            return SendResult.FULL.name
        except zmq.ZMQError as error:
            assert error.errno == errno.EHOSTUNREACH, error
            return SendResult.UNREACHABLE.name
        return SendResult.SENT.name

    def settle(self) -> None:
        # Nobody may read meanwhile, so there is nothing that could be waited for.
        time.sleep(2 * _QUIET_S)

    def close(self, link: int, *, linger: bool = False) -> None:
        self._table.close(link, linger=linger)

    def cut(self) -> None:
        self._proxy.cut()

    def swallow(self) -> None:
        self._proxy.swallow = True

    def stop_server(self) -> None:
        assert self._server is not None
        self._server.close(linger=0)
        self._server = None
        # libzmq gives the port of a closed socket back in a thread of its own.
        host, _, port = self._endpoint.removeprefix("tcp://").rpartition(":")
        deadline = time.monotonic() + _WAIT_S
        with contextlib.suppress(ConnectionRefusedError):
            while time.monotonic() < deadline:
                # Reset: it was still there when the connection began.
                with contextlib.suppress(ConnectionResetError):
                    socket.create_connection((host, int(port)), 1.0).close()
                time.sleep(0.01)

    def start_server(self) -> None:
        made = open_router(self._context, _CONFIG, message_bytes_max=_BYTES_MAX)
        made.bind(self._endpoint)
        self._server = made


@contextlib.contextmanager
def simulated_stage(seed: int = 1) -> Iterator[Stage]:
    """The virtual one."""
    yield SimulatedStage(seed)


@contextlib.contextmanager
def real_stage() -> Iterator[Stage]:
    """The real one, closed at the end."""
    stage = RealStage()
    try:
        yield stage
    finally:
        stage.shut()
