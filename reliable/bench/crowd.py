"""Many clients and workers over a few processes: what ``bench matrix`` and ``bench scale`` share."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from typing import Any, Final

import attrs

from reliable.bench.children import Child
from reliable.bench.figures import latency_of

__all__ = ["Cell", "Crowd", "shares"]

_OPEN_S: Final = 300.0
"""For opening connections, beside the turn itself."""


def shares(many: int, processes: int) -> list[int]:
    """How many each process gets; they differ by one at most, and none gets nothing."""
    used = min(many, processes)
    return [many // used + (number < many % used) for number in range(used)]


@attrs.define
class Cell:
    """One combination: a figure for each round."""

    per_second: list[float] = attrs.field(factory=list)
    p50_us: list[float] = attrs.field(factory=list)
    p99_us: list[float] = attrs.field(factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        """Calls per second, median of the rounds."""
        return statistics.median(self.per_second)

    @property
    def p50(self) -> float:
        """Median of the rounds' medians, in microseconds."""
        return statistics.median(self.p50_us)

    @property
    def p99(self) -> float:
        """Median of the rounds' 99th percentiles, in microseconds."""
        return statistics.median(self.p99_us)


class Crowd:
    """Processes with clients and with workers of one broker.

    Args:
        stack: Ends them.
        client_processes: How many processes share the clients.
        worker_processes: How many processes share the workers.
    """

    def __init__(self, stack: contextlib.ExitStack, *, client_processes: int, worker_processes: int) -> None:
        self.url = stack.enter_context(Child("broker")).url
        self._clients = [stack.enter_context(Child("clients", url=self.url)) for _ in range(client_processes)]
        self._workers = [stack.enter_context(Child("workers", url=self.url)) for _ in range(worker_processes)]

    def grow(self, workers: int) -> None:
        """Have so many workers; those that are there stay.

        Raises:
            ChildFailed: Some could not be started.
        """
        self._ask(self._workers, [{"workers": count} for count in shares(workers, len(self._workers))], _OPEN_S)

    def turn(self, cell: Cell, *, clients: int, body_bytes: int, seconds: float) -> None:
        """Have so many clients call for so long, and add what came of it.

        Raises:
            ChildFailed: A process could not do its part, or not one call was answered.
        """
        wanted = [
            {"clients": count, "body_bytes": body_bytes, "seconds": seconds}
            for count in shares(clients, len(self._clients))
        ]
        found = self._ask(self._clients, wanted, seconds + _OPEN_S)
        taken = [each for answer in found for each in answer["each_ns"]]
        cell.failed += sum(answer["failed"] for answer in found)
        cell.per_second.append(sum(answer["calls"] / answer["whole_ns"] * 1e9 for answer in found))
        if taken:
            latency = latency_of(taken)
            cell.p50_us.append(latency.p50_us)
            cell.p99_us.append(latency.p99_us)

    @staticmethod
    def _ask(
        children: Sequence[Child], commands: Sequence[dict[str, float]], seconds_max: float
    ) -> list[dict[str, Any]]:
        asked = children[: len(commands)]
        for child, command in zip(asked, commands, strict=True):
            child.tell(**command)
        return [child.answer(seconds_max) for child in asked]
