"""The status of a broker as text: plain columns, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reliable.cli.exits import one_line

__all__ = ["columns", "render"]


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of equal length as aligned lines; the columns in ``right`` are aligned to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def render(broker: str, snapshot: Mapping[str, Any]) -> str:
    """What ``reliable status`` prints for one broker. Fields that a broker of another version lacks are left out."""
    version = f", version {_text(snapshot['version'])}" if "version" in snapshot else ""
    leaving = ", draining" if snapshot.get("draining") is True else ""
    head = f"{broker}  life {_text(snapshot.get('life'))}, up {_duration(snapshot.get('uptime_s'))}{version}{leaving}"
    parts = [
        [head],
        _services(snapshot.get("services") or []),
        _workers(snapshot.get("workers") or []),
        _counters(snapshot.get("counters") or {}),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _services(services: Sequence[Mapping[str, Any]]) -> list[str]:
    if not services:
        return ["no services"]
    counts = ("workers", "idle", "working", "stuck", "queued")
    rows = [["SERVICE", *(name.upper() for name in counts), "IDEMPOTENT"]]
    for service in services:
        declared = {True: "yes", False: "no", None: "by call"}[service.get("idempotent")]
        rows.append([_text(service.get("name")), *(_text(service.get(name)) for name in counts), declared])
    return columns(rows, frozenset(range(1, len(counts) + 1)))


def _workers(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    if not workers:
        return ["no workers"]
    rows = [["WORKER", "STATE", "IN HAND", "CREDIT", "HEARD", "SPEAKS", "SERVICES"]]
    for worker in workers:
        rows.append(
            [
                _text(worker.get("instance") or worker.get("peer"))[:12],
                _text(worker.get("state")),
                _text(worker.get("in_hand")),
                _text(worker.get("credit")),
                f"{_duration(worker.get('last_heard_s'))} ago",
                f"MDP {_text(worker.get('version'))}{' + reliable' if worker.get('ours') else ''}",
                " ".join(_text(name) for name in worker.get("services") or []),
            ]
        )
    return columns(rows, frozenset({2, 3, 4}))


def _counters(counters: Mapping[str, Any]) -> list[str]:
    counted = [f"{_text(name)} {_text(value)}" for name, value in counters.items() if value]
    if not counted:
        return ["nothing counted yet"]
    return ["counters: " + ", ".join(counted)]


def _duration(seconds: object) -> str:
    if not isinstance(seconds, (int, float)):
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _text(value: object) -> str:
    return "?" if value is None else one_line(str(value))
