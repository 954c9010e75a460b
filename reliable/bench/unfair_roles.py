"""Roles: who hands out jobs, and who does them, by PUSH and PULL and by this library."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import zmq

from reliable import RAW, Client, Worker
from reliable.bench.child import Channel
from reliable.bench.servers import ECHO, LOOPBACK

__all__ = ["counting_worker", "pull", "push", "submitter"]

_WAIT_S_MAX: Final = 60.0


def push(channel: Channel) -> None:
    """A PUSH socket. Command: ``{"jobs": N}``; the answer comes when all are handed to the socket."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDTIMEO, round(_WAIT_S_MAX * 1000))
    socket.bind(LOOPBACK.replace(":0", ":*"))
    channel.say(url=socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def do(command: dict[str, Any]) -> dict[str, Any]:
        for _ in range(command["jobs"]):
            socket.send(b"job")
        return {"sent": command["jobs"]}

    channel.serve(do)


class _Done:
    """Jobs done, and when the last one was."""

    def __init__(self, job_s: float) -> None:
        self._job_s = job_s
        self.jobs = 0

    def job(self) -> None:
        time.sleep(self._job_s)
        self.jobs += 1


def pull(channel: Channel, url: str, job_s: float) -> None:
    """A worker that pulls. Commands: ``{"do": "join"}`` and ``{"do": "count"}``; both answer with its jobs done.

    Args:
        channel: To the command.
        url: The PUSH socket.
        job_s: How long a job takes; it is slept, so that workers do not take the processor from each other.
    """
    done = _Done(job_s)

    def run() -> None:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        socket.connect(url)
        while True:
            socket.recv()
            done.job()

    _serve(channel, done, threading.Thread(target=run, daemon=True))


def counting_worker(channel: Channel, url: str, job_s: float) -> None:
    """The same with our worker; ``url`` is the broker."""
    done = _Done(job_s)
    worker = Worker(url)

    @worker.service(ECHO, raw=True)
    def job(body: bytes) -> bytes:
        done.job()
        return body

    _serve(channel, done, threading.Thread(target=worker.run, daemon=True))


def _serve(channel: Channel, done: _Done, thread: threading.Thread) -> None:
    channel.say(ready=True)

    def do(command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "join":
            thread.start()
        return {"jobs": done.jobs}

    channel.serve(do)


def submitter(channel: Channel, url: str) -> None:
    """Calls all jobs at once. Command: ``{"jobs": N}``; the answer comes when all are done."""
    with Client(url, timeout=_WAIT_S_MAX) as client:
        channel.say(ready=True)

        def do(command: dict[str, Any]) -> dict[str, Any]:
            jobs = command["jobs"]
            view = client.options(codec=RAW)
            for _ in view.map(ECHO, (b"job" for _ in range(jobs)), in_flight=jobs, ordered=False):
                pass
            return {"sent": jobs}

        channel.serve(do)
