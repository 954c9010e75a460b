"""A server without a broker, as a process: plain REP, or one that answers PING. It writes down every run.

``python -m chaos.running.child_server DIALECT ENDPOINT FOLDER NAME``; says "ready" once it listens.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import zmq

from chaos.running.recorder import Recorder
from chaos.running.wishes import Wish, fulfil

__all__ = ["main"]


def main(dialect: str, endpoint: str, folder: str, name: str) -> None:
    """Answer until killed."""
    recorder = Recorder(Path(folder), name)
    freelance = dialect == "freelance"
    with zmq.Context() as context, context.socket(zmq.ROUTER if freelance else zmq.REP) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        print("ready", flush=True)
        while True:
            head, body = _split(socket.recv_multipart(), freelance)
            if body == [b"PING"]:
                socket.send_multipart([*head, b"PONG"])
                continue
            key, wish = body[:2]
            run = recorder.begin(key.decode())
            fulfil(msgspec.json.decode(wish, type=Wish))
            recorder.end(run)
            socket.send_multipart([*head, key])


def _split(frames: list[bytes], freelance: bool) -> tuple[list[bytes], list[bytes]]:
    """What has to be given back as it is, and the rest."""
    if not freelance:
        return [], frames
    return (frames[:1], frames[1:]) if len(frames) == 2 else (frames[:2], frames[2:])


if __name__ == "__main__":
    main(*sys.argv[1:5])
