"""Themes: what they leave out, and what may be demanded for it."""

from __future__ import annotations

import attrs
import pytest

from chaos.history import End
from chaos.sim.random_world import RandomWorld, run_world
from chaos.sim.themes import ANYTHING, SHORT_THEMES, THEMES, Who

SEEDS = range(5)


@pytest.mark.parametrize("name", SHORT_THEMES)
def test_worlds_of_a_theme_are_clean(name: str) -> None:
    """A theme that complains of worlds without a bug would be switched off; more seeds of each are for long runs."""
    worlds = [run_world(seed, theme=THEMES[name], keep_trace=False) for seed in SEEDS]
    assert [problem for world in worlds for problem in world.problems] == []


def test_a_quarter_of_an_hour_of_the_quiet_hours_is_clean() -> None:
    """A whole world of them takes seconds; soaks run many."""
    quiet = THEMES["quiet hours"]
    assert quiet.long and "quiet hours" not in SHORT_THEMES
    report = run_world(3, theme=attrs.evolve(quiet, over_s=900.0, calls=(20, 40)), keep_trace=False)
    assert report.problems == () and report.simulated_s > 2_000.0 and report.trace == ()


@pytest.mark.parametrize("name", [name for name, theme in THEMES.items() if theme.sure])
def test_in_a_sure_theme_every_call_succeeds(name: str) -> None:
    """Although something is done to the world."""
    world = RandomWorld(0, theme=THEMES[name])
    report = world.run()
    assert report.faults
    assert report.calls == report.ok > 10
    assert {call.phase for call in world.world.history.calls.values()} == {"healed"}


@pytest.mark.parametrize("name", [name for name, theme in THEMES.items() if theme.calm])
def test_in_a_calm_theme_nothing_is_broken(name: str) -> None:
    """Or the stricter checkers would have no right to speak."""
    assert all(not run_world(seed, theme=THEMES[name]).faults for seed in SEEDS)


def test_a_theme_hits_only_whom_it_names() -> None:
    """What is spared must be."""
    for name, theme in SHORT_THEMES.items():
        for seed in SEEDS:
            world = RandomWorld(seed, theme=theme)
            targets = {target for fault in world.faults if (target := getattr(fault, "target", None)) is not None}
            spared = set(world.workers[: theme.spared])
            assert not targets & spared, name
            if theme.who is Who.BROKERS:
                assert targets <= set(world.brokers), name


def test_random_worlds_have_all_that_a_call_can_be_and_clocks_that_differ() -> None:
    """Each of these once was left out, and hid what could go wrong with it."""
    worlds = [RandomWorld(seed) for seed in range(16)]
    for world in worlds:
        world.run()
    calls = [call for world in worlds for call in world.world.history.calls.values()]
    assert sum(len(call.parts) > 1 for call in calls) > 5
    assert any(call.ending is not None and call.ending.end is End.OK and len(call.ending.reply) == 3 for call in calls)
    assert any(call.abandoned for call in calls)
    assert any(call.one_way for call in calls) and any(call.hedged for call in calls)
    assert any(call.deadline_s is None and call.ending is not None for call in calls)
    assert any(call.news for call in calls) and not any(call.news for call in calls if not call.wants_progress)
    runs = [run for world in worlds for run in world.world.history.executions]
    assert any(run.told_s is not None and run.told_s < (run.ended_s or 0.0) < run.told_s + 0.2 for run in runs)
    assert any(call.ending is not None and call.ending.error == "RequestAbandoned" for call in calls)
    assert any(name.startswith("c") for world in worlds for name in world.world.history.pauses)
    rates = {world.world._rate_of(name) for world in worlds for name in world.clients}
    assert min(rates) < 1.0 < max(rates)


def test_the_replay_command_names_the_theme() -> None:
    """Without it the seed is another world."""
    assert (
        run_world(1, theme=THEMES["two roads"]).replay_command()
        == "reliable chaos replay 1 --theme 'two roads' --verbose"
    )
    assert THEMES["anything"] is ANYTHING


def test_an_engine_that_raises_is_a_problem_of_its_seed() -> None:
    """A crash that ended the search would hide the seed."""
    world = RandomWorld(2, faults=[])
    engine = world.world.broker_engine("b1")
    engine.next_deadline = lambda: 0.0  # type: ignore[method-assign]
    (crash, *_) = world.run().problems
    assert crash.startswith("crash: at 1") and "WorldError: b1 would spin" in crash
