"""Benchmarks run to their end, compare what they say, and leave no process behind. Their figures are not judged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.children import child
from benchmarks.figures import Case, spread_of
from benchmarks.latency import CASES, main, measure


def _children() -> list[int]:
    """Processes that this one has started and that still run as children of a benchmark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (entry / "status").read_text(), (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if f"PPid:\t{os.getpid()}\n" in status and b"reliable.bench.child" in command:
            found.append(int(entry.name))
    return found


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("case", CASES)
def test_each_case_runs_and_ends_what_it_started(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that nobody runs breaks with the next change and is missed when it is needed."""
    file = tmp_path / "figures.json"
    assert main(["--case", case, "--rounds", "2", "--calls", "3", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "ours / bare: " in printed and "(noise)" in printed
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["machine"]["python"] and found["machine"]["libzmq"]
    assert found["cases"].keys() == {case}
    p50 = found["cases"][case]["p50_us"]
    assert {name: len(figures) for name, figures in p50.items()} == {
        "bare": 2,
        "ours": 2,
        "shared": 2,
        "control": 2,
    }
    assert all(figure > 0 for figures in p50.values() for figure in figures)
    cpu = found["cases"][case]["cpu_us"]
    assert {name: len(figures) for name, figures in cpu.items()} == {"bare": 2, "ours": 2, "shared": 2}
    assert _children() == []


@pytest.mark.usefixtures("no_leaks")
def test_time_is_bounded() -> None:
    """One million rounds must not mean one week: a round that began is the last one."""
    found = measure("broker", rounds=1_000_000, calls=2, body=b"x", seconds_max=0.01)
    assert 1 <= len(found.ours_ns) < 1000
    assert len(found.bare_ns) == len(found.ours_ns) == len(found.control_ns)


def test_the_profile_names_functions_of_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    """It is there to say what to change."""
    assert main(["--case", "broker", "--calls", "5", "--profile"]) == 0
    assert "sync/pump.py" in capsys.readouterr().out
    assert _children() == []


def test_a_child_that_cannot_start_is_an_error() -> None:
    """Silence would look like a slow machine."""
    with pytest.raises(ValueError, match="no child"), child("nobody"):
        pass
    assert _children() == []


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--calls", "-1"], ["--seconds", "0"], ["--case", "x"]])
def test_senseless_arguments_are_refused(arguments: list[str]) -> None:
    """A median of nothing is no figure."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which everything was slow must not count as a slow client."""
    case = Case("x", [100.0, 1000.0, 100.0], [110.0, 1100.0, 120.0], [100.0, 1000.0, 105.0])
    case.floor_ns = [105.0, 1050.0, 90.0]
    assert case.ratio.median == pytest.approx(1.1)
    assert case.floor.median == pytest.approx(1.05)
    assert case.noise.median == pytest.approx(1.0)


def test_spread_is_median_and_quartiles() -> None:
    """What is printed in brackets."""
    assert spread_of([5.0]).text() == "5.00 (5.00 to 5.00)"
    assert spread_of([1.0, 2.0, 3.0, 4.0, 5.0]).text("s", 0) == "3s (2 to 4)"
