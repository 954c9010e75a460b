"""What a benchmark found, as text, as JSON, and as what is drawn. No sockets, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

__all__ = ["Report", "Table"]


@attrs.frozen
class Table:
    """Rows under a head; the first column is text, the others are figures and stand to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def text(self) -> str:
        """With aligned columns."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [self.title] if self.title else []
        for row in (self.head, *self.rows):
            first = row[0].ljust(widths[0])
            others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([first, *others]).rstrip())
        return "\n".join(lines)


@attrs.frozen(kw_only=True)
class Report:
    """One run of one benchmark."""

    name: str
    """The subcommand."""
    command: str
    """What repeats it."""
    machine: dict[str, object]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    """What the reader has to know beside the tables: what was not measured, how large the noise was."""
    data: dict[str, Any]
    """All figures, for machines and for drawing; its shape is the benchmark's own."""

    def text(self) -> str:
        """For a terminal."""
        about = ", ".join(f"{name} {_plain(value)}" for name, value in self.machine.items())
        parts = [f"{self.command}\n{about}", *(table.text() for table in self.tables)]
        if self.notes:
            parts.append("\n".join(self.notes))
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """For machines: name, command, machine, notes and data."""
        return {
            "benchmark": self.name,
            "command": self.command,
            "machine": self.machine,
            "notes": list(self.notes),
            **self.data,
        }


def _plain(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)
