"""``reliable worker --health-file``: what a probe can know without asking anybody."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import pytest

from reliable import RAW, Client
from reliable.cli.main import main
from reliable.status import ExitCode
from tests.support.commands import only_line, running
from tests.support.loopback import eventually

pytestmark = pytest.mark.slow

_SERVICES: Final = """
import ctypes, os, time
from reliable import AsyncWorker, Worker
sync, loop = Worker(), AsyncWorker()

@sync.service("probed/stuck", raw=True)
def stuck(path):
    began = time.time_ns()
    ctypes.PyDLL(None).usleep(3_000_000)  # holds the interpreter lock
    return b"%d" % (os.stat(path).st_mtime_ns - began)

@loop.service("probed/blocks", raw=True)
async def blocks(path):
    began = time.time_ns()
    time.sleep(3)
    return b"%d" % (os.stat(path).st_mtime_ns - began)
"""
_LATE_NS: Final = 1_500_000_000
_STUCK: Final = {"sync": "probed/stuck", "loop": "probed/blocks"}


@pytest.mark.parametrize("kind", ["sync", "loop"])
def test_the_file_says_ready_grows_old_when_nothing_runs_and_is_gone_at_the_end(
    kind: str, broker_url: str, tmp_path: Path
) -> None:
    """A stuck process is alive for everybody else: this is what tells that it should be started again."""
    (tmp_path / "probed.py").write_text(_SERVICES)
    path = tmp_path / "health"
    arguments = ["worker", f"probed:{kind}", "--broker", broker_url, "--health-file", str(path)]
    with running(*arguments, cwd=tmp_path) as worker, Client(broker_url, timeout=10.0) as client:
        worker.line()
        eventually(lambda: path.read_text() == "ready\n", "it is ready")
        first = path.stat().st_mtime_ns
        eventually(lambda: path.stat().st_mtime_ns > first, "it is written anew")
        # Looked at from outside: inside, whoever waited for the interpreter may write before the handler goes on.
        pending = client.options(codec=RAW).submit(_STUCK[kind], os.fsencode(path))
        eventually(lambda: time.time_ns() - path.stat().st_mtime_ns > _LATE_NS, "it grows old while nothing can run")
        assert pending.result(10.0)
        eventually(lambda: path.stat().st_mtime_ns > first + _LATE_NS, "it is written again")
        assert worker.stop() == ExitCode.OK
        assert not path.exists()


def test_without_a_broker_it_says_waiting(free_url: str, tmp_path: Path) -> None:
    """A worker is not to be started again because its broker is away: it would help nobody."""
    path = tmp_path / "health"
    with running("worker", "math:sqrt", "--broker", free_url, "--health-file", str(path)) as worker:
        eventually(path.exists, "it is there", 20.0)
        first = path.stat().st_mtime_ns
        eventually(lambda: path.stat().st_mtime_ns > first, "it is written anew")
        assert path.read_text() == "waiting\n"
        assert worker.stop() == ExitCode.OK


def test_it_tells_of_one_process_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of several, those that are well would hide the one that is not."""
    assert main(["worker", "math:sqrt", "--processes", "2", "--health-file", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "one process" in only_line(capsys.readouterr().err.encode())


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A probe that fails for ever would have the worker started again for ever."""
    assert main(["worker", "math:sqrt", "--health-file", str(tmp_path / "no" / "x")]) == ExitCode.FAILURE
    assert "No such file" in only_line(capsys.readouterr().err.encode())
