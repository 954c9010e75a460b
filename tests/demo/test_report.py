"""The verdict of the demo: it must be able to say no."""

from __future__ import annotations

import attrs
import pytest

from reliable.cli.demo_report import CallRecord, DemoReport, Injected, is_hung, judge, render, value
from reliable.status import ExitCode

_GOOD = CallRecord(name="a.py", started_s=1.0, deadline_s=11.0, ended_s=1.5)


def _report(*calls: CallRecord) -> DemoReport:
    faults = (Injected(1.0, 5, "SIGKILL worker 1"),)
    return DemoReport(seed=3, planned=len(calls), calls=calls, duration_s=2.0, faults=faults)


def test_a_run_where_all_is_well_exits_with_0() -> None:
    """The other tests only mean something if this one passes."""
    verdict = judge(2, [_GOOD, attrs.evolve(_GOOD, ended_s=3.0, name="b.py")])
    assert (verdict.ok, verdict.problems, verdict.exit_code) == (2, [], ExitCode.OK)
    assert verdict.slowest is not None and verdict.slowest.name == "b.py"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (attrs.evolve(_GOOD, wrong=True), "1 digests were wrong"),
        (attrs.evolve(_GOOD, ended_s=None), "1 calls hung"),
        (attrs.evolve(_GOOD, ended_s=11.2), "1 calls hung"),
        (attrs.evolve(_GOOD, error="WorkerLost"), "1 calls failed with WorkerLost"),
    ],
)
def test_one_bad_call_among_many_is_enough_for_1(bad: CallRecord, problem: str) -> None:
    """One lost or wrong answer in thousands is what the demo is there to rule out."""
    verdict = judge(100, [_GOOD] * 99 + [bad])
    assert verdict.problems == [problem]
    assert verdict.exit_code == ExitCode.FAILURE


def test_calls_that_were_never_made_are_a_failure() -> None:
    """A run that stops early must not look like a success."""
    assert judge(3, [_GOOD] * 2).exit_code == ExitCode.FAILURE
    assert judge(0, []).exit_code == ExitCode.FAILURE


def test_hung_allows_the_grace_and_our_own_lateness_and_no_more() -> None:
    """A call is not blamed for the demo's own loop, and the loop is no excuse for more than its lateness."""
    late = attrs.evolve(_GOOD, ended_s=11.09, error="DeadlineExceeded")
    assert not is_hung(late)
    assert is_hung(attrs.evolve(late, ended_s=11.5))
    assert not is_hung(attrs.evolve(late, ended_s=11.5, lag_s=0.45))
    assert is_hung(attrs.evolve(late, ended_s=11.5, lag_s=0.35))


def test_a_failure_that_comes_late_counts_twice() -> None:
    """It failed, and it also broke the promise to end in time."""
    verdict = judge(1, [attrs.evolve(_GOOD, error="DeadlineExceeded", ended_s=12.0)])
    assert verdict.problems == ["1 calls failed with DeadlineExceeded", "1 calls hung"]


def test_the_table_and_the_numbers_say_the_same() -> None:
    """The table is for people, the JSON for scripts."""
    report = _report(_GOOD, attrs.evolve(_GOOD, error="WorkerLost"), attrs.evolve(_GOOD, ended_s=None))
    text, numbers = render(report), value(report)
    assert "NOT OK: 1 calls failed with WorkerLost; 1 calls hung" in text
    assert numbers["problems"] == ["1 calls failed with WorkerLost", "1 calls hung"]
    assert (numbers["ok"], numbers["hung"], numbers["wrong"], numbers["failed"]) == (1, 1, 0, {"WorkerLost": 1})
    assert "OK: 1 faults" in render(_report(_GOOD))


def test_a_fault_that_came_too_late_is_named() -> None:
    """A demo that broke less than it planned must say so."""
    report = attrs.evolve(_report(_GOOD), missed_faults=("restart broker",))
    assert "not injected, the calls were over before: restart broker" in render(report)
