"""``reliable broker`` as a process."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest

from reliable.status import ExitCode
from tests.cli.conftest import url_in
from tests.support.commands import only_line, run_command, running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(number: signal.Signals) -> None:
    """Supervisors take anything but 0 for a crash."""
    with running("broker", "--bind", "tcp://127.0.0.1:0") as broker:
        assert re.fullmatch(
            r"reliable broker: listening on tcp://127\.0\.0\.1:[1-9]\d* \(life [0-9a-f]{16}\)", broker.line()
        )
        assert broker.stop(number) == ExitCode.OK
        assert broker.errors() == ""


def test_the_end_of_standard_input_stops_it_if_asked() -> None:
    """A parent that is killed cannot clean up; its pipe ends."""
    with running("broker", "--bind", "tcp://127.0.0.1:0", "--stop-on-eof") as broker:
        broker.line()
        assert broker.process.stdin is not None
        broker.process.stdin.close()
        broker.process.stdin = None
        assert broker.process.wait(20) == ExitCode.OK


def test_an_address_in_use_is_code_11(broker_url: str) -> None:
    """The commonest mistake: a broker is running already."""
    second = run_command("broker", "--bind", broker_url)
    assert second.returncode == ExitCode.ADDRESS_IN_USE
    line = only_line(second.stderr)
    assert line.startswith("reliable: ")
    assert "in use" in line
    assert broker_url in line
    assert second.stdout == b""


def test_an_address_that_is_not_ours_is_one_line() -> None:
    """TEST-NET-1 belongs to no interface."""
    result = run_command("broker", "--bind", "tcp://192.0.2.1:5555", "--insecure")
    assert result.returncode == ExitCode.FAILURE
    assert "192.0.2.1" in only_line(result.stderr)


def test_it_listens_on_several_addresses(tmp_path: Path) -> None:
    """Local clients by ipc, others by tcp, at the same broker."""
    path = f"ipc://{tmp_path}/b"
    with running("broker", "--bind", "tcp://127.0.0.1:0", "--bind", path, "--heartbeat", "0.5") as broker:
        line = broker.line()
        assert path in line
        port = int(url_in(line).rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert run_command("status", "--broker", path).returncode == ExitCode.OK


def test_python_m_brokers_runs_it_too() -> None:
    """The people who asked for the project start it so."""
    with running("majordomo", "--bind", "tcp://127.0.0.1:0", module="brokers") as broker:
        assert "listening on" in broker.line()
        assert broker.stop() == ExitCode.OK
