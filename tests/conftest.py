"""Fixtures and hooks for all tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from chaos.ports import PORTS_VARIABLE, share_of_ports
from tests.support.ports import free_endpoint

_ASYNC_TEST_S_MAX = 50.0
_CLEAN_UP_S_MAX = 3.0
_THAT_COMPUTE = {"architecture", "brokers", "chaos_sim", "engine", "protocol", "simulation", "wire"}

# Each test has its time limit; a single slow example says something about the machine, not about the code.
hypothesis.settings.register_profile("reliable", deadline=None)
hypothesis.settings.load_profile("reliable")


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts this in the background has Ctrl-C ignored, here and in every process that tests start.

    Of several processes that run tests side by side, each looks for free ports in a range of its own.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    part = getattr(config, "workerinput", None)
    if part is not None:
        number = int(part["workerid"].removeprefix("gw")) % part["workercount"]
        os.environ[PORTS_VARIABLE] = share_of_ports(number, part["workercount"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits comes first, so that where there are two processes, one computes meanwhile; later they share it."""
    items.sort(key=lambda item: item.path.parent.name in _THAT_COMPUTE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="seed of the tests that draw numbers; printed on failure")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests, each in a loop of its own; no plugin is needed for more than this."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in names}

    async def bounded() -> None:
        async with asyncio.timeout(_ASYNC_TEST_S_MAX):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number to draw from; ``--seed`` repeats a run that failed."""
    given = request.config.getoption("--seed")
    chosen = int.from_bytes(os.urandom(4), "big") if given is None else int(given)
    print(f"--seed={chosen}")
    return chosen


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Random numbers that ``--seed`` repeats."""
    return random.Random(seed)


@pytest.fixture
def endpoint() -> str:
    """An address on loopback where nobody listens."""
    return free_endpoint()


def _open_files() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor behind.

    What is being given back gets a moment: libzmq closes descriptors in threads of its own.
    """
    threads, files = _threads(), len(_open_files())
    yield
    deadline = time.monotonic() + _CLEAN_UP_S_MAX
    while time.monotonic() < deadline:
        if _threads() <= threads and len(_open_files()) <= files:
            return
        time.sleep(0.01)
    left = [thread.name for thread in _threads() - threads]
    assert not left, f"threads left behind: {left}"
    assert len(_open_files()) <= files, f"descriptors left behind: {sorted(_open_files().values())}"
