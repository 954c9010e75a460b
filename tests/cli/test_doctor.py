"""``reliable doctor``: what it looks at, what it calls a problem, and its exit code."""

from __future__ import annotations

import builtins
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from chaos import netns
from chaos.injection import NotInjected
from reliable import messages
from reliable.cli import doctor as module
from reliable.cli.doctor import Finding, Level, examine, render
from reliable.cli.main import main
from reliable.status import ExitCode
from tests.support.commands import run_command

_NAMES = [
    *("reliable", "python", "pyzmq", "libzmq", "transport", "curve", "descriptors", "backlog"),
    *("toxiproxy", "namespaces"),
]


def _found(name: str) -> Finding:
    return next(finding for finding in examine() if finding.name == name)


def test_the_report_names_all_that_was_looked_at() -> None:
    """It is what users are asked to paste into a report of a defect."""
    result = run_command("doctor")
    assert result.returncode == ExitCode.OK
    assert [line.split()[0] for line in result.stdout.decode().splitlines()] == _NAMES


def test_the_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Checks of a fleet read it."""
    assert main(["doctor", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert [finding["name"] for finding in report["findings"]] == _NAMES
    assert {key for finding in report["findings"] for key in finding} == {"name", "value", "level", "advice"}


def test_the_transport_in_use_is_told() -> None:
    """Whoever measures must know what was measured."""
    found = _found("transport")
    assert found.value.split(":")[0] == messages.implementation()
    assert found.level is (Level.OK if messages.ACCELERATED else Level.NOTE)


def test_why_there_is_no_accelerator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on purpose, or a compiler that was missing at the installation."""
    monkeypatch.setattr(messages, "WHY_NOT_ACCELERATED", "RELIABLE_PURE is set")
    found = _found("transport")
    assert found.value.endswith(": RELIABLE_PURE is set")
    assert found.level is Level.NOTE


def test_too_few_descriptors_are_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A broker that runs out of them takes no further connection, and says so nowhere near the cause."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1023, resource.RLIM_INFINITY))
    assert main(["doctor"]) == ExitCode.FAILURE
    assert "1023 (up to unlimited)  [problem: " in capsys.readouterr().out
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert _found("descriptors") == Finding("descriptors", "1024 (up to 4096)")


def test_an_old_libzmq_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 4.3 its sockets do not tell of failed handshakes."""
    monkeypatch.setattr(messages, "libzmq_version", lambda: (4, 2, 5))
    found = _found("libzmq")
    assert (found.value, found.level) == ("4.2.5", Level.PROBLEM)


def test_a_libzmq_that_cannot_encrypt_is_no_problem_as_long_as_nobody_wants_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most do without."""
    monkeypatch.setattr(messages, "has_curve", lambda: False)
    assert _found("curve").level is Level.NOTE


@pytest.mark.parametrize(
    ("text", "level"), [("128\n", Level.NOTE), ("999\n", Level.NOTE), ("4096\n", Level.OK), ("?", Level.OK)]
)
def test_a_short_queue_of_connections_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, level: Level
) -> None:
    """After a restart of the broker all clients connect at once."""
    file = tmp_path / "somaxconn"
    file.write_text(text)
    monkeypatch.setattr(module, "_BACKLOG_FILE", file)
    assert _found("backlog").level is level


def test_what_chaos_runs_lack_is_told_and_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else needs it."""
    monkeypatch.setattr(netns, "probe", lambda: NotInjected("packet loss", "no program 'nft'"))
    found = _found("namespaces")
    assert (found.value, found.level) == ("missing: no program 'nft'", Level.NOTE)
    assert main(["doctor"]) == ExitCode.OK
    capsys.readouterr()


def test_it_works_without_the_extra_for_chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who only install the library ask what is wrong, too."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "chaos.toxi.server":
            raise ImportError("No module named 'toxiproxy'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    found = _found("toxiproxy")
    assert found.value == "missing: No module named 'toxiproxy'"
    assert "reliable[chaos]" in found.advice


def test_the_table_is_aligned_and_gives_advice_only_where_there_is_some() -> None:
    """People read it."""
    findings = [Finding("a", "1"), Finding("long", "2", Level.NOTE, "do this")]
    assert render(findings) == "a     1\nlong  2  [note: do this]"
