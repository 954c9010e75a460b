"""MODULE:OBJECT is found, or the user is told why not."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from reliable.cli.exits import CommandFailed
from reliable.cli.loading import load_object


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for modules; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("loaded_here", "broken_here", "needy_here"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_attributes_of_attributes_are_found(folder: Path) -> None:
    """A handler may live in a class or another namespace."""
    (folder / "loaded_here.py").write_text("class A:\n    inner = len\n")
    assert load_object("loaded_here:A.inner") is len
    assert load_object("os.path:join").__name__ == "join"  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ["", ":", "math", "math:", ":sqrt", "nowhere:x", "os.nowhere:x", "math:sqrt.x.y"])
def test_what_is_not_there_is_wrong_usage(target: str) -> None:
    """The user typed it: code 2."""
    with pytest.raises(click.UsageError):
        load_object(target)


def test_a_module_that_fails_says_where(folder: Path) -> None:
    """The module is there, so it is no typo; file and line lead to the mistake."""
    (folder / "broken_here.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(CommandFailed, match=r"ZeroDivisionError.*broken_here\.py, line 2"):
        load_object("broken_here:y")


def test_a_missing_dependency_is_not_called_a_missing_module(folder: Path) -> None:
    """Else the user would look for a typo in the name of a module that is there."""
    (folder / "needy_here.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(CommandFailed, match=r"importing 'needy_here' failed.*not_installed_anywhere"):
        load_object("needy_here:x")
