"""A broker and a worker in threads of this process, for tests whose subject is what lies between them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from brokers import MajordomoBroker
from reliable import Worker

__all__ = ["Executions", "broker_at", "worker_at"]

_END_S_MAX = 15.0
_READY_S_MAX = 20.0


class Executions:
    """How often each call really ran, by the words it carried."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def note(self, word: str) -> None:
        """One run."""
        with self._lock:
            self._counts[word] += 1

    def of(self, word: str) -> int:
        """Runs so far."""
        with self._lock:
            return self._counts[word]


@contextlib.contextmanager
def _in_thread(name: str, run: Callable[[], object], stop: Callable[[], None]) -> Iterator[None]:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(_END_S_MAX)
    assert not thread.is_alive(), f"{name} does not end"
    assert problems == []


@contextlib.contextmanager
def broker_at(endpoint: str) -> Iterator[MajordomoBroker]:
    """A broker that listens there."""
    broker = MajordomoBroker([endpoint])
    broker.bind()
    with _in_thread("broker", broker.run, broker.stop):
        yield broker


@contextlib.contextmanager
def worker_at(endpoint: str, executions: Executions) -> Iterator[Worker]:
    """A registered worker with ``echo`` (idempotent) and ``once`` (not); both give their word back."""
    worker = Worker(endpoint, concurrency=4)

    @worker.service("echo", idempotent=True)
    def echo(word: str) -> str:
        executions.note(word)
        return word

    @worker.service("once", idempotent=False)
    def once(word: str) -> str:
        executions.note(word)
        return word

    with _in_thread("worker", worker.run, lambda: worker.stop(1.0)):
        assert worker.wait_ready(_READY_S_MAX), "the worker was not registered in time"
        yield worker
