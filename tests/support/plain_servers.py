"""Servers that know nothing of this library, each in a process of its own: see ``plain_server`` for their kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chaos.process import ChildProcess
from tests.support.commands import ROOT
from tests.support.loopback import eventually
from tests.support.ports import free_endpoint

__all__ = ["PlainServer", "plain_server"]


class PlainServer:
    """One running server."""

    def __init__(self, child: ChildProcess, endpoint: str) -> None:
        self.child = child
        self.endpoint = endpoint

    def taken(self, word: str) -> int:
        """How many requests with this last frame arrived."""
        return self.child.output().splitlines().count(f"took {word}")

    def wait_taken(self, word: str) -> None:
        """Until it has noted one, and with it all that arrived before: a reply may be here before the note is."""
        eventually(lambda: self.taken(word) > 0, f"it took {word!r}")


@contextmanager
def plain_server(kind: str, endpoint: str = "", name: str = "") -> Iterator[PlainServer]:
    """A server of that kind; killed at the end."""
    endpoint = endpoint or free_endpoint()
    argv = ("-m", "tests.support.plain_server", kind, endpoint, name)
    with ChildProcess.python(*argv, ready="^ready$", cwd=ROOT) as child:
        yield PlainServer(child, endpoint)
