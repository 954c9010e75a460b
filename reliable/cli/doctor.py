"""``reliable doctor``: what this installation has, and what of this machine may get in the way."""

from __future__ import annotations

import enum
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import attrs
import click

from reliable import messages
from reliable.status import ExitCode

__all__ = ["Finding", "Level", "doctor", "examine", "render"]

_LIBZMQ_MIN: Final = (4, 3)
_DESCRIPTORS_MIN: Final = 1024
_BACKLOG_MIN: Final = 1000
"""Brokers ask for more; the system cuts that down to its own limit, 128 in old kernels."""
_BACKLOG_FILE: Final = Path("/proc/sys/net/core/somaxconn")


class Level(enum.Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Works, but slower or not all of it."""
    PROBLEM = "problem"
    """Something will fail."""


@attrs.frozen
class Finding:
    """One line of the report.

    Attributes:
        name: Of what was looked at; stable, for scripts.
        value: What was found.
        level: What it means.
        advice: What to do about it; empty if nothing is to be done.
    """

    name: str
    value: str
    level: Level = Level.OK
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, in the order of the report."""
    yield Finding("reliable", _version("reliable"))
    yield Finding("python", f"{platform.python_version()} ({platform.python_implementation()}, {sys.platform})")
    yield Finding("pyzmq", _version("pyzmq"))
    for look in (_libzmq, _transport, _curve, _descriptors, _backlog, _toxiproxy, _namespaces):
        yield look()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _libzmq() -> Finding:
    found = messages.libzmq_version()
    if found < _LIBZMQ_MIN:
        return Finding("libzmq", _dotted(found), Level.PROBLEM, f"{_dotted(_LIBZMQ_MIN)} or newer is needed")
    return Finding("libzmq", _dotted(found))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _transport() -> Finding:
    if messages.WHY_NOT_ACCELERATED is None:
        return Finding("transport", messages.implementation())
    return Finding(
        "transport",
        f"{messages.implementation()}: {messages.WHY_NOT_ACCELERATED}",
        Level.NOTE,
        "slower, and otherwise equal; docs/howto/accelerator.md",
    )


def _curve() -> Finding:
    if messages.has_curve():
        return Finding("curve", "available")
    return Finding("curve", "missing", Level.NOTE, "this libzmq cannot encrypt; pyzmq's own wheels can")


def _descriptors() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("descriptors", "not limited here")
    soft, hard = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
    text = f"{_count(soft)} (up to {_count(hard)})"
    if soft < _DESCRIPTORS_MIN:
        return Finding("descriptors", text, Level.PROBLEM, "a broker needs one per connection: ulimit -n")
    return Finding("descriptors", text)


def _limit(value: int) -> float:
    return float("inf") if value < 0 else value


def _count(limit: float) -> str:
    return "unlimited" if limit == float("inf") else f"{limit:.0f}"


def _backlog() -> Finding:
    try:
        found = int(_BACKLOG_FILE.read_text())
    except (OSError, ValueError):
        return Finding("backlog", "unknown")
    if found < _BACKLOG_MIN:
        advice = "more clients than that connecting at once wait for seconds: sysctl net.core.somaxconn"
        return Finding("backlog", str(found), Level.NOTE, advice)
    return Finding("backlog", str(found))


def _toxiproxy() -> Finding:
    def where() -> str:
        from chaos.toxi.server import toxiproxy_binary

        return str(toxiproxy_binary(build=False))

    return _fault("toxiproxy", where, "python -m chaos.toxi builds it")


def _namespaces() -> Finding:
    def usable() -> str:
        from chaos.netns import probe

        absence = probe()
        if absence is not None:
            raise absence
        return "usable"

    return _fault("namespaces", usable, "needs nftables, iproute2 and user namespaces")


def _fault(name: str, find: Callable[[], str], advice: str) -> Finding:
    """What chaos runs inject faults with; nothing else needs it."""
    from chaos.injection import NotInjected

    try:
        return Finding(name, find())
    except NotInjected as absence:
        return Finding(name, f"missing: {absence.reason}", Level.NOTE, f"only for chaos runs; {advice}")
    except ImportError as error:
        return Finding(name, f"missing: {error}", Level.NOTE, "only for chaos runs; pip install 'reliable[chaos]'")


def render(findings: list[Finding]) -> str:
    """The report for people."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "" if finding.level is Level.OK else f"  [{finding.level.value}: {finding.advice}]"
        lines.append(f"{finding.name:<{width}}  {finding.value}{mark}")
    return "\n".join(lines)


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print one JSON object: {"ok": ..., "findings": [...]}.')
def doctor(as_json: bool) -> int:
    """Show versions, the transport in use, and what of this machine may get in the way.

    \b
    Example:
      reliable doctor
      reliable doctor --json | jq -r '.findings[] | select(.level != "ok") | .name'
    """
    findings = list(examine())
    ok = all(finding.level is not Level.PROBLEM for finding in findings)
    if as_json:
        listed = [attrs.asdict(finding) | {"level": finding.level.value} for finding in findings]
        click.echo(json.dumps({"ok": ok, "findings": listed}))
    else:
        click.echo(render(findings))
    return ExitCode.OK if ok else ExitCode.FAILURE
