"""``reliable chaos simulate`` and ``reliable chaos replay``: worlds drawn from seeds, and one of them in detail.

The commands belong to the group of ``reliable chaos``; they stand here beside the simulator that they run.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import click

from chaos.sim.faults import Fault
from chaos.sim.random_world import Report, run_world
from chaos.sim.shrink import shrink
from chaos.sim.themes import ANYTHING, SHORT_THEMES, THEMES

__all__ = ["COMMANDS", "Verdict", "judge", "replay", "simulate", "spare_collector"]

_CHUNK: Final = 8
_COLLECT_AFTER: Final = 50_000
_SHRINKING_RUNS_MAX: Final = 100
_EVERYTHING: Final = "all"
_THEME: Final = click.Choice([*THEMES, _EVERYTHING])


@attrs.frozen(kw_only=True)
class Verdict:
    """What is kept of one world out of many."""

    seed: int
    theme: str
    problems: tuple[str, ...]
    calls: int
    ok: int
    unknown: int
    simulated_s: float
    replay: str
    drawn: int
    """How many faults were drawn."""
    faults: tuple[Fault, ...] = ()
    """Of a world with problems: the few that it needs for them."""


def judge(world: tuple[int, str]) -> Verdict:
    """Run the world of a seed and a theme; one that fails is shrunk."""
    seed, theme = world
    report = run_world(seed, theme=THEMES[theme], keep_trace=False)
    faults: tuple[Fault, ...] = ()
    if report.problems:
        faults = shrink(seed, theme=THEMES[theme], runs_max=_SHRINKING_RUNS_MAX).after.faults
    return Verdict(
        seed=seed,
        theme=theme,
        problems=report.problems,
        calls=report.calls,
        ok=report.ok,
        unknown=report.unknown,
        simulated_s=report.simulated_s,
        replay=report.replay_command(),
        drawn=len(report.faults),
        faults=faults,
    )


def spare_collector() -> None:
    """Let the garbage collector look seldom, and never at what was imported: worlds leave few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def _verdicts(worlds: Sequence[tuple[int, str]], jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(judge, worlds)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(worlds)), spare_collector) as pool:
        yield from pool.imap_unordered(judge, worlds, chunksize=_CHUNK)


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="How many worlds.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="The seed to begin with.")
@click.option("--jobs", type=click.IntRange(min=1), default=None, help="Processes. [default: one for each processor]")
@click.option(
    "--theme",
    "themes",
    type=_THEME,
    multiple=True,
    default=[ANYTHING.name],
    show_default=True,
    help="What worlds are drawn from; may be repeated, and each theme gets all seeds.",
)
def simulate(seeds: int, first: int, jobs: int | None, themes: Sequence[str]) -> int:
    """Run random worlds on a virtual clock and network, and judge them; exit code 1 if one has a problem.

    Each seed makes a world of brokers, workers and clients, what they do, and what is done to them. The same seed
    makes the same world again.

    \b
    Example:
      reliable chaos simulate --seeds 1000
    """
    chosen = list(
        dict.fromkeys(name for given in themes for name in (SHORT_THEMES if given == _EVERYTHING else [given]))
    )
    worlds = [(seed, theme) for theme in chosen for seed in range(first, first + seeds)]
    began = time.monotonic()
    calls = failed = 0
    simulated_s = 0.0
    for verdict in _verdicts(worlds, jobs or os.cpu_count() or 1):
        calls += verdict.calls
        simulated_s += verdict.simulated_s
        if verdict.problems:
            failed += 1
            click.echo(f"seed {verdict.seed}, {verdict.theme}: {verdict.replay}")
            for problem in verdict.problems:
                click.echo(f"  {problem}")
            click.echo(f"  {len(verdict.faults)} of its {verdict.drawn} faults are needed:")
            for fault in verdict.faults:
                click.echo(f"    {fault}")
    took_s = max(time.monotonic() - began, 1e-9)
    click.echo(
        f"{len(worlds)} worlds, {calls} calls, {failed} worlds with problems; "
        f"{simulated_s:.0f} s simulated in {took_s:.1f} s ({simulated_s / took_s:.0f} times as fast)"
    )
    return 1 if failed else 0


@click.command()
@click.argument("seed", type=click.IntRange(min=0))
@click.option("--theme", type=click.Choice(list(THEMES)), default=ANYTHING.name, help="What the world is drawn from.")
@click.option("--verbose", is_flag=True, help="Print all that happens, every message in words.")
@click.option("--shrink", "shrinks", is_flag=True, help="Find fewer faults that still make it fail.")
def replay(seed: int, theme: str, verbose: bool, shrinks: bool) -> int:
    """Run the world of one seed again, and say what happened in it; exit code 1 if it has a problem.

    \b
    Example:
      reliable chaos replay 4711 --shrink --verbose
    """
    chosen = THEMES[theme]
    report = run_world(seed, theme=chosen)
    faults: tuple[Fault, ...] | None = None
    if shrinks and report.problems:
        shrunk = shrink(seed, theme=chosen)
        faults = shrunk.after.faults
        click.echo(f"{len(report.faults)} faults shrunk to {len(faults)} in {shrunk.runs} runs")
    _show(run_world(seed, theme=chosen, faults=faults, verbose=verbose), verbose=verbose)
    return 1 if report.problems else 0


def _show(report: Report, *, verbose: bool) -> None:
    if verbose:
        for line in report.trace:
            click.echo(line)
    if verbose or report.problems:
        for fault in report.faults:
            click.echo(fault)
    click.echo(report.in_one_line())
    for problem in report.problems:
        click.echo(f"  {problem}")


COMMANDS: Final = [simulate, replay]
"""For the group of ``reliable chaos``."""
