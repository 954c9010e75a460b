"""What the commands of ``reliable chaos`` do: run scenarios, show what came of it, write it down."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import click
import msgspec

from chaos.injection import NotInjected, faults_required
from chaos.reporting import junit, page, table
from chaos.reporting.origin import command_of, machine, version
from chaos.reporting.value import Report, ReportUnreadable, RunReport, decode, encode
from chaos.running.catalogue import UnknownScenario, all_scenarios, named
from chaos.running.inside import run as run_scenario
from chaos.running.model import Guest, Scenario
from chaos.toxi import toxiproxy_binary
from reliable import AsyncWorker, Worker
from reliable.cli.chaos_screen import ChaosScreen
from reliable.cli.exits import CommandFailed, one_line
from reliable.cli.loading import load_object
from reliable.cli.processes import signals_as_ctrl_c
from reliable.status import ExitCode

__all__ = ["Files", "guest_of", "list_all", "run", "show"]

_SEEDS: Final = 10_000


@attrs.frozen(kw_only=True)
class Files:
    """Where a report goes."""

    json: Path | None = None
    junit: Path | None = None
    html: Path | None = None


def list_all() -> ExitCode:
    """``chaos list``."""
    scenarios = all_scenarios().values()
    width = max(len(scenario.name) for scenario in scenarios)
    for scenario in scenarios:
        needs = ["toxiproxy"] * scenario.needs_toxiproxy + ["namespace"] * scenario.needs_namespace
        click.echo(f"{scenario.name:{width}}  {scenario.title}{f' [{chr(32).join(needs)}]' if needs else ''}")
    return ExitCode.OK


def guest_of(target: str | None, calls: Sequence[str]) -> Guest | None:
    """What ``--worker`` and ``--call`` say.

    Raises:
        click.UsageError: They make no sense.
        CommandFailed: The module fails while it is imported.
    """
    if target is None:
        if calls:
            raise click.UsageError("--call is for --worker")
        return None
    sys.path.insert(0, str(Path.cwd()))
    found = load_object(target)
    if not callable(found) and not isinstance(found, Worker | AsyncWorker):
        raise click.UsageError(f"{target!r} is a {type(found).__name__}, neither a worker nor a function")
    services = found.services if isinstance(found, Worker | AsyncWorker) else [target.rpartition(":")[2]]
    wanted = tuple(map(_guest_call, calls)) or tuple((service, ()) for service in services)
    for service, _ in wanted:
        if service not in services:
            raise click.UsageError(f"{target!r} offers no {service!r}; it offers {', '.join(services) or 'nothing'}")
    return Guest(target=target, calls=wanted)


def _guest_call(text: str) -> tuple[str, tuple[Any, ...]]:
    service, _, arguments = text.strip().partition(" ")
    try:
        return service, msgspec.json.decode(arguments or "[]", type=tuple[Any, ...])
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--call {text!r}: what follows the service is no JSON list: {error}") from error


def run(
    names: Sequence[str], *, every: bool, short: bool, seed: int | None, files: Files, guest: Guest | None = None
) -> ExitCode:
    """``chaos run``."""
    scenarios = _hosting(_wanted(names, every), guest, every)
    _check_writable(files)
    with signals_as_ctrl_c():
        runs = _run_all(scenarios, random.randrange(_SEEDS) if seed is None else seed, short)
    report = Report(created=_now(), machine=machine(), version=version(), command=command_of(sys.argv), runs=runs)
    click.echo(f"\n{table.render(report)}")
    _write(report, files)
    return _exit_code(report)


def show(file: Path, files: Files) -> ExitCode:
    """``chaos report``."""
    _check_writable(files)
    try:
        report = decode(file.read_bytes())
    except ReportUnreadable as error:
        raise click.UsageError(f"{file}: {error}") from error
    click.echo(table.render(report))
    _write(report, files)
    return _exit_code(report)


def _wanted(names: Sequence[str], every: bool) -> list[Scenario]:
    if every and names:
        raise click.UsageError("name scenarios or give --all, not both")
    if every:
        return list(all_scenarios().values())
    if not names:
        raise click.UsageError("name a scenario, or give --all; `reliable chaos list` names them")
    try:
        found = [scenario for name in names for scenario in named(name)]
    except UnknownScenario as error:
        raise click.UsageError(str(error)) from error
    return list({scenario.name: scenario for scenario in found}.values())


def _hosting(scenarios: list[Scenario], guest: Guest | None, every: bool) -> list[Scenario]:
    if guest is None:
        return scenarios
    refusing = [scenario.name for scenario in scenarios if not scenario.takes_guests]
    if refusing and not every:
        raise click.UsageError(f"no other worker can take part in {', '.join(refusing)}")
    return [attrs.evolve(scenario, guest=guest) for scenario in scenarios if scenario.takes_guests]


def _check_writable(files: Files) -> None:
    """Before minutes of work are done for nothing."""
    for path in (files.json, files.junit, files.html):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {path.parent}")


def _run_all(scenarios: Sequence[Scenario], seed: int, short: bool) -> list[RunReport]:
    screen = ChaosScreen(sys.stdout)
    runs = []
    first_proxied = next((n for n, one in enumerate(scenarios, start=1) if one.needs_toxiproxy), 0)
    try:
        for number, scenario in enumerate(scenarios, start=1):
            screen.line(f"[{number}/{len(scenarios)}] {scenario.name}, seed {seed}: {scenario.title}")
            if scenario.needs_toxiproxy and number == first_proxied:
                _announce_build(screen)
            found = run_scenario(scenario, seed=seed, short=short, say=screen.say)
            runs.append(found)
            screen.result(found.verdict, _summary(found))
    finally:
        screen.close()
    return runs


def _announce_build(screen: ChaosScreen) -> None:
    """Nobody waits for minutes without being told for what."""
    try:
        toxiproxy_binary(build=False)
    except NotInjected:
        screen.line("  there is no toxiproxy-server yet: it is built by Go now, once, which can take minutes")


def _summary(run: RunReport) -> str:
    if run.reason:
        return one_line(run.reason)
    ends = table.ends_of(run)
    text = f"{len(run.calls)} calls, {table.answered_of(ends)} answered, {ends['hung']} hung"
    return f"{text}; raw REQ/REP {table.control_text(run.control)}" if run.control is not None else text


def _write(report: Report, files: Files) -> None:
    contents = {files.json: encode, files.junit: junit.render, files.html: page.render}
    for path, render in contents.items():
        if path is None:
            continue
        try:
            path.write_bytes(render(report))
        except OSError as error:
            raise CommandFailed(f"cannot write {path}: {error.strerror or error}") from error
        click.echo(f"wrote {path}", err=True)


def _exit_code(report: Report) -> ExitCode:
    absent = [run for run in report.runs if run.verdict == "not injected"]
    if not report.passed or (absent and (faults_required() or len(absent) == len(report.runs))):
        return ExitCode.FAILURE
    return ExitCode.OK


def _now() -> str:
    # For people only: it names the report, and nothing is reckoned with it.
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")
