"""Calls without end to a fleet of workers, each with a name of its own, and how each of them ended."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from reliable import Outcome, RequestError
from tests.support.fleet import Fleet
from tests.support.loopback import AnyClient

__all__ = ["Load", "judge"]

_END_S_MAX = 60.0


class Load:
    """Callers in threads.

    Args:
        client: All of them share it.
        service: What they call.
        work: The first frame, and the last: what each call asks for.
        total: So many calls; None until ``stop``.
        timeout_s: Of each.
        prefix: What the names of the calls begin with, instead of the service.
    """

    def __init__(
        self,
        client: AnyClient,
        service: str,
        work: tuple[bytes, bytes] = (b"sleep", b"0.005"),
        *,
        total: int | None = None,
        timeout_s: float = 30.0,
        prefix: str = "",
    ) -> None:
        self._client, self._service, self._work, self._timeout_s = client, service, work, timeout_s
        self._prefix = prefix or service
        self._numbers = iter(range(total)) if total is not None else itertools.count()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.ends: dict[str, RequestError | None] = {}
        """How each call ended, by name; None is with its reply."""
        self.wrong: list[str] = []
        """Calls that got another's reply."""

    def _call_on(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            name = f"{self._prefix}-{number}"
            action, argument = self._work
            error: RequestError | None = None
            try:
                reply = self._client.request(self._service, action, name.encode(), argument, timeout=self._timeout_s)
                if reply[0] != name.encode():
                    self.wrong.append(name)
            except RequestError as raised:
                error = raised
            self.ends[name] = error

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopping.set()

    @contextlib.contextmanager
    def running(self, callers: int) -> Iterator[None]:
        """Call on; at the end those that were begun are waited for."""
        with ThreadPoolExecutor(callers) as pool:
            futures = [pool.submit(self._call_on) for _ in range(callers)]
            try:
                yield
            except BaseException:
                self.stop()
                raise
            for future in futures:
                future.result(_END_S_MAX * 10)


def judge(load: Load, fleet: Fleet, *, once: bool) -> dict[str, int]:
    """Compare what callers were told with what the workers noted.

    Returns:
        How many calls ended in which way.

    Raises:
        AssertionError: A call ran twice that must not (``once``), one with a reply did not run, one that was said
            not to have run did run, or a reply went astray.
    """
    runs = fleet.runs()
    twice = [name for name in load.ends if runs[name] > 1]
    assert not once or twice == [], f"run more than once: {twice}"
    unrun = [name for name, error in load.ends.items() if error is None and runs[name] == 0]
    assert unrun == [], f"answered, but never run: {unrun}"
    false = [
        (name, error)
        for name, error in load.ends.items()
        if error is not None and error.outcome is Outcome.NOT_EXECUTED and runs[name] > 0
    ]
    assert false == [], f"said not to have run, and did: {false}"
    assert load.wrong == [], f"got another's reply: {load.wrong}"
    counts: dict[str, int] = {"calls": len(load.ends), "run more than once": len(twice)}
    for error in load.ends.values():
        end = "ok" if error is None else f"{type(error).__name__} {error.outcome.name}"
        counts[end] = counts.get(end, 0) + 1
    return counts
