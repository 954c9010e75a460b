"""``reliable worker --reload``: what was saved is what serves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reliable.cli.main import main
from reliable.cli.worker_reload import Places, places_of
from reliable.status import ExitCode
from tests.support.commands import Running, only_line, run_command, running

pytestmark = pytest.mark.slow

_MODULE = """
from reliable import Worker
worker = Worker()
worker.service("theirs/word", raw=True, idempotent=True)(lambda frame: b"{word}")
"""


def _word(url: str) -> bytes:
    return run_command("call", "theirs/word", "x", "--broker", url).stdout


def _error(command: Running) -> str:
    assert command.process.stderr is not None
    return command.process.stderr.readline().decode()


def test_a_change_is_served_at_once_and_a_mistake_is_waited_out(broker_url: str, tmp_path: Path) -> None:
    """Whoever develops saves broken files all the time; that must not end the command."""
    module = tmp_path / "reloaded.py"
    module.write_text(_MODULE.format(word="first"))
    with running("worker", "reloaded:worker", "--broker", broker_url, "--reload", cwd=tmp_path) as command:
        command.line()
        assert _word(broker_url) == b"first\n"
        module.write_text(_MODULE.format(word="second, longer"))
        assert _error(command) == "reliable worker: reloaded.py changed; starting again\n"
        command.line()
        assert _word(broker_url) == b"second, longer\n"
        module.write_text("1 / 0\n")
        assert "reloaded.py changed" in _error(command)
        assert "ZeroDivisionError" in _error(command)
        assert "exit code 1; waiting for a change" in _error(command)
        module.write_text(_MODULE.format(word="third"))
        assert "reloaded.py changed" in _error(command)
        command.line()
        assert _word(broker_url) == b"third\n"
        assert command.stop() == ExitCode.OK


def test_what_is_broken_from_the_start_is_waited_out_too(broker_url: str, tmp_path: Path) -> None:
    """The first save is as likely to be wrong as any other."""
    module = tmp_path / "reloaded.py"
    module.write_text("import no_such_module_at_all\n")
    with running("worker", "reloaded:worker", "--broker", broker_url, "--reload", cwd=tmp_path) as command:
        assert "no_such_module_at_all" in _error(command)
        assert "waiting for a change" in _error(command)
        module.write_text(_MODULE.format(word="well"))
        assert "changed" in _error(command)
        command.line()
        assert command.stop() == ExitCode.OK


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library itself needs it for nothing else."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["worker", "math:sqrt", "--reload"]) == ExitCode.FAILURE
    assert "pip install 'reliable[reload]'" in only_line(capsys.readouterr().err.encode())


def test_the_working_directory_and_the_module_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may be installed from elsewhere; a single module may lie among many others, which are left out."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere / "a_package"):
        folder.mkdir(parents=True)
    (here / "near.py").touch()
    (elsewhere / "far.py").touch()
    (elsewhere / "a_package" / "__init__.py").write_text("1 / 0")
    monkeypatch.setattr(sys, "path", [str(here), str(elsewhere), *sys.path])
    assert places_of("near", here) == Places((here,))
    assert places_of("far", here) == Places((here,), (elsewhere,))
    assert places_of("a_package.inner", here) == Places((here, elsewhere / "a_package"))
    assert places_of("sys", here) == Places((here,))
    assert places_of("no_such_module", here) == Places((here,))
