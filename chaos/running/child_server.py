"""A plain REP server, as a process: what a program without a broker would be. It writes down every run.

``python -m chaos.running.child_server ENDPOINT FOLDER NAME``; says "ready" once it listens.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import zmq

from chaos.running.recorder import Recorder
from chaos.running.wishes import Wish, fulfil

__all__ = ["main"]


def main(endpoint: str, folder: str, name: str) -> None:
    """Answer until killed."""
    recorder = Recorder(Path(folder), name)
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        print("ready", flush=True)
        while True:
            key, wish = socket.recv_multipart()[:2]
            run = recorder.begin(key.decode())
            fulfil(msgspec.json.decode(wish, type=Wish))
            recorder.end(run)
            socket.send(key)


if __name__ == "__main__":
    main(*sys.argv[1:4])
