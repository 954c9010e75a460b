"""Random worlds and their command line; what they find is in ``tests/simulation``."""

from __future__ import annotations

import pytest

from chaos.sim import __main__ as command
from chaos.sim import random_world
from chaos.sim.random_world import RandomWorld, Report, run_world
from chaos.sim.themes import ANYTHING, Theme


def test_a_report_has_its_figures_and_its_replay_command() -> None:
    """Whoever reads a failure in a log must be able to see it again without reading our code."""
    report = run_world(2)
    assert report.replay_command() == "reliable chaos replay 2 --verbose"
    assert report.calls > report.ok > 0 and report.executions > 0
    assert report.simulated_s > 20.0 and report.happenings > 100
    assert len(report.trace_hash) == 32 and report.trace


def test_a_worker_that_is_missing_at_the_end_is_a_problem() -> None:
    """Stranded capacity is the failure that no single call shows."""
    world = RandomWorld(2, faults=[])
    world.world.at(15.0, lambda: world.world.kill(world.workers[0]))
    problems = world.run().problems
    assert any(line.startswith("stranded: b1 sees") for line in problems), problems


def test_the_command_runs_a_range_and_prints_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """For long runs outside of the tests."""
    assert command.main(["4", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed 4", "seed 5", "seed 6"]
    assert command.main(["4", "--hash"]) == 0
    assert capsys.readouterr().out.strip() == run_world(4).trace_hash


def test_the_command_fails_and_shows_the_faults_if_something_was_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code is what a script looks at."""

    def spoilt(seed: int, *, verbose: bool = False, theme: Theme = ANYTHING) -> Report:
        world = RandomWorld(seed, verbose=verbose, faults=[], theme=theme)
        monkeypatch.setattr(world, "_stranded", lambda: ["stranded: as planted"])
        return world.run()

    monkeypatch.setattr(command, "run_world", spoilt)
    assert command.main(["1", "--verbose"]) == 1
    out = capsys.readouterr().out
    assert "1 problems" in out and "stranded: as planted" in out and "b1 starts as life" in out
    assert random_world.run_world is run_world
