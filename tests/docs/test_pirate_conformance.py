"""The conformance page names the tests that show each point of pirates, Freelance, 28/REQREP and the client of MDP."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "conformance.md"
ID = re.compile(r"\b(?:PPP|SP|RR|LP|FLP)-\d+\b")
POINTS = {
    *(f"PPP-{number}" for number in range(1, 21)),
    *(f"SP-{number}" for number in (1, 2)),
    *(f"RR-{number}" for number in range(1, 13)),
    *(f"LP-{number}" for number in range(1, 7)),
    # 5 is kept in another way, 7 and 8 are the server's.
    *(f"FLP-{number}" for number in range(1, 15) if number not in (5, 7, 8)),
}
REASONS = {"FLP-5": "reliable/wire/flp.py"}
"""Points that nothing shows, and where it says why."""
CLIENT_ID = re.compile(r"\b(?:MDP1|MDP2|MMI)-\d+\b")
"""Points of a broker's protocols that a client has to keep, too. What a broker does about them is in tests/brokers."""
FOLDERS = ("brokers", "wire", "protocol", "engine", "loopback")
CLIENT_FOLDERS = ("wire", "protocol", "engine", "loopback")


def _shown(points: re.Pattern[str], folders: tuple[str, ...]) -> dict[str, set[str]]:
    """Point → ``file: test`` of the tests whose docstrings begin with it."""
    shown: dict[str, set[str]] = {}
    for folder in folders:
        for file in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                    for point in points.findall((ast.get_docstring(node) or "").partition(":")[0]):
                        shown.setdefault(point, set()).add(f"{folder}/{file.name}: {node.name}")
    return shown


def _cells(points: re.Pattern[str], suffix: str = "") -> dict[str, str]:
    """Point → last cell of its row."""
    cells: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = re.match(rf"\| ({points.pattern}){suffix} \| (?:MUST|SHOULD|MAY|–|derived) \| .+? \| (.+) \|$", line)
        if match:
            assert match[1] not in cells, f"{match[1]} stands there twice"
            cells[match[1]] = match[2]
    return cells


def _named(cells: dict[str, str]) -> dict[str, set[str]]:
    """Point → ``file: test`` as the page has it."""
    return {
        point: {
            f"{file}: {test}"
            for file, tests in re.findall(r"`([\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", cell)
            for test in re.findall(r"`(test_\w+)`", tests)
        }
        for point, cell in cells.items()
    }


def test_every_point_is_shown_by_a_test_and_the_page_names_it() -> None:
    """A point without a test is a promise that nobody keeps; a test that was renamed must not go on being cited."""
    shown = _shown(ID, FOLDERS)
    assert shown.keys() == POINTS
    cells = _cells(ID)
    assert {point: cells.pop(point, "no row") for point in REASONS} == {
        point: f"reason in `{file}`" for point, file in REASONS.items()
    }
    assert all((ROOT / file).exists() for file in REASONS.values())
    assert _named(cells) == shown


def test_the_client_side_of_a_brokers_protocols_is_shown_as_the_page_says() -> None:
    """A broker that conforms is of no use to a client that does not."""
    shown = _shown(CLIENT_ID, CLIENT_FOLDERS)
    assert len(shown) >= 20
    assert _named(_cells(CLIENT_ID, ", client")) == shown
