"""A report as plain text: one table for all runs, and what failed in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chaos.reporting.value import ControlLine, Report, RunReport

__all__ = ["answered_of", "control_text", "ends_of", "not_injected_of", "render"]

_HEAD = ("SCENARIO", "RESULT", "CALLS", "OK", "FAILED", "UNKNOWN", "HUNG", "RECOVERY", "RAW REQ/REP", "TIME")
_RIGHT = frozenset({2, 3, 4, 5, 6, 7, 9})


def ends_of(run: RunReport) -> Counter[str]:
    """How many calls ended in which way."""
    return Counter(call.end for call in run.calls)


def answered_of(ends: Counter[str]) -> int:
    """How many calls got what they wanted: a reply, or, if they want none, a broker's word."""
    return ends["ok"] + ends["accepted"]


def control_text(control: ControlLine | None) -> str:
    """What the control shows, in a few words."""
    if control is None:
        return "-"
    if control.hung_since_s is not None:
        return f"still waits after {control.hung_for_s:.1f} s"
    return f"waited up to {control.longest_s:.1f} s"


def not_injected_of(report: Report) -> list[str]:
    """What could not be injected, each once."""
    return sorted({run.reason for run in report.runs if run.verdict == "not injected"})


def render(report: Report) -> str:
    """The closing table, what failed, and what could not be injected."""
    parts = ["\n".join(_columns([_HEAD, *(_row(run) for run in report.runs)]))]
    parts += [text for run in report.runs if (text := _offences(run))]
    missing = not_injected_of(report)
    if missing:
        parts.append(f"not injected: {'; '.join(missing)}")
    counts = Counter(run.verdict for run in report.runs)
    parts.append(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("passed", "failed", "not injected")))
    return "\n\n".join(parts)


def _row(run: RunReport) -> tuple[str, ...]:
    ends = ends_of(run)
    recovery = next((check.figure for check in run.checks if check.name == "recovery"), "-")
    return (
        run.scenario,
        run.verdict,
        str(len(run.calls)),
        str(answered_of(ends)),
        str(ends["failed"]),
        str(ends["unknown"]),
        str(ends["hung"]),
        recovery if recovery.endswith(" s") else "-",
        control_text(run.control),
        f"{run.whole_s:.1f} s",
    )


def _offences(run: RunReport) -> str:
    if run.verdict != "failed":
        return ""
    lines = [f"{run.scenario} (seed {run.seed}): {run.reason or 'failed'}"]
    for check in run.checks:
        if not check.ok:
            lines.append(f"  {check.name}: {check.offences_count} wrong")
            lines += [f"    {offence}" for offence in check.offences]
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if index in _RIGHT else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
