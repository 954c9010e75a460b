"""``python -m reliable.bench.child ROLE ARGUMENTS``: one process of a benchmark.

The first line on standard output says that it is ready, with where it listens or what else is to be known. From then on
it answers each line of its input; when its input ends, so does it, at once, whatever it is doing.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

__all__ = ["ROLES", "Channel", "main"]

ROLES: Final = {
    "broker": "reliable.bench.servers:broker",
    "worker": "reliable.bench.servers:worker",
    "caller": "reliable.bench.callers:caller",
    "clients": "reliable.bench.fleet:clients",
    "workers": "reliable.bench.fleet:workers",
    "peer-server": "reliable.bench.peers_roles:server",
    "peer-client": "reliable.bench.peers_roles:client",
    "mesh-node": "reliable.bench.mesh_node:node",
    "push": "reliable.bench.unfair_roles:push",
    "pull": "reliable.bench.unfair_roles:pull",
    "counting-worker": "reliable.bench.unfair_roles:counting_worker",
    "submitter": "reliable.bench.unfair_roles:submitter",
}
"""Where each is; imported by the child that is one."""


class Channel:
    """The way to the command that started this process."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # Our own copy: what a library prints must not get among the answers.
        self._out = os.dup(1)
        os.dup2(2, 1)
        threading.Thread(target=self._read, name="bench-input", daemon=True).start()

    def say(self, **facts: Any) -> None:
        """One line: the first says that we are ready, each other answers a command."""
        left = memoryview(msgspec.json.encode(facts) + b"\n")
        while left:
            left = left[os.write(self._out, left) :]

    def commands(self) -> Iterator[dict[str, Any]]:
        """What we are asked to do, until the process ends."""
        while True:
            yield self._commands.get()

    def serve(self, do: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer each command with what ``do`` makes of it, for ever."""
        for command in self.commands():
            self.say(**do(command))

    def _read(self) -> None:
        unread = b""
        while chunk := os.read(0, 1 << 16):
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                self._commands.put(msgspec.json.decode(line))
        os._exit(0)


def _allow_many_files() -> None:
    """A client has a dozen descriptors, and there may be hundreds in a process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Be one of them; what goes wrong becomes the answer."""
    role, arguments = sys.argv[1], msgspec.json.decode(sys.argv[2])
    # That a loop was late is in the figures already; the terminal is for the command alone.
    logging.basicConfig(level=logging.ERROR)
    _allow_many_files()
    channel = Channel()
    try:
        module, _, name = ROLES[role].partition(":")
        getattr(importlib.import_module(module), name)(channel, **arguments)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        channel.say(error=f"{type(error).__name__}: {error}")
        os._exit(1)


if __name__ == "__main__":
    main()
