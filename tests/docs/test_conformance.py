"""The conformance page names every point that the tests name, and only tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.brokers.test_mdp_conformance import ELSEWHERE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "conformance.md"
ID = re.compile(r"\b(?:MDP1|MDP2|MMI|BR)-\d+\b")
_SHARED = {f"MDP2-{number}" for number in (*range(1, 9), *range(13, 48))}
"""Points of 0.2 that are those of 0.1 with other frames; the page says so in one sentence."""


def _shown() -> dict[str, set[str]]:
    """Point → names of the tests whose docstrings begin with it."""
    shown: dict[str, set[str]] = {}
    for file in (ROOT / "tests" / "brokers").glob("test_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for point in ID.findall((ast.get_docstring(node) or "").partition(":")[0]):
                    shown.setdefault(point, set()).add(node.name)
    return shown


def _rows() -> dict[str, str]:
    rows: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = re.match(rf"\| ({ID.pattern}) \| (?:MUST|SHOULD|MAY|–|derived) \| .+? \| (.+) \|$", line)
        if match:
            assert match[1] not in rows, f"{match[1]} stands there twice"
            rows[match[1]] = match[2]
    return rows


def test_the_page_lists_each_point_that_tests_show_or_leave_to_others() -> None:
    """A point without a row is a promise that nobody can look up."""
    points = set(_shown()) | {point for point, _ in ELSEWHERE}
    assert set(_rows()) == points - _SHARED


def test_each_row_names_the_tests_that_show_it() -> None:
    """A test that was renamed or taken out must not go on being cited."""
    shown, elsewhere = _shown(), dict(ELSEWHERE)
    for point, cell in _rows().items():
        if point in shown:
            assert set(re.findall(r"`(test_\w+)`", cell)) == shown[point], point
        else:
            assert cell == elsewhere[point], point
