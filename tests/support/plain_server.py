"""A server that knows nothing of this library: a plain socket and a few lines around it.

``python -m tests.support.plain_server KIND ENDPOINT NAME`` prints ``ready``, and then each request that it took in as a
line, so that a test can count what really arrived.

    rep      a REP socket that echoes. A last frame of ``crash`` makes it die instead, one that begins with ``mute``
             makes it hang for good
    loud     a ROUTER that answers as the last frame says: ``twice``, ``garbage``, ``late`` (after 0.5 s) or once
    flp      a server of 10/FLP that echoes behind its name, or stays silent for a body of ``mute@`` and its name among
             others; for a client that has set an identity it does nothing at all (FLP-6)

Nor does it import anything of ours: dozens of them are started, and the package takes longer to load than all the rest.
"""

from __future__ import annotations

import os
import sys
import time

import zmq

_LATE_S = 0.5


def _took(body: list[bytes]) -> str:
    word = body[-1].decode("ascii", "replace")
    print("took", word, flush=True)
    return word


def _rep(socket: zmq.Socket[bytes]) -> None:
    while True:
        body = socket.recv_multipart()
        word = _took(body)
        if word == "crash":
            os._exit(3)
        if word.startswith("mute"):
            # A REP socket that does not answer cannot go on, which is just what an overloaded server looks like.
            time.sleep(3600)
        socket.send_multipart(body)


def _loud(socket: zmq.Socket[bytes]) -> None:
    late: list[tuple[float, list[bytes]]] = []
    while True:
        if socket.poll(20):
            frames = socket.recv_multipart()
            word = _took(frames)
            if word.startswith("garbage"):
                socket.send_multipart([frames[0], b"no delimiter", b"x"])
            if word.startswith("late"):
                late.append((time.monotonic() + _LATE_S, frames))
            else:
                socket.send_multipart(frames)
            if word.startswith("twice"):
                socket.send_multipart(frames)
        while late and late[0][0] <= time.monotonic():
            socket.send_multipart(late.pop(0)[1])


def _flp(socket: zmq.Socket[bytes], name: str) -> None:
    while True:
        client, *frames = socket.recv_multipart()
        if len(client) != 5 or client[0]:
            continue
        if frames == [b"PING"]:
            socket.send_multipart([client, b"PONG"])
        if len(frames) < 2:
            continue
        control, *body = frames
        word = _took(body)
        if not (word.startswith("mute@") and name in word.partition("@")[2]):
            socket.send_multipart([client, control, name.encode(), *body])


def _main(kind: str, endpoint: str, name: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.REP if kind == "rep" else zmq.ROUTER)
    socket.bind(endpoint)
    print("ready", flush=True)
    if kind == "flp":
        _flp(socket, name)
    elif kind == "loud":
        _loud(socket)
    else:
        _rep(socket)


if __name__ == "__main__":
    _main(*sys.argv[1:])
