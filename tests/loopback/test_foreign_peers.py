"""Peers that are not ours: plain sockets that speak the RFCs, and some that speak nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
import zmq

from tests.support.loopback import QUICK_BROKER, BrokerThread, ShellKind, Stage, eventually

_WAIT_MS = 5_000


class Peers:
    """Plain sockets in a context of their own."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        self._sockets.append(made)
        made.linger = 0
        made.connect(endpoint)
        return made

    def close(self) -> None:
        for made in self._sockets:
            made.close(linger=0)
        self._context.term()


@pytest.fixture
def peers(no_leaks: None) -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


def _receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    assert socket.poll(_WAIT_MS), "nothing came"
    return socket.recv_multipart()


def _serve(broker: BrokerThread, peers: Peers, ready: list[bytes], kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
    worker = peers.connect(kind, broker.endpoint)
    worker.send_multipart(ready)
    eventually(lambda: broker.broker.snapshot().workers != (), "the worker is registered")
    return worker


def _next_request(worker: zmq.Socket[bytes], header: list[bytes], heartbeat: bytes) -> list[bytes]:
    """The frames behind the header and the command; heartbeats in between are passed over."""
    while True:
        frames = _receive(worker)
        assert frames[: len(header)] == header
        if frames[len(header)] != heartbeat:
            return frames[len(header) :]


def test_a_plain_req_socket_is_a_client(stage: Stage, shell: ShellKind, peers: Peers) -> None:
    """Four lines in any language (7/MDP): its empty first frame is the one that REQ adds."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda *frames: list(frames))
    shell.run(worker)
    client = peers.connect(zmq.REQ, broker.endpoint)
    for body in ([b"hello"], [b"", b"\x00"]):
        client.send_multipart([b"MDPC01", b"echo", *body])
        assert _receive(client) == [b"MDPC01", b"echo", *body]


def test_a_plain_client_of_version_two_gets_a_final_reply(stage: Stage, shell: ShellKind, peers: Peers) -> None:
    """18/MDP from a DEALER, with no frame of ours anywhere."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda *frames: list(frames))
    shell.run(worker)
    client = peers.connect(zmq.DEALER, broker.endpoint)
    client.send_multipart([b"MDPC02", b"\x01", b"echo", b"hello"])
    assert _receive(client) == [b"MDPC02", b"\x03", b"echo", b"hello"]


def test_a_plain_worker_of_version_one_serves_our_clients(stage: Stage, shell: ShellKind, peers: Peers) -> None:
    """It sees an address and a body as the RFC has them, and echoes the address."""
    broker = stage.broker()
    worker = _serve(broker, peers, [b"", b"MDPW01", b"\x01", b"up"])
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            reply = pool.submit(client.request, "up", b"x")
            command, address, empty, *body = _next_request(worker, [b"", b"MDPW01"], b"\x04")
            assert (command, empty, body) == (b"\x02", b"", [b"x"])
            worker.send_multipart([b"", b"MDPW01", b"\x03", address, b"", b"X"])
            assert reply.result(5) == [b"X"]


def test_a_plain_worker_of_version_two_serves_our_clients(stage: Stage, shell: ShellKind, peers: Peers) -> None:
    """The same commands under other numbers, and no empty first frame."""
    broker = stage.broker()
    worker = _serve(broker, peers, [b"MDPW02", b"\x01", b"up"])
    client = shell.client(broker.endpoint)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.request, "up", b"x")
        command, address, empty, *body = _next_request(worker, [b"MDPW02"], b"\x05")
        assert (command, empty, body) == (b"\x02", b"", [b"x"])
        worker.send_multipart([b"MDPW02", b"\x04", address, b"", b"X"])
        assert reply.result(5) == [b"X"]


def test_the_broker_answers_management_questions_of_plain_clients(stage: Stage, shell: ShellKind, peers: Peers) -> None:
    """8/MMI, truthfully."""
    broker = stage.broker()
    client = peers.connect(zmq.REQ, broker.endpoint)
    client.send_multipart([b"MDPC01", b"mmi.service", b"echo"])
    assert _receive(client) == [b"MDPC01", b"mmi.service", b"404"]
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    client.send_multipart([b"MDPC01", b"mmi.service", b"echo"])
    assert _receive(client) == [b"MDPC01", b"mmi.service", b"200"]


@pytest.mark.parametrize("heartbeat", [[b"", b"MDPW01", b"\x04"], [b"MDPW02", b"\x05"]], ids=["0.1", "0.2"])
def test_a_worker_that_says_nothing_is_dropped_and_one_that_beats_is_kept(
    stage: Stage, peers: Peers, heartbeat: list[bytes]
) -> None:
    """Liveness by the RFC, for peers that know nothing else."""
    broker = stage.broker()
    header = heartbeat[:-1]
    silent = _serve(broker, peers, [*header, b"\x01", b"a"])
    beating = peers.connect(zmq.DEALER, broker.endpoint)
    beating.send_multipart([*header, b"\x01", b"b"])
    heard: list[list[bytes]] = []

    def only_one_left() -> bool:
        beating.send_multipart(heartbeat)
        while beating.poll(10):
            heard.append(beating.recv_multipart())
        return [worker.services for worker in broker.broker.snapshot().workers] == [("b",)]

    eventually(lambda: len(broker.broker.snapshot().workers) == 2, "both are registered")
    eventually(only_one_left, "the silent one is gone")
    assert heartbeat in heard
    assert silent.poll(0)


def test_ten_thousand_random_messages_do_not_stop_the_broker(
    stage: Stage, shell: ShellKind, peers: Peers, rng: random.Random
) -> None:
    """No input can raise out of the loop, and nobody else notices."""
    broker = stage.broker(config=attrs.evolve(QUICK_BROKER, queued_max=500))
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    client = shell.client(broker.endpoint)
    hostile = [peers.connect(zmq.DEALER, broker.endpoint) for _ in range(20)]
    for number in range(10_000):
        hostile[rng.randrange(20)].send_multipart(_random_message(rng))
        if number % 2_000 == 0:
            assert client.request("echo", b"%d" % number) == [b"%d" % number]
    assert client.request("echo", b"end") == [b"end"]
    eventually(lambda: broker.broker.snapshot().counters["dropped_invalid"] > 1_000, "the messages arrived")
    assert client.request("echo", b"still") == [b"still"]
    assert broker.error is None


_PIECES = [b"", b"MDPC01", b"MDPC02", b"MDPW01", b"MDPW02", *(bytes([code]) for code in range(8)), b"echo", b"RLX\x01"]
_PIECES += [b"mmi.service", b"mmi.reliable", b"mmi.reliable.status", b"RLX\x01" + bytes(86), bytes(16), b"\xff" * 255]


def _random_message(rng: random.Random) -> list[bytes]:
    """Mostly pieces of the protocol in any order; now and then noise."""
    size = rng.randrange(1, 9)
    return [rng.choice(_PIECES) if rng.random() < 0.8 else rng.randbytes(rng.randrange(40)) for _ in range(size)]
