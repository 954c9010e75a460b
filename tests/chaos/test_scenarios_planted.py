"""Bugs planted into real processes are found by the scenarios: a suite that never failed proves nothing.

Here are the ones that show at once; ``scripts/hunt_planted_bugs.py`` hunts all of them. That each of these scenarios is
green without the bug is what ``test_scenarios`` shows, with the same seed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from chaos.injection import NotInjected
from chaos.planted import BUGS
from chaos.planted.carrier import command
from chaos.planted.hunts import HUNTS, hunt
from chaos.running.catalogue import all_scenarios
from chaos.running.checks import CHECKS, RULES
from chaos.running.stage import environment
from tests.support.commands import ROOT
from tests.support.injection_report import require

AT_ONCE = {
    "lost-counts-as-executed": [],
    "no-token-check": [pytest.mark.toxiproxy],
    "streams-begin-anew": [pytest.mark.toxiproxy],
    "vetoed-hedge": [],
}
_RUNS_MAX = 3
_NAMES = {name for name, _ in (*CHECKS, *RULES)} | {"losers of hedged pairs stop", "hedging cuts the tail"}


@pytest.mark.slow
@pytest.mark.parametrize("bug", [pytest.param(bug, marks=marks) for bug, marks in AT_ONCE.items()])
def test_planted_bug_is_found_by_real_faults(bug: str) -> None:
    """By the check that is there for it, in the broker, worker or client processes of a real run."""
    (wanted,) = (one for one in HUNTS if one.bug == bug)
    came = hunt(wanted, lambda _kind, _text: None, runs_max=_RUNS_MAX)
    if came.report.verdict == "not injected":
        require(NotInjected(wanted.scenario, came.report.reason))
    broken = {check.name: check.offences for check in came.report.checks if not check.ok}
    assert came.found, f"{bug} was not found by {wanted.found_by!r} in {came.runs} runs: {came.report.reason} {broken}"


def test_hunts_name_bugs_scenarios_and_checks_that_exist() -> None:
    """A name that is nobody's would be missed for ever; ten of them are the least that is promised."""
    bugs = [one.bug for one in HUNTS]
    assert len(set(bugs)) == len(bugs) >= 10
    assert set(bugs) <= set(BUGS)
    assert {one.scenario for one in HUNTS} <= set(all_scenarios())
    assert {one.found_by for one in HUNTS} <= _NAMES
    assert set(AT_ONCE) <= set(bugs)


def test_carried_module_has_the_bug_and_the_same_arguments() -> None:
    """What is run must be the program itself, with one thing wrong."""
    look = "import sys; from brokers.records import CallTable; print(sys.argv[1:], CallTable.fenced.__module__)"
    for prefix, module in (((), "brokers.records"), (command("no-fence", "code"), "chaos.planted.in_brokers")):
        argv = [sys.executable, *(prefix or ("-m", "code")), "-q"]
        done = subprocess.run(
            argv, input=look, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert module in done.stdout + done.stderr, (done.stdout, done.stderr)


def test_unknown_bug_is_refused_before_anything_is_run() -> None:
    """A misspelt name would carry nothing, and what is clean would pass for found out."""
    with pytest.raises(KeyError):
        command("no-such-bug", "chaos.running.inside")
    with pytest.raises(ValueError, match="bug"):
        type(HUNTS[0])(bug="no-such-bug", scenario="worker-crash", found_by="recovery")
