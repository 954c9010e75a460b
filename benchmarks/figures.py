"""Medians, ratios and their spread, and what machine they are from."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import attrs
import zmq

__all__ = ["Case", "Spread", "about_machine", "spread_of"]


@attrs.frozen
class Spread:
    """Several figures of the same thing."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""

    def text(self, unit: str = "", digits: int = 2) -> str:
        """``1.10 (1.08 to 1.13)``."""
        return f"{self.median:.{digits}f}{unit} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles; of a single figure, itself."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@attrs.define
class Case:
    """One comparison: for each round the median of each of its three loops, in nanoseconds."""

    name: str
    bare_ns: list[float] = attrs.field(factory=list)
    ours_ns: list[float] = attrs.field(factory=list)
    control_ns: list[float] = attrs.field(factory=list)
    """The bare loop once more, on a socket of its own: how far its ratio is from 1 is noise."""
    bare_cpu_ns: list[float] = attrs.field(factory=list)
    """Processor time of the calling thread per call, round by round. Other processes disturb it far less."""
    ours_cpu_ns: list[float] = attrs.field(factory=list)

    @property
    def ratio(self) -> Spread:
        """Ours over bare, round by round: what disturbs a whole round drops out."""
        return spread_of([ours / bare for ours, bare in zip(self.ours_ns, self.bare_ns, strict=True)])

    @property
    def noise(self) -> Spread:
        """Bare over bare, likewise."""
        return spread_of([again / bare for again, bare in zip(self.control_ns, self.bare_ns, strict=True)])

    def lines(self) -> list[str]:
        """For a terminal."""
        rows = [("bare pyzmq", self.bare_ns), ("our client", self.ours_ns), ("bare again", self.control_ns)]
        shown = [f"{self.name}, {len(self.bare_ns)} rounds"]
        shown += [f"  p50 {name}: {_microseconds(taken).text(' us', 1)}" for name, taken in rows]
        shown += [f"  ours / bare: {self.ratio.text()}", f"  bare / bare: {self.noise.text()}  (noise)"]
        cpu = [("bare pyzmq", self.bare_cpu_ns), ("our client", self.ours_cpu_ns)]
        return shown + [f"  processor time {name}: {_microseconds(taken).text(' us', 1)}" for name, taken in cpu]

    def as_json(self) -> dict[str, object]:
        """Everything, for machines."""
        return {
            "p50_us": {
                "bare": [ns / 1000 for ns in self.bare_ns],
                "ours": [ns / 1000 for ns in self.ours_ns],
                "control": [ns / 1000 for ns in self.control_ns],
            },
            "cpu_us": {
                "bare": [ns / 1000 for ns in self.bare_cpu_ns],
                "ours": [ns / 1000 for ns in self.ours_cpu_ns],
            },
            "ratio": attrs.asdict(self.ratio),
            "noise": attrs.asdict(self.noise),
        }


def _microseconds(taken_ns: Sequence[float]) -> Spread:
    return spread_of([ns / 1000 for ns in taken_ns])


def about_machine() -> dict[str, object]:
    """What figures depend on."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "reliable": metadata.version("reliable"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
