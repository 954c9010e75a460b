"""Contestants that are not ours, each used as its own documentation shows. What is not installed is not imported."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from chaos.ports import free_port
from chaos.process import ChildProcess
from reliable.bench.child import Channel
from reliable.bench.peers_calling import AsyncCaller, BlockingCaller, Caller, windowed

__all__ = ["CALLERS", "STAGES", "Echo"]

_HOST: Final = "127.0.0.1"
_CALL_S_MAX: Final = 20.0
_SUBJECT: Final = "bench"
_METHOD: Final = "/bench.Echo/echo"


def _module(name: str) -> Any:
    # By name, since most machines have few of them, and the type checker none.
    return importlib.import_module(name)


class Echo:
    """What is served where a server wants an object. Not private: Pyro5 exposes no private names."""

    def echo(self, body: Any) -> Any:
        """Give it back."""
        return body


# --- Pyro5 -------------------------------------------------------------------------------------------


def _pyro5(channel: Channel, url: str) -> None:
    api = _module("Pyro5.api")
    daemon = api.Daemon(host=_HOST)
    where = daemon.register(api.expose(Echo)())
    channel.say(url=str(where))
    daemon.requestLoop()


def _pyro5_caller(url: str) -> Caller:
    proxy = _module("Pyro5.api").Proxy(url)
    as_bytes = _module("serpent").tobytes
    return BlockingCaller(lambda body: as_bytes(proxy.echo(body)))


# --- XML-RPC -----------------------------------------------------------------------------------------


def _xmlrpc(channel: Channel, url: str) -> None:
    from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

    class Handler(SimpleXMLRPCRequestHandler):
        protocol_version = "HTTP/1.1"  # else each call would be a connection of its own

    server = SimpleXMLRPCServer((_HOST, 0), requestHandler=Handler, logRequests=False, use_builtin_types=True)
    server.register_function(Echo().echo, "echo")
    channel.say(url=f"http://{_HOST}:{server.server_address[1]}")
    server.serve_forever()


def _xmlrpc_caller(url: str) -> Caller:
    from xmlrpc.client import ServerProxy

    proxy: Any = ServerProxy(url, use_builtin_types=True)
    return BlockingCaller(proxy.echo)


# --- zerorpc -----------------------------------------------------------------------------------------


def _zerorpc(channel: Channel, url: str) -> None:
    server = _module("zerorpc").Server(Echo())
    where = f"tcp://{_HOST}:{free_port()}"
    server.bind(where)
    channel.say(url=where)
    server.run()


def _zerorpc_caller(url: str) -> Caller:
    client = _module("zerorpc").Client(url, timeout=_CALL_S_MAX)
    return BlockingCaller(lambda body: bytes(client.echo(body)))


# --- gRPC: bytes in and out, so that no schema has to be compiled --------------------------------------


def _grpc(channel: Channel, url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    grpc = _module("grpc")
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_grpc_handlers(grpc, lambda body, context: body),))
    port = server.add_insecure_port(f"{_HOST}:0")
    server.start()
    channel.say(url=f"{_HOST}:{port}")
    server.wait_for_termination()


def _grpc_handlers(grpc: Any, echo: Callable[[bytes, Any], Any]) -> Any:
    return grpc.method_handlers_generic_handler("bench.Echo", {"echo": grpc.unary_unary_rpc_method_handler(echo)})


class _GrpcCaller(BlockingCaller):
    def __init__(self, url: str) -> None:
        self._channel = _module("grpc").insecure_channel(url)
        self._method = method = self._channel.unary_unary(_METHOD)
        super().__init__(lambda body: bytes(method(body, timeout=_CALL_S_MAX)))

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        open_calls: deque[Any] = deque()

        def send() -> None:
            open_calls.append(self._method.future(body, timeout=_CALL_S_MAX))

        windowed(send, lambda: bytes(open_calls.popleft().result()), calls, in_flight, body)


def _grpc_asyncio(channel: Channel, url: str) -> None:
    asyncio.run(_grpc_asyncio_server(channel))


async def _grpc_asyncio_server(channel: Channel) -> None:
    grpc, aio = _module("grpc"), _module("grpc.aio")

    async def echo(body: bytes, context: Any) -> bytes:
        return body

    server = aio.server()
    server.add_generic_rpc_handlers((_grpc_handlers(grpc, echo),))
    port = server.add_insecure_port(f"{_HOST}:0")
    await server.start()
    channel.say(url=f"{_HOST}:{port}")
    await server.wait_for_termination()


def _grpc_asyncio_caller(url: str) -> Caller:
    async def opened() -> Callable[[bytes], Awaitable[bytes]]:
        method = _module("grpc.aio").insecure_channel(url).unary_unary(_METHOD)

        async def one(body: bytes) -> bytes:
            return bytes(await method(body, timeout=_CALL_S_MAX))

        return one

    return AsyncCaller(opened)


# --- NATS --------------------------------------------------------------------------------------------


def _nats_server(channel: Channel, url: str) -> None:
    with ChildProcess(["nats-server", "-a", _HOST, "-p", "-1"], ready="Server is ready") as server:
        found = re.search(rf"connections on {_HOST}:(\d+)", server.output())
        assert found is not None, server.output()
        channel.say(url=f"nats://{_HOST}:{found.group(1)}")
        channel.serve(lambda command: command)


def _nats_worker(channel: Channel, url: str) -> None:
    asyncio.run(_nats_serve(channel, url))


async def _nats_serve(channel: Channel, url: str) -> None:
    connection = await _module("nats").connect(url)

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    await connection.subscribe(_SUBJECT, cb=echo)
    await connection.flush()
    channel.say(ready=True)
    await asyncio.Event().wait()


def _nats_caller(url: str) -> Caller:
    async def opened() -> Callable[[bytes], Awaitable[bytes]]:
        connection = await _module("nats").connect(url)

        async def one(body: bytes) -> bytes:
            return bytes((await connection.request(_SUBJECT, body, timeout=_CALL_S_MAX)).data)

        return one

    return AsyncCaller(opened)


# --- Redis: one list for the requests, one for the replies -----------------------------------------------


def _redis_server(channel: Channel, url: str) -> None:
    port = str(free_port())
    options = ["--port", port, "--bind", _HOST, "--save", "", "--appendonly", "no"]
    with ChildProcess(["redis-server", *options], ready="Ready to accept connections"):
        channel.say(url=f"redis://{_HOST}:{port}")
        channel.serve(lambda command: command)


def _redis_worker(channel: Channel, url: str) -> None:
    redis = _module("redis").Redis.from_url(url, socket_timeout=None)
    redis.ping()
    channel.say(ready=True)
    while True:
        _, body = redis.blpop([_SUBJECT])
        redis.rpush(f"{_SUBJECT}.replies", body)


class _RedisCaller(BlockingCaller):
    def __init__(self, url: str) -> None:
        self._redis = _module("redis").Redis.from_url(url, socket_timeout=None)

        def one(body: bytes) -> bytes:
            self._redis.rpush(_SUBJECT, body)
            return self._take()

        super().__init__(one)

    def _take(self) -> bytes:
        _, reply = self._redis.blpop([f"{_SUBJECT}.replies"], timeout=_CALL_S_MAX)
        return bytes(reply)

    def together(self, calls: int, in_flight: int, body: bytes) -> None:
        windowed(lambda: self._redis.rpush(_SUBJECT, body), self._take, calls, in_flight, body)


STAGES: Final[dict[str, Callable[[Channel, str], None]]] = {
    "pyro5": _pyro5,
    "xmlrpc": _xmlrpc,
    "zerorpc": _zerorpc,
    "grpc": _grpc,
    "grpc-asyncio": _grpc_asyncio,
    "nats-server": _nats_server,
    "nats-worker": _nats_worker,
    "redis-server": _redis_server,
    "redis-worker": _redis_worker,
}
"""Processes that serve; each is told the address of the first of its contestant's."""
CALLERS: Final[dict[str, Callable[[str], Caller]]] = {
    "pyro5": _pyro5_caller,
    "xmlrpc": _xmlrpc_caller,
    "zerorpc": _zerorpc_caller,
    "grpc": _GrpcCaller,
    "grpc-asyncio": _grpc_asyncio_caller,
    "nats": _nats_caller,
    "redis": _RedisCaller,
}
"""Who calls them."""
