"""Every scenario in its short form, on real processes, with real Toxiproxy and real packet loss."""

from __future__ import annotations

import pytest

from chaos.injection import NotInjected
from chaos.reporting.value import RunReport
from chaos.running.catalogue import all_scenarios
from chaos.running.inside import run
from tests.support.injection_report import require

_SEED = 1
# For each scenario in which a plain REQ socket cannot but wait for ever.
_CONTROL_HANGS = {"server-dies", "reply-lost", "request-lost", "half-open"}


def _marked(name: str) -> list[pytest.MarkDecorator]:
    scenario = all_scenarios()[name]
    marks = [pytest.mark.slow]
    if scenario.needs_toxiproxy:
        marks.append(pytest.mark.toxiproxy)
    if scenario.needs_namespace:
        marks.append(pytest.mark.netns)
    return marks


def _text(report: RunReport) -> str:
    wrong = [f"{check.name} ({check.figure}): {check.offences}" for check in report.checks if not check.ok]
    return "\n".join([f"{report.scenario}, seed {report.seed}: {report.reason}", *wrong])


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marked(name)) for name in all_scenarios()])
def test_promise_holds_in_the_short_form_of(name: str) -> None:
    """Each is something that happens in production; the long form is the same with more patience."""
    report = run(all_scenarios()[name], seed=_SEED, short=True, say=lambda _kind, _text: None)
    if report.verdict == "not injected":
        require(NotInjected(name, report.reason))
    assert report.verdict == "passed", _text(report)
    assert all(fault.proven for fault in report.faults)
    if name in _CONTROL_HANGS:
        # The same faults do harm somebody: a suite under which nothing ever hangs proves nothing.
        assert report.control is not None
        assert report.control.hung_since_s is not None, report.control
