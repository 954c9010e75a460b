"""The pytest plugin in projects of its users: it serves, says plainly what is wrong, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from chaos.toxi import toxiproxy_binary
from tests.support.commands import ROOT
from tests.support.injection_report import injected

pytest_plugins = ["pytester"]

_BOUND_S = 50.0

HANDLERS = """
    import os, time

    def add(a, b):
        return a + b

    async def add_later(a, b):
        return a + b

    def pid():
        return os.getpid()
"""

NOTHING_LEFT = """
    import gc, os, threading, time
    import pytest

    def children():
        return [pid for path in os.scandir("/proc/self/task")
                for pid in open(f"{path.path}/children").read().split()]

    def sockets():
        found = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
                 if os.path.lexists(f"/proc/self/fd/{number}")]
        return [name for name in found if name.startswith("socket:") or "eventpoll" in name or "eventfd" in name]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(session):
        gc.collect()
        end = time.monotonic() + 5
        while time.monotonic() < end and (threading.active_count() > 1 or children() or sockets()):
            time.sleep(0.01)
        print("LEFT", [thread.name for thread in threading.enumerate()], children(), sockets())
"""
CLEAN = "LEFT ['MainThread'] [] []"


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Pytest in a process of its own, as a user starts it; warnings are errors."""
    pytester.makeconftest(NOTHING_LEFT)
    pytester.makepyfile(handlers=HANDLERS)
    options = ("-s", "-W", "error", "-p", "no:cacheprovider", *arguments)
    return pytester.runpytest_subprocess(*options, timeout=_BOUND_S)


@pytest.fixture(scope="module")
def toxiproxy_program() -> Path:
    """Found before pytester moves the home directory, in which it may be kept."""
    return injected(toxiproxy_binary)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of pytester are elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_plugin_is_found_under_its_name() -> None:
    """Who installs the distribution has the fixtures."""
    (found,) = entry_points(group="pytest11", name="reliable")
    assert found.value == "_reliable_pytest"


def test_loading_it_imports_nothing_of_the_library() -> None:
    """Pytest loads it for every project of the environment, most of which never use it."""
    ours = ("reliable", "brokers", "chaos", "zmq", "msgspec")
    text = f"import sys, _reliable_pytest\nprint([name for name in sys.modules if name.split('.')[0] in {ours}])"
    done = _python("-c", text)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_library_imports_no_pytest() -> None:
    """It is not among what production installs."""
    done = _python("-c", "import sys, reliable, brokers; print('pytest' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")
    done = _python("-c", "import sys, reliable.testing; print('pytest' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=_BOUND_S, cwd=ROOT, check=False
    )


@pytest.mark.slow
def test_wheel_holds_the_plugin(tmp_path: Path) -> None:
    """An entry point without its module breaks pytest in every project of the environment."""
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, capture_output=True, timeout=_BOUND_S, cwd=ROOT, check=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "[pytest11]\nreliable = _reliable_pytest\n" in archive.read(entries).decode()
        assert {"_reliable_pytest.py", "reliable/testing/__init__.py"} <= set(archive.namelist())


@pytest.mark.slow
def test_fixtures_serve_and_leave_nothing_behind(pytester: pytest.Pytester) -> None:
    """Threads, processes and sockets of a hundred tests would add up."""
    pytester.makepyfile(
        """
        import asyncio, pytest
        from handlers import add, add_later, pid
        from reliable import Worker
        from reliable.testing import eventually

        def test_threads(reliable_worker, reliable_client):
            reliable_worker(add, pid)
            assert reliable_client.call("add", 2, 3) == 5

        def test_worker_object(reliable_worker, reliable_make_client):
            worker = Worker()
            worker.service("plus")(add)
            reliable_worker(worker)
            assert reliable_make_client(timeout=5).call("plus", 2, 3) == 5

        def test_asyncio(reliable_worker, reliable_async_client, reliable_make_async_client):
            reliable_worker(add_later)
            async def ask():
                other = reliable_make_async_client()
                return await asyncio.gather(*(c.call("add_later", 2, 3) for c in (reliable_async_client, other)))
            assert asyncio.run(ask()) == [5, 5]

        def test_kill(reliable_worker_process, reliable_client):
            worker = reliable_worker_process("handlers:pid", idempotent=True)
            first = reliable_client.call("pid")
            worker.kill()
            worker.start()
            assert first != reliable_client.call("pid") == worker.pid

        def test_restart(reliable_broker, reliable_worker, reliable_client):
            worker = reliable_worker(add, idempotent=True)
            reliable_broker.restart()
            assert reliable_client.call("add", 2, 3) == 5

        def test_world(reliable_simulation):
            world = reliable_simulation(1)
            world.worker("w1", add)
            assert world.client().call("add", 2, 3) == 5
            world.check()
        """
    )
    done = _run(pytester)
    done.assert_outcomes(passed=6)
    assert CLEAN in done.stdout.str()


@pytest.mark.slow
def test_coroutine_test_of_another_plugin_awaits_the_client(pytester: pytest.Pytester) -> None:
    """The loop is that plugin's, and may be at rest or gone when the client is closed."""
    pytester.makepyfile(
        """
        import pytest
        from handlers import add_later

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_it(reliable_worker, reliable_async_client):
            reliable_worker(add_later)
            assert await reliable_async_client.call("add_later", 2, 3) == 5

        @pytest.mark.anyio
        async def test_in_the_other_order(reliable_async_client, anyio_backend, reliable_worker):
            reliable_worker(add_later)
            assert await reliable_async_client.call("add_later", 2, 3) == 5
        """
    )
    done = _run(pytester)
    done.assert_outcomes(passed=2)
    assert CLEAN in done.stdout.str()


@pytest.mark.slow
def test_failed_test_leaves_nothing_behind_either(pytester: pytest.Pytester) -> None:
    """A failure is when the clean-up counts."""
    pytester.makepyfile(
        """
        import time
        from handlers import add, pid

        def test_fails(reliable_worker, reliable_worker_process, reliable_client, reliable_async_client):
            reliable_worker(add)
            reliable_worker_process("time:sleep").pause()
            pending = reliable_client.submit("sleep", 60)
            assert reliable_client.call("add", 2, 3) == 6
        """
    )
    done = _run(pytester)
    done.assert_outcomes(failed=1)
    assert CLEAN in done.stdout.str()


@pytest.mark.toxiproxy
@pytest.mark.slow
def test_proxy_is_in_front_of_the_broker_and_goes_with_the_session(
    toxiproxy_program: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server for all, a proxy for each test."""
    monkeypatch.setenv("PATH", f"{toxiproxy_program.parent}:{os.environ['PATH']}")
    pytester.makepyfile(
        """
        import pytest
        from chaos.toxi import Latency
        from handlers import add
        from reliable import DeadlineExceeded, Outcome

        @pytest.mark.parametrize("turn", [1, 2])
        def test_slow(turn, reliable_worker, reliable_toxiproxy, reliable_make_client):
            reliable_worker(add)
            client = reliable_make_client(broker=reliable_toxiproxy)
            assert client.call("add", 2, 3) == 5
            with reliable_toxiproxy.suffering(Latency(latency_s=3.0)), pytest.raises(DeadlineExceeded) as caught:
                client.options(timeout=0.3).call("add", 2, 3)
            assert caught.value.outcome is Outcome.UNKNOWN
        """
    )
    done = _run(pytester)
    done.assert_outcomes(passed=2)
    assert CLEAN in done.stdout.str()


@pytest.mark.slow
def test_fault_that_cannot_be_had_fails_in_one_line_that_says_how_to_get_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped, it would be forgotten; with a traceback, not be read."""
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path))
    pytester.makepyfile(
        """
        def test_slow(reliable_toxiproxy): ...

        def test_cut(reliable_partition): ...
        """
    )
    pytester.makepyfile(
        lacking="""
        import chaos.netns
        chaos.netns._MORE_PATH = ""
        """
    )
    done = _run(pytester, "-p", "lacking")
    done.assert_outcomes(errors=2)
    lines = [line for line in done.stdout.lines if line.startswith("reliable_")]
    assert lines == [
        "reliable_toxiproxy: Toxiproxy (no server program: put toxiproxy-server on PATH, or run "
        "`python -m chaos.toxi` once, which builds it with Go)",
        "reliable_partition: partition (no program 'nft'; needs nft and ip (packages nftables and iproute2) and "
        "user namespaces)",
    ]
    assert "Traceback" not in done.stdout.str()


@pytest.mark.slow
def test_mistakes_of_a_test_are_told_in_plain_words(pytester: pytest.Pytester) -> None:
    """Each of these is made by somebody on the first day."""
    pytester.makepyfile(
        """
        import threading
        import pytest
        from handlers import add
        from reliable.testing import eventually

        def test_still_running(reliable_worker, reliable_client):
            begun = threading.Event()
            def hold():
                begun.set()
                end.wait(20)
            reliable_worker(hold, drain=0.1)
            reliable_client.submit("hold")
            assert begun.wait(10)

        end = threading.Event()

        def test_end():
            end.set()

        def test_misspelt(reliable_worker_process):
            reliable_worker_process("handers:add")

        def test_nowhere(reliable_worker):
            reliable_worker(add, broker="tcp://127.0.0.1:9", ready_timeout=0.2)

        def test_never():
            eventually(lambda: False, 0.1, "the lamp is lit")

        def test_unchecked(reliable_simulation):
            world = reliable_simulation(77)
            world.worker("w1", add, takes=None)
            world.heal()
            world.client().options(timeout=1).submit("add", 2, 3)
        """
    )
    done = _run(pytester)
    done.assert_outcomes(passed=3, failed=3, errors=2)
    text = done.stdout.str()
    for said in (
        "LeftRunning: a handler was still running 0.1 s after the worker of hold was told to stop",
        "there is no module 'handers' here or on the Python path",
        "not within 0.2 s: <Worker add at tcp://127.0.0.1:9> registers with tcp://127.0.0.1:9",
        "AssertionError: not within 0.1 s: the lamp is lit",
        "SimulationFailed: the simulation of seed 77 broke 1 promises:",
    ):
        assert said in text, text
    assert CLEAN in text


@pytest.mark.slow
def test_plugin_can_be_switched_off(pytester: pytest.Pytester) -> None:
    """For whoever has fixtures of the same names."""
    pytester.makepyfile("def test_it(reliable_broker): ...")
    done = _run(pytester, "-p", "no:reliable")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'reliable_broker' not found"])


@pytest.mark.slow
def test_processes_die_with_a_pytest_that_is_killed(pytester: pytest.Pytester) -> None:
    """SIGKILL runs no fixture's end."""
    pytester.makepyfile(handlers=HANDLERS)
    path = pytester.makepyfile(
        """
        import time

        def test_it(reliable_worker_process):
            print("PID", reliable_worker_process("handlers:pid").pid, flush=True)
            time.sleep(60)
        """
    )
    argv = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=pytester.path) as run:
        try:
            assert run.stdout is not None
            pid = next(int(line.split()[-1]) for line in run.stdout if "PID" in line)
            assert Path(f"/proc/{pid}").exists()
        finally:
            run.send_signal(signal.SIGKILL)
    # Its parent is gone, so it is nobody's child; the handle says when it has ended.
    handle = _handle(pid)
    if handle is not None:
        assert _ends(handle)


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ends(handle: int) -> bool:
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)
