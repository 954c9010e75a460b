"""The broker's benchmark runs to its end and leaves no process behind. Its figures are not judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import broker_parts
from benchmarks.broker import CASES, Case, main
from benchmarks.broker_engine import KINDS, profile
from benchmarks.broker_parts import build, libzmq_path

_HAS_COMPILER = shutil.which("cc") is not None


def test_it_compares_our_broker_with_the_one_in_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that nobody runs breaks with the next change, and is missed when it is needed."""
    file = tmp_path / "figures.json"
    arguments = ["--rounds", "2", "--requests", "300", "--case", "c again", "--case", "pure", "--json", str(file)]
    if not _HAS_COMPILER:
        with pytest.raises(RuntimeError, match="there is no cc"):
            main(arguments)
        return
    assert main([*arguments, "--case", "pure, credit"]) == 0
    assert "x c" in capsys.readouterr().out
    cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    assert list(cases) == ["c", "c again", "pure", "pure, credit"]
    for case in cases.values():
        assert len(case["main_us"]) == len(case["others_us"]) == 2
        assert all(figure > 0 for figure in case["main_us"])


def test_programs_use_the_libzmq_of_pyzmq() -> None:
    """Two versions of libzmq would be two measures."""
    assert "libzmq" in Path(libzmq_path()).name


def test_what_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The text of the compiler is all that whoever sits in front of another machine has."""
    monkeypatch.setattr(broker_parts, "_SOURCES", tmp_path)
    (tmp_path / "wrong.c").write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(RuntimeError, match="nonsense" if _HAS_COMPILER else "there is no cc"):
        build("wrong", tmp_path)


def test_ratios_are_taken_round_by_round() -> None:
    """What disturbs a whole round disturbs both, and drops out."""
    measure, other = Case("c", [1.0, 10.0], [1.0, 10.0], [1.0, 1.0]), Case("x", [3.0, 30.0], [1.0, 10.0], [1.0, 1.0])
    assert other.ratio(measure).low == other.ratio(measure).high == 2.0
    assert CASES[0] == "c"


@pytest.mark.parametrize("kind", KINDS)
def test_the_profile_names_functions_of_the_engine(kind: str) -> None:
    """It is there to say what to change; and requests that are refused would be cheap ones."""
    lines = profile(kind, 300)
    assert lines[0].startswith(f"{kind}: ")
    assert any("brokers/endings.py" in line and " 1.0" in line and "finish" in line for line in lines)
