"""What the commands of ``reliable bench`` do: check what is asked for, measure, print, write, draw."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from reliable.bench import call, matrix, mesh, peers, plots, scale, unfair
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report
from reliable.cli.chaos_screen import ChaosScreen
from reliable.cli.exits import CommandFailed
from reliable.cli.processes import signals_as_ctrl_c
from reliable.status import ExitCode

__all__ = ["repeat", "run"]

_Wanted = dict[str, Any]
_FILES: Final = ("json_file", "plot_file")


def run(name: str, wanted: _Wanted, context: click.Context) -> ExitCode:
    """One subcommand.

    Args:
        name: Of the subcommand.
        wanted: Its options, as click gives them.
        context: Of the subcommand; names it in what is written.

    Raises:
        click.UsageError: The options make no sense together.
        CommandFailed: Nothing can be drawn, or a file cannot be written.
        ChildFailed: A process of the benchmark could not do its part.
    """
    command = repeat(context)
    json_file, plot_file = (wanted.pop(file) for file in _FILES)
    _check_files(json_file, plot_file)
    wanted["bounds"] = Bounds(rounds=wanted.pop("rounds"), seconds=wanted.pop("seconds"))
    measure = _BENCHES[name](wanted)
    screen = ChaosScreen(sys.stderr)
    try:
        with signals_as_ctrl_c():
            report = measure(command, screen.say)
    finally:
        screen.close()
    click.echo(report.text())
    if json_file is not None:
        _write(json_file, lambda: json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8"))
    if plot_file is not None:
        _write(plot_file, lambda: plots.draw(report.as_json(), plot_file))
    return ExitCode.OK


_Measure = Callable[[str, Say], Report]


def _call(wanted: _Wanted) -> _Measure:
    kind = wanted.pop("kind")
    plan = call.CallPlan(kinds=call.KINDS if kind == "both" else (kind,), **{**wanted, "rate": wanted["rate"] or None})
    return lambda command, say: call.measure(plan, command, say)


def _peers(wanted: _Wanted) -> _Measure:
    names = wanted.pop("names")
    known = [peer.name for peer in peers.PEERS]
    for name in names or ():
        if name not in known:
            raise click.UsageError(f"there is no contestant {name!r}; there are {', '.join(known)}")
    plan = peers.PeersPlan(names=names or known, **wanted)
    return lambda command, say: peers.measure(plan, command, say)


def _matrix(wanted: _Wanted) -> _Measure:
    if wanted.pop("every"):
        wanted.update(sizes=matrix.ALL_SIZES, clients=matrix.ALL_CLIENTS)
    plan = matrix.MatrixPlan(**wanted)
    return lambda command, say: matrix.measure(plan, command, say)


def _mesh(wanted: _Wanted) -> _Measure:
    plan = mesh.MeshPlan(**wanted)
    return lambda command, say: mesh.measure(plan, command, say)


def _unfair(wanted: _Wanted) -> _Measure:
    plan = unfair.UnfairPlan(**wanted)
    return lambda command, say: unfair.measure(plan, command, say)


def _scale(wanted: _Wanted) -> _Measure:
    if wanted.pop("every"):
        wanted.update(workers=scale.ALL_COUNTS, clients=scale.ALL_COUNTS)
    plan = scale.ScalePlan(**wanted)
    return lambda command, say: scale.measure(plan, command, say)


_BENCHES: Final[dict[str, Callable[[_Wanted], _Measure]]] = {
    "call": _call,
    "peers": _peers,
    "matrix": _matrix,
    "mesh": _mesh,
    "unfair-join": _unfair,
    "scale": _scale,
}


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    """Before minutes of work are done for nothing."""
    for path in (json_file, plot_file):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {path.parent}")
    if plot_file is not None:
        if plot_file.suffix not in plots.SUFFIXES:
            raise click.UsageError(f"--plot {plot_file}: the name must end in {' or '.join(plots.SUFFIXES)}")
        if not plots.available():
            raise CommandFailed("--plot needs matplotlib: pip install 'reliable[bench]'")


def _write(path: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)


def repeat(context: click.Context) -> str:
    """The command with all its options written out, but for the files: defaults may change."""
    words = context.command_path.split()
    for option in context.command.params:
        if option.name is None or option.name in _FILES:
            continue
        value = context.params[option.name]
        name = next((name for name in option.opts if name.startswith("--")), option.opts[0])
        if value is None or value is False:
            continue
        words += [name] if value is True else [name, _word(value)]
    return shlex.join(words)


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
