"""Handlers in child processes: whatever becomes of one, its caller is told at once, and the next request is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from reliable import AsyncWorker, Outcome, Worker, WorkerFailed
from reliable.payload import MSGPACK
from tests.support import handlers
from tests.support.loopback import QUICK_WORKER, BrokerThread, RunningWorker, ShellKind, Stage, eventually
from tests.support.parts_reader import Told, ask
from tests.support.ports import free_endpoint

_AT_ONCE_S = 0.5


class _Bench:
    """A broker and a worker whose services are the handlers of the support module, each in a process."""

    def __init__(self, stage: Stage, shell: ShellKind, *names: str, **options: Any) -> None:
        settings = {name: options.pop(name) for name in ("timeout", "raw") if name in options}
        concurrency = options.pop("concurrency", 1)
        self.broker: BrokerThread = stage.broker()
        self.worker = shell.worker(
            self.broker.endpoint, config=attrs.evolve(QUICK_WORKER, **options), concurrency=concurrency
        )
        for name in {"add": None, "pid": None, **dict.fromkeys(names)}:
            extra = settings if name in names else {}
            self.worker.service(name, executor="process", **extra)(getattr(handlers, name))
        self.running: RunningWorker = shell.run(self.worker)
        assert self.value("add", 1, 2) == 3, "the process is up"

    def ask(self, name: str, *args: object, **options: Any) -> Told:
        return ask(self.broker.endpoint, name, *args, **options)

    def value(self, name: str, *args: object) -> object:
        return MSGPACK.decode(self.ask(name, *args).reply[0])

    def fails(self, name: str, *args: object) -> WorkerFailed:
        """How a call fails; what follows it is served."""
        told = self.ask(name, *args)
        assert isinstance(told.error, WorkerFailed), told
        assert self.value("add", 2, 3) == 5
        assert told.elapsed_s < _AT_ONCE_S
        return told.error


def _watch() -> tuple[threading.Event, dict[str, Any]]:
    """Options of a call to a handler that reports when it begins, and what is set then."""
    runs = threading.Event()

    def look(told: Told) -> bool:
        if told.progress:
            runs.set()
        return False

    return runs, {"wants_progress": True, "cancel_when": look}


@pytest.mark.parametrize(
    ("name", "args", "remote_type", "words"),
    [
        ("bad_memory", (), "WorkerCrashed", "signal 11 (SIGSEGV)"),
        ("leave", (3,), "WorkerCrashed", "exit code 3"),
        ("leave", (0,), "WorkerCrashed", "exit code 0"),
        ("terminate_self", (), "WorkerCrashed", "signal 9 (SIGKILL)"),
        ("fork_and_leave", (), "WorkerCrashed", "exit code 3"),
        ("allocate_too_much", (), "MemoryError", ""),
        ("raise_value_error", (), "ValueError", "told so"),
    ],
)
def test_a_crash_is_a_typed_error_at_once_and_the_next_request_is_served(
    stage: Stage, shell: ShellKind, name: str, args: tuple[object, ...], remote_type: str, words: str
) -> None:
    """Not a timeout: the kernel says when a process is gone, and how."""
    bench = _Bench(stage, shell, name)
    error = bench.fails(name, *args)
    assert error.remote_type == remote_type
    assert words in error.remote_message
    # A crash may have come at any point, also before the first line; an exception is how the handler's code ended.
    assert error.outcome is (Outcome.UNKNOWN if remote_type == "WorkerCrashed" else Outcome.EXECUTED)


@pytest.mark.parametrize(("name", "args"), [("hang", (20.0,)), ("hold_the_lock", (20,))])
def test_a_handler_past_its_timeout_is_killed(
    stage: Stage, shell: ShellKind, name: str, args: tuple[object, ...]
) -> None:
    """Also one that holds the interpreter lock, which no thread could be saved from."""
    bench = _Bench(stage, shell, name, timeout=0.3)
    before = bench.value("pid")
    told = bench.ask(name, *args)
    assert isinstance(told.error, WorkerFailed)
    assert (told.error.remote_type, told.error.outcome) == ("HandlerTimeout", Outcome.UNKNOWN)
    assert 0.3 <= told.elapsed_s < 0.3 + _AT_ONCE_S
    assert bench.value("pid") != before
    stats = bench.worker.stats()
    assert stats is not None
    assert (stats.handler_timeouts, stats.processes_killed, stats.processes_crashed) == (1, 1, 0)


@pytest.mark.slow
def test_a_held_interpreter_lock_does_not_stop_the_heartbeats(stage: Stage, shell: ShellKind) -> None:
    """In a thread this would make the worker look stuck; here the broker sees it work."""
    bench = _Bench(stage, shell, "hold_the_lock")
    states: set[str] = set()

    def look(_: Told) -> bool:
        states.update(view.state for view in bench.broker.broker.snapshot().workers)
        return False

    assert bench.ask("hold_the_lock", 2, cancel_when=look).reply == [MSGPACK.encode(None)]
    assert "working" in states
    assert states <= {"idle", "working"}


def test_a_handler_that_outlasts_the_drain_is_killed_with_its_process(stage: Stage, shell: ShellKind) -> None:
    """The worker ends when it said it would, and leaves nothing running."""
    bench = _Bench(stage, shell, "stubborn")
    child = bench.value("pid")
    assert isinstance(child, int)
    with ThreadPoolExecutor(1) as pool:
        runs, when_it_runs = _watch()
        call = pool.submit(bench.ask, "stubborn", timeout=2.0, **when_it_runs)
        assert runs.wait(5)
        began = time.monotonic()
        assert bench.running.stop(0.2) == 1
        assert time.monotonic() - began < 1.5
        assert not _alive(child)
        call.result(10)


def test_garbage_on_the_standard_streams_does_no_harm(stage: Stage, shell: ShellKind) -> None:
    """Handlers print, and so do the libraries that they use."""
    assert _Bench(stage, shell, "shout").value("shout") == "fine"


def test_a_process_is_used_again_and_is_not_the_worker(stage: Stage, shell: ShellKind) -> None:
    """Starting one for each request would cost more than most requests."""
    bench = _Bench(stage, shell)
    pids = {bench.value("pid") for _ in range(5)}
    assert len(pids) == 1
    assert pids.isdisjoint({os.getpid()})


def test_handlers_run_in_as_many_processes_as_there_are_slots(stage: Stage, shell: ShellKind) -> None:
    """And one to spare, so that a crash does not make the next request wait for the start of a process."""
    bench = _Bench(stage, shell, "stubborn", concurrency=2)
    stats = bench.worker.stats()
    assert stats is not None
    eventually(lambda: stats.processes_started == 3, "all are started")
    with ThreadPoolExecutor(1) as pool:
        runs, when_it_runs = _watch()
        call = pool.submit(bench.ask, "stubborn", timeout=1.5, **when_it_runs)
        assert runs.wait(5)
        assert bench.value("add", 1, 1) == 2
        assert not call.done()
        call.result(10)


def test_streams_and_coroutines_work_in_processes(stage: Stage, shell: ShellKind) -> None:
    """Parts pass through the worker, held up by the same window."""
    bench = _Bench(stage, shell, "count", "count_later", "later", stream_parts_ahead_max=3)
    for name in ("count", "count_later"):
        told = bench.ask(name, 50)
        assert [MSGPACK.decode(frame) for (frame,) in told.parts] == list(range(50))
        assert told.reply == [b""]
    assert bench.value("later", "x") == "x"


def test_the_request_is_known_in_the_process(stage: Stage, shell: ShellKind) -> None:
    """Deadline, ids and progress are no privilege of threads."""
    bench = _Bench(stage, shell, "describe_request", "steps")
    known = MSGPACK.decode(bench.ask("describe_request", timeout=5.0).reply[0])
    assert isinstance(known, list)
    service, call_id, attempt, delivery, remaining_s, cancelled = known
    assert (service, len(call_id), attempt, delivery, cancelled) == ("describe_request", 16, 1, 1, False)
    assert 3.0 < remaining_s <= 5.1
    assert bench.ask("steps", wants_progress=True).progress == [[b"0"], [b"1"], [b"2"]]


def test_a_process_hears_that_nobody_waits(stage: Stage, shell: ShellKind, tmp_path: Path) -> None:
    """First politely: the handler can tidy up, and its process lives on."""
    bench = _Bench(stage, shell, "patient", "endless", cancel_grace_s=5.0)
    before = bench.value("pid")
    for name in ("patient", "endless"):
        note = tmp_path / name
        began = time.monotonic()
        bench.ask(name, str(note), cancel_when=lambda _, began=began: time.monotonic() > began + 0.2)
        eventually(note.exists, "the handler was told")
    assert bench.value("pid") == before


def test_a_handler_that_does_not_heed_its_cancellation_is_killed(stage: Stage, shell: ShellKind) -> None:
    """A slot must not be lost to somebody who went away."""
    bench = _Bench(stage, shell, "stubborn", cancel_grace_s=0.2)
    before = bench.value("pid")
    began = time.monotonic()
    bench.ask("stubborn", cancel_when=lambda _: time.monotonic() > began + 0.2)
    assert bench.value("pid") != before
    assert time.monotonic() - began < 2.0


def test_a_process_is_replaced_after_its_requests_or_when_it_grew(stage: Stage, shell: ShellKind) -> None:
    """For handlers that leak; between two requests, so that nobody notices."""
    bench = _Bench(stage, shell, process_requests_max=2)
    pids = [bench.value("pid") for _ in range(5)]
    assert len(set(pids)) == 3
    grown = _Bench(stage, shell, process_memory_bytes_max=1024)
    assert len({grown.value("pid") for _ in range(3)}) == 3
    stats = grown.worker.stats()
    assert stats is not None
    assert stats.processes_crashed == stats.processes_killed == 0


def test_raw_handlers_and_wrong_arguments_work_as_in_threads(stage: Stage, shell: ShellKind) -> None:
    """Where a handler runs is no part of its contract."""
    bench = _Bench(stage, shell, "raw_echo", raw=True)
    assert bench.ask("raw_echo", body=[b"\x00" * 3_000_000]).reply == [b"\x00" * 3_000_000]
    error = bench.ask("add", "1", 2).error
    assert isinstance(error, WorkerFailed)
    assert (error.remote_type, error.outcome) == ("InvalidArguments", Outcome.NOT_EXECUTED)


def test_crashes_in_a_row_each_have_their_answer(stage: Stage, shell: ShellKind) -> None:
    """A poisonous request sent again and again takes nobody's answer away, and the next waits for no interpreter."""
    bench = _Bench(stage, shell, "leave")
    for _ in range(10):
        told = bench.ask("leave", 1)
        assert isinstance(told.error, WorkerFailed)
        assert (told.error.remote_type, told.error.outcome) == ("WorkerCrashed", Outcome.UNKNOWN)
    began = time.monotonic()
    assert bench.value("add", 1, 1) == 2
    took_s = time.monotonic() - began
    assert took_s < _AT_ONCE_S or took_s < _fresh_interpreter_s()


def _fresh_interpreter_s() -> float:
    """What it would have taken otherwise, on a machine as busy as this one is now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import reliable.executors_child"], check=True, timeout=30)
    return time.monotonic() - began


def test_each_process_imports_the_handlers_for_itself(stage: Stage, shell: ShellKind) -> None:
    """What a module opens when it is imported, a connection to a database say, must not be shared by two processes."""
    bench = _Bench(stage, shell, "imported_by")
    assert bench.value("imported_by") == bench.value("pid")


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_what_a_process_cannot_import_is_refused_where_it_is_declared(
    kind: type[Worker] | type[AsyncWorker],
) -> None:
    """At the first request would be too late."""
    worker = kind(free_endpoint())

    def local() -> None: ...

    unnamed: tuple[Callable[..., object], ...] = (local, lambda: None, "".join)
    for handler in unnamed:
        with pytest.raises(TypeError, match="handler of 'x'"):
            worker.service("x", executor="process")(handler)
    assert worker.services == []


def test_a_name_that_means_something_else_is_refused_when_it_runs(endpoint: str) -> None:
    """A decorator around the handler would be what the process imports."""
    worker = Worker(endpoint)

    def other() -> None: ...

    other.__qualname__ = "add"
    other.__module__ = handlers.__name__
    worker.service("x", executor="process")(other)
    with pytest.raises(TypeError, match="is something else"):
        worker.run()


# --- the program as a whole ----------------------------------------------------------------------

_PROGRAM = """
import os, sys, threading, time
from reliable import {kind}, WorkerConfig, current_request

config = WorkerConfig(concurrency=2, started_after_s=20.0)
worker = {kind}(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:1", config=config)

@worker.service("pid", executor="process")
def pid() -> int:
    return os.getpid()

@worker.service("nap", executor="process")
def nap(seconds: float) -> str:
    current_request().progress(b"began")
    time.sleep(seconds)
    return "rested"

@worker.service("busy", executor="process")
def busy() -> None:
    while True:
        pass

if {guard}:
    result = worker.run()
    if {awaited}:
        import asyncio
        asyncio.run(result)
"""


def _program(tmp_path: Path, kind: str, guard: str = '__name__ == "__main__"') -> Path:
    path = tmp_path / "program.py"
    path.write_text(_PROGRAM.format(kind=kind, guard=guard, awaited=kind == "AsyncWorker"))
    return path


def _descendants_of(parent: int) -> list[int]:
    """Its children and theirs; without those that have just ended."""
    try:
        tasks = list(Path(f"/proc/{parent}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(later for child in children for later in _descendants_of(child))]


def _alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["Worker", "AsyncWorker"])
def test_handlers_of_the_main_program_run_in_processes_which_die_with_it(
    stage: Stage, tmp_path: Path, kind: str
) -> None:
    """SIGKILL leaves the worker no chance to tidy up; the kernel does, also for one that hears nothing."""
    broker = stage.broker()
    with subprocess.Popen([sys.executable, str(_program(tmp_path, kind)), broker.endpoint]) as program:
        try:
            child = MSGPACK.decode(ask(broker.endpoint, "pid", timeout=15.0).reply[0])
            assert child != program.pid
            ask(broker.endpoint, "busy", timeout=0.3)
            children = _descendants_of(program.pid)
            assert child in children
            assert len(children) == 4, "two that may be busy, a spare, and the one that they are copies of"
            program.send_signal(signal.SIGKILL)
            began = time.monotonic()
            eventually(lambda: not any(map(_alive, children)), "the children are gone", 5.0)
            assert time.monotonic() - began < _AT_ONCE_S
        finally:
            program.kill()


@pytest.mark.parametrize("started", [1, 2, 4])
def test_processes_that_are_just_starting_die_with_the_program_too(tmp_path: Path, endpoint: str, started: int) -> None:
    """Imports take a while, and a process that has not come further knows nothing of its worker."""
    with subprocess.Popen([sys.executable, str(_program(tmp_path, "Worker")), endpoint]) as program:
        try:
            eventually(lambda: len(_descendants_of(program.pid)) >= started, "they are started", 20.0)
            children = _descendants_of(program.pid)
            program.send_signal(signal.SIGKILL)
            began = time.monotonic()
            eventually(lambda: not any(map(_alive, children)), "the children are gone", 5.0)
            assert time.monotonic() - began < _AT_ONCE_S
        finally:
            program.kill()


def test_a_signal_to_the_whole_group_lets_handlers_finish(stage: Stage, tmp_path: Path) -> None:
    """Ctrl-C and service managers signal every process of a group; the worker alone decides what ends when."""
    broker = stage.broker()
    command = [sys.executable, str(_program(tmp_path, "Worker")), broker.endpoint]
    with subprocess.Popen(command, start_new_session=True) as program:
        try:
            ask(broker.endpoint, "pid", timeout=15.0)
            with ThreadPoolExecutor(1) as pool:
                runs, when_it_runs = _watch()
                call = pool.submit(ask, broker.endpoint, "nap", 0.6, **when_it_runs)
                assert runs.wait(5)
                os.killpg(program.pid, signal.SIGTERM)
                assert call.result(10).reply == [MSGPACK.encode("rested")]
            assert program.wait(5) == 0
        finally:
            program.kill()


def test_a_program_without_a_guard_says_so_instead_of_starting_itself_for_ever(tmp_path: Path, stage: Stage) -> None:
    """The child imports the program; without the guard, that would run a worker with children of its own."""
    broker = stage.broker()
    path = _program(tmp_path, "Worker", "True")
    with subprocess.Popen([sys.executable, str(path), broker.endpoint]) as program:
        try:
            error = ask(broker.endpoint, "pid", timeout=15.0).error
            assert isinstance(error, WorkerFailed)
            assert (error.remote_type, error.outcome) == ("ProcessNotStarted", Outcome.NOT_EXECUTED)
            assert '__name__ == "__main__"' in error.remote_message
        finally:
            program.kill()
