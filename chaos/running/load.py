"""The load: clients in threads of this process, each making its planned calls and keeping what became of them.

Calls are made at their times whatever became of the earlier ones (up to ``_OPEN_MAX`` of a client), so that a fault
cannot hide behind the pause that it causes.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from chaos.history import Call, End, Ending
from chaos.running.child_worker import NOTE, ONCE, PARTS, PARTS_AGAIN, SAFE, STEPS
from chaos.running.lag import Lag
from chaos.running.model import Clients, Guest, Kind, Topology
from chaos.running.schedule import PlannedCall, calls_of
from chaos.running.wishes import Wish
from reliable import AsyncClient, Client
from reliable.config import (
    Backoff,
    BreakerPolicy,
    ClientConfig,
    Freelance,
    HedgePolicy,
    RetryBudget,
    RetryPolicy,
    TransportConfig,
)
from reliable.errors import Outcome, ReliableError, RequestError
from reliable.types import Frames

__all__ = ["BEFORE", "FAULTS", "HEALED", "SETTLING", "Load", "Made", "Special", "client_config"]

BEFORE: Final = "before"
FAULTS: Final = "faults"
SETTLING: Final = "settling"
HEALED: Final = "healed"

_OPEN_MAX: Final = 400
_LANES: Final = 24
"""Threads of a blocking client: as many of its calls can be open."""
_NEVER_S: Final = 2.0
"""How long past its deadline a call is waited for before it counts as one that never ends."""
_POISON_TIMEOUT_S: Final = 20.0
_HOLD_SPARE_S: Final = 6.0
_HEALED_TIMEOUT_S: Final = 5.0
_JOIN_S: Final = 5.0
_LOOP_STEP_S: Final = 0.02
_PAUSE_S_MAX: Final = 1.0

Special: TypeAlias = tuple[str, float]
"""A kind, and how long to hold the interpreter lock."""

_SAID: Final = {
    Kind.SAFE: True,
    Kind.CAREFUL: False,
    Kind.STREAM_AGAIN: True,
    Kind.PROGRESS: True,
    Kind.HEDGED: True,
    Kind.HEDGED_ONCE: True,
    Kind.NEWCOMER: True,
    Kind.POISON: True,
}
"""Of idempotence, by the caller; of other kinds nothing."""
_SERVICE: Final = {
    Kind.ONCE: ONCE,
    Kind.HOLD: ONCE,
    Kind.HEDGED_ONCE: ONCE,
    Kind.STREAM: PARTS,
    Kind.STREAM_AGAIN: PARTS_AGAIN,
    Kind.ONE_WAY: NOTE,
    Kind.PROGRESS: STEPS,
}
_STREAMS: Final = (Kind.STREAM, Kind.STREAM_AGAIN)
_HEDGED: Final = (Kind.HEDGED, Kind.HEDGED_ONCE)
_HEDGES: Final = RetryBudget(ratio=0.5, tokens_max=50.0)
"""More than a user would allow: here it is asked what hedging does, not what it costs."""


@attrs.define
class Made:
    """A call, and what only this suite wants to know of it; times are readings of the monotonic clock."""

    call: Call
    kind: str
    attempts: int | None = None
    parts: list[int] = attrs.field(factory=list)
    """Of a streamed reply, in the order of their coming."""
    parts_wanted: int = 0
    part_runs: set[str] = attrs.field(factory=set)
    """Which runs of handlers they are of."""
    news: list[tuple[str, int]] = attrs.field(factory=list)
    """Of progress, in the order of their coming: of which run, and which step."""
    surprise: str = ""
    """An exception that no call may end with."""

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return any(ending.error for ending in self.call.endings)


def client_config(topology: Topology) -> ClientConfig:
    """Settings that notice things as fast as the scenario wants."""
    heartbeat_s = topology.heartbeat_s
    return ClientConfig(
        retry=RetryPolicy(attempts=None, attempt_timeout_s=topology.attempt_timeout_s),
        hello_timeout_s=max(0.5, 2 * heartbeat_s),
        reconnect=Backoff(initial_s=0.1, delay_s_max=0.5),
        breaker=BreakerPolicy(pause=Backoff(initial_s=0.2, delay_s_max=1.0)),
        freelance=Freelance(ping_interval_s=heartbeat_s, ping_timeout_s=3 * heartbeat_s),
        transport=TransportConfig(heartbeat_interval_s=heartbeat_s, heartbeat_timeout_s=3 * heartbeat_s),
    )


class Load:
    """All clients of a run.

    Args:
        topology: Which clients.
        addresses: Where they find their brokers, or servers.
        seed: Fixes what they call.
        guest: Whose worker it is, if not ours.
    """

    def __init__(self, topology: Topology, addresses: Sequence[str], seed: int, guest: Guest | None = None) -> None:
        self.guest = guest
        self.phase = BEFORE
        self.factor = 1.0
        """How many times more often than planned to call."""
        self.slow_every = 0
        self.slow_s = 0.0
        """Which replies workers hold back, and for how long; see ``Wish``."""
        self.lag = Lag()
        self.calls: list[Made] = []
        self._stopping = threading.Event()
        self._specials: queue.SimpleQueue[Special] = queue.SimpleQueue()
        self._sessions = [
            (_AsyncSession if clients.shell == "asyncio" else _SyncSession)(
                self, f"client {number}", clients, topology, list(addresses), f"{seed} client {number}"
            )
            for number, clients in enumerate(
                (clients for clients in topology.clients for _ in range(clients.count)), start=1
            )
        ]

    @property
    def made(self) -> int:
        """Calls made so far."""
        return len(self.calls)

    @property
    def names(self) -> list[str]:
        """Of the clients."""
        return [session.name for session in self._sessions]

    def start(self) -> None:
        """Begin to call."""
        self.lag.start()
        for session in self._sessions:
            session.thread.start()

    def special(self, kind: str, count: int, hold_s: float = 0.0) -> None:
        """Have calls made out of turn, at once."""
        for _ in range(count):
            self._specials.put((kind, hold_s))

    def take_special(self) -> Special | None:
        """The next of them, for whichever client comes first."""
        try:
            return self._specials.get_nowait()
        except queue.Empty:
            return None

    @property
    def stopping(self) -> bool:
        """Whether no further call is to be made."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Make no further calls; the open ones go on."""
        self._stopping.set()

    @property
    def over(self) -> bool:
        """Whether all clients are done, after ``stop``."""
        return not any(session.thread.is_alive() for session in self._sessions)

    def close(self) -> None:
        """Give up whatever is open, and the clients; calling it again does nothing."""
        self._stopping.set()
        for session in self._sessions:
            session.give_up()
        for session in self._sessions:
            if session.thread.is_alive():
                session.thread.join(_JOIN_S)
        self.lag.stop()


class _Session(ABC):
    """One client and its plan."""

    def __init__(
        self, load: Load, name: str, clients: Clients, topology: Topology, addresses: list[str], seed: str
    ) -> None:
        self.name = name
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self._load = load
        self._clients = clients
        self._config = client_config(topology)
        self._addresses = addresses
        self._plan: Iterator[PlannedCall] = calls_of(clients, seed)
        self._numbers = itertools.count(1)
        self._padding = b"." * clients.body_bytes

    @abstractmethod
    def run(self) -> None:
        """Make the calls, in a thread of its own."""

    @abstractmethod
    def give_up(self) -> None:
        """End whatever is open, from another thread."""

    def _next(self) -> tuple[float, str]:
        """Seconds until the next planned call, and its kind."""
        planned = next(self._plan)
        return planned.after_s / self._load.factor, planned.kind

    def _guest_call(self, guest: Guest, made: Made) -> tuple[str, tuple[object, ...]]:
        """Which service of a worker that is not ours, and with which arguments: one after the other."""
        service, arguments = guest.calls[int(made.call.key.rpartition(b".")[2]) % len(guest.calls)]
        made.call.service, made.call.idempotent = service, None
        return service, arguments

    def _begin(self, kind: str, hold_s: float) -> tuple[Made, Wish]:
        timeout_s = self._clients.timeout_s
        wish = Wish(work_s=self._clients.work_s)
        if kind in (Kind.SAFE, *_HEDGED):
            wish = attrs.evolve(wish, slow_every=self._load.slow_every, slow_s=self._load.slow_s)
        if kind == Kind.POISON:
            timeout_s, wish = _POISON_TIMEOUT_S, Wish(die=True)
        if kind == Kind.HOLD:
            timeout_s, wish = hold_s + _HOLD_SPARE_S, Wish(hold_gil_s=hold_s)
        if self._load.phase == HEALED:
            # The question is whether it works; how soon is asked of the recovery.
            timeout_s = max(timeout_s, _HEALED_TIMEOUT_S)
        now = time.monotonic()
        call = Call(
            key=f"{self.name.replace(' ', '-')}.{next(self._numbers)}".encode(),
            client=self.name,
            service=_SERVICE.get(kind, SAFE),
            idempotent=_SAID.get(kind),
            invoked_s=now,
            deadline_s=now + timeout_s,
            phase="special" if kind in (Kind.POISON, Kind.HOLD) else self._load.phase,
            one_way=kind == Kind.ONE_WAY,
            hedged=kind == Kind.HEDGED,
        )
        if self._clients.dialect != "mdp" and call.idempotent is None:
            # Without a broker nobody declares anything.
            call.idempotent = call.service == SAFE
        made = Made(call, kind if self._load.guest is None else Kind.GUEST)
        if made.kind in _STREAMS:
            made.parts_wanted = self._clients.parts
        self._load.calls.append(made)
        return made, wish

    def _ok(self, made: Made, reply: tuple[bytes, ...]) -> None:
        if made.kind == Kind.ONE_WAY:
            made.call.endings.append(Ending(time.monotonic(), End.ACCEPTED, Outcome.UNKNOWN))
        else:
            made.call.endings.append(Ending(time.monotonic(), End.OK, Outcome.EXECUTED, reply=reply))

    def _failed(self, made: Made, error: Exception) -> None:
        now, name = time.monotonic(), type(error).__name__
        outcome = error.outcome if isinstance(error, RequestError) else Outcome.UNKNOWN
        end = End.UNKNOWN if outcome is Outcome.UNKNOWN else End.FAILED
        made.call.endings.append(Ending(now, end, outcome, error=name))
        if isinstance(error, RequestError):
            made.attempts = error.attempts
        if not isinstance(error, ReliableError):
            made.surprise = f"{name}: {error}"

    def _body(self, made: Made, wish: Wish) -> tuple[bytes, bytes, bytes]:
        return made.call.key, msgspec.json.encode(wish), self._padding

    def _options(self, made: Made, timeout_s: float) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": timeout_s, "idempotent": made.call.idempotent}
        if made.kind in _HEDGED:
            options["hedge"] = HedgePolicy(delay_s=self._clients.hedge_s, budget=_HEDGES)
        return options

    def _news(self, made: Made, frames: Frames) -> None:
        match frames:
            case [key, run, number] if key == made.call.key:
                made.news.append((run.decode(), int(number)))
            case _:
                made.surprise = f"somebody else's progress: {frames!r}"

    def _part(self, made: Made, part: object) -> None:
        match part:
            case [key, int(number), str(run)] if str(key).encode() == made.call.key:
                made.parts.append(number)
                made.part_runs.add(run)
            case _:
                made.surprise = f"a part of somebody else's reply: {part!r}"


class _AsyncSession(_Session):
    """A client of the asyncio shell; every call is a task."""

    _loop: asyncio.AbstractEventLoop | None = None
    _main: asyncio.Task[None] | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            # Given up from outside: Ctrl-C.
            return

    def give_up(self) -> None:
        if self._loop is not None and self._main is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._main.cancel)

    async def _run(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        client = AsyncClient(*self._addresses, config=self._config, dialect=self._clients.dialect)
        watching = asyncio.create_task(self._watch_loop())
        try:
            async with asyncio.TaskGroup() as group:
                await self._make_calls(client, group)
        finally:
            watching.cancel()
            await client.close()

    async def _make_calls(self, client: AsyncClient, group: asyncio.TaskGroup) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due, kind = time.monotonic(), ""
        while not self._load.stopping:
            after_s, kind = self._next()
            due = max(due + after_s, time.monotonic() - 1.0)
            await asyncio.sleep(min(max(0.0, due - time.monotonic()), _PAUSE_S_MAX))
            special = self._load.take_special()
            if len(tasks) >= _OPEN_MAX and special is None:
                continue
            task = group.create_task(self._call(client, *(special or (kind, 0.0))))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _call(self, client: AsyncClient, kind: str, hold_s: float) -> None:
        made, wish = self._begin(kind, hold_s)
        call = made.call
        assert call.deadline_s is not None
        timeout_s = call.deadline_s - time.monotonic()
        try:
            async with asyncio.timeout(timeout_s + _NEVER_S):
                reply = await self._reply(client, made, wish, timeout_s)
            self._ok(made, tuple(reply))
        except ReliableError as error:
            # Before TimeoutError: a RequestTimeout is one, and a proper end of a call.
            self._failed(made, error)
        except TimeoutError:
            # It never ended, and so it has no ending.
            return
        except Exception as error:
            self._failed(made, error)

    async def _reply(self, client: AsyncClient, made: Made, wish: Wish, timeout_s: float) -> Sequence[bytes]:
        call, view = made.call, client.options(timeout=timeout_s, idempotent=made.call.idempotent)
        match made.kind:
            case Kind.GUEST:
                assert self._load.guest is not None
                service, arguments = self._guest_call(self._load.guest, made)
                await client.options(timeout=timeout_s).call(service, *arguments)
            case Kind.STREAM | Kind.STREAM_AGAIN:
                arguments = (call.key.decode(), made.parts_wanted, self._clients.work_s)
                async for part in view.stream(call.service, *arguments):
                    self._part(made, part)
            case Kind.PROGRESS:
                view = view.options(on_progress=functools.partial(self._news, made))
                await view.call(call.service, call.key.decode(), self._clients.parts, self._clients.work_s)
            case Kind.ONE_WAY:
                await view.send(call.service, call.key.decode(), self._clients.work_s)
            case Kind.NEWCOMER:
                async with AsyncClient(*self._addresses, config=self._config, dialect=self._clients.dialect) as other:
                    return await other.request(call.service, *self._body(made, wish), **self._options(made, timeout_s))
            case _:
                return await client.request(call.service, *self._body(made, wish), **self._options(made, timeout_s))
        return (call.key,)

    async def _watch_loop(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOP_STEP_S)
            now = time.monotonic()
            self._load.lag.note(now, now - before - _LOOP_STEP_S)


class _SyncSession(_Session):
    """A client of the blocking shell, shared by threads that make one call at a time."""

    def __init__(
        self, load: Load, name: str, clients: Clients, topology: Topology, addresses: list[str], seed: str
    ) -> None:
        super().__init__(load, name, clients, topology, addresses, seed)
        self._client = Client(*addresses, config=self._config, dialect=clients.dialect)
        self._due: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()

    def run(self) -> None:
        lanes = [threading.Thread(target=self._lane, name=f"{self.name} lane", daemon=True) for _ in range(_LANES)]
        for lane in lanes:
            lane.start()
        due = time.monotonic()
        while not self._load.stopping:
            after_s, kind = self._next()
            due = max(due + after_s, time.monotonic() - 1.0)
            time.sleep(min(max(0.0, due - time.monotonic()), _PAUSE_S_MAX))
            special = self._load.take_special()
            if self._due.qsize() < _LANES:
                self._due.put(special or (kind, 0.0))
        for _ in lanes:
            self._due.put(None)
        for lane in lanes:
            lane.join(self._clients.timeout_s + _NEVER_S)
        self._client.close()

    def give_up(self) -> None:
        self._client.close()

    def _lane(self) -> None:
        while (job := self._due.get()) is not None:
            if self._load.stopping:
                continue
            made, wish = self._begin(*job)
            try:
                self._ok(made, self._reply(made, wish))
            except Exception as error:
                self._failed(made, error)

    def _reply(self, made: Made, wish: Wish) -> tuple[bytes, ...]:
        call = made.call
        assert call.deadline_s is not None
        timeout_s = call.deadline_s - time.monotonic()
        if self._load.guest is not None:
            service, arguments = self._guest_call(self._load.guest, made)
            self._client.options(timeout=timeout_s).call(service, *arguments)
            return (call.key,)
        view = self._client.options(timeout=timeout_s, idempotent=call.idempotent)
        if made.kind in _STREAMS:
            for part in view.stream(call.service, call.key.decode(), made.parts_wanted, self._clients.work_s):
                self._part(made, part)
            return (call.key,)
        if made.kind == Kind.PROGRESS:
            view = view.options(on_progress=functools.partial(self._news, made))
            view.call(call.service, call.key.decode(), self._clients.parts, self._clients.work_s)
            return (call.key,)
        if made.kind == Kind.ONE_WAY:
            view.send(call.service, call.key.decode(), self._clients.work_s)
            return (call.key,)
        return tuple(self._client.request(call.service, *self._body(made, wish), **self._options(made, timeout_s)))
