"""One world from one seed: who is in it, what they do, and what happens to them.

First comes a phase of faults, for safety: whatever happens, the checkers must find nothing. Then everything is healed,
and progress is demanded: each call must succeed, and every worker's slots must be free at every broker.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Final

import attrs

from brokers.config import BrokerConfig
from chaos.history import Call, End
from chaos.sim.actors import ClientActor, Job, Run
from chaos.sim.faults import Fault, end_of, random_schedule
from chaos.sim.network import NetworkModel
from chaos.sim.strangers import PlainClientActor
from chaos.sim.world import World
from reliable.config import BreakerPolicy, ClientConfig, HedgePolicy, Limits, RetryBudget, RetryPolicy, WorkerConfig
from reliable.protocol.events import JobError
from reliable.wire.extension import ServiceOffer

__all__ = ["SERVICES", "RandomWorld", "Report", "run_world"]

SERVICES: Final = (ServiceOffer(b"echo"), ServiceOffer(b"pure", True), ServiceOffer(b"pay", False))
"""One that leaves it to the caller, one that may be repeated, one that never may."""
_CALLS_OVER_S: Final = 8.0
_SETTLE_S: Final = 15.0
"""More than any backoff, heartbeat timeout, delivery timeout or running handler after the last fault."""
_HEALED_TIMEOUT_S: Final = 10.0


@attrs.frozen(kw_only=True)
class Report:
    """What came of one seed."""

    seed: int
    problems: tuple[str, ...]
    trace_hash: str
    trace: tuple[str, ...]
    simulated_s: float
    happenings: int
    calls: int
    ok: int
    unknown: int
    executions: int
    faults: tuple[Fault, ...]

    def replay_command(self) -> str:
        """The one line that shows the same again, in words."""
        return f"python -m chaos.sim {self.seed} --verbose"


class RandomWorld:
    """Draws a world, runs it, and judges it."""

    def __init__(self, seed: int, *, verbose: bool = False, faults: Sequence[Fault] | None = None) -> None:
        """Set the scene.

        Args:
            seed: Decides everything.
            verbose: Trace every message in words.
            faults: In place of the drawn ones: to cut a failing schedule down. Everything else stays as it was.
        """
        self.seed = seed
        self._rng = rng = random.Random(f"{seed} cast")
        self.world = World(seed, model=_network(rng), verbose=verbose)
        self._healed = False
        self.brokers = [f"b{number}" for number in range(1, rng.choice((1, 2, 2, 3)) + 1)]
        self.workers = [f"w{number}" for number in range(1, rng.randint(1, 3) + 1)]
        self.clients = [f"c{number}" for number in range(1, rng.randint(1, 3) + 1)]
        self._actors: list[ClientActor] = []
        self._registered: dict[str, list[str]] = {}
        """With which brokers each worker registers: the first one with all of them."""
        self._plain: PlainClientActor | None = None
        self._cast()
        self._strangers()
        drawn = random_schedule(
            random.Random(f"{seed} faults"),
            brokers=self.brokers,
            workers=self.workers,
            clients=self.clients,
            count=rng.choice((0, 2, 5, 10, 20)),
            over_s=_CALLS_OVER_S,
        )
        self.faults: tuple[Fault, ...] = tuple(drawn if faults is None else faults)

    def run(self) -> Report:
        """Run all of it."""
        world = self.world
        world.run(1.0)
        world.schedule(self.faults)
        for number in range(self._rng.randint(5, 30)):
            world.at(self._rng.uniform(0.0, _CALLS_OVER_S), self._call(b"k%03d" % number))
        if self._plain is not None:
            for number in range(3):
                service = self._rng.choice(SERVICES).name.decode()
                ask = functools.partial(self._plain.submit, b"q%d" % number, service, timeout_s=3.0)
                world.at(self._rng.uniform(0.0, _CALLS_OVER_S), ask)
        world.run(max([_CALLS_OVER_S, *[end_of(fault) for fault in self.faults]]))
        self._healed = True
        world.trace("everything is healed")
        world.run(_SETTLE_S)
        calls = self._healed_calls()
        world.run(_HEALED_TIMEOUT_S + 1.0)
        return self._report(calls)

    # --- the cast -------------------------------------------------------------------------------------

    def _cast(self) -> None:
        rng = self._rng
        # Not both: a broker that forgets after three calls is only fair to clients whose answers are not held up.
        small = rng.random() < 0.3 and self.world.network.model.messages_in_flight_max > 100
        broker = BrokerConfig(finished_calls_max=3, queued_per_service_max=4) if small else BrokerConfig()
        limits = Limits(replies_kept_max=3) if small else Limits()
        for name in self.brokers:
            self.world.broker(name, broker)
        for number, name in enumerate(self.workers):
            config = WorkerConfig(concurrency=rng.choice((1, 1, 2, 4)), limits=limits)
            brokers = self.brokers if number == 0 or rng.random() < 0.5 else [rng.choice(self.brokers)]
            self._registered[name] = brokers
            self.world.worker(name, self._handler, services=SERVICES, brokers=brokers, config=config)
        for name in self.clients:
            patience_s = max(rng.choice((0.5, 1.0, 2.5)), 5 * self.world.network.model.delay_s[1])
            budget = rng.choice((None, RetryBudget(), RetryBudget(ratio=0.2, tokens_max=3.0)))
            retry = RetryPolicy(attempts=rng.choice((2, 5, 5, None)), attempt_timeout_s=patience_s, budget=budget)
            order = rng.sample(self.brokers, len(self.brokers))
            client_config = ClientConfig(
                retry=retry,
                breaker=BreakerPolicy(failures=rng.choice((None, 2, 5))),
                return_after_s=rng.choice((None, 1.0, 30.0)),
            )
            self._actors.append(self.world.client(name, brokers=order, config=client_config))

    def _strangers(self) -> None:
        """In some worlds a worker and a client that are not ours take part."""
        rng = self._rng
        if rng.random() < 0.3:
            broker = rng.choice(self.brokers)
            self.workers.append("p1")
            self._registered["p1"] = [broker]
            self.world.plain_worker("p1", self._handler, "echo", broker)
        if rng.random() < 0.4:
            self.clients.append("q1")
            self._plain = self.world.plain_client("q1", rng.choice(self.brokers))

    def _handler(self, job: Job) -> Run:
        draw = self.world.rng.random()
        duration_s = 0.001 + 0.2 * self.world.rng.random()
        if self._healed:
            return Run(duration_s)
        if draw < 0.1:
            return Run(duration_s, JobError("ValueError", "drawn"))
        return Run(4.0 * self.world.rng.random() if draw < 0.3 else duration_s)

    # --- the calls ------------------------------------------------------------------------------------

    def _call(self, key: bytes) -> _Caller:
        rng = self._rng
        return _Caller(
            rng.choice(self._actors),
            key,
            rng.choice(SERVICES).name.decode(),
            rng.choice((0.3, 1.0, 3.0, 8.0)),
            rng.choice((None, True, False, False)),
            rng.random() < 0.15,
            rng.uniform(0.0, 1.0) if rng.random() < 0.1 else None,
            rng.choice((None, None, "one way", "hedged")),
        )

    def _healed_calls(self) -> list[Call]:
        calls = []
        for actor in self._actors:
            for offer in SERVICES:
                key = f"healed-{actor.name}-{offer.name.decode()}".encode()
                service = offer.name.decode()
                calls.append(actor.submit(key, service, timeout_s=_HEALED_TIMEOUT_S, phase="healed"))
        if self._plain is not None:
            calls.append(self._plain.submit(b"healed-q1", "echo", timeout_s=_HEALED_TIMEOUT_S, phase="healed"))
        return calls

    # --- the verdict ----------------------------------------------------------------------------------

    def _report(self, healed: Sequence[Call]) -> Report:
        world = self.world
        endings = [call.ending for call in world.history.calls.values() if call.ending is not None]
        return Report(
            seed=self.seed,
            problems=(*world.problems(), *self._stranded()),
            trace_hash=world.trace.hash(),
            trace=tuple(world.trace.lines),
            simulated_s=world.agenda.clock() - world.started_s,
            happenings=world.agenda.happened,
            calls=len(world.history.calls),
            ok=sum(1 for ending in endings if ending.end is End.OK),
            unknown=sum(1 for ending in endings if ending.end is End.UNKNOWN),
            executions=len(world.history.executions),
            faults=self.faults,
        )

    def _stranded(self) -> list[str]:
        """After healing every worker is registered with all its brokers and has nothing in hand."""
        wrong = []
        for name in self.brokers:
            snapshot = self.world.snapshot(name)
            if snapshot is None:
                wrong.append(f"stranded: {name} does not run")
                continue
            states = sorted(f"{worker.state} with {worker.in_hand} in hand" for worker in snapshot.workers)
            expected = sum(1 for brokers in self._registered.values() if name in brokers)
            if states != ["idle with 0 in hand"] * expected:
                wrong.append(f"stranded: {name} sees {states or 'no worker'}; {expected} idle ones are there")
        return wrong


@attrs.frozen
class _Caller:
    """A call that is going to be made, with everything about it drawn beforehand."""

    client: ClientActor
    key: bytes
    service: str
    timeout_s: float
    idempotent: bool | None
    fail_fast: bool
    cancel_after_s: float | None
    manner: str | None

    def __call__(self) -> None:
        self.client.submit(
            self.key,
            self.service,
            timeout_s=self.timeout_s,
            idempotent=self.idempotent,
            fail_fast=self.fail_fast,
            one_way=self.manner == "one way",
            hedge=HedgePolicy(delay_s=0.05) if self.manner == "hedged" and self.idempotent else None,
        )
        if self.cancel_after_s is not None:
            self.client.cancel_later(self.key, self.cancel_after_s)


def _network(rng: random.Random) -> NetworkModel:
    """From one room to the other side of the earth: the slower, the more is in flight when something breaks."""
    slowest_s = rng.choice((0.002, 0.02, 0.1, 0.4))
    full = rng.choice((3, 1000, 1000, 1000))
    return NetworkModel(delay_s=(slowest_s / 10, slowest_s), messages_in_flight_max=full)


def run_world(seed: int, *, verbose: bool = False, faults: Sequence[Fault] | None = None) -> Report:
    """Run the world of a seed; see ``RandomWorld``."""
    return RandomWorld(seed, verbose=verbose, faults=faults).run()
