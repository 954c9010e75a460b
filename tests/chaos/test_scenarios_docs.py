"""What the pages say of scenarios, faults and checks is what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import attrs

from chaos.planted import BUGS
from chaos.planted.hunts import HUNTS
from chaos.running.catalogue import all_scenarios
from chaos.running.checks import CHECKS, RULES, judge
from chaos.running.faults import Descriptors, Fault, HoldGil, Poison, SlowReplies
from chaos.running.model import Demands
from chaos.sim.themes import THEMES
from tests.chaos.test_scenarios_checks import SCENARIO, evidence, facts

_DOCS = Path(__file__).parents[2] / "docs"
_PAGE = (_DOCS / "reference" / "chaos.md").read_text(encoding="utf-8")
_TUTORIAL = (_DOCS / "tutorial" / "break-it-yourself.md").read_text(encoding="utf-8")


def _rows(head: str) -> list[list[str]]:
    part = _PAGE.partition(f"\n## {head}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_scenario_is_on_the_page_with_what_it_needs() -> None:
    """Whoever looks for a fault looks here first."""
    wanted = []
    for name, scenario in all_scenarios().items():
        needs = ["Toxiproxy"] * scenario.needs_toxiproxy + ["namespace"] * scenario.needs_namespace
        wanted.append([f"`{name}`{' *' * scenario.control}", scenario.title, ", ".join(needs)])
    assert _rows("Scenarios") == wanted


def test_every_fault_is_on_the_page() -> None:
    """A fault without a proof has no place here."""
    assert [row[0].strip("`") for row in _rows("Faults")] == [fault.__name__ for fault in get_args(Fault)]


def test_every_check_is_on_the_page() -> None:
    """A check that nobody can look up is a riddle when it fails."""
    times: dict[str, Any] = {"at_s": 1.0, "for_s": 1.0}
    faults = (Poison(**times), HoldGil(**times), SlowReplies(**times), Descriptors(**times))
    demands = Demands(no_worker_lost=True, streams_cut=True)
    everything = evidence(facts(one_way=True), scenario=attrs.evolve(SCENARIO, faults=faults, demands=demands))
    assert [row[0] for row in _rows("Checks")] == [line.name for line in judge(everything)]
    assert len(_rows("Checks")) == len(CHECKS) + len(RULES) + 8


def test_every_hunted_bug_is_on_the_page_with_its_scenario_and_who_found_it() -> None:
    """A claim that bugs are found is one that can be looked up, and tried."""
    wanted = [[f"`{one.bug}`", BUGS[one.bug].breaks, f"`{one.scenario}`", one.found_by] for one in HUNTS]
    assert [row[:4] for row in _rows("Planted bugs")] == wanted


def test_what_shows_what_leaves_no_scenario_and_no_theme_out() -> None:
    """Whoever asks for a kind of fault must find all that covers it, and nothing that is not there."""
    cells = [cell for row in _rows("What shows what") for cell in row]
    named = {name for cell in cells for name in re.findall(r"`([a-z0-9-]+\*?)`", cell)}
    known = set(all_scenarios())
    families = {name.removesuffix("*") for name in named if name.endswith("*")}
    assert {name for name in named if not name.endswith("*")} <= known
    assert known - named - {"everything-at-once"} == {
        name for name in known if any(name.startswith(one) for one in families)
    }
    assert {theme for cell in cells for theme in re.findall(r"\*([a-z' ]+)\*", cell)} <= set(THEMES)


def test_commands_of_the_tutorial_name_scenarios_that_exist() -> None:
    """The first command that a newcomer types must work."""
    commands = re.findall(r"^reliable chaos run ([a-z0-9 -]+?)(?: --.*)?$", _TUTORIAL, re.MULTILINE)
    named = {name for command in commands for name in command.split()}
    assert named >= {"server-dies", "reply-lost", "silent-partition"}
    assert named <= set(all_scenarios())
