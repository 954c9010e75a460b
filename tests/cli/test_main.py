"""However a command ends: one line and a code, never a traceback."""

from __future__ import annotations

from typing import NoReturn

import click
import pytest

from reliable.cli import main as main_module
from reliable.cli.main import cli, main
from reliable.status import ExitCode
from tests.support.commands import only_line, run_command


def _raises(error: BaseException) -> click.Command:
    def fail() -> NoReturn:
        raise error

    return click.Command("fail", callback=fail)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_help_of_each_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Most people read the example only."""
    assert main([name, "--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "Example" in out
    assert f"reliable {name}" in out.partition("Example")[2]


def test_all_commands_are_there() -> None:
    """A command that is not added to the group does not exist."""
    assert set(cli.commands) >= {"broker", "worker", "call", "chaos", "status", "demo"}


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that anybody types."""
    assert main([]) == ExitCode.OK
    assert "reliable broker" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["brokr"], "No such command 'brokr'"),
        (["--nothing"], "No such option"),
        (["call"], "Missing argument 'SERVICE'"),
        (["call", ""], "the service name is empty"),
        (["call", "a b"], "not printable ASCII"),
        (["call", "caf\u00e9"], "not printable ASCII"),
        (["call", "x" * 256], "256 bytes"),
        (["call", "echo", "--broker", "nowhere"], "is not an address"),
        (["call", "echo", "--broker", "tcp://127.0.0.1:99999"], "no port from 1 to 65535"),
        (["call", "echo", "--timeout", "soon"], "not a number of seconds"),
        (["call", "echo", "--timeout", "0"], "positive"),
        (["call", "echo", "--timeout", "-1"], "positive"),
        (["call", "echo", "--timeout", "nan"], "positive"),
        (["call", "echo", "--timeout", "inf"], "positive"),
        (["call", "echo", "--args", "[1"], "not JSON"),
        (["call", "echo", "--args", "3"], "neither a JSON list nor a JSON object"),
        (["call", "echo", "body", "--args", "[]"], "exclude each other"),
        (["broker", "--bind", "tcp://127.0.0.1"], "no host and port"),
        (["broker", "--bind", "tcp://0.0.0.0:5555"], "--insecure"),
        (["broker", "--bind", "tcp://*:5555"], "--insecure"),
        (["broker", "--heartbeat", "0"], "positive"),
        (["broker", "--log-level", "loud"], "--log-level"),
        (["worker"], "Missing argument 'MODULE:OBJECT'"),
        (["worker", "math"], "not MODULE:OBJECT"),
        (["worker", "math:sqrt", "--broker", "x"], "is not an address"),
        (["worker", "math:sqrt", "--concurrency", "0"], "--concurrency"),
        (["worker", "no_such_module:x"], "no module 'no_such_module'"),
        (["worker", "math:no_such_thing"], "no 'no_such_thing'"),
        (["worker", "math:pi"], "neither a worker nor a function"),
        (["worker", "reliable.cli.demo_service:worker", "--raw"], "this is a worker"),
        (["worker", "math:sqrt", "--service", "mmi.x"], "cannot be served"),
        (["worker", "ast:walk", "--executor", "inline"], "cannot be served"),
        (["worker", "reliable:Worker"], "neither a worker nor a function"),
        (["status", "--broker", "x"], "is not an address"),
        (["status", "--watch", "x"], "not a number"),
        (["demo", "--files", "0"], "--files"),
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--json", "/no/such/folder/x"], "/no/such/folder/x"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names what is wrong with which argument, before anything is opened."""
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    line = only_line(captured.err.encode())
    assert line.startswith("reliable: ")
    assert part in line
    assert captured.out == ""


def test_a_defect_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Even then a script reads one line, which says how to get the traceback."""
    monkeypatch.setitem(cli.commands, "fail", _raises(KeyError("x")))
    assert main(["fail"]) == ExitCode.FAILURE
    assert "unexpected KeyError" in only_line(capsys.readouterr().err.encode())
    monkeypatch.setenv("RELIABLE_TRACEBACK", "1")
    assert main(["fail"]) == ExitCode.FAILURE
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What shells use for it; a loop over calls in a script then ends."""
    monkeypatch.setitem(cli.commands, "fail", _raises(KeyboardInterrupt()))
    assert main(["fail"]) == ExitCode.INTERRUPTED
    assert only_line(capsys.readouterr().err.encode()) == "reliable: interrupted"


def test_a_reader_that_left_is_not_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``reliable status --watch 1 | head`` ends quietly."""
    monkeypatch.setattr(main_module, "_reader_gone", lambda: ExitCode.FAILURE)
    monkeypatch.setitem(cli.commands, "fail", _raises(BrokenPipeError()))
    assert main(["fail"]) == ExitCode.FAILURE
    assert capsys.readouterr().err == ""


def test_both_modules_are_entry_points() -> None:
    """``python -m brokers majordomo`` is the same code as ``reliable broker``."""
    ours = run_command("broker", "--bind", "tcp://*:1")
    theirs = run_command("majordomo", "--bind", "tcp://*:1", module="brokers")
    assert ours.returncode == theirs.returncode == ExitCode.USAGE
    assert only_line(ours.stderr).partition("(see")[0] == only_line(theirs.stderr).partition("(see")[0]
    nothing = run_command("nothing", module="brokers")
    assert nothing.returncode == ExitCode.USAGE
    assert "No such command 'nothing'" in only_line(nothing.stderr)
    assert b"Example" in run_command("--help", module="brokers").stdout
