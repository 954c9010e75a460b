"""``scripts/soak_simulation.py``: long runs that go on where they were, figures, and seeds for the planted bugs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from chaos.planted import BUGS, catalogue
from chaos.sim.random_world import run_world
from chaos.sim.themes import SHORT_THEMES, THEMES

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak_simulation.py"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with small batches."""
    spec = importlib.util.spec_from_file_location("soak_simulation", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_BATCH", 2)
    monkeypatch.setattr(module, "spare_collector", lambda: None)
    return module


def known(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text())
    assert isinstance(found, dict)
    return found


def test_a_soak_goes_on_where_it_was(
    soak: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops it loses one batch."""
    file = tmp_path / "soak.json"
    assert soak.main(["--file", str(file), "--theme", "calm", "--seeds", "2"]) == 0
    first = known(file)["clean"]["calm"]
    seen: list[tuple[str, int]] = []
    clean = soak.clean

    def watched(world: tuple[str, int]) -> object:
        seen.append(world)
        return clean(world)

    monkeypatch.setattr(soak, "clean", watched)
    assert soak.main(["--file", str(file), "--theme", "calm", "--seeds", "3"]) == 0
    assert seen == [("calm", 2)]
    both = known(file)["clean"]["calm"]
    assert both["seeds"] == 3 and both["calls"] > first["calls"] > 0 and both["simulated_s"] > first["simulated_s"]
    assert sum(both["trees"].values()) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("calm: 3 seeds, ")


def test_a_soak_may_be_as_long_as_one_wants_simulated_or_real(soak: ModuleType, tmp_path: Path) -> None:
    """A year of worlds is counted in hours and not in seeds."""
    file = tmp_path / "soak.json"
    hours = 3 * run_world(0, theme=THEMES["calm"]).simulated_s / 3600
    assert soak.main(["--file", str(file), "--theme", "calm", "--simulated-hours", str(hours)]) == 0
    assert known(file)["clean"]["calm"]["simulated_s"] >= hours * 3600
    assert soak.main(["--file", str(tmp_path / "other.json"), "--seeds", "9", "--minutes", "0"]) == 0
    assert not (tmp_path / "other.json").exists()


def test_a_problem_is_kept_with_the_state_of_the_sources(
    soak: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed that failed on Tuesday's sources is another world on Friday."""
    file = tmp_path / "soak.json"
    bug = BUGS["ok-claims-unknown"]
    with bug.planted():
        assert soak.main(["--file", str(file), "--theme", bug.theme, "--seeds", "1"]) == 1
    problems = known(file)["clean"][bug.theme]["problems"]["0"]
    assert problems[0] == f"in {soak.tree()}" and problems[1].startswith("same_claim: ")
    assert f"reliable chaos replay 0 --theme '{bug.theme}'" in capsys.readouterr().out


def test_the_figures_are_tables_of_markdown(
    soak: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They go into the documentation as they are."""
    file = tmp_path / "soak.json"
    soak.main(["--file", str(file), "--theme", "calm", "--theme", "drain", "--seeds", "1"])
    capsys.readouterr()
    assert soak.main(["--file", str(file), "--figures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["calm", "drain", "all"]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "years. Faults: " in lines[6] and " stop" in lines[6]
    assert lines[-1] == f"States of the sources: {soak.tree()} (2 worlds)"


def test_all_themes_are_the_short_ones(soak: ModuleType) -> None:
    """Worlds of hours are asked for by name."""
    assert list(soak._themes("all")) == list(SHORT_THEMES)
    assert list(soak._themes("quiet hours")) == ["quiet hours"]


def test_a_seed_that_does_not_find_its_bug_any_more_is_renewed_in_the_catalogue(
    soak: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command after a change of an engine, and no search by hand; other bugs' seeds stay as they are."""
    bug = BUGS["ok-claims-unknown"]
    text = Path(catalogue.__file__).read_text()
    copy = tmp_path / "catalogue.py"
    copy.write_text(text)
    monkeypatch.setattr(catalogue, "__file__", str(copy))
    arguments = ["--file", str(tmp_path / "soak.json"), "--renew", "--only", bug.name]
    assert soak.main(arguments) == 0
    assert copy.read_text() == text

    seeds: list[tuple[int, int]] = []

    def first_seed(search: tuple[str, int, int]) -> tuple[str, int | None, list[str]]:
        seeds.append(search[1:])
        return search[0], 77 if len(seeds) > 1 else None, []

    monkeypatch.setattr(soak, "first_seed", first_seed)
    assert soak.main([*arguments, "--seeds", "100"]) == 0
    assert seeds == [(bug.seed, bug.seed + 12), (0, 100)]
    changed = [line for line in copy.read_text().splitlines() if line not in text.splitlines()]
    assert changed == ["        seed=77,"]
    assert capsys.readouterr().out.splitlines()[-1] == f"{bug.name}: seed {bug.seed} becomes 77"


def test_a_bug_that_is_not_found_is_said_and_fails(
    soak: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither command may pass over it."""
    harmless = attrs.evolve(BUGS["ok-claims-unknown"], changes=list)
    monkeypatch.setitem(BUGS, harmless.name, harmless)
    arguments = ["--file", str(tmp_path / "soak.json"), "--only", harmless.name, "--seeds", "3"]
    assert soak.main([*arguments, "--bugs"]) == 1
    assert soak.main([*arguments, "--renew"]) == 1
    bugs, renew = capsys.readouterr().out.splitlines()
    assert bugs.endswith("after 3 seeds: NOT FOUND") and "NOT FOUND in 3 worlds of 'calm'" in renew
