"""``python -m brokers ppp`` and ``simple`` as processes."""

from __future__ import annotations

import re
import signal

import pytest

from reliable.status import ExitCode
from tests.support.commands import only_line, run_command, running
from tests.support.pirates import LazyPirate, worker_process

BOTH = pytest.mark.parametrize("name", ["ppp", "simple"])
ANY = "tcp://127.0.0.1:0"
READY = re.compile(r"reliable (\w+): listening on (tcp://127\.0\.0\.1:[1-9]\d*) for clients, (tcp://\S+) for workers")


@pytest.mark.parametrize(
    ("name", "number"), [("ppp", signal.SIGTERM), ("ppp", signal.SIGINT), ("simple", signal.SIGTERM)]
)
def test_a_signal_stops_it_cleanly(name: str, number: signal.Signals) -> None:
    """Supervisors take anything but 0 for a crash; and the one line tells where it listens."""
    with running(name, "--frontend", ANY, "--backend", ANY, module="brokers") as queue:
        match = READY.fullmatch(queue.line())
        assert match is not None and match[1] == name
        with worker_process(name, match[3], "0.5"), LazyPirate(match[2]) as client:
            assert client.ask(b"hello")[1] == b"hello"
        assert queue.stop(number) == ExitCode.OK
        assert queue.errors() == ""


@BOTH
def test_an_address_in_use_is_code_11(name: str) -> None:
    """The commonest mistake: a queue is running already."""
    with running(name, "--frontend", ANY, "--backend", ANY, module="brokers") as queue:
        match = READY.fullmatch(queue.line())
        assert match is not None
        second = run_command(name, "--frontend", ANY, "--backend", match[3], module="brokers")
        assert second.returncode == ExitCode.ADDRESS_IN_USE
        line = only_line(second.stderr)
        assert line.startswith("reliable: ") and match[3] in line and "in use" in line
        assert second.stdout == b""
        assert queue.stop() == ExitCode.OK


def test_one_address_for_both_sides_is_code_11() -> None:
    """Clients and workers of 6/PPP cannot be told apart on one socket."""
    same = "tcp://127.0.0.1:15551"
    result = run_command("ppp", "--frontend", same, "--backend", same, module="brokers")
    assert result.returncode == ExitCode.ADDRESS_IN_USE
    assert same in only_line(result.stderr)


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        ["--frontend", "tcp://0.0.0.0:0"],
        ["--backend", "tcp://*:0"],
        ["--backend", "nonsense"],
        ["--workers-max", "0"],
        ["--message-mib-max", "many"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_bad_options_are_code_2(name: str, options: list[str]) -> None:
    """Before anything is opened, in one line that says where help is."""
    result = run_command(name, *options, module="brokers")
    assert result.returncode == ExitCode.USAGE
    assert f"(see 'python -m brokers {name} --help')" in only_line(result.stderr)


@pytest.mark.parametrize(
    "options",
    [
        ["--heartbeat-interval", "0"],
        ["--heartbeat-interval", "nan"],
        ["--liveness", "1"],
        ["--expiry", "-1"],
        ["--redeliveries", "-1"],
        ["--queue-max", "0"],
        ["--queue-mib-max", "0"],
    ],
    ids=" ".join,
)
def test_bad_numbers_are_code_2(options: list[str]) -> None:
    """A liveness of one interval would drop every worker whose heartbeat is a little late."""
    assert run_command("ppp", *options, module="brokers").returncode == ExitCode.USAGE


def test_all_numbers_can_be_set() -> None:
    """With what the documentation shows."""
    options = "--heartbeat-interval 0.5 --liveness 4 --expiry 10 --redeliveries 0 --queue-max 1000 --queue-mib-max 64"
    sizes = "--workers-max 100 --message-mib-max 8 --log-level info"
    addresses = ["--frontend", ANY, "--frontend", ANY, "--backend", ANY]
    with running("ppp", *addresses, *options.split(), *sizes.split(), module="brokers") as queue:
        assert queue.line().count("tcp://127.0.0.1:") == 3
        assert queue.stop() == ExitCode.OK


@BOTH
def test_the_end_of_standard_input_stops_it_if_asked(name: str) -> None:
    """A parent that is killed cannot clean up; its pipe ends."""
    with running(name, "--frontend", ANY, "--backend", ANY, "--stop-on-eof", module="brokers") as queue:
        queue.line()
        assert queue.process.stdin is not None
        queue.process.stdin.close()
        queue.process.stdin = None
        assert queue.process.wait(20) == ExitCode.OK


@BOTH
def test_help_shows_an_example(name: str) -> None:
    """It is what most people copy from."""
    shown = run_command(name, "--help", module="brokers").stdout.decode()
    assert f"python -m brokers {name} --frontend tcp://127.0.0.1:5555 --backend tcp://127.0.0.1:5556" in shown


def test_without_a_name_it_is_the_majordomo_broker() -> None:
    """What ``python -m brokers`` was before there were others."""
    with running("--bind", ANY, module="brokers") as broker:
        assert re.fullmatch(
            r"reliable broker: listening on tcp://127\.0\.0\.1:\d+ \(life [0-9a-f]{16}\)", broker.line()
        )
        assert broker.stop() == ExitCode.OK
    shown = run_command("-h", module="brokers").stdout.decode()
    assert "majordomo" in shown and "ppp" in shown and "simple" in shown
