"""``reliable worker --processes``: as many as were asked for, replaced when they die, and never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from reliable import Client
from reliable.status import ExitCode
from tests.support.commands import Running, only_line, run_command, running
from tests.support.loopback import eventually

pytestmark = pytest.mark.slow

_SERVICES: Final = """
import os, time
from pathlib import Path
from reliable import Worker

worker = Worker()


@worker.service("ours/pid", raw=True, idempotent=True)
def pid(*frames):
    return b"%d" % os.getpid()


@worker.service("ours/hold", raw=True, idempotent=False)
def hold(path, seconds):
    Path(path.decode()).write_text(str(os.getpid()))
    time.sleep(float(seconds))
    return b"done"


@worker.service("ours/deaf", raw=True, idempotent=False)
def deaf(path):
    Path(path.decode()).write_text(str(os.getpid()))
    import ctypes
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock


gone = Worker()


@gone.service("ours/leave", raw=True, idempotent=True)
def leave(*frames):
    gone.stop()
    return b"bye"
"""
_PID: Final = re.compile(r"\(process (\d+)\)$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module ``many``."""
    (tmp_path / "many.py").write_text(_SERVICES)
    return tmp_path


@contextlib.contextmanager
def _several(folder: Path, url: str, count: int, *options: str) -> Iterator[tuple[Running, set[int]]]:
    """The command with its processes, all of them registered; none is left at the end."""
    with running("worker", "many:worker", "--broker", url, "--processes", str(count), *options, cwd=folder) as command:
        pids = {_pid(command.line()) for _ in range(count)}
        assert len(pids) == count
        yield command, pids
    eventually(lambda: not any(map(_alive, pids)), "no process is left behind")


def _pid(line: str) -> int:
    found = _PID.search(line)
    assert found, line
    return int(found.group(1))


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class _Calls:
    """Calls that go on while the test does."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, timeout=20.0)
        self._pool = ThreadPoolExecutor(2)

    def start(self, service: str, *frames: bytes) -> Future[list[bytes]]:
        return self._pool.submit(self._client.request, service, *frames)

    def close(self) -> None:
        self._client.close()
        self._pool.shutdown()


@pytest.fixture
def calls(broker_url: str) -> Iterator[_Calls]:
    """Ended at the end of the test, whatever became of them."""
    made = _Calls(broker_url)
    yield made
    made.close()


def _held(path: Path) -> int:
    """In which process the handler runs that writes this file."""
    eventually(lambda: path.exists() and path.read_text() != "", "the handler runs", 20.0)
    return int(path.read_text())


def test_each_process_serves_and_all_are_drained_by_one_signal(broker_url: str, folder: Path, calls: _Calls) -> None:
    """A service manager knows one process, and its exit code has to speak for all."""
    with _several(folder, broker_url, 2) as (command, pids):
        groups = {os.getpgid(pid) for pid in pids}
        assert groups == pids, "Ctrl-C at a terminal reaches a whole group, and twice would mean at once"
        called = run_command("call", "ours/pid", "x", "--broker", broker_url)
        assert int(called.stdout) in pids
        file = folder / "held"
        reply = calls.start("ours/hold", os.fsencode(file), b"0.5")
        assert _held(file) in pids
        assert command.stop() == ExitCode.OK
        assert reply.result(5) == [b"done"]
        assert not any(map(_alive, pids))
        assert command.errors() == ""


def test_a_process_that_dies_is_replaced_and_the_others_are_left_alone(broker_url: str, folder: Path) -> None:
    """Capacity that is lost with every crash is gone within a day."""
    with _several(folder, broker_url, 2) as (command, pids):
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        replacement = _pid(command.line())
        assert replacement not in pids
        assert all(map(_alive, pids - {victim}))
        assert command.stop() == ExitCode.OK
        assert f"process {victim} ended, signal 9 (SIGKILL); another one starts" in only_line(command.errors().encode())


def test_a_process_that_ended_well_is_not_replaced(broker_url: str, folder: Path) -> None:
    """It was told to end, by its own program or by hand; when all have, there is nothing left to keep."""
    with running("worker", "many:gone", "--broker", broker_url, "--processes", "1", cwd=folder) as command:
        command.line()
        assert run_command("call", "ours/leave", "x", "--broker", broker_url).stdout == b"bye\n"
        assert command.process.wait(20) == ExitCode.OK
        assert command.errors() == ""


def test_handlers_that_outlast_the_drain_are_told_by_the_exit_code(
    broker_url: str, folder: Path, calls: _Calls
) -> None:
    """Whoever deploys must be able to tell a clean end from one that cut work off."""
    with _several(folder, broker_url, 2, "--drain-timeout", "0.3") as (command, _):
        calls.start("ours/hold", os.fsencode(folder / "held"), b"30")
        _held(folder / "held")
        assert command.stop() == ExitCode.TIMEOUT
        assert "1 handlers were still running" in only_line(command.errors().encode())


def test_a_second_signal_ends_all_at_once(broker_url: str, folder: Path, calls: _Calls) -> None:
    """The operator has lost patience with whatever still runs."""
    with _several(folder, broker_url, 2) as (command, pids):
        calls.start("ours/hold", os.fsencode(folder / "held"), b"30")
        holder = _held(folder / "held")
        command.process.send_signal(signal.SIGINT)
        eventually(lambda: [pid for pid in pids if _alive(pid)] == [holder], "the idle one has left", 10.0)
        began = time.monotonic()
        assert command.stop() == ExitCode.TIMEOUT
        assert time.monotonic() - began < 3.0


def test_a_process_that_hears_nothing_any_more_is_killed(broker_url: str, folder: Path, calls: _Calls) -> None:
    """A handler that holds the interpreter lock hears no signal; the end must come all the same."""
    with _several(folder, broker_url, 1) as (command, pids):
        calls.start("ours/deaf", os.fsencode(folder / "held"))
        assert {_held(folder / "held")} == pids
        command.process.send_signal(signal.SIGINT)
        assert command.stop() == 128 + signal.SIGKILL


def test_all_die_with_the_command_also_when_it_is_killed(broker_url: str, folder: Path, calls: _Calls) -> None:
    """Orphans would serve old code for ever, and nobody would know of them; also one that hears nothing."""
    with _several(folder, broker_url, 2) as (command, pids):
        calls.start("ours/deaf", os.fsencode(folder / "held"))
        _held(folder / "held")
        command.process.kill()
        eventually(lambda: not any(map(_alive, pids)), "all are gone", 5.0)


def test_the_end_of_standard_input_drains_all(broker_url: str, folder: Path) -> None:
    """As with a single process."""
    with _several(folder, broker_url, 2, "--stop-on-eof") as (command, _):
        assert command.process.stdin is not None
        command.process.stdin.close()
        command.process.stdin = None
        assert command.process.wait(20) == ExitCode.OK


def test_what_cannot_be_loaded_is_said_once_and_not_tried_again(folder: Path) -> None:
    """Eight processes that say the same again and again would bury it."""
    result = run_command("worker", "many:nothing", "--processes", "8", cwd=folder)
    assert result.returncode == ExitCode.USAGE
    assert "has no 'nothing'" in only_line(result.stderr)


def test_what_broke_later_is_tried_again(broker_url: str, folder: Path) -> None:
    """A half-written deployment must not end the processes that are well."""
    with _several(folder, broker_url, 2) as (command, pids):
        good = (folder / "many.py").read_text()
        (folder / "many.py").write_text("1 / 0\n")
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        assert command.process.stderr is not None
        assert b"signal 9" in command.process.stderr.readline()
        assert b"ZeroDivisionError" in command.process.stderr.readline()
        (folder / "many.py").write_text(good)
        assert _pid(command.line()) not in pids
        assert command.stop() == ExitCode.OK
