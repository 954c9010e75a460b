"""A simulated world with a user's own handlers: one seed, virtual time, and any number of faults.

The engines are those of production; time, network and processes are not real, so that an hour passes in a second and a
seed shows the same again. A handler is a plain function: it runs in one moment, its effects at once, and then the world
lets its duration pass before the reply leaves. If its worker dies meanwhile, the effects remain and the reply is lost,
which is the case that tests of services are about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from brokers.config import BrokerConfig
from chaos.checkers import (
    DEADLINE_SLACK_S,
    at_most_once,
    executed_implies_executed,
    not_executed_is_true,
    one_call_per_slot,
    own_reply,
    same_claim,
    times_out_in_time,
)
from chaos.history import Call, End
from chaos.sim.actors import Job, Run
from chaos.sim.faults import Fault, end_of, random_schedule
from chaos.sim.network import NetworkModel
from chaos.sim.world import World, address_of
from reliable.aio.worker import AsyncWorker
from reliable.config import ClientConfig, WorkerConfig
from reliable.handling import Handler
from reliable.payload import MSGPACK
from reliable.protocol.events import JobError
from reliable.request import Request
from reliable.running import run_function
from reliable.sync.worker import Worker
from reliable.testing.serving import Offered, as_worker
from reliable.testing.simulation_client import CallOptions, KeepingClient, SimulatedClient
from reliable.types import Frames

__all__ = ["Duration", "Simulation", "SimulationFailed"]

Duration: TypeAlias = float | tuple[float, float] | None
"""Virtual seconds that a handler takes, or bounds between which the seed draws them; None: it never returns."""
T = TypeVar("T")

_TRACE_LINES_SHOWN: Final = 25
_SETTLE_S: Final = 15.0
"""More than any backoff, heartbeat timeout or delivery timeout of the default settings."""
_TAKES_S: Final = (0.001, 0.05)
# What users are promised. The others judge how brokers and workers treat each other, which is no fault of a service.
_PROMISES: Final = (
    times_out_in_time,
    at_most_once,
    not_executed_is_true,
    executed_implies_executed,
    own_reply,
    same_claim,
    one_call_per_slot,
)


class SimulationFailed(AssertionError):
    """A promise was broken.

    Attributes:
        seed: Shows the same again.
        problems: One line for each.
    """

    def __init__(self, seed: int, problems: list[str], trace: list[str]) -> None:
        shown = trace[-_TRACE_LINES_SHOWN:]
        lines = [f"the simulation of seed {seed} broke {len(problems)} promises:"]
        lines += [f"  - {problem}" for problem in problems]
        lines += [f"the last {len(shown)} of {len(trace)} things that happened:", *(f"  {line}" for line in shown)]
        super().__init__("\n".join(lines))
        self.seed = seed
        self.problems = tuple(problems)


class Simulation:
    """One world; it begins with its brokers and nobody else.

    Args:
        seed: Decides everything that is drawn.
        brokers: How many; their names are ``b1``, ``b2``, …
        broker_config: Settings of all of them.
        network: Delays and timeouts of the network.
    """

    def __init__(
        self,
        seed: int,
        *,
        brokers: int = 1,
        broker_config: BrokerConfig | None = None,
        network: NetworkModel | None = None,
    ) -> None:
        self.seed = seed
        self.world = World(seed, model=network)
        """What this is built on, with all that it can do."""
        self.checked = False
        """Whether somebody has looked for broken promises since time last passed."""
        self.brokers = [f"b{number}" for number in range(1, brokers + 1)]
        self.workers: list[str] = []
        self.clients: list[str] = []
        self._arguments: dict[bytes, Frames] = {}
        self._not_entered: set[bytes] = set()
        self._healed: set[bytes] | None = None
        self._faults_end_s = 0.0
        self._passing = False
        for name in self.brokers:
            self.world.broker(name, broker_config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of seed {self.seed} at {self.now_s:.3f} s>"

    # --- who is in it ---------------------------------------------------------------------------------

    def worker(
        self,
        name: str,
        offered: Offered,
        *more: Callable[..., Any],
        takes: Duration | Mapping[str, Duration] = _TAKES_S,
        idempotent: bool | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Start a worker, registered with all brokers.

        Args:
            name: For faults.
            offered: A worker of yours, a function, or functions by the names of their services. Plain functions only.
            more: Further functions.
            takes: How long handlers run, in virtual seconds; also by service.
            idempotent: Of all the functions: whether they may run more than once. None leaves it to the caller.
            concurrency: For functions: handlers at once; None is 4.

        Raises:
            TypeError: A coroutine function or generator, or as ``as_worker``.
        """
        config = WorkerConfig()
        worker = as_worker(offered, *more, idempotent=idempotent, concurrency=concurrency, config=config)
        setup = worker._setup
        for handler in setup.services.all():
            _refuse_unless_plain(handler)
        self.workers.append(name)
        self.world.worker(name, self._handler(worker, takes), services=setup.services.offers(), config=setup.config)

    def client(self, name: str = "client", *, config: ClientConfig | None = None) -> SimulatedClient:
        """Start a client of all brokers; a name is for faults."""
        addresses = [address_of(broker) for broker in self.brokers]
        actor = KeepingClient(self.world._around, name, addresses, config or ClientConfig())
        self.clients.append(name)
        # So that faults find it by its name.
        self.world._clients[name] = actor
        return SimulatedClient(self, actor)

    # --- time -----------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning."""
        return self.world.clock() - self.world.started_s

    def run(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            RuntimeError: It is passing: this was called by a handler, or by a function given to ``at``.
        """
        self._let_pass(lambda: self.world.run(seconds))

    def run_until(self, condition: Callable[[], bool], *, within_s: float = 60.0) -> bool:
        """Let time pass until a condition holds, ``within_s`` at most; whether it does."""
        return self._let_pass(lambda: self.world.run_until(condition, within_s=within_s))

    def at(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do something ``delay_s`` seconds from now: ``submit`` a call, ``kill`` somebody."""
        self.world.at(delay_s, action)

    # --- what happens to it ---------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL a broker, worker or client; nobody can be told what became of a killed client's calls."""
        self.world.kill(name)

    def start(self, name: str) -> None:
        """Start whom a fault has ended; nothing if it runs."""
        self.world.start(name)

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self.world.freeze(name)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.world.thaw(name)

    def cut(self, peer: str, broker: str = "b1", *, silent: bool = False) -> None:
        """Break the connections of a client or worker with a broker; what is under way may be lost."""
        self.world.cut(peer, broker, silent=silent)

    def faults(self, *faults: Fault) -> None:
        """Let faults of ``chaos.sim.faults`` happen, their times counted from now."""
        self.world.schedule(faults)
        self._faults_end_s = max([self._faults_end_s, *(self.now_s + end_of(fault) for fault in faults)])

    def random_faults(self, count: int = 5, *, within_s: float = 5.0) -> list[Fault]:
        """Let the seed draw faults that begin within a time, hit anybody who is there by now, and end by themselves.

        Returns:
            What was drawn.
        """
        drawn = random_schedule(
            self.world.rng,
            brokers=self.brokers,
            processes=[*self.brokers, *self.workers, *self.workers],
            peers=[*self.workers, *self.clients],
            count=count,
            over_s=within_s,
        )
        self.faults(*drawn)
        return drawn

    def heal(self) -> None:
        """Let every fault end, start whoever is down, and wait until all have found each other again.

        From here on each call must be answered; ``check`` demands it.
        """
        self.run(max(0.0, self._faults_end_s - self.now_s))
        for name in (*self.brokers, *self.workers, *self.clients):
            self.world.thaw(name)
            self.world.unstall(name)
            self.world.start(name)
        self.run(_SETTLE_S)
        self._healed = set()

    # --- the verdict ----------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Let time pass until every call has ended or should have, and look for broken promises; one line for each.

        Each call ends exactly once, by its deadline, with its own reply or an error that says the truth about its
        execution; what is not idempotent runs at most once; no worker runs more at once than it has slots; after
        ``heal`` every call is answered.
        """
        history = self.world.history
        open_until = [call.deadline_s or 0.0 for call in history.calls.values() if not call.endings]
        if open_until:
            self.until(lambda: all(call.endings or call.abandoned for call in history.calls.values()), max(open_until))
        self.checked = True
        entered = [run for run in history.executions if run.key not in self._not_entered]
        judged = attrs.evolve(history, executions=entered)
        broken = [f"{promise.__name__}: {line}" for promise in _PROMISES for line in promise(judged)]
        return broken + self._unanswered()

    def check(self) -> None:
        """Fail if ``problems`` finds any.

        Raises:
            SimulationFailed: With the seed, the problems, and the last that happened.
        """
        problems = self.problems()
        if problems:
            raise SimulationFailed(self.seed, problems, self.world.trace.lines)

    def runs(self, service: str) -> int:
        """How often handlers of a service were entered so far, for all calls together."""
        calls = self.world.history.calls
        return sum(
            1
            for run in self.world.history.executions
            if run.key not in self._not_entered and calls[run.key].service == service
        )

    # --- for its clients ------------------------------------------------------------------------------

    def begin(self, actor: KeepingClient, service: str, body: Frames, options: CallOptions) -> Call:
        """Make a call; for ``SimulatedClient``."""
        key = b"call-%d" % (len(self._arguments) + 1)
        self._arguments[key] = body
        if self._healed is not None:
            self._healed.add(key)
        self.checked = False
        call = actor.submit(
            key,
            service,
            timeout_s=options.timeout,
            idempotent=options.idempotent,
            fail_fast=options.fail_fast,
        )
        call.abandoned = not actor.alive
        return call

    def until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Let time pass until a condition holds or a deadline is over; for ``SimulatedClient``."""
        if condition():
            return True
        return self.run_until(condition, within_s=max(0.0, deadline_s - self.world.clock()) + DEADLINE_SLACK_S)

    def runs_of(self, call: Call) -> int:
        """How often the handler was entered for a call; for ``SimulatedClient``."""
        return 0 if call.key in self._not_entered else len(self.world.history.runs_of(call.key))

    # --- inner ----------------------------------------------------------------------------------------

    def _let_pass(self, pass_time: Callable[[], T]) -> T:
        if self._passing:
            raise RuntimeError("time is passing already: in handlers and in at(), use submit() and look at it later")
        self._passing, self.checked = True, False
        try:
            return pass_time()
        finally:
            self._passing = False

    def _handler(self, worker: Worker | AsyncWorker, takes: Duration | Mapping[str, Duration]) -> Callable[[Job], Run]:
        setup = worker._setup

        def handle(job: Job) -> Run:
            start = attrs.evolve(job.start, body=self._arguments[job.key])
            request = Request(start, lambda _body: None, self.world.clock)
            result = run_function(setup.services.find(start.service), setup.codec, start, request)
            if isinstance(result, JobError):
                if not result.executed:
                    self._not_entered.add(job.key)
                return Run(self._duration(start.service.decode(), takes), result)
            return Run(self._duration(start.service.decode(), takes), [job.key, MSGPACK.encode(result)])

        return handle

    def _duration(self, service: str, takes: Duration | Mapping[str, Duration]) -> float | None:
        duration = takes.get(service, _TAKES_S) if isinstance(takes, Mapping) else takes
        return self.world.rng.uniform(*duration) if isinstance(duration, tuple) else duration

    def _unanswered(self) -> list[str]:
        """Calls made after healing that did not come back from a handler."""
        wrong = []
        for key in sorted(self._healed or ()):
            ending = self.world.history.calls[key].ending
            answered = ending is not None and (ending.end is End.OK or ending.error == "WorkerFailed")
            if not answered:
                how = "never ended" if ending is None else f"ended with {ending.error}"
                wrong.append(f"unanswered: {key.decode()}, made after everything was healed, {how}")
        return wrong


def _refuse_unless_plain(handler: Handler) -> None:
    function = handler.function
    if handler.executor == "task" or inspect.isgeneratorfunction(function):
        name = handler.offer.name.decode()
        raise TypeError(f"a simulation runs plain functions; the handler of {name!r} is a coroutine or generator")
