"""The processes that benchmarks talk to; each ends with its block, or with the process that started it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reliable.bench.children import Child
from reliable.bench.servers import ECHO

__all__ = ["ECHO", "child"]


@contextlib.contextmanager
def child(name: str, *arguments: str) -> Iterator[str]:
    """Run ``rep``, ``broker`` or ``worker`` in a process of its own while the block runs.

    Args:
        name: Which.
        arguments: For ``worker``: the address of the broker.

    Yields:
        The address where it listens, or ``ready``.

    Raises:
        ChildFailed: It did not get ready in time.
        ValueError: There is none of that name.
    """
    match name, *arguments:
        case ["rep"]:
            started = Child("peer-server", stage="rep")
        case ["broker"]:
            started = Child("broker")
        case ["worker", url]:
            started = Child("worker", url=url)
        case other:
            raise ValueError(f"there is no child {other!r}")
    with started:
        yield str(started.ready().get("url", "ready"))
