"""The loss model: what libzmq was measured to do is what the simulated network does."""

from __future__ import annotations

import random

import attrs
import pytest

from chaos.sim.clock import Agenda, VirtualClock
from chaos.sim.network import FIRST_ROUTING_ID, Connection, Network, NetworkModel, SendResult, ServerSocket, Ways
from chaos.sim.trace import Trace
from reliable.protocol.events import LinkClosed, LinkEnd, LinkOpened, Received
from reliable.types import Frames

ADDRESS = "tcp://b:1"
Event = LinkOpened | LinkClosed | Received


@attrs.define
class Peer:
    """A process that only keeps what it is given."""

    name: str = "p"
    frozen: bool = False
    events: list[Event] = attrs.field(factory=list)

    def deliver(self, event: Event) -> None:
        self.events.append(event)

    @property
    def received(self) -> list[Frames]:
        return [event.frames for event in self.events if isinstance(event, Received)]

    @property
    def end(self) -> LinkEnd | None:
        last = self.events[-1] if self.events else None
        return last.end if isinstance(last, LinkClosed) else None


@attrs.define
class Host:
    """A process that binds."""

    name: str = "b"
    frozen: bool = False


class Bench:
    """One network, one bound socket, one connected peer."""

    def __init__(self, seed: int = 1, model: NetworkModel | None = None, *, bind: bool = True) -> None:
        self.clock = VirtualClock()
        self.agenda = Agenda(self.clock)
        self.network = Network(self.agenda, random.Random(seed), Trace(self.clock), model)
        self.host = Host()
        self.peer = Peer()
        if bind:
            self.server = self.bind()
        self.link = 0

    def bind(self) -> ServerSocket:
        return self.network.bind(self.host, ADDRESS, lambda: None)

    def connect(self, peer: Peer | None = None) -> Connection:
        self.link += 1
        return self.network.connect(peer or self.peer, self.link, ADDRESS)

    def connected(self, peer: Peer | None = None) -> Connection:
        connection = self.connect(peer)
        self.run(0.1)
        assert (peer or self.peer).events[-1] == LinkOpened(self.link)
        return connection

    def run(self, seconds: float) -> None:
        self.agenda.run_until(self.clock() + seconds)


def numbers(messages: list[Frames]) -> list[int]:
    return [int(message[-1]) for message in messages]


def test_messages_arrive_once_and_in_order_both_ways() -> None:
    """ZMTP over TCP neither repeats nor reorders within a connection."""
    bench = Bench()
    connection = bench.connected()
    for number in range(50):
        assert bench.network.send(connection, [b"%d" % number]) is SendResult.SENT
        assert bench.server.send([connection.routing_id, b"%d" % number]) is SendResult.SENT
    bench.run(1.0)
    assert numbers(list(bench.server.inbox)) == list(range(50))
    assert {message[0] for message in bench.server.inbox} == {connection.routing_id}
    assert numbers(bench.peer.received) == list(range(50))


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_loses_a_suffix_of_what_is_in_flight_in_each_direction(seed: int) -> None:
    """Holes in the middle do not exist over TCP; a tail of any length may be lost, also none or all of it."""
    bench = Bench(seed, NetworkModel(delay_s=(0.01, 0.02)))
    connection = bench.connected()
    for number in range(10):
        bench.network.send(connection, [b"%d" % number])
        bench.server.send([connection.routing_id, b"%d" % number])
    assert bench.network.cut("p", ADDRESS) == 1
    bench.run(1.0)
    up, down = numbers(list(bench.server.inbox)), numbers(bench.peer.received)
    assert up == list(range(len(up))) and down == list(range(len(down)))
    assert bench.peer.end is LinkEnd.LOST


def test_over_many_seeds_a_cut_loses_nothing_something_and_everything() -> None:
    """A model that never loses all, or never none, would not find what depends on it."""
    lengths = set()
    for seed in range(60):
        bench = Bench(seed, NetworkModel(delay_s=(0.01, 0.02)))
        connection = bench.connected()
        for number in range(3):
            bench.network.send(connection, [b"%d" % number])
        bench.network.cut("p", ADDRESS)
        bench.run(1.0)
        lengths.add(len(bench.server.inbox))
    assert lengths == {0, 1, 2, 3}


def test_what_had_arrived_is_read_although_its_sender_is_gone() -> None:
    """Fifty of fifty replies sent before a death were still readable from a real ROUTER."""
    bench = Bench()
    connection = bench.connected()
    bench.network.send(connection, [b"1"])
    bench.run(0.1)
    bench.network.close(connection)
    bench.run(1.0)
    assert connection.routing_id not in bench.server.peers
    assert numbers(list(bench.server.inbox)) == [1]


def test_the_end_of_a_link_is_reported_behind_its_last_message() -> None:
    """The events module promises so, and engines judge what may have run by it."""
    bench = Bench(3, NetworkModel(delay_s=(0.2, 0.3), notice_s=(0.0, 0.0)))
    connection = bench.connect()
    bench.run(1.0)
    for number in range(40):
        bench.server.send([connection.routing_id, b"%d" % number])
    bench.network.cut("p", ADDRESS)
    bench.run(2.0)
    assert isinstance(bench.peer.events[-1], LinkClosed)
    assert len(bench.peer.received) > 0


def test_a_silent_cut_is_noticed_by_each_end_after_the_heartbeat_timeout_and_swallows_what_is_sent_until_then() -> None:
    """A half-open connection accepts messages for seconds; they count as sent and are lost."""
    bench = Bench()
    connection = bench.connected()
    bench.network.cut("p", ADDRESS, silent=True)
    bench.run(2.9)
    assert bench.network.send(connection, [b"1"]) is SendResult.SENT
    assert bench.server.send([connection.routing_id, b"1"]) is SendResult.SENT
    assert not any(isinstance(event, LinkClosed) for event in bench.peer.events)
    bench.run(1.2)
    assert bench.peer.end is LinkEnd.LOST
    assert bench.server.send([connection.routing_id, b"1"]) is SendResult.UNREACHABLE
    assert not bench.server.inbox and not bench.peer.received


@pytest.mark.parametrize(("ways", "up", "down"), [(Ways.UP, 0, 1), (Ways.DOWN, 1, 0), (Ways.BOTH, 0, 0)])
def test_a_one_way_cut_loses_one_direction_only(ways: Ways, up: int, down: int) -> None:
    """The nastiest case: requests arrive and replies do not, or the other way round."""
    bench = Bench()
    connection = bench.connected()
    bench.network.cut("p", ADDRESS, silent=True, ways=ways)
    bench.network.send(connection, [b"1"])
    bench.server.send([connection.routing_id, b"1"])
    bench.run(1.0)
    assert (len(bench.server.inbox), len(bench.peer.received)) == (up, down)
    bench.run(4.0)
    assert bench.peer.end is LinkEnd.LOST
    assert not bench.server.peers


def test_a_new_connection_of_the_same_peer_has_a_new_routing_id() -> None:
    """So replies to the old id can never arrive."""
    bench = Bench()
    first = bench.connected()
    bench.network.cut("p", ADDRESS)
    bench.run(1.0)
    second = bench.connected()
    assert first.routing_id == b"\x00" + FIRST_ROUTING_ID.to_bytes(4, "big")
    assert second.routing_id == b"\x00" + (FIRST_ROUTING_ID + 1).to_bytes(4, "big")
    assert bench.server.send([first.routing_id, b"x"]) is SendResult.UNREACHABLE


def test_a_restarted_broker_gives_out_the_ids_of_its_former_life_again() -> None:
    """Unseeded libzmq does; a broker that trusts ids hands one client another one's reply."""
    bench = Bench()
    first = bench.connected()
    bench.network.close_server(bench.server)
    bench.run(1.0)
    assert bench.peer.end is LinkEnd.LOST
    bench.server = bench.bind()
    other = Peer("q")
    second = bench.connected(other)
    assert second.routing_id == first.routing_id
    bench.server.send([first.routing_id, b"1"])
    bench.run(0.1)
    assert numbers(other.received) == [1] and not bench.peer.received


def test_a_killed_broker_takes_its_unread_input_with_it() -> None:
    """Those requests were accepted by a socket and are gone."""
    bench = Bench()
    connection = bench.connected()
    bench.network.send(connection, [b"1"])
    bench.run(0.1)
    bench.network.close_server(bench.server)
    bench.server = bench.bind()
    bench.run(1.0)
    assert not bench.server.inbox


def test_nothing_sent_to_a_dead_broker_reaches_the_next_one() -> None:
    """The shells turn libzmq's reconnecting off for exactly this."""
    bench = Bench()
    connection = bench.connected()
    bench.network.close_server(bench.server)
    bench.server = bench.bind()
    bench.network.send(connection, [b"1"])
    bench.run(1.0)
    assert not bench.server.inbox
    assert bench.network.send(connection, [b"2"]) is SendResult.UNREACHABLE


def test_connecting_to_nobody_is_refused() -> None:
    """Nothing is ever connected."""
    bench = Bench(bind=False)
    bench.connect()
    bench.run(1.0)
    assert bench.peer.end is LinkEnd.REFUSED


def test_connecting_into_a_partition_times_out_and_works_after_healing() -> None:
    """No packet passes, in any state of the connection."""
    bench = Bench()
    bench.network.part("p", ADDRESS)
    bench.connect()
    bench.run(0.9)
    assert bench.peer.events == []
    bench.run(0.2)
    assert bench.peer.end is LinkEnd.REFUSED
    bench.network.heal("p", ADDRESS)
    bench.connected()


def test_a_clog_delays_without_losing_and_keeps_the_order() -> None:
    """Packet loss below the timeout looks like this: TCP repeats."""
    bench = Bench(5, NetworkModel(delay_s=(0.01, 0.02)))
    connection = bench.connected()
    bench.network.send(connection, [b"0"])
    bench.network.clog("p", ADDRESS, bench.clock() + 2.0)
    for number in range(1, 5):
        bench.network.send(connection, [b"%d" % number])
    bench.run(1.9)
    assert not bench.server.inbox
    bench.run(0.2)
    assert numbers(list(bench.server.inbox)) == [0, 1, 2, 3, 4]


def test_a_full_pipe_says_so() -> None:
    """EAGAIN is not EHOSTUNREACH: nothing is known of the peer."""
    bench = Bench(1, NetworkModel(messages_in_flight_max=3))
    connection = bench.connected()
    bench.network.clog("p", ADDRESS, bench.clock() + 1.0)
    assert [bench.network.send(connection, [b"x"]) for _ in range(4)] == [SendResult.SENT] * 3 + [SendResult.FULL]


def test_a_frozen_peer_is_cut_off_by_the_other_end_and_reads_what_it_had_received_when_it_goes_on() -> None:
    """SIGSTOP sends no FIN: only missing heartbeats tell, and afterwards old input comes first."""
    bench = Bench()
    connection = bench.connected()
    bench.peer.frozen = True
    bench.network.froze(bench.peer)
    bench.server.send([connection.routing_id, b"1"])
    bench.run(2.9)
    assert connection.routing_id in bench.server.peers
    bench.run(1.2)
    assert bench.server.send([connection.routing_id, b"2"]) is SendResult.UNREACHABLE
    bench.peer.frozen = False
    bench.network.thawed(bench.peer)
    bench.run(1.0)
    assert numbers(bench.peer.received) == [1]
    assert bench.peer.end is LinkEnd.LOST


def test_a_peer_frozen_for_less_than_the_heartbeat_timeout_loses_nothing() -> None:
    """The kernel holds everything until it goes on."""
    bench = Bench()
    connection = bench.connected()
    for _ in range(3):
        bench.peer.frozen = True
        bench.network.froze(bench.peer)
        bench.run(2.5)
        bench.peer.frozen = False
        bench.network.thawed(bench.peer)
    assert bench.server.send([connection.routing_id, b"1"]) is SendResult.SENT
    bench.run(0.1)
    assert numbers(bench.peer.received) == [1]


def test_a_frozen_broker_accepts_by_kernel_but_does_not_shake_hands() -> None:
    """The connection fails by the handshake's own timeout, and in time if the broker goes on."""
    bench = Bench()
    bench.host.frozen = True
    bench.connect()
    bench.run(1.9)
    assert bench.peer.events == []
    bench.run(0.3)
    assert bench.peer.end is LinkEnd.HANDSHAKE
    bench.connect()
    bench.run(0.5)
    bench.host.frozen = False
    bench.network.thawed(bench.host)
    bench.run(0.1)
    assert bench.peer.events[-1] == LinkOpened(2)


def test_a_broker_frozen_for_long_loses_its_peers_and_learns_of_it_when_it_goes_on() -> None:
    """It wakes up with input from connections that are over: it must read that first."""
    bench = Bench()
    connection = bench.connected()
    bench.host.frozen = True
    bench.network.froze(bench.host)
    bench.network.send(connection, [b"1"])
    bench.run(5.0)
    assert bench.peer.end is LinkEnd.LOST
    assert connection.routing_id in bench.server.peers
    bench.host.frozen = False
    bench.network.thawed(bench.host)
    bench.run(0.1)
    assert connection.routing_id not in bench.server.peers
    assert numbers(list(bench.server.inbox)) == [1]


@pytest.mark.parametrize("seed", range(10))
def test_a_close_with_linger_delivers_everything_sent_before_it(seed: int) -> None:
    """A worker's DISCONNECT goes out that way."""
    bench = Bench(seed)
    connection = bench.connected()
    for number in range(5):
        bench.network.send(connection, [b"%d" % number])
    bench.network.close(connection, linger=True)
    bench.run(1.0)
    assert numbers(list(bench.server.inbox)) == [0, 1, 2, 3, 4]
    assert not bench.server.peers
    assert bench.peer.end is None


def test_a_close_during_the_connecting_leaves_nothing_behind() -> None:
    """No event about a link that its owner closed."""
    bench = Bench()
    connection = bench.connect()
    bench.network.close(connection)
    bench.run(1.0)
    assert bench.peer.events == [] and not bench.server.peers
    assert bench.network.connections("p", ADDRESS) == 0
