"""``reliable chaos``: break a real system on purpose, and have it judged.

What the commands do is in ``reliable.cli.chaos_run``, which is imported when one of them is asked for: the suite must
not cost every ``reliable broker`` its time to start.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

__all__ = ["chaos", "list_scenarios", "report", "run"]

_SIMULATOR: Final = "chaos.cli_sim"
_SIMULATOR_COMMANDS: Final = ("replay", "simulate")
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


class _Group(click.Group):
    """Takes in the commands of the simulator, which are a module of their own, when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        there = importlib.util.find_spec(_SIMULATOR) is not None
        return sorted({*super().list_commands(ctx), *(_SIMULATOR_COMMANDS if there else ())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SIMULATOR_COMMANDS or importlib.util.find_spec(_SIMULATOR) is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(_SIMULATOR), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group)
def chaos() -> None:
    """Break a system on purpose, real or simulated, and have judged what becomes of every call.

    \b
    Example:
      reliable chaos list
      reliable chaos run server-dies --html report.html
    """


@chaos.command("list")
def list_scenarios() -> int:
    """Name the scenarios, and what goes wrong in each."""
    from reliable.cli import chaos_run

    return chaos_run.list_all()


@chaos.command()
@click.argument("names", metavar="SCENARIO...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Run all scenarios.")
@click.option("--short", is_flag=True, help="The short form: the same faults in a few seconds.")
@click.option("--seed", type=click.IntRange(min=0), help="What is called, and who is hit. [default: a new one]")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the report as JSON, for `chaos report`.")
@click.option("--junit", "junit_file", type=_FILE, metavar="FILE", help="Write it as JUnit XML.")
@click.option("--html", "html_file", type=_FILE, metavar="FILE", help="Write it as one HTML page with a timeline.")
@click.option("--worker", metavar="MODULE:OBJECT", help="Run this worker in place of the suite's own.")
@click.option(
    "--call",
    "calls",
    multiple=True,
    metavar="'SERVICE [ARGS]'",
    help="With --worker: what to call, and a JSON list of arguments; may be repeated. [default: all, without any]",
)
def run(
    names: Sequence[str],
    every: bool,
    short: bool,
    seed: int | None,
    worker: str | None,
    calls: Sequence[str],
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
) -> int:
    """Run scenarios on real processes of this machine.

    One after the other: brokers, workers and servers are started, calls are made, things are broken in time and mended
    again, and what happened is judged. Nothing is left behind, not even after Ctrl-C.

    \b
    Example:
      reliable chaos run server-dies worker-crash --seed 7 --html report.html
      reliable chaos run --all --short
      reliable chaos run worker-crash --worker shop:worker --call 'price ["lamp"]'

    Exit codes: 0 if every check held; 1 if one failed, if a fault could not be injected although
    RELIABLE_REQUIRE_FAULTS is set, or if nothing could be run at all; 2 for wrong usage; 130 after Ctrl-C.
    """
    from reliable.cli import chaos_run

    files = chaos_run.Files(json=json_file, junit=junit_file, html=html_file)
    guest = chaos_run.guest_of(worker, calls)
    return chaos_run.run(names, every=every, short=short, seed=seed, files=files, guest=guest)


@chaos.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--junit", "junit_file", type=_FILE, metavar="FILE", help="Write it as JUnit XML.")
@click.option("--html", "html_file", type=_FILE, metavar="FILE", help="Write it as one HTML page with a timeline.")
def report(file: Path, junit_file: Path | None, html_file: Path | None) -> int:
    """Show a report again, or write it in another form.

    FILE is what `chaos run --json` wrote.

    \b
    Example:
      reliable chaos report report.json --html report.html

    Exit codes: as for the run that wrote it; 2 if the file is no report.
    """
    from reliable.cli import chaos_run

    return chaos_run.show(file, chaos_run.Files(junit=junit_file, html=html_file))
