"""What is printed and written."""

from __future__ import annotations

import json

from reliable.bench.machine import about_machine
from reliable.bench.report import Report, Table


def test_a_table_has_its_figures_under_each_other() -> None:
    """Figures of different length are compared at a glance, or not at all."""
    table = Table(["us", "p50"], [["a", "1"], ["long", "1,000"]], "title")
    assert table.text().splitlines() == ["title", "us      p50", "a         1", "long  1,000"]


def test_a_report_names_machine_versions_and_command() -> None:
    """A figure without them cannot be compared with anything."""
    report = Report(
        name="call",
        command="reliable bench call --rounds 1",
        machine=about_machine(),
        tables=[Table(["a", "b"], [["1", "2"]])],
        notes=["a note"],
        data={"loops": [1]},
    )
    text = report.text()
    assert text.splitlines()[0] == report.command
    for word in ("processors ", "load ", "python ", "pyzmq ", "libzmq ", "reliable ", "a note"):
        assert word in text
    written = json.loads(json.dumps(report.as_json()))
    assert written["benchmark"] == "call" and written["loops"] == [1]
    assert written["command"] == report.command and written["machine"].keys() >= {"processor", "system", "python"}
