"""What is timed: one round of calls, by our client or by bare pyzmq.

A bare loop is the least that a program without this library has to do on the same sockets against the same processes.
Whatever a client adds on top (ids, deadline, locks, the engine, reading its socket without blocking) is the difference.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import attrs
import zmq

from benchmarks.children import ECHO
from reliable import Client, ClientConfig, Frames
from reliable.config import Dialect
from reliable.status import Status
from reliable.wire.extension import (
    CALL_ID_BYTES,
    INSTANCE_BYTES,
    AnswerFrame,
    CallFlag,
    CallFrame,
    CallKind,
    Hello,
    HelloAnswer,
    Role,
    body_digest,
)
from reliable.wire.mdp import ClientRequest, Version, decode_at_client
from reliable.wire.mmi import FOUND, hello_request

__all__ = ["Round", "Taken", "bare_dealer", "bare_req", "our_client", "shared_dealer", "shared_req"]


@attrs.frozen
class Taken:
    """What one round took, in nanoseconds."""

    each_ns: list[int]
    """From before each call to after it."""
    cpu_ns: int
    """Processor time of the calling thread, over all of them."""


Round: TypeAlias = Callable[[int], Taken]
"""Makes that many calls."""

CALL_S_MAX: Final = 5.0
"""No call of a benchmark takes longer; one that does ends it."""


@contextmanager
def _socket(kind: int, url: str) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, round(CALL_S_MAX * 1000))
    try:
        socket.connect(url)
        yield socket
    finally:
        socket.close()
        context.term()


@contextmanager
def bare_req(url: str, body: bytes) -> Iterator[Round]:
    """REQ against a REP server: ``send`` and ``recv``."""
    with _socket(zmq.REQ, url) as socket:

        def round_of(calls: int) -> Taken:
            taken, clock = [], time.perf_counter_ns
            cpu_ns = time.thread_time_ns()
            for _ in range(calls):
                begun = clock()
                socket.send(body)
                reply = socket.recv()
                taken.append(clock() - begun)
                assert reply == body
            return Taken(taken, time.thread_time_ns() - cpu_ns)

        yield round_of


@contextmanager
def _receiver(socket: zmq.Socket[bytes]) -> Iterator[Callable[[], list[bytes]]]:
    """How a socket is waited for that another thread may need meanwhile.

    A thread inside of ``recv`` keeps the socket to itself until something comes. Whoever shares it waits on its
    descriptor instead, which signals an edge only: look first, wait only when there is nothing.
    """
    with select.epoll() as poll:
        poll.register(socket.FD, select.EPOLLIN)

        def receive() -> list[bytes]:
            while not int(socket.get(zmq.EVENTS)) & zmq.POLLIN:
                if not poll.poll(CALL_S_MAX):
                    raise TimeoutError("no reply came")
            return socket.recv_multipart(zmq.NOBLOCK)

        yield receive


@contextmanager
def shared_req(url: str, body: bytes) -> Iterator[Round]:
    """As ``bare_req``, in the same frames, but on a socket that other threads may use while one waits."""
    with _socket(zmq.DEALER, url) as socket, _receiver(socket) as receive:

        def round_of(calls: int) -> Taken:
            taken, clock = [], time.perf_counter_ns
            cpu_ns = time.thread_time_ns()
            for _ in range(calls):
                begun = clock()
                socket.send_multipart((b"", body))
                reply = receive()
                taken.append(clock() - begun)
                assert reply == [b"", body]
            return Taken(taken, time.thread_time_ns() - cpu_ns)

        yield round_of


@contextmanager
def bare_dealer(url: str, body: bytes) -> Iterator[Round]:
    """DEALER through our broker, in the frames of our client.

    Each call needs a fresh id, or the broker would answer from its record. The frames are put together before the clock
    starts: they stand for a constant that a program without a client would send, and writing them is work of a client.
    """
    with _socket(zmq.DEALER, url) as socket:
        yield _dealer_round(socket, socket.recv_multipart, body)


@contextmanager
def shared_dealer(url: str, body: bytes) -> Iterator[Round]:
    """As ``bare_dealer``, but on a socket that other threads may use while one waits."""
    with _socket(zmq.DEALER, url) as socket, _receiver(socket) as receive:
        yield _dealer_round(socket, receive, body)


def _dealer_round(socket: zmq.Socket[bytes], receive: Callable[[], list[bytes]], body: bytes) -> Round:
    session = _Session(socket)

    def round_of(calls: int) -> Taken:
        messages = [session.submit(body) for _ in range(calls)]
        taken, clock = [], time.perf_counter_ns
        replies = []
        cpu_ns = time.thread_time_ns()
        for message in messages:
            begun = clock()
            socket.send_multipart(message)
            reply = receive()
            taken.append(clock() - begun)
            replies.append(reply)
        cpu_ns = time.thread_time_ns() - cpu_ns
        for reply in replies:
            session.check(reply, body)
        return Taken(taken, cpu_ns)

    return round_of


class _Session:
    """The hello of a bare socket, and frames that are good after it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._client = os.urandom(INSTANCE_BYTES)
        socket.send_multipart(hello_request(Hello(Role.CLIENT, self._client).encode()))
        self._began = time.monotonic()
        code, *answer = decode_at_client(socket.recv_multipart()).body
        assert code == FOUND, code
        self._life = HelloAnswer.decode(answer).life

    def submit(self, body: bytes) -> Frames:
        """A message that makes a call."""
        service, now_s = ECHO.encode(), time.monotonic() - self._began
        frame = CallFrame(
            CallKind.SUBMIT,
            CallFlag.NONE,
            1,
            os.urandom(CALL_ID_BYTES),
            self._client,
            self._life,
            round((now_s + 30.0) * 1000),
            round(now_s * 1000),
            body_digest(service, [body]),
        )
        return ClientRequest(Version.MDP02, service, [body], [frame.encode()]).encode()

    @staticmethod
    def check(reply: Frames, body: bytes) -> None:
        """A loop that measures refusals would be fast."""
        read = decode_at_client(reply)
        assert AnswerFrame.decode(read.stack[-1]).status is Status.OK
        assert read.body == [body]


@contextmanager
def our_client(url: str, body: bytes, dialect: Dialect = Dialect.MDP) -> Iterator[Round]:
    """``Client.request``, as a user calls it."""
    with Client(url, config=ClientConfig(dialect=dialect, timeout_s=CALL_S_MAX)) as client:

        def round_of(calls: int) -> Taken:
            taken, clock = [], time.perf_counter_ns
            cpu_ns = time.thread_time_ns()
            for _ in range(calls):
                begun = clock()
                reply = client.request(ECHO, body)
                taken.append(clock() - begun)
                assert reply == [body]
            return Taken(taken, time.thread_time_ns() - cpu_ns)

        yield round_of
