"""``reliable chaos simulate`` and ``replay``: what they print, and their exit codes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from chaos import cli_sim
from chaos.planted import BUGS
from chaos.sim.themes import SHORT_THEMES
from reliable.cli.chaos import chaos

BUG = BUGS["credit-not-returned"]


def invoke(*arguments: str) -> tuple[int, str]:
    """A command of the group, as the root runs it."""
    done = CliRunner().invoke(chaos, list(arguments), standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output


def test_both_commands_are_in_the_group_of_reliable_chaos() -> None:
    """They are found where people look for them."""
    assert {command.name for command in cli_sim.COMMANDS} == {"simulate", "replay"}
    _, output = invoke("--help")
    assert "simulate" in output and "replay" in output


def test_clean_worlds_are_counted_and_the_exit_code_is_zero() -> None:
    """One line of figures, so that a log says how much was looked at."""
    code, output = invoke(
        "simulate", "--seeds", "2", "--first", "3", "--jobs", "1", "--theme", "calm", "--theme", "drain"
    )
    assert code == 0
    (line,) = output.splitlines()
    assert line.startswith("4 worlds, ") and " 0 worlds with problems; " in line and "times as fast" in line


def test_all_themes_are_those_whose_worlds_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of seeds of worlds of hours are nothing for a coffee break."""
    seen: list[tuple[int, str]] = []
    verdict = cli_sim.judge((0, "calm"))

    def judge(world: tuple[int, str]) -> cli_sim.Verdict:
        seen.append(world)
        return verdict

    monkeypatch.setattr(cli_sim, "judge", judge)
    invoke("simulate", "--seeds", "1", "--jobs", "1", "--theme", "all", "--theme", "quiet hours", "--theme", "calm")
    assert [theme for _, theme in seen] == [*SHORT_THEMES, "quiet hours"]


def test_worlds_can_be_shared_out_to_processes() -> None:
    """The same verdicts, in whichever order."""
    worlds = [(seed, "calm") for seed in range(3)]
    alone, shared = (sorted(cli_sim._verdicts(worlds, jobs), key=lambda verdict: verdict.seed) for jobs in (1, 2))
    assert alone == shared


def test_a_problem_is_shown_with_the_command_that_replays_it() -> None:
    """Whoever reads it in a log needs nothing else."""
    with BUG.planted():
        code, output = invoke("simulate", "--seeds", "1", "--first", str(BUG.seed), "--jobs", "1")
    assert code == 1
    assert f"reliable chaos replay {BUG.seed} --verbose" in output
    assert "stranded: b2 sees" in output and "1 worlds with problems" in output
    assert "  0 of its 5 faults are needed:" in output


def test_a_replay_tells_all_that_happened() -> None:
    """In words if asked."""
    code, terse = invoke("replay", "3")
    assert code == 0 and terse.startswith("seed 3: 0 problems, ")
    code, wordy = invoke("replay", "3", "--verbose")
    assert code == 0
    assert "b1 starts as life" in wordy and "hello of" in wordy and wordy.endswith(terse)


def test_a_replay_can_be_shrunk_to_fewer_faults() -> None:
    """A strand that no fault is needed for is shown without any."""
    with BUG.planted():
        code, output = invoke("replay", str(BUG.seed), "--shrink")
    assert code == 1
    assert "faults shrunk to 0 in " in output
    assert "stranded: b2 sees" in output


@pytest.mark.parametrize("arguments", [("simulate", "--theme", "no such"), ("replay", "x"), ("replay", "-1")])
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...]) -> None:
    """As wrong usage, before anything runs."""
    done = CliRunner().invoke(chaos, list(arguments))
    assert done.exit_code == 2
