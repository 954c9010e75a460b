"""What the demo saw, what it makes of it, and how it says so. Pure: no clock, no processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from reliable.cli.status_table import columns
from reliable.status import ExitCode

__all__ = ["HUNG_GRACE_S", "CallRecord", "DemoReport", "Injected", "Verdict", "is_hung", "judge", "render", "value"]

HUNG_GRACE_S: Final = 0.1
"""How much later than its deadline a call may end, beyond the lateness of our own event loop."""


@attrs.frozen(kw_only=True)
class CallRecord:
    """One call. Times are seconds since the run began."""

    name: str
    started_s: float
    deadline_s: float
    ended_s: float | None
    """None: it never ended by itself; the demo stopped waiting."""
    error: str = ""
    """Class of the error, empty for a reply."""
    wrong: bool = False
    """The digest differs from the one computed here."""
    lag_s: float = 0.0
    """How late the demo's own event loop was, at worst, around the end of the call."""


@attrs.frozen
class Injected:
    """A fault that happened."""

    at_s: float
    after_calls: int
    text: str


@attrs.frozen(kw_only=True)
class DemoReport:
    """Everything that the closing table is made from."""

    seed: int
    planned: int
    calls: tuple[CallRecord, ...]
    duration_s: float
    retried: int = 0
    """Calls that took more than one attempt."""
    failed_over: int = 0
    """Calls with attempts at more than one broker."""
    requeued: int = 0
    """Requests that a broker took from a lost worker and gave to another one."""
    faults: tuple[Injected, ...] = ()
    missed_faults: tuple[str, ...] = ()
    """Planned, and never injected: the calls were over before."""


@attrs.frozen(kw_only=True)
class Verdict:
    """The judgement on a run."""

    ok: int
    failed: dict[str, int]
    hung: int
    wrong: int
    not_made: int
    """Calls that were planned and never begun."""
    slowest: CallRecord | None

    @property
    def problems(self) -> list[str]:
        """Why the run is not a success; empty if it is one."""
        found = [f"{count} calls failed with {name}" for name, count in sorted(self.failed.items())]
        if self.hung:
            found.append(f"{self.hung} calls hung")
        if self.wrong:
            found.append(f"{self.wrong} digests were wrong")
        if self.not_made:
            found.append(f"{self.not_made} calls were never made")
        if not (self.ok or found):
            found.append("no call was made")
        return found

    @property
    def exit_code(self) -> ExitCode:
        """0 only if every call was answered, in time and rightly."""
        return ExitCode.FAILURE if self.problems else ExitCode.OK


def is_hung(record: CallRecord) -> bool:
    """Whether a call broke the promise to end by its deadline."""
    return record.ended_s is None or record.ended_s > record.deadline_s + HUNG_GRACE_S + record.lag_s


def judge(planned: int, calls: Sequence[CallRecord]) -> Verdict:
    """Count what became of the calls."""
    ended = [record for record in calls if record.ended_s is not None]
    return Verdict(
        ok=sum(not record.error and not record.wrong for record in ended),
        failed=dict(Counter(record.error for record in ended if record.error)),
        hung=sum(map(is_hung, calls)),
        wrong=sum(record.wrong for record in calls),
        not_made=planned - len(calls),
        slowest=max(ended, key=_took_s, default=None),
    )


def _took_s(record: CallRecord) -> float:
    return (record.ended_s if record.ended_s is not None else record.deadline_s) - record.started_s


def render(report: DemoReport) -> str:
    """The closing table."""
    verdict = judge(report.planned, report.calls)
    rows = [
        ("calls", str(len(report.calls)), f"in {report.duration_s:.1f} s, seed {report.seed}"),
        ("ok", str(verdict.ok), "each digest compared with hashlib"),
        ("retried", str(report.retried), "calls that took more than one attempt"),
        ("failed over", str(report.failed_over), "calls that moved to the other broker"),
        ("requeued", str(report.requeued), "requests that a broker took from a lost worker and gave to another"),
        ("failed", str(sum(verdict.failed.values())), _by_type(verdict)),
        ("hung", str(verdict.hung), f"ended more than {HUNG_GRACE_S} s after their deadline, or never"),
        ("wrong", str(verdict.wrong), "digests that differ"),
        ("slowest", _slowest_time(verdict), _slowest_name(verdict)),
    ]
    lines = columns(rows, frozenset({1}))
    rule = "-" * max(map(len, lines))
    missed = [f"not injected, the calls were over before: {text}" for text in report.missed_faults]
    return "\n".join([rule, *lines, rule, *missed, _conclusion(report, verdict)])


def _by_type(verdict: Verdict) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(verdict.failed.items()))


def _slowest_time(verdict: Verdict) -> str:
    return f"{_took_s(verdict.slowest):.2f} s" if verdict.slowest is not None else "-"


def _slowest_name(verdict: Verdict) -> str:
    return verdict.slowest.name if verdict.slowest is not None else ""


def _conclusion(report: DemoReport, verdict: Verdict) -> str:
    if verdict.problems:
        return f"NOT OK: {'; '.join(verdict.problems)}"
    return f"OK: {len(report.faults)} faults, every call was answered, in time and rightly"


def value(report: DemoReport) -> dict[str, object]:
    """The report for ``--json``."""
    verdict = judge(report.planned, report.calls)
    slowest = verdict.slowest
    return {
        "seed": report.seed,
        "duration_s": round(report.duration_s, 3),
        "calls": len(report.calls),
        "planned": report.planned,
        "ok": verdict.ok,
        "retried": report.retried,
        "failed_over": report.failed_over,
        "requeued": report.requeued,
        "failed": verdict.failed,
        "hung": verdict.hung,
        "wrong": verdict.wrong,
        "slowest": None if slowest is None else {"name": slowest.name, "took_s": round(_took_s(slowest), 3)},
        "faults": [attrs.asdict(fault) for fault in report.faults],
        "missed_faults": list(report.missed_faults),
        "problems": verdict.problems,
    }
