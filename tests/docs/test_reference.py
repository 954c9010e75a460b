"""The reference pages say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from reliable.status import STATUS_TABLE, ExitCode, Status

DOCS = Path(__file__).parents[2] / "docs"


def _rows(page: str, columns: int) -> list[list[str]]:
    lines = (DOCS / "reference" / page).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| `?[\w-]", line)]
    return [row for row in rows if len(row) == columns]


def test_the_status_page_equals_the_status_table() -> None:
    """Users decide on retries by this page; a row that drifted would make them repeat what they must not."""
    rows = {row[0].strip("`"): row[1:] for row in _rows("statuses.md", 7) if row[0] != "status"}
    assert len(rows) == len(Status)
    for status, rule in STATUS_TABLE.items():
        assert rows[status.name.lower().replace("_", "-")] == [
            str(int(status)),
            rule.outcome.name if rule.outcome is not None else "–",
            rule.retry.value,
            f"`{rule.error.__name__}`" if rule.error else "–",
            str(int(rule.exit_code)) if rule.exit_code is not None else "–",
            rule.meaning,
        ]


def test_the_status_page_lists_every_exit_code() -> None:
    """Scripts branch on these numbers."""
    rows = {row[1]: int(row[0]) for row in _rows("statuses.md", 3) if row[0].isdigit()}
    assert rows == {code.name: int(code) for code in ExitCode}


def test_the_rooms_that_the_architecture_page_names_are_there() -> None:
    """It is the map for newcomers; a module that has moved sends them astray."""
    text = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    root = DOCS.parent
    homes = [root, root / "reliable", root / "brokers", root / "reliable" / "engine"]
    named = set(re.findall(r"`([\w/*]+(?:\.py|/))`", text))
    assert len(named) > 25
    for name in named:
        assert any(any(home.glob(name)) for home in homes), name
    parts = text.partition("### Shell parts")[2].partition("### The brokers")[0]
    told = {module for pattern in re.findall(r"`([\w*]+\.py)`", parts) for module in (root / "reliable").glob(pattern)}
    below = {"__init__", "__main__", "errors", "status", "config", "types"}
    assert {module for module in (root / "reliable").glob("*.py") if module.stem not in below} == told
