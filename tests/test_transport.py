"""Links over real sockets, against peers that are plain ZeroMQ or plain TCP."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from reliable.config import TransportConfig
from reliable.messages import read_message, send_message
from reliable.names import Resolver
from reliable.protocol.events import LinkClosed, LinkEnd, LinkOpened, Received
from reliable.sync.waiting import SelectorWait
from reliable.transport import (
    LinkEvent,
    LinkTable,
    Waker,
    dealer_options,
    milliseconds,
    open_router,
    router_options,
)
from tests.support.ports import free_endpoint, free_port

pytestmark = pytest.mark.usefixtures("no_leaks")

_CONFIG = TransportConfig(
    connect_timeout_s=0.3,
    handshake_timeout_s=0.4,
    resolve_timeout_s=0.3,
    heartbeat_interval_s=0.2,
    heartbeat_timeout_s=0.6,
)
_SIZE = 1_000_000

_PEER = """
import os, sys, time, zmq
context = zmq.Context()
router = context.socket(zmq.ROUTER)
router.bind(sys.argv[1])
print("up", flush=True)
peer = router.recv_multipart()[0]
for number in range(int(sys.argv[2])):
    router.send_multipart([peer, b"%d" % number])
time.sleep(0.3)
if sys.argv[3] == "die":
    os._exit(0)
print("sent", flush=True)
time.sleep(60)
"""


class Links:
    """A link table with the loop that a shell would run around it."""

    def __init__(self, config: TransportConfig = _CONFIG, resolver: Resolver | None = None) -> None:
        self.wait = SelectorWait()
        self.table = LinkTable(config, self.wait, self.wait.wake, message_bytes_max=_SIZE, resolver=resolver)
        self.seen: list[LinkEvent] = []

    def until(self, done: Callable[[], bool], timeout: float = 5.0) -> None:
        """Pump until ``done``, waiting on descriptors alone, so that a missed edge shows."""
        deadline = time.monotonic() + timeout
        while True:
            while self.table.dirty:
                self.seen += self.table.drain(time.monotonic())
            if done():
                return
            now = time.monotonic()
            assert now < deadline, f"waited in vain; seen: {self.seen}"
            due = self.table.next_deadline()
            for ready in self.wait.wait(min(deadline - now, max((due or deadline) - now, 0.0))):
                ready()
            self.seen += self.table.drain(time.monotonic())

    def open(self, number: int, address: str) -> None:
        self.table.open(number, address, time.monotonic())

    def ended(self) -> LinkClosed:
        self.until(lambda: any(isinstance(event, LinkClosed) for event in self.seen))
        return next(event for event in self.seen if isinstance(event, LinkClosed))

    def received(self) -> list[list[bytes]]:
        return [event.frames for event in self.seen if isinstance(event, Received)]

    def close(self) -> None:
        self.table.shutdown()
        self.wait.close()


@pytest.fixture
def links() -> Iterator[Links]:
    made = Links()
    yield made
    made.close()


@contextlib.contextmanager
def router(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """A peer in this process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = open_router(context, _CONFIG, message_bytes_max=_SIZE)
    made.bind(endpoint)
    try:
        yield made
    finally:
        made.close(linger=0)
        context.term()


def receive(peer: zmq.Socket[bytes]) -> list[bytes]:
    assert peer.poll(5_000), "nothing arrived"
    return peer.recv_multipart()


@contextlib.contextmanager
def peer_process(endpoint: str, messages: int, then: str) -> Iterator[subprocess.Popen[bytes]]:
    """A peer that answers the first message with many, and then dies or stays."""
    with subprocess.Popen([sys.executable, "-c", _PEER, endpoint, str(messages), then], stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout is not None
            assert peer.stdout.readline() == b"up\n"
            yield peer
        finally:
            peer.kill()


def test_a_link_opens_carries_messages_both_ways_and_closes_silently(links: Links, endpoint: str) -> None:
    """The plain case; a link that we close ourselves is not news."""
    with router(endpoint) as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"a", b"", b"b"])
        identity, *frames = receive(peer)
        assert frames == [b"a", b"", b"b"]
        peer.send_multipart([identity, b"c", b""])
        links.until(lambda: links.received() == [[b"c", b""]])
        links.table.close(1)
        assert len(links.table) == 0
        assert links.table.drain(time.monotonic()) == []
        assert not links.table.send(1, [b"x"])


def test_a_refused_connection_is_told_at_once(links: Links, endpoint: str) -> None:
    """Failover hangs on it: the next broker is tried as soon as this is known."""
    began = time.monotonic()
    links.open(1, endpoint)
    end = links.ended()
    assert end.end is LinkEnd.REFUSED
    assert "nobody listens" in end.detail
    assert time.monotonic() - began < 0.25


def test_a_missing_ipc_path_is_told_at_once(links: Links, tmp_path: Path) -> None:
    """The same for ipc, which reports in another way."""
    links.open(1, f"ipc://{tmp_path}/nobody")
    assert links.ended().end is LinkEnd.REFUSED


def test_an_ipc_path_that_is_too_long_is_refused_not_raised(links: Links) -> None:
    """libzmq raises from connect here; engines know events only."""
    links.open(1, "ipc:///tmp/" + "x" * 200)
    assert links.ended().end is LinkEnd.REFUSED


def test_ipc_links_carry_messages(links: Links, tmp_path: Path) -> None:
    """ipc addresses are passed on as they are."""
    address = f"ipc://{tmp_path}/peer"
    with router(address) as peer:
        links.open(1, address)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"a"])
        assert receive(peer)[1:] == [b"a"]


def test_a_peer_that_accepts_and_stays_mute_fails_the_handshake(links: Links) -> None:
    """A port that belongs to something else must not look like a broker that is just slow."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", free_port()))
        mute.listen()
        links.open(1, f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        assert links.ended().end is LinkEnd.HANDSHAKE


def test_waiting_for_a_link_to_open_is_sleep(links: Links) -> None:
    """The descriptor of a socket that is still connecting stays readable until somebody looks at the socket."""
    with socket.create_server(("127.0.0.1", free_port())) as mute:
        links.open(1, f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        wakes = 0
        end = time.monotonic() + 0.25
        while (left_s := end - time.monotonic()) > 0:
            for ready in links.wait.wait(left_s):
                ready()
                wakes += 1
            links.seen += links.table.drain(time.monotonic())
        assert wakes < 20


def test_a_peer_that_speaks_something_else_fails_the_handshake(links: Links) -> None:
    """The same, where the other side answers with bytes that are not ZMTP."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b" " * 64)

        thread = threading.Thread(target=answer)
        thread.start()
        links.open(1, f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert links.ended().end is LinkEnd.HANDSHAKE
        thread.join(5)


def test_a_host_that_drops_packets_is_given_up_in_time(links: Links) -> None:
    """A connect into the void would otherwise last for minutes."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", free_port()))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        began = time.monotonic()
        links.open(1, f"tcp://127.0.0.1:{full.getsockname()[1]}")
        assert links.ended().end is LinkEnd.REFUSED
        assert time.monotonic() - began < 1.0


def test_replies_that_arrived_before_the_peer_died_are_delivered_first(links: Links, endpoint: str) -> None:
    """A reply in hand must not turn into "may have run" because its sender died after sending it."""
    with peer_process(endpoint, 50, "die") as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        # The socket was found empty before: only then would libzmq throw unread messages away with the pipe.
        assert links.table.send(1, [b"go"])
        peer.wait(5)
        time.sleep(0.1)  # The hang-up reaches libzmq's thread; nothing here reads meanwhile.
        end = links.ended()
    assert end.end is LinkEnd.LOST
    assert [int(frames[0]) for frames in links.received()] == list(range(50))
    assert isinstance(links.seen[-1], LinkClosed)


def test_a_dead_link_takes_no_message_even_before_its_end_was_read(links: Links, endpoint: str) -> None:
    """What is refused here is proven not to have been sent; a message taken would count as "may have run"."""
    with peer_process(endpoint, 0, "stay") as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"go"])
        peer.kill()
        peer.wait(5)
        time.sleep(0.1)  # As above.
        assert not links.table.send(1, [b"late"])
        assert links.ended().end is LinkEnd.LOST


def test_a_frozen_peer_is_lost_after_the_heartbeat_timeout(links: Links, endpoint: str) -> None:
    """It sends no FIN: only heartbeats of ZMTP notice."""
    with peer_process(endpoint, 0, "stay") as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        peer.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert links.ended().end is LinkEnd.LOST
            assert time.monotonic() - began < 2.0
        finally:
            peer.send_signal(signal.SIGCONT)


def test_a_dead_link_never_reconnects_by_itself(links: Links, endpoint: str) -> None:
    """What it still holds would go to another life of the peer."""
    with router(endpoint) as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"a"])
        receive(peer)
    with socket.create_server(("127.0.0.1", int(endpoint.rpartition(":")[2]))) as second:
        second.settimeout(0.7)
        with pytest.raises(TimeoutError):
            second.accept()
    assert links.ended().end is LinkEnd.LOST


def test_a_flood_is_read_to_its_end_though_the_descriptor_signals_once(links: Links, endpoint: str) -> None:
    """The edge of the descriptor is consumed by the first batch; the rest must not wait for another message."""
    count = 5_000
    with router(endpoint) as peer:
        peer.sndhwm = 0
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"go"])
        identity = receive(peer)[0]
        for number in range(count):
            peer.send_multipart([identity, b"%d" % number])
        links.until(lambda: len(links.received()) == count)
    assert [int(frames[0]) for frames in links.received()] == list(range(count))


def test_a_frame_above_the_limit_ends_the_link(links: Links, endpoint: str) -> None:
    """Memory of ours is not the peer's to spend."""
    with router(endpoint) as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"go"])
        peer.send_multipart([receive(peer)[0], bytes(_SIZE + 1)])
        assert links.ended().end is LinkEnd.LOST


def test_closing_with_linger_sends_what_is_held(links: Links, endpoint: str) -> None:
    """A goodbye that is thrown away with the socket helps nobody."""
    with router(endpoint) as peer:
        links.open(1, endpoint)
        links.until(lambda: LinkOpened(1) in links.seen)
        for number in range(100):
            assert links.table.send(1, [b"%d" % number])
        links.table.close(1, linger=True)
        assert [receive(peer)[1] for _ in range(100)] == [b"%d" % number for number in range(100)]


# --- names ----------------------------------------------------------------------------------------


def test_each_number_of_a_name_is_tried_until_one_answers(endpoint: str) -> None:
    """A name with a dead address first must not make the service look down."""
    asked: list[tuple[str, int]] = []

    def ask(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.3", "127.0.0.2", "127.0.0.1"]

    wait_links = _with_resolver(ask)
    port = int(endpoint.rpartition(":")[2])
    with router(endpoint) as peer, contextlib.closing(wait_links) as links:
        links.open(1, f"tcp://broker.example:{port}")
        links.until(lambda: LinkOpened(1) in links.seen)
        assert links.table.send(1, [b"a"])
        assert receive(peer)[1:] == [b"a"]
    assert asked == [("broker.example", port)]


def test_a_name_with_only_dead_numbers_is_refused_once(endpoint: str) -> None:
    """One link, one end, however many addresses the name has."""
    with contextlib.closing(_with_resolver(lambda _host, _port: ["127.0.0.3", "127.0.0.2"])) as links:
        links.open(1, f"tcp://broker.example:{free_port()}")
        assert links.ended().end is LinkEnd.REFUSED
    assert len(links.seen) == 1


def test_a_name_that_does_not_exist_is_unresolved() -> None:
    """A typo in a name is worth an error of its own."""

    def ask(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with contextlib.closing(_with_resolver(ask)) as links:
        links.open(1, "tcp://no-such.example:5555")
        end = links.ended()
    assert end.end is LinkEnd.UNRESOLVED
    assert "no-such.example" in end.detail and "not known" in end.detail


def test_a_mute_resolver_costs_its_bound_and_no_other_link(endpoint: str) -> None:
    """Inside libzmq it would stall every socket of the context."""
    release = threading.Event()

    def ask(host: str, port: int) -> list[str]:
        release.wait(10)
        return []

    with router(endpoint), contextlib.closing(_with_resolver(ask)) as links:
        began = time.monotonic()
        links.open(1, "tcp://mute.example:5555")
        links.open(2, endpoint)
        links.until(lambda: LinkOpened(2) in links.seen)
        assert time.monotonic() - began < 0.25
        end = links.ended()
        assert (end.link, end.end) == (1, LinkEnd.UNRESOLVED)
        assert time.monotonic() - began < 1.0
        release.set()


def _with_resolver(ask: Callable[[str, int], list[str]]) -> Links:
    made = Links()
    made.close()
    wait = SelectorWait()
    made.wait = wait
    made.table = LinkTable(_CONFIG, wait, wait.wake, message_bytes_max=_SIZE, resolver=Resolver(wait.wake, ask))
    return made


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0), (0.0001, 1), (0.0209, 21), (1.0, 1000)])
def test_milliseconds_are_rounded_up(seconds: float, expected: int) -> None:
    """Rounded down, a wait shorter than a millisecond is a busy loop."""
    assert milliseconds(seconds) == expected


def test_a_long_heartbeat_timeout_is_not_announced_as_it_is() -> None:
    """libzmq overflows above 65.5 s, and the peer would hang up at once."""
    config = TransportConfig(heartbeat_timeout_s=100.0)
    options = dealer_options(config, message_bytes_max=1024, received_messages_max=0)
    assert options[zmq.HEARTBEAT_TTL] == 65_500
    assert options[zmq.HEARTBEAT_TIMEOUT] == 100_000


def test_both_ends_check_the_link_and_bound_what_they_hold() -> None:
    """Each of these options has cost somebody a hung process; none may get lost."""
    dealer = dealer_options(_CONFIG, message_bytes_max=1024, received_messages_max=7)
    for options in (dealer, router_options(_CONFIG, message_bytes_max=1024)):
        assert options[zmq.HEARTBEAT_IVL] == 200
        assert options[zmq.HEARTBEAT_TIMEOUT] == options[zmq.TCP_MAXRT] == 600
        assert options[zmq.HANDSHAKE_IVL] == 400
        assert options[zmq.MAXMSGSIZE] == 1024
        assert options[zmq.LINGER] == 0
    assert dealer[zmq.CONNECT_TIMEOUT] == 300
    assert dealer[zmq.RCVHWM] == 7
    assert router_options(_CONFIG, message_bytes_max=1024)[zmq.ROUTER_MANDATORY] == 1


def test_a_router_tells_that_a_peer_is_not_there(endpoint: str) -> None:
    """Silence of the default ROUTER is how replies vanish."""
    with router(endpoint) as peer:
        with pytest.raises(zmq.ZMQError) as caught:
            send_message(peer, [b"nobody", b"x"])
        assert caught.value.errno == zmq.EHOSTUNREACH
        assert read_message(peer) is None


def test_a_waker_wakes_and_keeps_quiet_after_it_was_cleared_and_closed() -> None:
    """It is called from signal handlers and from threads that outlive it: it must not raise."""
    waker = Waker()
    with selectors.DefaultSelector() as selector:
        selector.register(waker.fileno(), selectors.EVENT_READ)
        for _ in range(100_000):
            waker.wake()
        assert selector.select(0)
        waker.clear()
        assert not selector.select(0)
    waker.close()
    waker.wake()
    waker.clear()


def test_an_address_that_cannot_be_read_is_misuse(links: Links) -> None:
    """Shells check addresses when they are given; an engine that makes one up is wrong."""
    with pytest.raises(ValueError, match="no port"):
        links.open(1, "tcp://localhost")
    assert free_endpoint() not in str(links.seen)
