"""``reliable bench``: each command measures, prints, writes and draws, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from reliable.bench import peers, plots
from reliable.bench.report import Report, Table
from reliable.cli import bench_run
from reliable.cli.bench import Numbers, bench
from reliable.cli.main import main
from tests.support.commands import ROOT, run_command

SHORT = {
    "call": ["--rounds", "1", "--turn", "0.05", "--rate", "100", "--in-flight", "2"],
    "peers": ["--rounds", "2", "--calls", "4", "--in-flight", "3", "--only", "xmlrpc"],
    "matrix": ["--rounds", "1", "--turn", "0.05", "--sizes", "16,64kB", "--clients", "1,3", "--workers", "1"],
    "mesh": ["--rounds", "1", "--turn", "0.05", "--nodes", "2-3"],
    "unfair-join": ["--rounds", "1", "--jobs", "200", "--workers", "2", "--late", "0.02", "--job", "0.005"],
    "scale": ["--rounds", "1", "--turn", "0.05", "--workers", "1,2", "--clients", "1,2", "--processes", "1"],
}
_MARKER = "RELIABLE_TEST_MARKER"
_GONE_S_MAX = 10.0
_DRAW = """
import json, pathlib, sys
from reliable.bench import plots
file = pathlib.Path(sys.argv[1])
for suffix in plots.SUFFIXES:
    plots.draw(json.loads(file.read_text()), file.with_suffix(suffix))
"""
_LONG = {"mesh": ["--nodes", "2-3"], "unfair-join": ["--jobs", "10000"]}


def test_every_command_is_tested() -> None:
    """A benchmark that nobody runs breaks with the next change and is missed when it is needed."""
    assert bench.commands.keys() == SHORT.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("name", SHORT)
def test_command_measures_and_writes_what_can_be_drawn(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line to the last file, with processes, sockets and all."""
    file = tmp_path / "found.json"
    assert main(["bench", name, *SHORT[name], "--json", str(file)]) == 0
    said = capsys.readouterr()
    found = json.loads(file.read_text())
    assert found["benchmark"] == name
    assert found["machine"].keys() >= {"processor", "load", "system", "python", "libzmq", "reliable", "transport"}
    assert said.out.splitlines()[0] == found["command"]
    assert found["command"].startswith(f"reliable bench {name} ") and "--rounds" in found["command"]
    assert all(note in said.out for note in found["notes"])
    assert said.err.splitlines()[-1] == f"wrote {file}"
    # In a process of its own: matplotlib keeps the fonts open that it has used.
    subprocess.run([sys.executable, "-c", _DRAW, str(file)], cwd=ROOT, check=True, timeout=50)
    assert "<svg" in file.with_suffix(".svg").read_text()
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    _CHECKS[name](found)


def _check_call(found: dict[str, Any]) -> None:
    assert [loop["name"] for loop in found["loops"]] == [
        "blocking, closed, 2 in flight",
        "blocking, open at 100/s",
        "asyncio, closed, 2 in flight",
        "asyncio, open at 100/s",
    ]
    for loop in found["loops"]:
        assert loop["failed"] == 0 and loop["calls"] == sum(count for _, count in loop["histogram_us"])
        assert 0 < loop["from_sent"]["p50_us"] <= loop["from_due"]["p50_us"] <= loop["from_due"]["max_us"]


def _check_peers(found: dict[str, Any]) -> None:
    names = ["req-rep", "req-rep again", "ours", "xmlrpc"]
    assert [row["name"] for row in found["peers"]] == names, "what all are compared with is always there"
    assert all(len(row["p50_us"]) == 2 for row in found["peers"])
    assert found["peers"][0]["p50_over_base"]["median"] == 1.0 and found["noise"]["median"] > 0
    assert {row["name"] for row in found["peers"] if row["per_second"]} == {"ours"}


def _check_matrix(found: dict[str, Any]) -> None:
    keys = {(cell["body_bytes"], cell["clients"]) for cell in found["cells"]}
    assert keys == {(16, 1), (16, 3), (64_000, 1), (64_000, 3)}
    assert all(cell["failed"] == 0 and min(cell["per_second"]) > 0 for cell in found["cells"])


def _check_mesh(found: dict[str, Any]) -> None:
    assert found["per_second"].keys() == {"connect", "persistent", "passing", "ours", "persistent again"}
    for rates in found["per_second"].values():
        assert rates.keys() == {"2", "3"} and min(*rates["2"], *rates["3"]) > 0


def _check_unfair(found: dict[str, Any]) -> None:
    assert [way["name"] for way in found["ways"]] == ["PUSH", "ours"]
    push, ours = (way["jobs"][0] for way in found["ways"])
    assert push == [200, 0]
    assert sum(ours) == 200 and ours[1] >= 20, "who comes late finds work with us"


def _check_scale(found: dict[str, Any]) -> None:
    assert [(cell["workers"], cell["clients"]) for cell in found["cells"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(cell["failed"] == 0 and min(cell["per_second"]) > 0 for cell in found["cells"])


_CHECKS = {
    "call": _check_call,
    "peers": _check_peers,
    "matrix": _check_matrix,
    "mesh": _check_mesh,
    "unfair-join": _check_unfair,
    "scale": _check_scale,
}


@pytest.mark.slow
def test_a_foreign_broker_can_be_measured(served_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Yours is the one whose latency you want to know."""
    options = ["--broker", served_url, "--client", "blocking", "--rate", "0", "--rounds", "1", "--turn", "0.05"]
    assert main(["bench", "call", *options]) == 0
    said = capsys.readouterr().out
    assert f"Through {served_url}" in said and "open at" not in said


@pytest.mark.slow
def test_a_service_that_nobody_offers_is_one_line(served_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a table of failures."""
    assert main(["bench", "call", "--broker", served_url, "--service", "nobody", "--rounds", "1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("reliable: ChildFailed: the process 'caller' failed: ServiceNotFound")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_what_cannot_be_measured_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With how to get it, and the others are measured: neither silence, nor the loss of the whole comparison."""
    ghost = peers.Peer("ghost", "", ("rep",), "req", ("no_such_module",), (), "pip install ghost", pipelines=False)
    broken = peers.Peer("broken", "", ("nothing",), "req", ("zmq",), (), "-", pipelines=False)
    monkeypatch.setattr(peers, "PEERS", (*peers.PEERS, ghost, broken))
    assert main(["bench", "peers", "--only", "ghost,broken", "--rounds", "1", "--calls", "2"]) == 0
    said = capsys.readouterr().out
    assert "not measured: ghost (no module 'no_such_module'; to get it: pip install ghost)" in said.splitlines()
    assert "not measured: broken (the process 'peer-server' failed: KeyError: 'nothing')" in said
    assert "\nours " in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["call", "--rounds", "0"], "Invalid value for '--rounds'"),
        (["call", "--seconds", "0"], "Invalid value for '--seconds'"),
        (["call", "--plot", "x.pdf"], "--plot x.pdf: the name must end in .png or .svg"),
        (["call", "--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["matrix", "--sizes", "16,much"], "Invalid value for '--sizes': 'much' is no whole number"),
        (["matrix", "--clients", "1001"], "Invalid value for '--clients': 1001 is not from 1 to 1000"),
        (["mesh", "--nodes", "1-3"], "Invalid value for '--nodes': 1 is not from 2 to 10"),
        (["mesh", "--nodes", "5-2"], "Invalid value for '--nodes': '5-2' is empty"),
        (["peers", "--only", "corba"], "there is no contestant 'corba'; there are req-rep"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is started."""
    assert main(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"reliable: {line}"), said
    assert said.count("\n") == 1


def test_missing_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before minutes of measuring, not after."""
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main(["bench", "mesh", "--plot", "x.png"]) == 1
    assert capsys.readouterr().err == "reliable: --plot needs matplotlib: pip install 'reliable[bench]'\n"


def test_what_was_found_is_drawn_or_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk must not look like a finished drawing."""
    report = Report(name="mesh", command="x", machine={}, tables=[Table(["a"], [["b"]])], data={"rates": [1]})
    drawn: list[tuple[object, Path]] = []
    monkeypatch.setitem(bench_run._BENCHES, "mesh", lambda wanted: lambda command, say: report)
    monkeypatch.setattr(plots, "draw", lambda found, path: drawn.append((found, path)))
    assert main(["bench", "mesh", "--plot", str(tmp_path / "x.svg")]) == 0
    assert drawn == [(report.as_json(), tmp_path / "x.svg")]
    assert capsys.readouterr().err == f"wrote {tmp_path / 'x.svg'}\n"
    (tmp_path / "folder.json").mkdir()
    assert main(["bench", "mesh", "--json", str(tmp_path / "folder.json")]) == 2, "click sees that it is a folder"
    capsys.readouterr()
    assert main(["bench", "mesh", "--json", "/dev/full"]) == 1
    assert capsys.readouterr().err == "reliable: cannot write /dev/full: No space left on device\n"


@pytest.mark.parametrize(
    ("text", "numbers"), [("1,10,100", (1, 10, 100)), ("2-4", (2, 3, 4)), ("16,1kB,1MB", (16, 1_000, 1_000_000))]
)
def test_lists_of_numbers(text: str, numbers: tuple[int, ...]) -> None:
    """As people write them."""
    kind = Numbers(1, 10**9)
    assert kind.convert(text, None, None) == numbers
    assert kind.convert(numbers, None, None) == numbers
    with pytest.raises(click.BadParameter):
        kind.convert("0", None, None)


def test_the_command_that_is_told_repeats_the_measurement() -> None:
    """With all of its options written out: defaults may change."""
    context = click.Context(bench.commands["mesh"], info_name="reliable bench mesh")
    bench.commands["mesh"].parse_args(context, ["--nodes", "2-4", "--turn", "0.5", "--json", "x.json"])
    told = "reliable bench mesh --nodes 2,3,4 --body 64 --in-flight 16 --turn 0.5 --rounds 5 --seconds 60"
    assert bench_run.repeat(context) == told


def test_help_and_import_stay_light() -> None:
    """Whoever starts a broker must not wait for what measures one."""
    text = (
        "import sys, reliable.cli.main as m; m.main(['bench', '--help']); "
        "sys.exit(any(name.startswith(('reliable.bench', 'matplotlib', 'numpy')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, timeout=30).returncode == 0


def _holding(marker: str) -> list[str]:
    """Processes that inherited the variable: the command itself and all that it started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARKER}={marker}".encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            # It ended while we looked.
            continue
    return [command for command in found if command]


def _await_holding(marker: str, low: int, high: int, seconds_max: float) -> None:
    end = time.monotonic() + seconds_max
    while not low <= len(found := _holding(marker)) <= high:
        assert time.monotonic() < end, found
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("mesh", signal.SIGINT), ("unfair-join", signal.SIGTERM), ("mesh", signal.SIGKILL)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_nothing_is_left_of_a_run_that_was_broken_off(name: str, number: signal.Signals) -> None:
    """Nobody wants to find ten processes that bother each other the day after."""
    marker = f"bench-{name}-{number}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "reliable", "bench", name, *_LONG[name], "--rounds", "1000"]
    env = {**os.environ, _MARKER: marker}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            _await_holding(marker, 5, 100, 30)
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    _await_holding(marker, 0, 0, _GONE_S_MAX)
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert errors.decode().splitlines() == ["reliable: interrupted"]


def test_the_examples_of_the_help_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Most people read the example only."""
    for name, command in bench.commands.items():
        assert main(["bench", name, "--help"]) == 0
        shown = capsys.readouterr().out.partition("Example:\n")[2].partition("\n\n")[0]
        assert shown
        for line in shown.splitlines():
            program, group, sub, *arguments = line.split()
            assert (program, group, sub) == ("reliable", "bench", name)
            command.make_context(name, arguments)


def test_help_of_the_module_is_the_same() -> None:
    """``python -m reliable`` is documented too."""
    assert run_command("bench", "--help").stdout.count(b"\n  ") >= len(SHORT)
