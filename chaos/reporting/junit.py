"""A report as JUnit XML: a suite per scenario, a case per check."""

from __future__ import annotations

from xml.etree import ElementTree

from chaos.reporting.value import CheckLine, Report, RunReport

__all__ = ["render"]


def render(report: Report) -> bytes:
    """The whole file."""
    root = ElementTree.Element("testsuites", name="reliable chaos")
    for run in report.runs:
        root.append(_suite(run))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=False)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _suite(run: RunReport) -> ElementTree.Element:
    cases = [_case(run, check) for check in run.checks]
    if not run.checks:
        cases = [_broken_off(run)]
    failures = sum(1 for case in cases if case.find("failure") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    suite = ElementTree.Element(
        "testsuite",
        name=run.scenario,
        tests=str(len(cases)),
        failures=str(failures),
        errors="0",
        skipped=str(skipped),
        time=f"{run.whole_s:.3f}",
    )
    suite.extend(cases)
    return suite


def _case(run: RunReport, check: CheckLine) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=f"chaos.{run.scenario}", name=check.name, time="0")
    if not check.ok:
        failure = ElementTree.SubElement(case, "failure", message=_printable(f"{check.offences_count} wrong"))
        failure.text = _printable("\n".join([f"seed {run.seed}", *check.offences]))
    return case


def _broken_off(run: RunReport) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=f"chaos.{run.scenario}", name="run", time="0")
    if run.verdict == "not injected":
        ElementTree.SubElement(case, "skipped", message=_printable(f"not injected: {run.reason}"))
    else:
        ElementTree.SubElement(case, "failure", message=_printable(run.reason))
    return case


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
