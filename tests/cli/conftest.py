"""A real broker and a real worker, as processes, for the commands that talk to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Running, running
from tests.support.ports import free_endpoint

_SERVICES = """
import asyncio
import time

from reliable import AsyncWorker, Worker

worker = Worker(concurrency=4)
quiet = AsyncWorker()


@worker.service("echo", raw=True, idempotent=True)
def echo(*frames):
    return list(frames)


@worker.service("binary", raw=True)
def binary(*frames):
    return [b"\\xff\\x00", b"text"]


@worker.service("fail", raw=True)
def fail(*frames):
    raise ValueError("bad\\ninput")


@worker.service("slow", raw=True)
def slow(*frames):
    time.sleep(3)
    return b"late"


@worker.service("add")
def add(a, b):
    return a + b


@worker.service("count")
def count(n):
    yield from range(n)


@worker.service("name")
def name(**words):
    return words["service"] + words["self"]


@quiet.service("quiet", raw=True)
async def quiet_echo(frame):
    return frame


def plain(frame):
    return frame.upper()


async def later(frame):
    await asyncio.sleep(0)
    return frame.lower()
"""


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module ``cli_services``."""
    folder = tmp_path_factory.mktemp("services")
    (folder / "cli_services.py").write_text(_SERVICES)
    return folder


@pytest.fixture
def free_url() -> str:
    """An address where nobody listens."""
    return free_endpoint()


def url_in(line: str) -> str:
    """The address in a readiness line of the broker."""
    found = re.search(r"tcp://\S+", line)
    assert found, line
    return found.group()


@pytest.fixture(scope="session")
def broker_process() -> Iterator[Running]:
    """A broker for all tests that do not harm it."""
    with running("broker", "--bind", "tcp://127.0.0.1:0") as process:
        yield process


@pytest.fixture(scope="session")
def broker_url(broker_process: Running) -> str:
    """Where it listens."""
    return url_in(broker_process.line())


@pytest.fixture(scope="session")
def worker_process(broker_url: str, services: Path) -> Iterator[Running]:
    """A registered worker with the services of ``cli_services``."""
    with running("worker", "cli_services:worker", "--broker", broker_url, cwd=services) as process:
        process.line()
        yield process


@pytest.fixture
def served_url(broker_url: str, worker_process: Running) -> str:
    """The broker, with that worker."""
    assert worker_process.process.poll() is None
    return broker_url
