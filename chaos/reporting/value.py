"""The report as a value that becomes JSON and is read again. All times are seconds from the start of the load."""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from reliable.errors import ReliableError

__all__ = [
    "FORMAT",
    "CallLine",
    "CheckLine",
    "ControlLine",
    "FaultLine",
    "Report",
    "ReportUnreadable",
    "RunReport",
    "SampleLine",
    "StateLine",
    "decode",
    "encode",
]

FORMAT: Final = 1


class ReportUnreadable(ReliableError):
    """A file that is no report of ours, or one of another version."""


@attrs.frozen(kw_only=True)
class CallLine:
    """One call and what became of it."""

    key: str
    client: str
    service: str
    kind: str
    phase: str
    invoked_s: float
    deadline_s: float | None
    ended_s: float | None
    """None: it never ended."""
    end: str
    """``ok``, ``failed`` (surely not done, or done and failed), ``unknown``, or ``hung``."""
    error: str = ""
    outcome: str = ""
    runs: int = 0
    """How often a handler was entered for it."""


@attrs.frozen(kw_only=True)
class FaultLine:
    """One fault."""

    text: str
    lane: str
    """The process that it hit, or empty."""
    began_s: float
    ended_s: float | None
    proof: str
    proven: bool


@attrs.frozen(kw_only=True)
class StateLine:
    """From then on a process was in this state."""

    who: str
    at_s: float
    state: str


@attrs.frozen(kw_only=True)
class SampleLine:
    """One look at a broker."""

    at_s: float
    broker: str
    queued: int
    workers: dict[str, str]
    """State by name of the worker's incarnation, in the broker's eyes."""


@attrs.frozen(kw_only=True)
class CheckLine:
    """One check."""

    name: str
    ok: bool
    figure: str
    """What was measured, in a few words."""
    offences: list[str] = attrs.field(factory=list)
    """The first of them, one line each."""
    offences_count: int = 0


@attrs.frozen(kw_only=True)
class ControlLine:
    """What raw REQ/REP made of the same faults."""

    answered: int
    longest_s: float
    """The longest wait that ended with a reply."""
    hung_since_s: float | None
    """When the call was made that still waited at the end of the run; None if there was none beyond its patience."""
    hung_for_s: float
    calls: list[tuple[float, float | None]] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class RunReport:
    """One scenario, run once."""

    scenario: str
    title: str
    promise: str
    seed: int
    short: bool
    verdict: str
    """``passed``, ``failed``, or ``not injected``."""
    reason: str = ""
    """Why it was not injected, or broke off."""
    duration_s: float = 0.0
    """Of the load."""
    whole_s: float = 0.0
    """With starting and stopping everything."""
    checks: list[CheckLine] = attrs.field(factory=list)
    calls: list[CallLine] = attrs.field(factory=list)
    faults: list[FaultLine] = attrs.field(factory=list)
    states: list[StateLine] = attrs.field(factory=list)
    samples: list[SampleLine] = attrs.field(factory=list)
    control: ControlLine | None = None
    figures: dict[str, float] = attrs.field(factory=dict)
    healed_s: float | None = None
    """When the last fault was mended; None if there was none."""
    recovered_s: float | None = None
    """When everything worked again; None if there was no fault, or if it never did."""

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return self.verdict == "passed"


@attrs.frozen(kw_only=True)
class Report:
    """All runs of one command."""

    format: int = FORMAT
    created: str = ""
    """Wall-clock time, for people."""
    machine: str = ""
    version: str = ""
    command: str = ""
    """What was typed."""
    runs: list[RunReport] = attrs.field(factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(run.verdict != "failed" for run in self.runs)


def encode(report: Report) -> bytes:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def decode(text: bytes) -> Report:
    """A report from JSON.

    Raises:
        ReportUnreadable: It is none, or of another format.
    """
    try:
        report = msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportUnreadable(f"not a report of `reliable chaos run --json`: {error}") from error
    if report.format != FORMAT:
        raise ReportUnreadable(f"a report of format {report.format}; this version reads {FORMAT}")
    return report
