"""``reliable chaos``: names, exit codes, and one clear line for whatever is missing."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import attrs
import pytest

import chaos.running.inside
import chaos.running.stage
import chaos.toxi.proxy
from chaos.__main__ import main as chaos_main
from chaos.injection import REQUIRE_VARIABLE, NotInjected
from chaos.reporting.value import CheckLine, Report, RunReport, encode
from chaos.running.catalogue import all_scenarios
from chaos.running.model import Scenario
from chaos.toxi import toxiproxy_binary
from reliable.cli import chaos_run
from reliable.cli.main import main
from tests.support.injection_report import injected


def _run(*args: str) -> int:
    return main(["chaos", *args])


def _report_of(scenario: Scenario, verdict: str, reason: str = "") -> RunReport:
    return RunReport(
        scenario=scenario.name, title="t", promise="p", seed=1, short=True, verdict=verdict, reason=reason, whole_s=1.0
    )


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each scenario shall come to, without being run; all others pass."""
    wanted: dict[str, str] = {}

    def run(scenario: Scenario, **_: object) -> RunReport:
        verdict = wanted.get(scenario.name, "passed")
        return _report_of(scenario, verdict, "packet loss (no program 'nft')" if verdict == "not injected" else "")

    monkeypatch.setattr(chaos_run, "run_scenario", run)
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    return wanted


def test_list_names_every_scenario_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows the names by heart."""
    assert _run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(all_scenarios())
    assert any(line.startswith("packet-loss-10") and line.endswith("[namespace]") for line in lines)


def test_commands_of_the_simulator_stand_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """One place to look for everything that breaks things; the two halves are modules of their own."""
    assert _run("--help") == 0
    commands = capsys.readouterr().out.partition("Commands:")[2].split("\n  ")
    assert [line.split()[0] for line in commands[1:]] == ["list", "replay", "report", "run", "simulate"]
    assert _run("simulate", "--help") == 0


def test_module_and_command_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are documented."""
    assert chaos_main(["list"]) == 0
    by_module = capsys.readouterr().out
    assert _run("list") == 0
    assert capsys.readouterr().out == by_module


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["run", "server-dead"], "reliable: there is no scenario 'server-dead'; did you mean server-dies"),
        (["run"], "reliable: name a scenario, or give --all"),
        (["run", "--all", "server-dies"], "reliable: name scenarios or give --all, not both"),
        (["run", "server-dies", "--seed", "x"], "reliable: Invalid value for '--seed'"),
        (["run", "server-dies", "--json", "/nowhere/at/all.json"], "reliable: there is no folder /nowhere/at"),
        (["report", "/nowhere/at/all.json"], "reliable: Invalid value for 'FILE'"),
        (["runn"], "reliable: No such command 'runn'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    args: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is started."""
    assert _run(*args) == 2
    said = capsys.readouterr()
    assert said.err.startswith(line), said.err
    assert said.err.count("\n") == 1


def test_exit_code_is_one_if_a_check_failed(verdicts: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """What CI looks at."""
    assert _run("run", "server-dies", "worker-crash", "--seed", "1") == 0
    verdicts["worker-crash"] = "failed"
    assert _run("run", "server-dies", "worker-crash", "--seed", "1") == 1
    assert "1 passed, 1 failed, 0 not injected" in capsys.readouterr().out


def test_what_could_not_be_injected_is_named_and_fails_where_it_must_not_be_missing(
    verdicts: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silence: a suite that ran half of itself must say so."""
    verdicts["packet-loss-10"] = "not injected"
    assert _run("run", "server-dies", "packet-loss-10") == 0
    assert "\nnot injected: packet loss (no program 'nft')\n" in capsys.readouterr().out
    assert _run("run", "packet-loss-10") == 1, "nothing was run at all"
    monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    assert _run("run", "server-dies", "packet-loss-10") == 1


def test_reports_are_written_and_shown_again(
    verdicts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run at night, looked at in the morning."""
    verdicts["worker-crash"] = "failed"
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "html")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    assert _run("run", "worker-crash", "--seed", "1", *options) == 1
    table = capsys.readouterr().out.partition("SCENARIO")[2]
    assert json.loads(files["json"].read_bytes())["runs"][0]["scenario"] == "worker-crash"
    assert files["junit"].read_text().startswith("<?xml")
    html = files["html"].read_text()
    files["html"].unlink()
    assert _run("report", str(files["json"]), "--html", str(files["html"])) == 1
    assert capsys.readouterr().out.partition("SCENARIO")[2] == table
    assert files["html"].read_text() == html


def test_file_that_is_no_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback of a decoder tells nobody what to do."""
    path = tmp_path / "x.json"
    path.write_text("{}x")
    assert _run("report", str(path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"reliable: {path}: not a report of `reliable chaos run --json`")
    assert said.count("\n") == 1


def test_failed_report_fails_again(tmp_path: Path) -> None:
    """A step of CI may show what another one has run."""
    check = CheckLine(name="recovery", ok=False, figure="9 s", offences=["late"], offences_count=1)
    run = attrs.evolve(_report_of(all_scenarios()["worker-crash"], "failed"), checks=[check])
    path = tmp_path / "x.json"
    path.write_bytes(encode(Report(runs=[run])))
    assert _run("report", str(path)) == 1


def test_forbidden_namespaces_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Some machines allow none; that is a property of theirs."""

    def refuse(*_: object, **__: object) -> None:
        raise NotInjected("packet loss", "no network namespace: unshare failed: Operation not permitted")

    monkeypatch.setattr(chaos.running.inside, "run_in_namespace", refuse)
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    assert _run("run", "packet-loss-10", "--short") == 1
    said = capsys.readouterr().out
    assert "not injected: packet loss (no network namespace: unshare failed: Operation not permitted)" in said


def test_missing_toxiproxy_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It names what to install."""

    def refuse() -> None:
        raise NotInjected("toxiproxy-server", "not on PATH; no Go toolchain on PATH")

    monkeypatch.setattr(chaos.running.stage, "ToxiproxyServer", refuse)
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    assert _run("run", "reply-lost", "--short") == 1
    said = capsys.readouterr().out
    assert "\nnot injected: toxiproxy-server (not on PATH; no Go toolchain on PATH)\n" in said


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The package can be installed without what Toxiproxy needs."""
    monkeypatch.setitem(sys.modules, "chaos.toxi.proxy", None)
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    assert _run("run", "reply-lost", "--short") == 1
    said = capsys.readouterr().out
    assert re.search(r"\nnot injected: toxiproxy \(no module '[\w.]+'; the extra 'chaos' has it\)\n", said)


@pytest.mark.toxiproxy
def test_taken_proxy_port_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The server's own words, not a traceback of the client library."""
    injected(toxiproxy_binary)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(chaos.toxi.proxy, "free_port", lambda: taken.getsockname()[1])
        assert _run("run", "reply-lost", "--short") == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  failed:"))
    assert "address already in use" in line


def test_a_build_that_takes_minutes_is_announced(
    verdicts: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence for minutes looks like the hang that this is about; it is said once, and only where it is true."""

    def refuse(*, build: bool) -> None:
        assert not build
        raise NotInjected("toxiproxy-server", "not built yet")

    assert verdicts == {}
    monkeypatch.setattr(chaos_run, "toxiproxy_binary", refuse)
    assert _run("run", "worker-crash", "reply-lost", "request-lost") == 0
    assert capsys.readouterr().out.count("it is built by Go now, once") == 1
    assert _run("run", "worker-crash") == 0
    assert "built by Go" not in capsys.readouterr().out


def test_family_of_scenarios_is_run_by_its_common_name(
    verdicts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """``packet-loss`` is what people type."""
    assert verdicts == {}
    assert _run("run", "packet-loss", "packet-loss-10") == 0
    assert "3 passed, 0 failed, 0 not injected" in capsys.readouterr().out
