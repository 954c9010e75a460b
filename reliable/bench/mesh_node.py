"""Role: one node of a mesh, which serves all others and calls all others, in four ways."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import zmq

from reliable import AsyncClient, AsyncWorker
from reliable.bench.child import Channel
from reliable.bench.servers import LOOPBACK

__all__ = ["decode_netstring", "encode_netstring", "node"]

_HOST: Final = "127.0.0.1"
_WAIT_S_MAX: Final = 20.0
_BACKLOG: Final = 128


def encode_netstring(value: object) -> bytes:
    """``5:hello,`` where the five bytes are JSON."""
    data = json.dumps(value).encode()
    return b"%d:%s," % (len(data), data)


def decode_netstring(data: bytes) -> tuple[Any, bytes] | None:
    """The first value and what follows it; None if it is not all there yet.

    Raises:
        ValueError: This is no netstring of JSON.
    """
    size, colon, rest = data.partition(b":")
    if not colon:
        return None
    length = int(size)
    if len(rest) <= length:
        return None
    if rest[length : length + 1] != b",":
        raise ValueError(f"a netstring ends with a comma, not with {rest[length : length + 1]!r}")
    return json.loads(rest[:length]), rest[length + 1 :]


def node(channel: Channel, name: str, broker: str, body_bytes: int) -> None:
    """Serve, and send to others when asked to.

    Command: ``{"way": W, "peers": [{"name": …, "tcp": PORT, "zmq": URL}, …], "in_flight": N, "seconds": S}``, where W
    is ``connect``, ``persistent``, ``passing`` or ``ours``. The answer counts messages that were acknowledged.

    Args:
        channel: To the command.
        name: Of this node; also the name of its service.
        broker: The broker of ``ours``.
        body_bytes: Size of the text in each message.
    """
    listener = socket.create_server((_HOST, 0), backlog=_BACKLOG)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    router.bind(LOOPBACK.replace(":0", ":*"))
    threading.Thread(target=_acknowledge, args=(router,), daemon=True).start()
    message = {"from": name, "text": "x" * body_bytes}
    ours = _Ours(broker, name, json.dumps(message).encode())
    channel.say(name=name, tcp=listener.getsockname()[1], zmq=router.getsockopt_string(zmq.LAST_ENDPOINT))
    ways: dict[str, Callable[[list[dict[str, Any]], int, float], int]] = {
        "connect": lambda peers, _, seconds: _by_connecting(peers, message, seconds),
        "persistent": lambda peers, _, seconds: _by_asking(peers, message, seconds),
        "passing": lambda peers, in_flight, seconds: _by_passing(peers, message, in_flight, seconds),
        "ours": ours.send,
    }

    def do(command: dict[str, Any]) -> dict[str, Any]:
        begun, cpu = time.perf_counter_ns(), time.process_time_ns()
        done = ways[command["way"]](command["peers"], command["in_flight"], command["seconds"])
        return {
            "messages": done,
            "whole_ns": time.perf_counter_ns() - begun,
            "cpu_ns": time.process_time_ns() - cpu,
        }

    channel.serve(do)


# --- netstrings over TCP -----------------------------------------------------------------------------


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    unread = b""
    with connection, contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            unread += chunk
            while (found := decode_netstring(unread)) is not None:
                value, unread = found
                connection.sendall(encode_netstring({"got": value["from"]}))


def _connected(peer: dict[str, Any]) -> socket.socket:
    made = socket.create_connection((_HOST, peer["tcp"]), _WAIT_S_MAX)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _asked(connection: socket.socket, message: object) -> None:
    connection.sendall(encode_netstring(message))
    unread = b""
    while decode_netstring(unread) is None:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError("the other node hung up")
        unread += chunk


def _by_connecting(peers: list[dict[str, Any]], message: object, seconds: float) -> int:
    end, done = time.monotonic() + seconds, 0
    for peer in itertools.cycle(peers):
        with _connected(peer) as connection:
            _asked(connection, message)
        done += 1
        if time.monotonic() >= end:
            break
    return done


def _by_asking(peers: list[dict[str, Any]], message: object, seconds: float) -> int:
    done = 0
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(_connected(peer)) for peer in peers]
        end = time.monotonic() + seconds
        for connection in itertools.cycle(connections):
            _asked(connection, message)
            done += 1
            if time.monotonic() >= end:
                break
    return done


# --- messages over ZeroMQ ----------------------------------------------------------------------------


def _acknowledge(router: zmq.Socket[bytes]) -> None:
    while True:
        sender, data = router.recv_multipart()
        router.send_multipart([sender, json.dumps({"got": json.loads(data)["from"]}).encode()])


def _by_passing(peers: list[dict[str, Any]], message: object, in_flight: int, seconds: float) -> int:
    done, under_way = 0, 0
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_dealer(peer["zmq"])) for peer in peers]
        poller = zmq.Poller()
        for one in sockets:
            poller.register(one, zmq.POLLIN)
        targets = itertools.cycle(sockets)
        end = time.monotonic() + seconds
        while time.monotonic() < end or under_way:
            while under_way < in_flight and time.monotonic() < end:
                next(targets).send(json.dumps(message).encode())
                under_way += 1
            ready = poller.poll(round(_WAIT_S_MAX * 1000))
            if not ready:
                raise TimeoutError(f"no acknowledgement within {_WAIT_S_MAX:g} s")
            for one, _ in ready:
                json.loads(one.recv())
                under_way -= 1
                done += 1
    return done


@contextlib.contextmanager
def _dealer(url: str) -> Iterator[zmq.Socket[bytes]]:
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.connect(url)
    try:
        yield made
    finally:
        made.close()


# --- ours --------------------------------------------------------------------------------------------


class _Ours:
    """A client and a worker in a loop of their own; each node is a service of one broker."""

    def __init__(self, broker: str, name: str, body: bytes) -> None:
        self._body = body
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        worker = AsyncWorker(broker, concurrency=100)

        @worker.service(name, raw=True, executor="inline")
        def take(data: bytes) -> bytes:
            return json.dumps({"got": json.loads(data)["from"]}).encode()

        self._running = asyncio.run_coroutine_threadsafe(worker.run(), self._loop)
        if not asyncio.run_coroutine_threadsafe(worker.wait_ready(_WAIT_S_MAX), self._loop).result():
            raise ConnectionError(f"no broker at {broker}")
        self._client = asyncio.run_coroutine_threadsafe(self._made(broker), self._loop).result()

    async def _made(self, broker: str) -> AsyncClient:
        return AsyncClient(broker, timeout=_WAIT_S_MAX)

    def send(self, peers: list[dict[str, Any]], in_flight: int, seconds: float) -> int:
        """As the other ways."""
        return asyncio.run_coroutine_threadsafe(self._send(peers, in_flight, seconds), self._loop).result()

    async def _send(self, peers: list[dict[str, Any]], in_flight: int, seconds: float) -> int:
        targets = itertools.cycle([peer["name"] for peer in peers])
        end, done = time.monotonic() + seconds, 0

        async def work() -> None:
            nonlocal done
            while time.monotonic() < end:
                json.loads((await self._client.request(next(targets), self._body))[0])
                done += 1

        await asyncio.gather(*(work() for _ in range(in_flight)))
        return done
