"""Processes that are killed, interrupted, stopped and forked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reliable import Client, Outcome, WorkerLost
from tests.support.loopback import QUICK_CLIENT, ShellKind, Stage, eventually, worker_process

_WORKER = """
import sys, threading, time
from reliable import Worker
worker = Worker(sys.argv[1])
idempotent = {"yes": True, "no": False}[sys.argv[2]]
@worker.service("job", idempotent=idempotent, raw=True)
def job(frame):
    open(sys.argv[3], "a").write("run\\n")
    time.sleep(float(sys.argv[4]))
    return frame
def ready():
    assert worker.wait_ready(10)
    print("ready", flush=True)
threading.Thread(target=ready).start()
sys.exit(worker.run())
"""
_ASYNC_WORKER = """
import asyncio, sys
from reliable import AsyncWorker
worker = AsyncWorker(sys.argv[1])
idempotent = {"yes": True, "no": False}[sys.argv[2]]
@worker.service("job", idempotent=idempotent, raw=True)
async def job(frame):
    open(sys.argv[3], "a").write("run\\n")
    await asyncio.sleep(float(sys.argv[4]))
    return frame
async def main():
    running = asyncio.create_task(worker.run())
    assert await worker.wait_ready(10)
    print("ready", flush=True)
    return await running
sys.exit(asyncio.run(main()))
"""
_CODE = {"sync": _WORKER, "asyncio": _ASYNC_WORKER}


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """A file with a line for each time that the handler was entered."""
    path = tmp_path / "runs"
    path.touch()
    return str(path)


def _count(path: str) -> int:
    return len(Path(path).read_text().splitlines())


def _kill_in_mid_request(
    stage: Stage, shell: ShellKind, runs: str, declared: str
) -> tuple[list[bytes] | BaseException, float]:
    """Kill the worker that holds the call, with another one at hand; the call's end, and seconds from the kill."""
    broker = stage.broker()
    client = shell.client(broker.endpoint)
    code = _CODE[shell.name]
    with ThreadPoolExecutor(1) as pool, worker_process(code, broker.endpoint, declared, runs, "30") as victim:
        reply = pool.submit(client.request, "job", b"x")
        eventually(lambda: _count(runs) == 1, "the handler runs")
        with worker_process(code, broker.endpoint, declared, runs, "0.05"):
            victim.kill()
            began = time.monotonic()
            error = reply.exception(10)
            elapsed_s = time.monotonic() - began
            return (error if error is not None else reply.result()), elapsed_s


@pytest.mark.slow
def test_an_idempotent_call_survives_the_kill_of_its_worker(stage: Stage, shell: ShellKind, runs: str) -> None:
    """Another worker answers it, with hardly any delay: the kernel tells of the death at once."""
    result, elapsed_s = _kill_in_mid_request(stage, shell, runs, "yes")
    assert result == [b"x"]
    assert elapsed_s < 1.0
    assert _count(runs) == 2


@pytest.mark.slow
def test_a_call_that_must_not_repeat_ends_unknown_when_its_worker_is_killed(
    stage: Stage, shell: ShellKind, runs: str
) -> None:
    """It may have run, so it is not run again; and the caller hears so long before its deadline."""
    result, elapsed_s = _kill_in_mid_request(stage, shell, runs, "no")
    assert isinstance(result, WorkerLost)
    assert result.outcome is Outcome.UNKNOWN
    assert elapsed_s < 1.0
    assert _count(runs) == 1


def test_a_worker_that_is_told_to_stop_finishes_what_it_has(stage: Stage, shell: ShellKind, runs: str) -> None:
    """SIGTERM, as every supervisor sends it: the caller gets the reply, the exit code is 0."""
    broker = stage.broker()
    client = shell.client(broker.endpoint)
    with (
        ThreadPoolExecutor(1) as pool,
        worker_process(_CODE[shell.name], broker.endpoint, "no", runs, "0.5") as worker,
    ):
        reply = pool.submit(client.request, "job", b"x")
        eventually(lambda: _count(runs) == 1, "the handler runs")
        worker.send_signal(signal.SIGTERM)
        assert reply.result(5) == [b"x"]
        assert worker.wait(5) == 0
    eventually(lambda: broker.broker.snapshot().workers == (), "the worker said goodbye", 0.5)


def test_a_second_signal_ends_a_worker_at_once(stage: Stage, shell: ShellKind, runs: str) -> None:
    """Whoever presses Ctrl-C twice means it, and a handler that hangs must not hold the process."""
    broker = stage.broker()
    client = shell.client(broker.endpoint, timeout=5.0)
    with (
        ThreadPoolExecutor(1) as pool,
        worker_process(_CODE[shell.name], broker.endpoint, "no", runs, "30") as worker,
    ):
        reply = pool.submit(client.request, "job", b"x")
        eventually(lambda: _count(runs) == 1, "the handler runs")
        worker.send_signal(signal.SIGINT)
        time.sleep(0.2)  # Two signals at once count as one.
        assert worker.poll() is None
        worker.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert worker.wait(5) == 1
        assert time.monotonic() - began < 2.0
        assert isinstance(reply.exception(10), WorkerLost)


# --- the blocking client --------------------------------------------------------------------------

_INTERRUPTED = """
import sys, threading, time
from reliable import Client
client = Client(sys.argv[1], timeout=None)
def follower():
    try:
        client.request("nobody", b"2", timeout=3.0)
    except Exception as error:
        print(type(error).__name__, flush=True)
thread = threading.Thread(target=follower)
if sys.argv[2] == "lead":
    threading.Timer(0.3, thread.start).start()
else:
    thread.start()
    time.sleep(0.3)
print("ready", flush=True)
try:
    client.request("nobody", b"1")
except KeyboardInterrupt:
    print("interrupted", flush=True)
thread.join()
client.close()
print(len(threading.enumerate()), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("role", ["lead", "follow"])
def test_ctrl_c_ends_a_call_at_once_and_no_other(stage: Stage, role: str) -> None:
    """Whether the main thread pumps for the others or waits for them to pump: those go on to their own end."""
    broker = stage.broker()
    with worker_process(_INTERRUPTED, broker.endpoint, role) as child:
        eventually(lambda: [s.queued for s in broker.broker.snapshot().services] == [2], "both calls are there")
        time.sleep(0.3)  # Both are back from sending: an interrupt amid the engine's work ends every call.
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert child.stdout is not None
        assert child.stdout.readline() == b"interrupted\n"
        assert time.monotonic() - began < 1.0
        assert child.stdout.readline() == b"ServiceNotFound\n"
        assert child.stdout.readline() == b"1\n"
        assert child.wait(5) == 0


_CTRL_C_STORM = """
import signal, sys, time
from reliable import Client
client = Client(sys.argv[1], timeout=5.0)
client.request("echo", b"x")
print("ready", flush=True)
interrupted = done = 0
while interrupted < 60:
    try:
        # Again and again: one that strikes in a finalizer is swallowed by the interpreter.
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (1 + interrupted % 7), 0.05)
        while True:
            reply = client.request("echo", b"%d" % done, idempotent=True)
            assert reply == [b"%d" % done], reply
            done += 1
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(client.request("echo", b"end"), done, flush=True)
client.close()
"""


@pytest.mark.slow
def test_ctrl_c_at_any_instruction_leaves_a_client_that_works(stage: Stage, shell: ShellKind) -> None:
    """An interrupt can strike inside the engine: that engine is thrown away, and no call gets another's reply."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    code = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n" + _CTRL_C_STORM
    with worker_process(code, broker.endpoint) as child:
        out, _ = child.communicate(timeout=40)
        assert child.returncode == 0
    assert out.startswith(b"[b'end']"), out


_FORKED = """
import os, sys, threading
from reliable import Client
client = Client(sys.argv[1], timeout=8.0)
first = client.snapshot()
assert client.request("echo", b"parent") == [b"parent"]
waiting = threading.Thread(target=lambda: print(client.request("late", b"x", timeout=10.0), flush=True))
waiting.start()
while client.snapshot().calls == 0:
    pass
child = os.fork()
if child == 0:
    assert client.stats().calls == 0
    assert client.request("echo", b"child") == [b"child"]
    client.close()
    os._exit(7)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status), flush=True)
assert client.request("echo", b"again") == [b"again"]
print("ready", flush=True)
waiting.join()
client.close()
"""


def test_after_a_fork_parent_and_child_each_have_a_client_that_works(stage: Stage, shell: ShellKind) -> None:
    """The child never touches the parent's sockets; the parent's call in flight is answered to the parent."""
    broker = stage.broker()
    worker = shell.worker(broker.endpoint)
    worker.service("echo", raw=True)(lambda frame: frame)
    shell.run(worker)
    with subprocess.Popen([sys.executable, "-c", _FORKED, broker.endpoint], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"child 7\n"
            assert parent.stdout.readline() == b"ready\n"
            late = shell.worker(broker.endpoint)
            late.service("late", raw=True)(lambda frame: frame + b"!")
            shell.run(late)
            assert parent.stdout.readline() == b"[b'x!']\n"
            assert parent.wait(5) == 0
        finally:
            parent.kill()


def test_a_client_that_is_not_closed_does_not_hold_the_process(stage: Stage) -> None:
    """A script that forgets close() must still end."""
    broker = stage.broker()
    code = """
import sys
from reliable import Client
client = Client(sys.argv[1], timeout=0.5)
try:
    client.request("nobody", b"", fail_fast=True)
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code, broker.endpoint], capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (0, b"ServiceNotFound\n")
    assert done.stderr == b""


def test_a_client_that_is_collected_unclosed_says_so_and_gives_back_its_sockets(stage: Stage) -> None:
    """As files do."""
    broker = stage.broker()

    def use_and_forget() -> None:
        client = Client(broker.endpoint, config=QUICK_CLIENT)
        assert client.request("mmi.service", b"nobody") == [b"404"]

    with pytest.warns(ResourceWarning, match="was not closed"):
        use_and_forget()
