"""A run that is broken off leaves nothing behind: no process, no namespace, no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.process import ChildProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_MARKER = "RELIABLE_TEST_MARKER"


def _holding(marker: str) -> list[str]:
    """Processes that inherited the variable: the run itself and all that it started, in namespaces or not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARKER}={marker}".encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            # It ended while we looked.
            continue
    return [command for command in found if command]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param("worker-crash"),
        pytest.param("reply-lost", marks=pytest.mark.toxiproxy),
        pytest.param("packet-loss-10", marks=pytest.mark.netns),
    ],
)
def test_nothing_is_left_after(scenario: str, number: signal.Signals, tmp_path: Path) -> None:
    """Who stops a run in its middle must not find a dozen processes, or a cut network, the day after."""
    marker = f"{scenario}-{number}-{time.monotonic_ns()}"
    env = {**os.environ, "TMPDIR": str(tmp_path), _MARKER: marker}
    argv = [sys.executable, "-m", "chaos", "run", scenario, "--seed", "1"]
    with ChildProcess(argv, name="chaos run", ready="SIGKILL|read back|rules set", env=env, cwd=ROOT) as running:
        assert len(_holding(marker)) > 3
        os.kill(running.pid, number)
        assert running.wait(15) == 130, running.output()
        assert running.output().splitlines()[-1] == "reliable: interrupted"
        deadline = time.monotonic() + 5
        while left := _holding(marker):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_run_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no time to clean up: then the kernel does, but for the folder."""
    marker = f"killed-{time.monotonic_ns()}"
    env = {**os.environ, "TMPDIR": str(tmp_path), _MARKER: marker}
    argv = [sys.executable, "-m", "chaos", "run", "worker-crash", "--seed", "1"]
    with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        while "SIGKILL" not in (line := running.stdout.readline()):
            assert line, "it ended before the first fault"
        running.kill()
        running.stdout.close()
        deadline = time.monotonic() + 5
        while left := _holding(marker):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
