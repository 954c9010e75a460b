"""Contestants: bare pyzmq and this library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import zmq

from reliable import RAW, AsyncClient, Client, ClientConfig
from reliable.bench import servers
from reliable.bench.child import Channel
from reliable.bench.peers_calling import AsyncCaller, BlockingCaller, Caller, windowed
from reliable.bench.servers import ECHO, LOOPBACK
from reliable.config import Dialect

__all__ = ["CALLERS", "STAGES"]

_WAIT_MS: Final = 20_000
_CALL_S_MAX: Final = 20.0


def _socket(kind: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    return socket


def _bound(kind: int) -> tuple[zmq.Socket[bytes], str]:
    socket = _socket(kind)
    socket.bind(LOOPBACK.replace(":0", ":*"))
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _connected(kind: int, url: str) -> zmq.Socket[bytes]:
    socket = _socket(kind)
    socket.setsockopt(zmq.RCVTIMEO, _WAIT_MS)
    socket.connect(url)
    return socket


def _rep(channel: Channel, url: str) -> None:
    socket, where = _bound(zmq.REP)
    channel.say(url=where)
    while True:
        socket.send(socket.recv())


def _router(channel: Channel, url: str) -> None:
    socket, where = _bound(zmq.ROUTER)
    channel.say(url=where)
    while True:
        socket.send_multipart(socket.recv_multipart())


def _proxy(channel: Channel, url: str) -> None:
    front, where = _bound(zmq.ROUTER)
    back, there = _bound(zmq.DEALER)
    channel.say(url=where, back=there)
    zmq.proxy(front, back)


def _proxied(channel: Channel, url: str) -> None:
    socket = _socket(zmq.ROUTER)
    socket.connect(url)
    channel.say(ready=True)
    while True:
        socket.send_multipart(socket.recv_multipart())


def _our_broker(channel: Channel, url: str) -> None:
    servers.broker(channel)


def _our_worker(channel: Channel, url: str) -> None:
    servers.worker(channel, url, concurrency=100)


def _our_inline_worker(channel: Channel, url: str) -> None:
    servers.worker(channel, url, concurrency=100, executor="inline")


STAGES: Final[dict[str, Callable[[Channel, str], None]]] = {
    "rep": _rep,
    "router": _router,
    "proxy": _proxy,
    "proxied": _proxied,
    "our-broker": _our_broker,
    "our-worker": _our_worker,
    "our-inline-worker": _our_inline_worker,
}
"""Processes that serve; each is told the address of the first of its contestant's."""


def _req(url: str) -> Caller:
    socket = _connected(zmq.REQ, url)

    def one(body: bytes) -> bytes:
        socket.send(body)
        return socket.recv()

    return BlockingCaller(one)


class _Dealer(BlockingCaller):
    def __init__(self, url: str) -> None:
        self._socket = socket = _connected(zmq.DEALER, url)

        def one(body: bytes) -> bytes:
            socket.send(body)
            return socket.recv()

        super().__init__(one)

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        socket = self._socket
        windowed(lambda: socket.send(body), socket.recv, calls, in_flight, body)


class _Ours(BlockingCaller):
    def __init__(self, url: str, dialect: Dialect = Dialect.MDP) -> None:
        self._client = client = Client(url, config=ClientConfig(dialect=dialect, timeout_s=_CALL_S_MAX))
        super().__init__(lambda body: client.request(ECHO, body)[0])

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        raw = self._client.options(codec=RAW)
        for reply in raw.map(ECHO, (body for _ in range(calls)), in_flight=in_flight):
            assert reply == body


def _ours_asyncio(url: str) -> Caller:
    async def opened() -> Callable[[bytes], Awaitable[bytes]]:
        client = AsyncClient(url, config=ClientConfig(timeout_s=_CALL_S_MAX))

        async def one(body: bytes) -> bytes:
            return (await client.request(ECHO, body))[0]

        return one

    return AsyncCaller(opened)


CALLERS: Final[dict[str, Callable[[str], Caller]]] = {
    "req": _req,
    "dealer": _Dealer,
    "ours": _Ours,
    "ours-asyncio": _ours_asyncio,
    "ours-req": lambda url: _Ours(url, Dialect.REQ),
}
"""Who calls them."""
