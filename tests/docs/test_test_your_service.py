"""The page about testing runs as it stands there: its files are laid out in a folder, and pytest is run in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import _reliable_pytest
from chaos.netns import probe
from chaos.toxi import toxiproxy_binary
from tests.support.commands import ROOT
from tests.support.injection_report import injected, require

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "test-your-service.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
PASSED = {
    "test_answers.py": 3,
    "test_kills.py": 3,
    "test_slow_link.py": 1,
    "test_partition.py": 1,
    "test_simulation.py": 100,
    "test_async.py": 1,
}
"""How many tests each file of the page has."""
_WAIT_S_MAX = 50.0


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=_WAIT_S_MAX,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def _run(folder: Path, name: str) -> None:
    for file, text in FILES.items():
        (folder / file).write_text(text, encoding="utf-8")
    done = _python(folder, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{PASSED[name]} passed in", done.stdout, re.MULTILINE), done.stdout
    assert not (folder / "ledger").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_answers.py", "test_simulation.py", "test_async.py"])
def test_file_of_the_page_passes(name: str, tmp_path: Path) -> None:
    """It is there to be copied."""
    _run(tmp_path, name)


@pytest.mark.slow
def test_file_about_kills_passes(tmp_path: Path) -> None:
    """The claim of the library, shown on somebody else's service."""
    _run(tmp_path, "test_kills.py")


@pytest.mark.toxiproxy
@pytest.mark.slow
def test_file_about_a_slow_link_passes(tmp_path: Path) -> None:
    """With a real proxy."""
    injected(toxiproxy_binary)
    _run(tmp_path, "test_slow_link.py")


@pytest.mark.netns
@pytest.mark.slow
def test_file_about_a_partition_passes(tmp_path: Path) -> None:
    """With packets that really vanish."""
    require(probe())
    _run(tmp_path, "test_partition.py")


def test_script_without_pytest_prints_the_price(tmp_path: Path) -> None:
    """The kit must not need pytest."""
    (tmp_path / "prices.py").write_text(FILES["prices.py"], encoding="utf-8")
    done = _python(tmp_path, "prices.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "9.99\n", "")


def test_every_block_of_the_page_is_run() -> None:
    """A block that was added must be added here, too."""
    assert set(FILES) == {"shop.py", "prices.py", *PASSED}
    assert len(re.findall(r"^```python", PAGE, re.MULTILINE)) == len(FILES)


def test_the_reference_lists_every_fixture() -> None:
    """It is the only list that people read."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(reliable_\w+)` \| (?:a|an|the) ", page, re.MULTILINE)
    assert sorted(listed) == sorted(_reliable_pytest.__all__)
