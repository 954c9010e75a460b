"""The simulator's benchmark runs to its end and says what was measured. Its figures are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import simulator
from benchmarks.simulator import LOADS, Load, main, measure


def test_each_load_is_measured_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that nobody runs breaks with the next change and is missed when it is needed."""
    monkeypatch.setattr(simulator, "LOADS", [Load(load.per_s, 1.0) for load in LOADS])
    monkeypatch.setattr(simulator, "spare_collector", lambda: None)
    file = tmp_path / "figures.json"
    assert main(["--rounds", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 brokers, 10 workers, 20 clients; 2 rounds") and "(noise)" in printed
    assert printed.count(" x real time") == len(LOADS) == 3
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["machine"]["python"]
    assert {per_s: len(rounds) for per_s, rounds in found["loads"].items()} == {"2": 2, "20": 2, "100": 2}


def test_a_round_is_the_same_world_every_time() -> None:
    """Else two rounds would not be comparable."""
    load = Load(20, 1.0)
    assert measure(load).happenings_per_s == measure(load).happenings_per_s > 100.0


def test_the_profile_names_functions_of_the_simulator(capsys: pytest.CaptureFixture[str]) -> None:
    """It is there to say what to change."""
    assert main(["--profile", "5"]) == 0
    assert "chaos/sim/clock.py" in capsys.readouterr().out
