"""The part of the conformance page on 6/PPP, Simple Pirate and 28/REQREP names the tests that show each point."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "conformance.md"
ID = re.compile(r"\b(?:PPP|SP|RR)-\d+\b")
POINTS = {
    *(f"PPP-{number}" for number in range(1, 21)),
    *(f"SP-{number}" for number in (1, 2)),
    *(f"RR-{number}" for number in range(1, 13)),
}
FOLDERS = ("brokers", "wire", "protocol", "loopback")


def _shown() -> dict[str, set[str]]:
    """Point → ``file: test`` of the tests whose docstrings begin with it."""
    shown: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    for point in ID.findall((ast.get_docstring(node) or "").partition(":")[0]):
                        shown.setdefault(point, set()).add(f"{folder}/{file.name}: {node.name}")
    return shown


def _rows() -> dict[str, set[str]]:
    """Point → ``file: test`` as the page has it."""
    rows: dict[str, set[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = re.match(rf"\| ({ID.pattern}) \| (?:MUST|SHOULD|MAY|–|derived) \| .+? \| (.+) \|$", line)
        if match:
            assert match[1] not in rows, f"{match[1]} stands there twice"
            rows[match[1]] = {
                f"{file}: {test}"
                for file, tests in re.findall(r"`([\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", match[2])
                for test in re.findall(r"`(test_\w+)`", tests)
            }
    return rows


def test_every_point_is_shown_by_a_test_and_the_page_names_it() -> None:
    """A point without a test is a promise that nobody keeps; a test that was renamed must not go on being cited."""
    shown = _shown()
    assert shown.keys() == POINTS
    assert _rows() == shown
