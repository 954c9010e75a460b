"""``chaos.injection``: what cannot be injected is named once, and fails where it is demanded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.injection import REQUIRE_VARIABLE, NotInjected, faults_required, not_injected_line

SKIPPING_TEST = """
from chaos.injection import NotInjected
from tests.support.injection_report import injected, require

def lacking():
    raise NotInjected("packet loss", "no program 'nft'")

def test_one():
    injected(lacking)

def test_other():
    require(NotInjected("packet loss", "no program 'nft'"))

def test_third():
    require(NotInjected("toxiproxy-server", "no Go toolchain"))

def test_present():
    require(None)
    assert injected(lambda: 7) == 7
"""
_PLUGINS = ("-p", "tests.support.injection_report", "-p", "no:cacheprovider")


def test_line_names_each_missing_fault_once() -> None:
    """Twenty tests that lack the same program must not make twenty lines."""
    absences = [NotInjected("b", "why"), NotInjected("a", "reason"), NotInjected("b", "why")]
    assert not_injected_line(absences) == "not injected: a (reason); b (why)"


def test_nothing_missing_means_no_line() -> None:
    """A line that is always there is not read."""
    assert not_injected_line([]) == ""


@pytest.mark.parametrize(("value", "demanded"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_variable_demands_faults(value: str | None, demanded: bool) -> None:
    """A machine that is set up to inject faults must not pass by leaving them out."""
    assert faults_required({} if value is None else {REQUIRE_VARIABLE: value}) is demanded


def _run_pytest(folder: Path, required: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_skipping.py").write_text(SKIPPING_TEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    root = Path(__file__).parents[2]
    environment = {**os.environ, REQUIRE_VARIABLE: required, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *_PLUGINS, *options, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one-process", "two-processes"])
def test_run_without_the_demand_passes_and_says_one_line(options: list[str], tmp_path: Path) -> None:
    """Whoever reads the end of a run must see what it did not test, in whichever process it was not."""
    done = _run_pytest(tmp_path, "", *options)
    lines = [line for line in done.stdout.splitlines() if line.startswith("not injected: ")]
    assert lines == ["not injected: packet loss (no program 'nft'); toxiproxy-server (no Go toolchain)"]
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout


def test_run_with_the_demand_fails(tmp_path: Path) -> None:
    """The same absence, on a machine that must be able to, is a defect of that machine."""
    done = _run_pytest(tmp_path, "1")
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "3 failed" in done.stdout
    assert "demands it" in done.stdout
