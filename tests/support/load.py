"""Many calls at once through one client of either shell, and how late each ended, against a clock of the same run."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import attrs

from reliable import AsyncClient, Client, Frames, RequestError
from reliable.wire.extension import CALL_ID_BYTES
from tests.support.loopback import AnyClient, ShellKind, eventually

__all__ = [
    "LATE_S_MAX",
    "Ended",
    "Lag",
    "Plan",
    "assert_nothing_is_left",
    "async_client",
    "calls_wanted",
    "ids_held",
    "inner_client",
    "make_calls",
    "one_call",
]

LATE_S_MAX: Final = 0.1
"""How long after its deadline a call may end, beyond what this machine made everything else wait at that moment."""
_LAG_STEP_S: Final = 0.01
_LAG_MARGIN_S: Final = 0.3
_STALE_ALARMS_MAX: Final = 70
_OWN_ID_NAMES: Final = frozenset({"client_id", "_client_id", "client"})


def calls_wanted(default: int) -> int:
    """How many calls a test makes: ``RELIABLE_CALLS`` if it is set."""
    return int(os.environ.get("RELIABLE_CALLS", default))


@attrs.frozen
class Plan:
    """One call to make."""

    service: str
    body: Frames
    timeout: float
    idempotent: bool | None = None


@attrs.frozen
class Ended:
    """How a call ended."""

    plan: Plan
    result: Frames | RequestError
    deadline: float
    ended: float

    @property
    def late_s(self) -> float:
        """Seconds after the deadline; negative before it."""
        return self.ended - self.deadline


class Lag:
    """How late a plain timer goes off in the same process: what no client could do better."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._lags: list[float] = []
        self._stopped = False

    def _note(self, due: float) -> None:
        now = time.monotonic()
        self._times.append(now)
        self._lags.append(now - due)

    def _sleep_on(self) -> None:
        while not self._stopped:
            due = time.monotonic() + _LAG_STEP_S
            time.sleep(_LAG_STEP_S)
            self._note(due)

    async def _sleep_on_loop(self) -> None:
        while not self._stopped:
            due = time.monotonic() + _LAG_STEP_S
            await asyncio.sleep(_LAG_STEP_S)
            self._note(due)

    @contextmanager
    def measured(self, shell: ShellKind) -> Iterator[None]:
        """Measure where the calls of this shell run: in threads, or on the event loop."""
        if shell.loop is None:
            thread = threading.Thread(target=self._sleep_on, name="lag", daemon=True)
            thread.start()
        else:
            task = shell.loop.start(self._sleep_on_loop())
        try:
            yield
        finally:
            self._stopped = True
            if shell.loop is None:
                thread.join(10.0)
            else:
                task.result(10.0)

    def around(self, begin: float, end: float) -> float:
        """The longest lag of a timer that was running between the two moments."""
        first = bisect_left(self._times, begin - _LAG_MARGIN_S)
        last = bisect_left(self._times, end + _LAG_MARGIN_S)
        return max(self._lags[first : last + 1], default=0.0)

    def excess_s(self, ended: Ended, turns: int = 1) -> float:
        """How late the call was beyond ``turns`` times the lag of its last moments; negative if it was in time."""
        return ended.late_s - turns * self.around(ended.deadline, ended.ended) if ended.late_s > 0 else ended.late_s


def async_client(client: AnyClient) -> AsyncClient:
    """The one inside of what a test that blocks is given."""
    inner = getattr(client, "client", None)
    assert isinstance(inner, AsyncClient)
    return inner


async def _one_async(client: AsyncClient, plan: Plan) -> Ended:
    deadline = time.monotonic() + plan.timeout
    result: Frames | RequestError
    try:
        result = await client.request(plan.service, *plan.body, timeout=plan.timeout, idempotent=plan.idempotent)
    except RequestError as error:
        result = error
    return Ended(plan, result, deadline, time.monotonic())


def one_call(client: AnyClient, plan: Plan) -> Ended:
    """Make it with a client that blocks."""
    deadline = time.monotonic() + plan.timeout
    result: Frames | RequestError
    try:
        result = client.request(plan.service, *plan.body, timeout=plan.timeout, idempotent=plan.idempotent)
    except RequestError as error:
        result = error
    return Ended(plan, result, deadline, time.monotonic())


def make_calls(
    shell: ShellKind, client: AnyClient, plans: Iterator[Plan], callers: int, note: Callable[[Ended], None]
) -> Lag:
    """Make all calls, ``callers`` at a time, from as many threads or tasks; ``note`` hears of each end, one by one."""
    lag, lock = Lag(), threading.Lock()

    def next_plan() -> Plan | None:
        with lock:
            return next(plans, None)

    def call_on() -> None:
        while (plan := next_plan()) is not None:
            ended = one_call(client, plan)
            with lock:
                note(ended)

    async def call_on_loop() -> None:
        while (plan := next_plan()) is not None:
            note(await _one_async(async_client(client), plan))

    async def all_on_loop() -> None:
        await asyncio.gather(*(call_on_loop() for _ in range(callers)))

    with lag.measured(shell):
        if shell.loop is None:
            with ThreadPoolExecutor(callers) as pool:
                for future in [pool.submit(call_on) for _ in range(callers)]:
                    future.result()
        else:
            shell.loop.run(all_on_loop(), timeout=3_600.0)
    return lag


def ids_held(client: AnyClient) -> dict[str, int]:
    """Where in a client, its engine and its links a call id is still held, and how many different ones.

    Found by walking through everything of ours that can be reached, so that a table which is added later is not
    forgotten: whatever has the size of a call id and is not the client's own id counts. That one is known by the names
    that it goes by.
    """
    pump: Any = inner_client(client)._pump
    found: dict[str, set[bytes]] = {}
    seen: set[int] = set()
    own: set[object] = set()

    def walk(value: object, path: str) -> None:
        if isinstance(value, bytes):
            if len(value) == CALL_ID_BYTES:
                found.setdefault(path, set()).add(value)
            return
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, dict):
            for key, item in value.items():
                walk(key, path)
                walk(item, path)
        elif isinstance(value, list | tuple | set | frozenset | deque):
            for item in value:
                walk(item, path)
        elif type(value).__module__.startswith("reliable."):
            names = [
                *getattr(value, "__dict__", ()),
                *(n for c in type(value).__mro__ for n in vars(c).get("__slots__", ())),
            ]
            for name in names:
                if name in _OWN_ID_NAMES:
                    own.add(getattr(value, name))
                walk(getattr(value, name, None), f"{type(value).__name__}.{name}")

    walk(pump, "")
    return {path: len(ids - own) for path, ids in found.items() if ids - own}


def assert_nothing_is_left(client: AnyClient) -> None:
    """No open call, and no call id in any table but for the few stale alarms that are swept out in bulk.

    Raises:
        AssertionError: Something stays although every call has ended.
    """
    inner = inner_client(client)
    # A call's last words may still be under way in another thread.
    eventually(lambda: _calls(inner) == 0, "no call is open")
    snapshot = inner.snapshot()
    assert snapshot is not None
    assert (snapshot.calls, snapshot.waiting, snapshot.asked) == (0, 0, 0), snapshot
    assert sum(link.calls for link in snapshot.links) == 0, snapshot
    held = ids_held(client)
    assert held.pop("Alarms._heap", 0) <= _STALE_ALARMS_MAX
    assert held == {}, f"the client still holds call ids in {held}"


def _calls(client: Client | AsyncClient) -> int:
    snapshot = client.snapshot()
    return 0 if snapshot is None else snapshot.calls


def inner_client(client: AnyClient) -> Client | AsyncClient:
    """The client itself, of either kind."""
    return client if isinstance(client, Client) else async_client(client)
