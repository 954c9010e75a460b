"""``reliable worker`` as a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from reliable.status import ExitCode
from tests.support.commands import only_line, run_command, running


@pytest.mark.parametrize(
    ("target", "options", "service", "reply"),
    [
        ("cli_services:plain", ["--raw"], "plain", b"HELLO\n"),
        ("cli_services:plain", ["--raw", "--service", "shout", "--concurrency", "2"], "shout", b"HELLO\n"),
        ("cli_services:later", ["--raw", "--service", "whisper", "--idempotent"], "whisper", b"hello\n"),
        ("cli_services:quiet", [], "quiet", b"Hello\n"),
    ],
)
def test_functions_and_workers_are_served(
    target: str, options: list[str], service: str, reply: bytes, broker_url: str, services: Path
) -> None:
    """The readiness line is a promise: the next call must find the worker."""
    with running("worker", target, "--broker", broker_url, *options, cwd=services) as worker:
        assert worker.line() == f"reliable worker: ready at {broker_url} for {service}"
        called = run_command("call", service, "Hello", "--broker", broker_url, "--fail-fast")
        assert (called.returncode, called.stdout, called.stderr) == (ExitCode.OK, reply, b"")
        assert worker.stop() == ExitCode.OK


def test_a_typed_function_is_served(broker_url: str) -> None:
    """The shortest way from a function to a service."""
    with running("worker", "math:sqrt", "--broker", broker_url) as worker:
        worker.line()
        called = run_command("call", "sqrt", "--args", "[16]", "--broker", broker_url)
        assert (called.returncode, called.stdout) == (ExitCode.OK, b"4.0\n")


def test_a_worker_without_a_broker_keeps_trying_and_says_so(free_url: str, services: Path) -> None:
    """Any start order works; but silence would look like a hang."""
    with running("worker", "cli_services:worker", "--broker", free_url, cwd=services) as worker:
        assert worker.process.stderr is not None
        assert b"no answer yet from " + free_url.encode() in worker.process.stderr.readline()
        with running("broker", "--bind", free_url) as broker:
            broker.line()
            assert worker.line().startswith(f"reliable worker: ready at {free_url} for echo")
            assert worker.stop() == ExitCode.OK


def test_the_end_of_standard_input_stops_it_if_asked(broker_url: str, services: Path) -> None:
    """Workers of a supervisor that was killed must not serve on."""
    with running("worker", "cli_services:worker", "--broker", broker_url, "--stop-on-eof", cwd=services) as worker:
        worker.line()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.process.stdin = None
        assert worker.process.wait(20) == ExitCode.OK


def test_a_module_that_fails_is_one_line(tmp_path: Path) -> None:
    """The traceback would bury file and line; they are in the line."""
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    result = run_command("worker", "broken_module:x", cwd=tmp_path)
    assert result.returncode == ExitCode.FAILURE
    assert "ZeroDivisionError" in only_line(result.stderr)


def test_an_unknown_module_is_code_2(tmp_path: Path) -> None:
    """The user typed it."""
    result = run_command("worker", "nowhere:x", cwd=tmp_path)
    assert result.returncode == ExitCode.USAGE
    assert "no module 'nowhere'" in only_line(result.stderr)


def test_an_object_and_the_options_for_its_methods(broker_url: str, tmp_path: Path) -> None:
    """The way from a class that is there already to services, with a limit on each run, without a line of code."""
    (tmp_path / "cli_objects.py").write_text(
        "import time\nclass Shop:\n    def price(self, article): return len(article)\n"
        "    def nap(self): time.sleep(20)\nshop = Shop()\n"
    )
    options = ["--object-name", "kiosk", "--handler-timeout", "0.3", "--drain-timeout", "0.2", "--concurrency", "2"]
    with running("worker", "cli_objects:shop", "--broker", broker_url, *options, cwd=tmp_path) as worker:
        assert worker.line() == f"reliable worker: ready at {broker_url} for kiosk.nap kiosk.price"
        called = run_command("call", "kiosk.price", "--args", '["lamp"]', "--broker", broker_url)
        assert (called.returncode, called.stdout) == (ExitCode.OK, b"4\n")
        late = run_command("call", "kiosk.nap", "--args", "[]", "--broker", broker_url)
        assert late.returncode == ExitCode.HANDLER_ERROR
        assert "HandlerTimeout" in only_line(late.stderr)
        assert worker.stop() == ExitCode.TIMEOUT
        assert "1 handlers were still running" in only_line(worker.errors().encode())
