"""What the README and the tutorial show is what happens."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_endpoint

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


@contextmanager
def _process(*command: str, cwd: Path, ready: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert ready in line, line
        yield child
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(5)
        if child.stdout is not None:
            child.stdout.close()


def test_the_ten_lines_of_the_readme_print_what_it_says(tmp_path: Path) -> None:
    """The first thing that a newcomer runs."""
    readme = ROOT / "README.md"
    worker, client, _ = _blocks(readme, "python")
    (expected,) = _blocks(readme, "text")
    url = free_endpoint()
    for name, text in (("worker.py", worker), ("client.py", client)):
        assert "tcp://127.0.0.1:5555" in text
        (tmp_path / name).write_text(text.replace("tcp://127.0.0.1:5555", url), encoding="utf-8")
    cli = [sys.executable, "-m", "reliable"]
    with (
        _process(*cli, "broker", "--bind", url, cwd=tmp_path, ready="listening"),
        _process(*cli, "worker", "worker:worker", cwd=tmp_path, ready="ready"),
    ):
        done = subprocess.run(
            [sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False
        )
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_snippets_compile_and_use_only_names_that_exist(page: Path) -> None:
    """A snippet with a name that was renamed since is worse than none."""
    import brokers
    import reliable

    checked = 0
    for text in _blocks(page, "python"):
        compile(text, str(page), "exec")
        for module, names in re.findall(r"^from (reliable|brokers) import (.+)$", text, re.MULTILINE):
            for name in names.split(","):
                assert hasattr({"reliable": reliable, "brokers": brokers}[module], name.strip()), name
        checked += 1
    assert checked == len(_blocks(page, "python"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    """Sphinx checks the docs among themselves; nobody else checks the README."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
