"""The demo itself, shortened: real processes, real kills."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.commands import WAIT_S_MAX, run_command, running


def _alive(pid: int) -> bool:
    """Whether the process exists and is more than an entry that its parent has not read yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_call_hangs_or_is_wrong_while_processes_are_killed(seed: int, tmp_path: Path) -> None:
    """The promise of the library, in a minute's worth of processes."""
    numbers_at = tmp_path / "numbers.json"
    result = run_command("demo", "--seed", str(seed), "--files", "240", "--json", str(numbers_at), wait_s_max=100)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    numbers = json.loads(numbers_at.read_text())
    assert (numbers["calls"], numbers["ok"], numbers["hung"], numbers["wrong"]) == (240, 240, 0, 0)
    assert numbers["failed"] == {}
    assert numbers["problems"] == []
    assert numbers["missed_faults"] == []
    # The proof that something was broken at all: kills seen, and calls that felt them.
    assert len(numbers["faults"]) == 9
    assert output.count("SIGKILL broker") == 2
    assert numbers["retried"] > 0
    assert numbers["failed_over"] > 0
    assert numbers["requeued"] > 0
    for pid in map(int, re.findall(r"pid (\d+)", output)):
        assert not _alive(pid)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(number: signal.Signals) -> None:
    """Not even a frozen one, and not even if the demo itself is killed."""
    with running("demo", "--seed", "3", "--files", "400") as demo:
        while "SIGSTOP" not in demo.line(wait_s_max=40):
            pass
        children = _children(demo.process.pid)
        assert len(children) >= 5
        code = demo.stop(number)
        assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
        # After SIGKILL the workers drain by themselves, for up to ten seconds.
        end = time.monotonic() + WAIT_S_MAX
        while any(map(_alive, children)):
            assert time.monotonic() < end, f"left behind: {[pid for pid in children if _alive(pid)]}"
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_numbers_on_standard_output_are_alone_there() -> None:
    """``reliable demo --json - | jq`` must work."""
    result = run_command("demo", "--seed", "1", "--files", "40", "--json", "-", wait_s_max=100)
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout)["ok"] == 40
    assert "OK:" in result.stderr.decode()
