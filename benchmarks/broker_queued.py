"""Requests that wait in a broker's queue, to see how much memory each of them takes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from reliable.types import Frames
from reliable.wire.extension import (
    CALL_ID_BYTES,
    DIGEST_BYTES,
    INSTANCE_BYTES,
    CallFlag,
    CallFrame,
    CallKind,
    Hello,
    HelloAnswer,
    Role,
)
from reliable.wire.mdp import ClientRequest, Version, WorkerReady, decode_at_client
from reliable.wire.mmi import hello_request, service_query

__all__ = ["QUEUED_BODY_BYTES", "waiting"]

QUEUED_BODY_BYTES: Final = 1024
_SERVICE: Final = b"busy"
_ANSWER_MS_MAX: Final = 30_000
_DEADLINE_MS: Final = 60_000


@contextlib.contextmanager
def waiting(url: str) -> Iterator[Callable[..., None]]:
    """A broker with one worker, which never answers.

    Yields:
        ``send(count, ours=…)``: sends so many requests, plain ones or in the extension, and returns when the broker has
        taken them all in.
    """
    context = zmq.Context()
    sockets: dict[str, zmq.Socket[bytes]] = {name: context.socket(zmq.DEALER) for name in ("worker", "plain", "ours")}
    try:
        for socket in sockets.values():
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVTIMEO, _ANSWER_MS_MAX)
            socket.connect(url)
        sockets["worker"].send_multipart(WorkerReady(Version.MDP01, _SERVICE).encode())
        while _ask(sockets["plain"], service_query(Version.MDP01, _SERVICE)) != [b"200"]:
            time.sleep(0.01)
        instance = os.urandom(INSTANCE_BYTES)
        life = HelloAnswer.decode(_ask(sockets["ours"], hello_request(Hello(Role.CLIENT, instance).encode()))[1:]).life

        def send(count: int, *, ours: bool) -> None:
            socket = sockets["ours" if ours else "plain"]
            for _ in range(count):
                socket.send_multipart(_request(instance, life) if ours else _plain())
            # Behind them on the same connection: when it is answered, they were read.
            _ask(socket, service_query(Version.MDP02 if ours else Version.MDP01, _SERVICE))

        yield send
    finally:
        for socket in sockets.values():
            socket.close()
        context.term()


def _ask(socket: zmq.Socket[bytes], question: Frames) -> Frames:
    socket.send_multipart(question)
    return decode_at_client(socket.recv_multipart()).body


def _plain() -> Frames:
    return ClientRequest(Version.MDP01, _SERVICE, [os.urandom(QUEUED_BODY_BYTES)]).encode()


def _request(instance: bytes, life: bytes) -> Frames:
    frame = CallFrame(
        CallKind.SUBMIT,
        CallFlag.NONE,
        1,
        os.urandom(CALL_ID_BYTES),
        instance,
        life,
        _DEADLINE_MS,
        0,
        os.urandom(DIGEST_BYTES),
    ).encode()
    return ClientRequest(Version.MDP02, _SERVICE, [os.urandom(QUEUED_BODY_BYTES)], [frame]).encode()
