"""What 28/REQREP says of sockets and this project stands on, shown with the libzmq that is installed.

None of this is our code. But each of these rules is relied on somewhere, and a release of libzmq that breaks one should
be found here, not as a request that is lost once in a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq

from tests.support.bare_sockets import Sockets
from tests.support.loopback import eventually
from tests.support.ports import free_endpoint

pytestmark = pytest.mark.usefixtures("no_leaks")

MANY = 300


@pytest.fixture
def sockets(no_leaks: None) -> Iterator[Sockets]:
    """Bare sockets."""
    made = Sockets(rcvtimeo=5000)
    yield made
    made.close()


def test_req_puts_an_empty_frame_in_front_and_router_the_id(sockets: Sockets) -> None:
    """RR-1, RR-7: and ROUTER takes the id off again when it sends."""
    router, req = sockets.pair(zmq.ROUTER, zmq.REQ)
    req.send_multipart([b"hello", b""])
    peer, *frames = router.recv_multipart()
    assert len(peer) == 5 and peer[0] == 0
    assert frames == [b"", b"hello", b""]
    router.send_multipart([peer, b"", b"world"])
    assert req.recv_multipart() == [b"world"]


def test_req_alternates(sockets: Sockets) -> None:
    """RR-2: which is why a Lazy Pirate needs a new socket for each attempt."""
    _, req = sockets.pair(zmq.ROUTER, zmq.REQ)
    req.send(b"1")
    with pytest.raises(zmq.ZMQError) as caught:
        req.send(b"2")
    assert caught.value.errno == zmq.EFSM


def _sent(router: zmq.Socket[bytes], frames: list[bytes]) -> bool:
    """Whether the peer was there to be sent to."""
    try:
        router.send_multipart(frames, zmq.NOBLOCK)
    except zmq.ZMQError:
        return False
    return True


def test_req_takes_a_reply_only_from_whom_it_asked(sockets: Sockets) -> None:
    """RR-3: others are dropped without a word."""
    first, second = sockets.new(zmq.ROUTER), sockets.new(zmq.ROUTER, router_mandatory=1)
    req = sockets.new(zmq.REQ, routing_id=b"asker")
    for router in (first, second):
        req.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    req.send(b"to the first")
    assert first.recv_multipart()[-1] == b"to the first"
    eventually(lambda: _sent(second, [b"asker", b"", b"from the second"]), "the second one knows the asker")
    req.poll(100)
    with pytest.raises(zmq.Again):
        # Polling alone may say that there is something.
        req.recv(zmq.NOBLOCK)
    first.send_multipart([b"asker", b"", b"from the first"])
    assert req.recv() == b"from the first"


def test_dealer_and_req_do_not_discard_what_they_cannot_send(sockets: Sockets) -> None:
    """RR-4: they say so, if they may not wait."""
    for kind in (zmq.DEALER, zmq.REQ):
        with pytest.raises(zmq.Again):
            sockets.new(kind).send(b"x", zmq.NOBLOCK)


def test_dealer_keeps_what_is_sent_before_the_connection(sockets: Sockets) -> None:
    """RR-5: and would hand it to the next life of a broker, so ours closes such sockets."""
    url = free_endpoint()
    dealer = sockets.new(zmq.DEALER, reconnect_ivl=10)
    dealer.connect(url)
    for number in range(10):
        dealer.send(b"%d" % number, zmq.NOBLOCK)
    late = sockets.new(zmq.ROUTER)
    late.bind(url)
    assert [late.recv_multipart()[1] for _ in range(10)] == [b"%d" % number for number in range(10)]


def test_a_bound_socket_forgets_a_peer_with_its_connection(sockets: Sockets) -> None:
    """RR-6, RR-8: with MANDATORY that is an error, and the queues here live by it; without it is silence."""
    router, dealer = sockets.pair(zmq.ROUTER, zmq.DEALER, router_mandatory=1)
    dealer.send(b"x")
    peer, _ = router.recv_multipart()
    router.send_multipart([peer, b"back"], zmq.NOBLOCK)
    assert dealer.recv() == b"back"
    monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    dealer.close(linger=0)
    assert monitor.poll(5000)
    with pytest.raises(zmq.ZMQError) as caught:
        # The first sends may go before libzmq has taken the end in.
        for _ in range(100):
            router.send_multipart([peer, b"back"], zmq.NOBLOCK)
            router.poll(10)
    assert caught.value.errno == zmq.EHOSTUNREACH
    router.router_mandatory = 0
    router.send_multipart([peer, b"back"], zmq.NOBLOCK)
    router.disable_monitor()
    monitor.close(linger=0)


def test_router_does_not_wait_for_a_peer_that_does_not_read(sockets: Sockets) -> None:
    """RR-8, RR-9: with MANDATORY *and* NOBLOCK; with MANDATORY alone one slow peer would stop a whole broker."""
    router, dealer = sockets.pair(zmq.ROUTER, zmq.DEALER, router_mandatory=1, sndhwm=5)
    dealer.rcvhwm = 5
    dealer.send(b"x")
    peer, _ = router.recv_multipart()
    with pytest.raises(zmq.Again):
        for _ in range(100_000):
            router.send_multipart([peer, bytes(10_000)], zmq.NOBLOCK)


def test_rep_gives_the_envelope_back(sockets: Sockets) -> None:
    """RR-10: up to and including the first empty frame, whatever stands in front of it."""
    rep, dealer = sockets.pair(zmq.REP, zmq.DEALER)
    dealer.send_multipart([b"one", b"two", b"", b"body", b"", b"more"])
    assert rep.recv_multipart() == [b"body", b"", b"more"]
    rep.send(b"reply")
    assert dealer.recv_multipart() == [b"one", b"two", b"", b"reply"]


def test_router_reads_its_peers_in_turns(sockets: Sockets) -> None:
    """RR-11: one that sends without a pause does not keep the others out."""
    router, loud = sockets.pair(zmq.ROUTER, zmq.DEALER)
    quiet = sockets.new(zmq.DEALER)
    quiet.connect(router.getsockopt_string(zmq.LAST_ENDPOINT))
    for dealer in (loud, quiet):
        dealer.send(b"here")
        assert router.recv_multipart()[1] == b"here"
    for _ in range(MANY):
        loud.send(b"loud")
    quiet.send(b"quiet")
    time.sleep(0.3)  # Until all are there, which nothing tells without reading them.
    assert b"quiet" in [router.recv_multipart()[1] for _ in range(MANY // 10)]


def test_messages_come_whole_in_order_and_once(sockets: Sockets) -> None:
    """RR-12: all frames of a message or none."""
    router, dealer = sockets.pair(zmq.ROUTER, zmq.DEALER)
    for number in range(MANY):
        dealer.send_multipart([b"%d" % number] * (number % 5 + 1))
    for number in range(MANY):
        assert router.recv_multipart()[1:] == [b"%d" % number] * (number % 5 + 1)
    assert not router.poll(0)
