"""Medians, ratios and their spread, and what machine they are from."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reliable.bench.figures import Spread, spread_of
from reliable.bench.machine import about_machine

__all__ = ["Case", "Spread", "about_machine", "spread_of"]


@attrs.define
class Case:
    """One comparison: for each round the median of each of its loops, in nanoseconds."""

    name: str
    bare_ns: list[float] = attrs.field(factory=list)
    ours_ns: list[float] = attrs.field(factory=list)
    control_ns: list[float] = attrs.field(factory=list)
    """The bare loop once more, on a socket of its own: how far its ratio is from 1 is noise."""
    floor_ns: list[float] = attrs.field(factory=list)
    """The bare loop on a socket that other threads may use while one waits: the floor under all that can be shared."""
    bare_cpu_ns: list[float] = attrs.field(factory=list)
    """Processor time of the calling thread per call, round by round. Other processes disturb it far less."""
    ours_cpu_ns: list[float] = attrs.field(factory=list)
    floor_cpu_ns: list[float] = attrs.field(factory=list)

    @property
    def ratio(self) -> Spread:
        """Ours over bare, round by round: what disturbs a whole round drops out."""
        return spread_of([ours / bare for ours, bare in zip(self.ours_ns, self.bare_ns, strict=True)])

    @property
    def floor(self) -> Spread:
        """What can be shared over bare, likewise."""
        return spread_of([floor / bare for floor, bare in zip(self.floor_ns, self.bare_ns, strict=True)])

    @property
    def noise(self) -> Spread:
        """Bare over bare, likewise."""
        return spread_of([again / bare for again, bare in zip(self.control_ns, self.bare_ns, strict=True)])

    def lines(self) -> list[str]:
        """For a terminal."""
        rows = [
            ("bare pyzmq", self.bare_ns),
            ("bare, shared", self.floor_ns),
            ("our client", self.ours_ns),
            ("bare again", self.control_ns),
        ]
        shown = [f"{self.name}, {len(self.bare_ns)} rounds"]
        shown += [f"  p50 {name}: {_microseconds(taken).text(' us', 1)}" for name, taken in rows]
        shown += [
            f"  ours / bare: {self.ratio.text()}",
            f"  shared / bare: {self.floor.text()}  (no client that threads may share gets below this)",
            f"  bare / bare: {self.noise.text()}  (noise)",
        ]
        cpu = [
            ("bare pyzmq", self.bare_cpu_ns),
            ("bare, shared", self.floor_cpu_ns),
            ("our client", self.ours_cpu_ns),
        ]
        return shown + [f"  processor time {name}: {_microseconds(taken).text(' us', 1)}" for name, taken in cpu]

    def as_json(self) -> dict[str, object]:
        """Everything, for machines."""
        return {
            "p50_us": {
                "bare": [ns / 1000 for ns in self.bare_ns],
                "ours": [ns / 1000 for ns in self.ours_ns],
                "shared": [ns / 1000 for ns in self.floor_ns],
                "control": [ns / 1000 for ns in self.control_ns],
            },
            "cpu_us": {
                "bare": [ns / 1000 for ns in self.bare_cpu_ns],
                "ours": [ns / 1000 for ns in self.ours_cpu_ns],
                "shared": [ns / 1000 for ns in self.floor_cpu_ns],
            },
            "ratio": attrs.asdict(self.ratio),
            "floor": attrs.asdict(self.floor),
            "noise": attrs.asdict(self.noise),
        }


def _microseconds(taken_ns: Sequence[float]) -> Spread:
    return spread_of([ns / 1000 for ns in taken_ns])
