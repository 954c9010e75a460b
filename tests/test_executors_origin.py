"""Where handler processes come from: copies of a clean process, and fresh interpreters where there can be none."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reliable import executors_origin
from reliable.executors_origin import ChildProcess, Origin
from reliable.executors_wire import Begin, MessageBuffer, NotReady, Ready, encode, pack_codec
from reliable.payload import RAW
from tests.support.loopback import eventually

_MODULE = "tests.support.handlers"


@pytest.fixture(name="origin")
def _origin() -> Iterator[Origin]:
    origin = Origin(20.0)
    yield origin
    origin.close(5.0)


class _Link:
    """A process, and our end of the sockets to it."""

    def __init__(self, origin: Origin) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20.0)
        with theirs:
            self.process: ChildProcess = origin.start(theirs)

    def begin(self) -> object:
        """Let it import a handler; what it says to that."""
        begin = Begin(
            handlers=[(b"pid", _MODULE, "pid", False)],
            codec=pack_codec(RAW),
            parts_ahead_max=1,
            measure_memory=False,
            main={},
        )
        self.socket.sendall(encode(begin))
        buffer = MessageBuffer(Ready | NotReady)
        while True:
            buffer.add(self.socket.recv(4096))
            for message in buffer.messages():
                return message

    def close(self) -> None:
        self.socket.close()
        if self.process.poll() is None and self.process.wait(1.0) is None:
            self.process.kill()
        self.process.close()


def _children(pid: int) -> set[int]:
    return {int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()}


def _zygotes() -> set[int]:
    """This process may have children of other tests, too."""
    found = set()
    for pid in _children(os.getpid()):
        with contextlib.suppress(OSError):
            if b"executors_zygote" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def test_a_process_is_a_copy_and_imports_its_handlers_itself(origin: Origin) -> None:
    """Connections that a module opens when it is imported must not be shared between processes."""
    links = [_Link(origin) for _ in range(2)]
    try:
        assert all(isinstance(link.begin(), Ready) for link in links)
        (zygote,) = _zygotes()
        copies = _children(zygote)
        assert len(copies) == 2
        for pid in copies:
            held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            assert sum(name.startswith("socket:") for name in held) == 1, "its own link, and nobody else's"
            assert not any("pidfd" in name or "eventpoll" in name for name in held)
    finally:
        for link in links:
            link.close()


def test_exit_codes_and_signals_are_told_as_by_a_child_of_ones_own(origin: Origin) -> None:
    """The caller of a crashed handler is told them; the worker is not the one who can wait for a grandchild."""
    link = _Link(origin)
    link.begin()
    assert link.process.poll() is None and link.process.wait(0.01) is None
    assert link.process.pidfd is not None
    link.process.kill()
    assert link.process.poll() == -signal.SIGKILL
    assert select.select([link.process.pidfd], [], [], 0)[0], "the end is readable"
    link.process.kill()
    link.close()
    quiet = _Link(origin)
    quiet.begin()
    quiet.socket.close()
    assert quiet.process.wait(5.0) == 0
    quiet.close()


def test_a_zygote_that_is_killed_takes_its_copies_along_and_is_replaced(origin: Origin) -> None:
    """No process may be left that nobody can wait for; and the next start must not fail for it."""
    link = _Link(origin)
    link.begin()
    (zygote,) = _zygotes()
    os.kill(zygote, signal.SIGKILL)
    assert link.process.wait(5.0) == -signal.SIGKILL
    link.close()
    eventually(lambda: bool(_zygotes() - {zygote}), "another zygote")
    again = _Link(origin)
    assert isinstance(again.begin(), Ready)
    again.close()


def test_where_nothing_can_be_copied_processes_are_fresh_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site hook that starts threads, or a kernel without pidfds, makes starts slower, and breaks nothing."""
    monkeypatch.setattr(executors_origin, "READY", 99)
    origin = Origin(20.0)
    link = _Link(origin)
    try:
        assert isinstance(link.begin(), Ready)
        assert isinstance(link.process, executors_origin._Fresh)
        link.process.kill()
        assert link.process.poll() == -signal.SIGKILL
    finally:
        link.close()
        origin.close(5.0)


def test_a_zygote_that_never_comes_up_delays_a_start_but_does_not_prevent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries, and then no more of them."""
    real = executors_origin._fresh

    def broken(module: str, fd: int) -> object:
        return subprocess.Popen([sys.executable, "-S", "-c", ""]) if module == "executors_zygote" else real(module, fd)

    monkeypatch.setattr(executors_origin, "_fresh", broken)
    origin = Origin(20.0)
    link = _Link(origin)
    try:
        assert isinstance(link.begin(), Ready)
        assert isinstance(link.process, executors_origin._Fresh)
    finally:
        link.close()
        origin.close(5.0)


def test_nothing_is_started_once_the_worker_ends(origin: Origin) -> None:
    """Also not for a thread that waits for the zygote just then: its process would be left behind."""
    failed: list[int | None] = []

    def start() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                origin.start(theirs)
            except OSError as error:
                failed.append(error.errno)

    origin.begin_close()
    thread = threading.Thread(target=start)
    thread.start()
    thread.join(5.0)
    assert failed == [errno.ESHUTDOWN]


def test_closing_leaves_no_process_behind() -> None:
    """Whatever the zygote was just doing."""
    before = _children(os.getpid())
    for wait_s in (0.0, 0.3):
        origin = Origin(20.0)
        time.sleep(wait_s)
        origin.close(5.0)
        assert _children(os.getpid()) == before
