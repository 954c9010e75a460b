"""A network with ZeroMQ's loss model, as measured on libzmq 4.3.5 over TCP.

* Per connection and direction messages arrive in order, at most once, each after a seeded delay.
* A **cut** loses a suffix of what is in flight in each direction, and everything sent into the dead connection before
  its end noticed. A reset is noticed at once, a silent cut after the ZMTP heartbeat timeout, by each end on its own.
* What had arrived before stays readable: a closed link is reported behind its last message, and a ROUTER still reads
  what a dead peer had sent.
* A ROUTER gives each connection a new routing id. Every run of a process starts to count at the same value, so that a
  restarted broker gives out the ids of its former life again.
* Sending to a routing id whose connection is gone is an error that says so (ROUTER_MANDATORY); sending into a full
  pipe is another one.
* Libzmq's own reconnecting is off: a connection that ended never comes back, so nothing queued on it reaches anybody.
* A **clog** delays without losing (TCP repeats what packet loss swallowed); a **partition** is a silent cut during
  which connecting times out.
* A **frozen** process reads and sends nothing; its peers cut it off when its ZMTP heartbeats stay away.

Not modelled: descriptor edges, PONGs behind a full receive pipe, name resolution, frames torn by a cut (libzmq drops
a torn message whole). Those have tests on real sockets.
"""

from __future__ import annotations

import enum
import functools
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from chaos.sim.clock import Agenda, Appointment
from chaos.sim.trace import Trace
from reliable.protocol.events import LinkClosed, LinkEnd, LinkOpened, Received
from reliable.types import Frames

__all__ = [
    "FIRST_ROUTING_ID",
    "Connection",
    "LinkOwner",
    "Loss",
    "Network",
    "NetworkModel",
    "Process",
    "SendResult",
    "ServerSocket",
    "Ways",
]

FIRST_ROUTING_ID: Final = 0x6B8B4567
"""What an unseeded libzmq on glibc starts to count at, in every process."""


class Ways(enum.Enum):
    """Directions of a connection, as seen from the connecting process."""

    UP = "up"
    DOWN = "down"
    BOTH = "both ways"


class Loss(enum.Enum):
    """How many of the messages in flight a cut or an abrupt close loses; the first ones arrive in any case."""

    DRAWN = "as drawn"
    NONE = "none"
    ALL = "all"


class SendResult(enum.Enum):
    """What became of a send without blocking."""

    SENT = "sent"
    FULL = "full"
    """EAGAIN."""
    UNREACHABLE = "unreachable"
    """EHOSTUNREACH: the connection is gone, or never was."""


_SENT: Final = SendResult.SENT


@attrs.frozen(kw_only=True)
class NetworkModel:
    """How the network behaves when nothing is done to it. Pairs are bounds of a uniform draw, in seconds."""

    delay_s: tuple[float, float] = (0.0002, 0.003)
    """One message, one way."""
    notice_s: tuple[float, float] = (0.0005, 0.05)
    """Until an end learns of a reset or of a close."""
    heartbeat_timeout_s: float = 3.0
    """ZMTP: silence after which an end gives a connection up; up to one more second passes until it is seen."""
    connect_timeout_s: float = 1.0
    handshake_timeout_s: float = 2.0
    messages_in_flight_max: int = 1000
    """Per connection and direction; the high-water mark."""
    monitored: bool = False
    """A bound socket's process hears that some connection ended, as from a socket monitor; it is not told whose."""


class Process(Protocol):
    """What a network needs to know of a process."""

    name: str
    frozen: bool
    """Stopped by a signal: none of its threads runs."""


class LinkOwner(Process, Protocol):
    """A process that connects: it gets the events of its links, in order."""

    def deliver(self, event: LinkOpened | LinkClosed | Received) -> None:
        """Put an event where the process finds it when it runs."""


class _Pipe:
    """One direction of a connection."""

    def __init__(self, arrived: Callable[[Frames], None]) -> None:
        self.flight: deque[tuple[Appointment, Frames]] = deque()
        self.dead = False
        """Whatever is sent from now on is lost."""
        self.last_arrival = 0.0
        self._arrived = arrived

    def arrive(self) -> None:
        """The first message in flight comes out."""
        self._arrived(self.flight.popleft()[1])

    def cut(self, keep: int) -> None:
        """Lose everything in flight behind the first ``keep`` messages, and everything sent later."""
        self.dead = True
        while len(self.flight) > keep:
            self.flight.pop()[0].cancel()
        self.last_arrival = self.flight[-1][0].when if self.flight else 0.0


class Connection:
    """One ZMTP connection between a link of a process and a bound socket."""

    def __init__(self, owner: LinkOwner, link: int, address: str) -> None:
        self.owner = owner
        self.link = link
        self.address = address
        self.server: ServerSocket | None = None
        self.routing_id = b""
        self.up = _Pipe(self._arrived_up)
        self.down = _Pipe(self._arrived_down)
        self.open_at_client = False
        self.over_at_client = False
        """The owner closed it or was told of its end: no event about it any more."""
        self.over = False
        """Cut; its ends may not have noticed yet."""

    def __repr__(self) -> str:
        return f"{self.owner.name}/{self.link}>{self.address}"

    def _arrived_up(self, frames: Frames) -> None:
        server = self.server
        if server is not None and not server.closed:
            server.inbox.append([self.routing_id, *frames])
            server.wake()

    def _arrived_down(self, frames: Frames) -> None:
        if not self.over_at_client:
            self.owner.deliver(Received(self.link, frames))


class ServerSocket:
    """A bound ROUTER with ROUTER_MANDATORY."""

    def __init__(self, network: Network, process: Process, address: str, readable: Callable[[], None]) -> None:
        self.process = process
        self.address = address
        self.peers: dict[bytes, Connection] = {}
        self.inbox: deque[Frames] = deque()
        """What arrived and was not read; it outlives the connection it came by."""
        self.waiting: list[Connection] = []
        """Connected by the kernel while the process is frozen: no handshake yet."""
        self.closed = False
        self.ended_unread = 0
        """Ends of connections that the monitor has told and nobody has read."""
        self.wake = readable
        self._network = network
        self._next_id = FIRST_ROUTING_ID

    def accept(self, connection: Connection) -> None:
        """Give the new connection its routing id."""
        connection.routing_id = b"\x00" + self._next_id.to_bytes(4, "big")
        self._next_id += 1
        self.peers[connection.routing_id] = connection

    def send(self, message: Frames) -> SendResult:
        """Send ``message``, whose first frame is the routing id, without blocking."""
        connection = self.peers.get(message[0])
        if connection is None:
            return SendResult.UNREACHABLE
        return self._network.transmit(connection.down, message[1:])


class Network:
    """All connections, and everything that can be done to them."""

    def __init__(self, agenda: Agenda, rng: random.Random, trace: Trace, model: NetworkModel | None = None) -> None:
        self.model = model or NetworkModel()
        self.loss = Loss.DRAWN
        """May be changed at any time, for scenarios that need one certain loss."""
        self._agenda = agenda
        self._rng = rng
        self._trace = trace
        # As _delay() draws; read once, for there is nothing that is done more often.
        self._random = rng.random
        self._least_s, self._more_s = self.model.delay_s[0], self.model.delay_s[1] - self.model.delay_s[0]
        self._in_flight_max = self.model.messages_in_flight_max
        self._servers: dict[str, ServerSocket] = {}
        self._connections: list[Connection] = []
        self._parted: set[tuple[str, str]] = set()
        self._silences: dict[str, list[Appointment]] = {}

    # --- what processes do ----------------------------------------------------------------------------

    def bind(self, process: Process, address: str, readable: Callable[[], None]) -> ServerSocket:
        """Bind a ROUTER; ``readable`` is called for each message that arrives."""
        if address in self._servers:
            raise ValueError(f"{address} is in use")
        server = self._servers[address] = ServerSocket(self, process, address, readable)
        return server

    def connect(self, owner: LinkOwner, link: int, address: str) -> Connection:
        """Start to connect; the owner gets ``LinkOpened`` or ``LinkClosed``."""
        connection = Connection(owner, link, address)
        self._connections.append(connection)
        self._agenda.after(2 * self._delay(), lambda: self._connected(connection))
        return connection

    def send(self, connection: Connection, frames: Frames) -> SendResult:
        """Send from the connecting end without blocking. What is accepted may still be lost."""
        if not connection.open_at_client or connection.over_at_client:
            return SendResult.UNREACHABLE
        return self.transmit(connection.up, frames)

    def transmit(self, pipe: _Pipe, frames: Frames) -> SendResult:
        """Put one message into a direction of a connection."""
        if pipe.dead:
            return _SENT  # into a dead connection whose end has not noticed: accepted and lost
        if len(pipe.flight) >= self._in_flight_max:
            return SendResult.FULL
        arrival = self._agenda.clock.reading + self._least_s + self._more_s * self._random()
        if arrival > pipe.last_arrival:
            pipe.last_arrival = arrival
        self._put(pipe, frames)
        return _SENT

    def close(self, connection: Connection, *, linger: bool = False) -> None:
        """The connecting end closes. With ``linger`` everything sent before still arrives, else a prefix of it."""
        connection.over_at_client = True
        if connection.over:
            return
        self._over(connection)
        connection.down.cut(0)
        self._cut_pipe(connection.up, keep_all=linger)
        self._server_notices(connection, self._notice())

    def close_server(self, server: ServerSocket, *, linger: bool = False) -> None:
        """The bound end goes away, killed or (``linger``) closed in peace; unread input is lost with it."""
        server.closed = True
        server.inbox.clear()
        self._servers.pop(server.address, None)
        for connection in [c for c in self._connections if c.server is server]:
            self._over(connection)
            connection.up.cut(0)
            self._cut_pipe(connection.down, keep_all=linger)
            self._client_notices(connection, self._notice())
        for connection in server.waiting:
            self._end_at_client(connection, LinkEnd.HANDSHAKE)
        server.peers.clear()

    # --- what is done to them -------------------------------------------------------------------------

    def cut(self, peer: str, address: str, *, silent: bool = False, ways: Ways = Ways.BOTH) -> int:
        """Break every connection between a process and an address; returns how many there were.

        Args:
            peer: Name of the connecting process.
            address: Of the bound one.
            silent: Nobody is told: each end learns of it by missing heartbeats.
            ways: Of a silent cut: the directions in which packets are lost from now on.
        """
        hit = self._between(peer, address)
        for connection in hit:
            self._break(connection, silent=silent, ways=ways if silent else Ways.BOTH)
        return len(hit)

    def part(self, peer: str, address: str) -> None:
        """No packet passes between a process and an address, until ``heal``."""
        self._parted.add((peer, address))
        self.cut(peer, address, silent=True)

    def heal(self, peer: str, address: str) -> None:
        """Packets pass again."""
        self._parted.discard((peer, address))

    def clog(self, peer: str, address: str, until: float) -> None:
        """Nothing arrives between a process and an address before ``until``; nothing is lost."""
        for connection in self._between(peer, address):
            for pipe in (connection.up, connection.down):
                self._hold(pipe, until)

    def froze(self, process: Process) -> None:
        """A process was stopped by a signal: its peers cut it off after the ZMTP heartbeat timeout."""
        for connection in self._connections:
            if self._touches(connection, process):
                cut_off = functools.partial(self._cut_off_frozen, connection, process)
                self._silences.setdefault(process.name, []).append(self._agenda.after(self._silence(), cut_off))

    def thawed(self, process: Process) -> None:
        """A frozen process runs again: it accepts who waited, and learns who has gone."""
        for appointment in self._silences.pop(process.name, []):
            appointment.cancel()
        for server in list(self._servers.values()):
            if server.process is process:
                waiting, server.waiting = server.waiting, []
                for connection in waiting:
                    self._handshake(connection, server)
                for connection in [c for c in server.peers.values() if c.over]:
                    self._server_notices(connection, self._notice())

    def connections(self, peer: str, address: str) -> int:
        """How many connections stand between a process and an address."""
        return len(self._between(peer, address))

    # --- inside ---------------------------------------------------------------------------------------

    def _draw(self, bounds: tuple[float, float]) -> float:
        return self._rng.uniform(*bounds)

    def _delay(self) -> float:
        return self._draw(self.model.delay_s)

    def _notice(self) -> float:
        return self._agenda.clock() + self._draw(self.model.notice_s)

    def _silence(self) -> float:
        return self.model.heartbeat_timeout_s + self._rng.random()

    def _between(self, peer: str, address: str) -> list[Connection]:
        return [c for c in self._connections if c.owner.name == peer and c.address == address]

    @staticmethod
    def _touches(connection: Connection, process: Process) -> bool:
        return connection.owner is process or (connection.server is not None and connection.server.process is process)

    def _connected(self, connection: Connection) -> None:
        if connection.over_at_client:
            return
        server = self._servers.get(connection.address)
        if (connection.owner.name, connection.address) in self._parted:
            self._agenda.after(
                self.model.connect_timeout_s, lambda: self._end_at_client(connection, LinkEnd.REFUSED, "timed out")
            )
        elif server is None:
            self._end_at_client(connection, LinkEnd.REFUSED, "refused")
        elif server.process.frozen:
            server.waiting.append(connection)
            self._agenda.after(self.model.handshake_timeout_s, lambda: self._handshake_timed_out(connection, server))
        else:
            self._handshake(connection, server)

    def _handshake(self, connection: Connection, server: ServerSocket) -> None:
        if connection.over_at_client:
            return
        server.accept(connection)
        connection.server = server
        connection.open_at_client = True
        self._trace(f"net {connection!r} open as {connection.routing_id.hex()}")
        connection.owner.deliver(LinkOpened(connection.link))

    def _handshake_timed_out(self, connection: Connection, server: ServerSocket) -> None:
        if connection in server.waiting:
            server.waiting.remove(connection)
            self._end_at_client(connection, LinkEnd.HANDSHAKE, "timed out")

    def _put(self, pipe: _Pipe, frames: Frames) -> None:
        """Let a message arrive at the pipe's last arrival; at equal times the agenda keeps the order of sending."""
        pipe.flight.append((self._agenda.at(pipe.last_arrival, pipe.arrive), frames))

    def _hold(self, pipe: _Pipe, until: float) -> None:
        held, pipe.flight = pipe.flight, deque()
        pipe.last_arrival = max(pipe.last_arrival, until)
        for appointment, frames in held:
            appointment.cancel()
            self._put(pipe, frames)

    def _cut_pipe(self, pipe: _Pipe, *, keep_all: bool = False) -> None:
        held = len(pipe.flight)
        if keep_all or self.loss is Loss.NONE:
            pipe.cut(held)
        else:
            pipe.cut(0 if self.loss is Loss.ALL else self._rng.randint(0, held))

    def _break(self, connection: Connection, *, silent: bool, ways: Ways) -> None:
        self._over(connection)
        before = (len(connection.up.flight), len(connection.down.flight))
        if ways is not Ways.DOWN:
            self._cut_pipe(connection.up)
        if ways is not Ways.UP:
            self._cut_pipe(connection.down)
        lost = (before[0] - len(connection.up.flight), before[1] - len(connection.down.flight))
        how = f"silently, {ways.value}" if silent else "reset"
        self._trace(f"net {connection!r} cut {how}: {lost[0]} lost up, {lost[1]} lost down")
        now = self._agenda.clock()
        if connection.server is not None and not silent and self.model.notice_s[1] == 0.0:
            # Noticed at once means that nothing more is sent into it, though what is in flight may still arrive.
            connection.server.peers.pop(connection.routing_id, None)
        self._client_notices(connection, now + self._silence() if silent else self._notice())
        self._server_notices(connection, now + self._silence() if silent else self._notice())

    def _cut_off_frozen(self, connection: Connection, process: Process) -> None:
        """The other end gives up on a process that is still frozen; the frozen end learns of it when it runs again."""
        if connection.over or not process.frozen:
            return
        self._over(connection)
        self._trace(f"net {connection!r} cut off: {process.name} is frozen")
        connection.up.cut(len(connection.up.flight))
        connection.down.cut(len(connection.down.flight))
        self._client_notices(connection, self._agenda.clock())
        self._server_notices(connection, self._agenda.clock())

    def _client_notices(self, connection: Connection, when: float) -> None:
        """Not before what still arrives there."""
        when = max(when, connection.down.last_arrival)
        self._agenda.at(when, lambda: self._end_at_client(connection, LinkEnd.LOST))

    def _server_notices(self, connection: Connection, when: float) -> None:
        when = max(when, connection.up.last_arrival)
        self._agenda.at(when, lambda: self._forget(connection))

    def _end_at_client(self, connection: Connection, end: LinkEnd, detail: str = "") -> None:
        self._over(connection)
        connection.up.cut(len(connection.up.flight))
        if not connection.over_at_client:
            connection.over_at_client = True
            self._trace(f"net {connection!r} {end.value} {detail}".rstrip())
            connection.owner.deliver(LinkClosed(connection.link, end, detail))

    def _forget(self, connection: Connection) -> None:
        """The bound end closes its side; what it had received stays in its inbox."""
        server = connection.server
        if server is None or (server.process.frozen and not server.closed):
            return  # a frozen process learns of it when it runs again
        connection.up.cut(0)
        connection.down.cut(len(connection.down.flight))
        server.peers.pop(connection.routing_id, None)
        if self.model.monitored and not server.closed:
            server.ended_unread += 1
            server.wake()

    def _over(self, connection: Connection) -> None:
        connection.over = True
        if connection in self._connections:
            self._connections.remove(connection)
