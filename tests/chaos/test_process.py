"""``chaos.process``: children that can be broken on purpose, each time with proof, and that leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.injection import FaultUnproven
from chaos.process import ChildProcess, StartFailed

TICKING = (
    "import time\nprint('ready', flush=True)\n"
    "while True:\n    print(time.monotonic(), flush=True)\n    time.sleep(0.01)"
)


def _eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_child_is_returned_when_its_line_appears() -> None:
    """A test that starts talking before the server listens fails for the wrong reason."""
    with ChildProcess.python("-c", TICKING, ready="^ready$") as child:
        assert child.alive
        assert child.output().startswith("ready")
        assert os.getsid(child.pid) == child.pid


def test_child_that_ends_early_is_reported_with_its_words() -> None:
    """The reason is in the output of the child, so the error must carry it."""
    with pytest.raises(StartFailed, match="no such luck"):
        ChildProcess.python("-c", "raise SystemExit('no such luck')", ready="ready")


def test_child_that_stays_mute_is_given_up_and_killed() -> None:
    """A wait for readiness without an end would hang the whole run."""
    begun = time.monotonic()
    with pytest.raises(StartFailed, match=r"was given 0\.5 s"):
        ChildProcess.python("-c", "import time; time.sleep(60)", ready="ready", ready_timeout_s=0.5)
    assert time.monotonic() - begun < 10


def test_program_that_does_not_exist_is_an_error_at_once() -> None:
    """A typo must not look like a server that ended early."""
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        ChildProcess(["no-such-program-at-all"])


def test_kill_proves_the_signal() -> None:
    """A crash test whose process had ended by itself proves nothing."""
    with ChildProcess.python("-c", TICKING, ready="ready") as child:
        child.kill()
        assert child.exit_code == -signal.SIGKILL
        with pytest.raises(FaultUnproven, match="already ended"):
            child.kill()


def test_kill_of_a_child_that_ended_by_itself_is_refused() -> None:
    """The same, found before any signal was sent."""
    with ChildProcess.python("-c", "raise SystemExit(3)") as child:
        assert child.wait(20) == 3
        with pytest.raises(FaultUnproven, match="ended with 3"):
            child.kill()


def test_paused_child_stands_still_until_resumed() -> None:
    """Pause is the fault that no FIN reveals; it must be in force when the call returns."""
    with ChildProcess.python("-c", TICKING, ready="ready") as child:
        child.pause()
        state = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"
        child.resume()
        said = child.output().count("\n")
        assert _eventually(lambda: child.output().count("\n") > said)
        child.pause()
        child.kill()


def test_terminate_returns_the_exit_code() -> None:
    """A drain is judged by its exit code."""
    program = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with ChildProcess.python("-c", program, ready="ready") as child:
        assert child.terminate(20) == 5


def test_wait_is_bounded() -> None:
    """Nothing in a chaos suite may wait without an end."""
    with ChildProcess.python("-c", TICKING, ready="ready") as child, pytest.raises(TimeoutError, match="still runs"):
        child.wait(0.05)


def test_close_also_kills_what_the_child_started() -> None:
    """A grandchild that stays holds ports and makes later tests fail."""
    program = (
        "import subprocess, sys\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('started', other.pid, flush=True)\n"
    )
    with ChildProcess.python("-c", program, ready="started") as child:
        grandchild = int(child.wait_line(r"started (\d+)", 10)[1])
        assert child.wait(20) == 0
        assert _running(grandchild)
    assert _eventually(lambda: not _running(grandchild))


def test_child_dies_with_its_parent() -> None:
    """A test run that is killed must not leave brokers behind."""
    # A child that says nothing more: one that goes on talking would also end by itself, on its broken pipe.
    silent = "import time; print('ready', flush=True); time.sleep(60)"
    program = (
        "import time\nfrom chaos.process import ChildProcess\n"
        f"child = ChildProcess.python('-c', {silent!r}, ready='ready')\n"
        "print('child', child.pid, flush=True)\ntime.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with ChildProcess.python("-c", program, ready=r"^child \d+", env={"PYTHONPATH": str(root)}) as parent:
        grandchild = int(parent.wait_line(r"^child (\d+)", 10)[1])
        assert _running(grandchild)
        os.kill(parent.pid, signal.SIGKILL)
        assert _eventually(lambda: not _running(grandchild))


def test_child_started_by_a_thread_outlives_the_thread() -> None:
    """The kernel ties a child to the thread that asked for it to die with it; a fixture's thread may end early."""
    found: list[ChildProcess] = []
    thread = threading.Thread(target=lambda: found.append(ChildProcess.python("-c", TICKING, ready="ready")))
    thread.start()
    thread.join(20)
    with found[0] as child:
        said = child.output().count("\n")
        assert _eventually(lambda: child.output().count("\n") > said)


def test_output_without_end_does_not_stop_the_child() -> None:
    """A full pipe would pause a chatty server, which looks like a fault nobody injected."""
    program = "print('x' * 200_000)\nfor i in range(20_000): print(i)\nprint('done', flush=True)"
    with ChildProcess.python("-c", program) as child:
        assert child.wait_line("^done$", 20)
        assert child.wait(20) == 0
        assert len(child.output()) < 200_000


def test_last_words_are_complete_once_the_child_has_ended() -> None:
    """The reason for an end is in the last line; it must not be lost to a race with the reader."""
    for number in range(20):
        with ChildProcess(["sh", "-c", f"echo first; echo 'last {number}'"]) as child:
            child.wait(20)
            assert child.output() == f"first\nlast {number}"


def test_open_children_end_with_the_interpreter() -> None:
    """Even a caller that forgot to close leaves nothing behind."""
    program = (
        "from chaos.process import ChildProcess\n"
        f"child = ChildProcess.python('-c', {TICKING!r}, ready='ready')\nprint('child', child.pid)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    match = re.search(r"child (\d+)", done.stdout)
    assert match is not None
    assert _eventually(lambda: not _running(int(match[1])))
