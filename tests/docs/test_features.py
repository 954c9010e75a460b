"""The feature matrix has a column for each dialect, and where it says that something is refused, it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reliable import AsyncClient, BrokerUnreachable, Client
from reliable.config import Dialect
from tests.support.ports import free_endpoint

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "features.md"
SHELLS = ["blocking", "asyncio"]
ASKED: dict[str, Callable[[Client], object]] = {
    "`send`, no reply": lambda client: client.send("note", "x"),
    "`ping`": lambda client: client.ping(timeout=0.1),
    "`wait_ready`": lambda client: client.wait_ready("add", 2, timeout=0.1),
}

SIMULATED = {
    "`stream`, a reply in parts": r"\bJobPartial\b",
    "`on_progress`": r"\bJobProgress\b",
    "`send`, no reply": r"\bone_way=",
    "`cancel`, and tasks that are cancelled": r"\bCancelCall\b",
    "`fail_fast`": r"\bfail_fast=",
    "backoff, causes, retry budget": r"\bRetryPolicy\b",
    "breaker": r"\bBreakerPolicy\b",
    "hedging": r"\bHedgePolicy\b",
    "return to the first address": r"\breturn_after_s=",
}
"""What the simulator's sources must name if, and only if, the page says that its worlds make use of it."""


def _tables() -> list[list[list[str]]]:
    """Each table as its rows of cells, heading first."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = line.startswith("|")
        if row and not inside:
            tables.append([])
        if row and not re.fullmatch(r"[|-]+", line):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = row
    return tables


CLIENT_TABLES = _tables()[:2]
CELLS = {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for table in CLIENT_TABLES for row in table[1:]}
"""Feature → column → what stands there."""


@pytest.mark.parametrize("table", CLIENT_TABLES, ids=["calls", "ends"])
def test_there_is_a_column_for_each_dialect(table: list[list[str]]) -> None:
    """A dialect that was added without one would be looked up in vain."""
    names = [f"`{dialect.value}`" for dialect in Dialect]
    assert table[0] == ["feature", *SHELLS, *names, "simulator"]


def test_every_row_is_complete_and_stands_there_once() -> None:
    """An empty cell says neither yes nor no."""
    for table in _tables():
        assert len({row[0] for row in table}) == len(table)
        assert all(len(row) == len(table[0]) and all(row) for row in table)


@pytest.mark.parametrize("dialect", [dialect.value for dialect in Dialect])
@pytest.mark.parametrize("feature", ASKED)
def test_what_is_refused_is_refused_and_nothing_else(feature: str, dialect: str) -> None:
    """By ValueError and before anything is sent; what is not refused here finds nobody at the address."""
    cell = CELLS[feature][f"`{dialect}`"]
    with (
        Client(free_endpoint(), dialect=dialect, timeout=0.1) as client,
        pytest.raises((ValueError, BrokerUnreachable)) as caught,
    ):
        ASKED[feature](client)
    assert isinstance(caught.value, ValueError) is (cell in ("refused", "1 worker"))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_whatever_is_named_like_a_method_is_one(kind: type[Client] | type[AsyncClient]) -> None:
    """The page must not promise what has been renamed."""
    there = {name for name, _ in inspect.getmembers(kind)} | set(inspect.signature(kind.request).parameters)
    named = {name for feature in CELLS for name in re.findall(r"`(\w+)(?:\(|`)", feature) if name.islower()}
    assert {"request", "stream", "fail_fast", "service"} <= named <= there | {"fork"}


@pytest.mark.parametrize("feature", SIMULATED)
def test_what_is_simulated_is_found_in_the_simulator(feature: str) -> None:
    """What no world draws has not been through the worst weather, and the page says so."""
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "chaos" / "sim").glob("*.py"))
    assert CELLS[feature]["simulator"] == ("yes" if re.search(SIMULATED[feature], sources) else "–")
