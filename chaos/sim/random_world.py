"""One world from one seed: who is in it, what they do, and what happens to them.

First comes a phase of faults, for safety: whatever happens, the checkers must find nothing. Then everything is healed,
and progress is demanded: each call must succeed, every worker's slots must be free at every broker, and a second round
of calls must be answered without delay.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Final

import attrs

from chaos.history import Call, End
from chaos.sim.actors import ClientActor, Job, Run
from chaos.sim.faults import Fault, Kill, end_of, random_schedule
from chaos.sim.network import Loss, NetworkModel
from chaos.sim.probes import Probe, after_effects, beyond_budget, blamed, hoarded
from chaos.sim.strangers import PlainClientActor
from chaos.sim.themes import ANYTHING, SERVICES, Theme, Who
from chaos.sim.world import World
from reliable.config import BreakerPolicy, ClientConfig, HedgePolicy, Limits, RetryPolicy, WorkerConfig
from reliable.protocol.events import JobError

__all__ = ["RandomWorld", "Report", "run_world"]

_HEALED_TIMEOUT_S: Final = 10.0
_PROMPT_TIMEOUT_S: Final = 4.5
"""Of the second round, when all links stand; for what slow links take there is something on top."""
_PROMPT_CALLS: Final = 4
_PROMPT_EVERY_S: Final = 0.35


@attrs.frozen(kw_only=True)
class Report:
    """What came of one seed."""

    seed: int
    theme: str
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

    def in_one_line(self) -> str:
        """Its figures."""
        return (
            f"seed {self.seed}: {len(self.problems)} problems, {self.calls} calls ({self.ok} ok, "
            f"{self.unknown} unknown), {self.executions} executions, {self.simulated_s:.1f} s, {self.trace_hash}"
        )

    def replay_command(self) -> str:
        """The one line that shows the same again, in words."""
        theme = "" if self.theme == ANYTHING.name else f" --theme {self.theme!r}"
        return f"reliable chaos replay {self.seed}{theme} --verbose"


class RandomWorld:
    """Draws a world, runs it, and judges it."""

    def __init__(
        self,
        seed: int,
        *,
        verbose: bool = False,
        faults: Sequence[Fault] | None = None,
        theme: Theme = ANYTHING,
        keep_trace: bool = True,
    ) -> None:
        """Set the scene.

        Args:
            seed: Decides everything.
            verbose: Trace every message in words.
            faults: In place of the drawn ones: to cut a failing schedule down. Everything else stays as it was.
            theme: What is drawn from.
            keep_trace: False keeps only the hash of the trace: for many worlds, and for long ones.
        """
        self.seed = seed
        self.theme = theme
        self._rng = rng = random.Random(f"{seed} cast")
        model = self._network()
        self.world = World(seed, model=model, keep_trace=keep_trace, verbose=verbose, drift=rng.choice(theme.drift))
        self.world.network.loss = Loss.NONE if theme.lossless else Loss.DRAWN
        self.world.history.calm = theme.calm
        self.world.history.start_bound_s = theme.starts_beside_idle_s
        self.world.history.returns_first = theme.returns_first
        self._healed = False
        self.brokers = [f"b{number}" for number in range(1, rng.choice(theme.brokers) + 1)]
        self.workers = [f"w{number}" for number in range(1, rng.choice(theme.workers) + 1)]
        self.clients = [f"c{number}" for number in range(1, rng.choice(theme.clients) + 1)]
        self._actors: list[ClientActor] = []
        self._registered: dict[str, list[str]] = {}
        """With which brokers each worker registers: the first one with all of them."""
        self._plain: PlainClientActor | None = None
        small = rng.random() < theme.small_share and model.messages_in_flight_max > 100
        # Not both: a broker that forgets after three calls is only fair to clients whose answers are not held up.
        small_broker = attrs.evolve(theme.broker, finished_calls_max=3, queued_per_service_max=4)
        self._broker = small_broker if small else theme.broker
        self._limits = Limits(replies_kept_max=3) if small else theme.limits
        self._cast()
        ours = list(self.clients)
        self._strangers()
        drawn = self._schedule(ours)
        self.faults: tuple[Fault, ...] = tuple(drawn if faults is None else faults)
        self._probe = Probe(self.world, dict.fromkeys(self.brokers, self._broker))

    def run(self) -> Report:
        """Run all of it; an engine that raises, or breaks its contract with the shell, is a problem like others."""
        crash: tuple[str, ...] = ()
        try:
            self._run()
        except Exception as error:  # whatever it is: the seed that shows it must be reported, not lost
            text = " ".join(str(error).split())
            crash = (f"crash: at {self.world.clock():.3f} {type(error).__name__}: {text}",)
        return self._report(crash)

    def _run(self) -> None:
        world, theme = self.world, self.theme
        world.run(1.0)
        world.schedule(self.faults)
        for number in range(self._rng.randint(*theme.calls)):
            world.at(self._rng.uniform(0.0, theme.over_s), self._call(b"k%03d" % number))
        if self._plain is not None:
            for number in range(3):
                service = self._rng.choice(SERVICES).name.decode()
                ask = functools.partial(self._plain.submit, b"q%d" % number, service, timeout_s=3.0)
                world.at(self._rng.uniform(0.0, theme.over_s), ask)
        world.run(max([theme.over_s, *[end_of(fault) for fault in self.faults]]))
        self._healed = True
        if theme.runs.hung_share:
            world.schedule(Kill(0.0, name, 0.1) for name in self.workers)
        world.trace("everything is healed")
        world.run(theme.settle_s)
        self._healed_calls()
        world.run(_HEALED_TIMEOUT_S + 1.0)
        prompt_s = self._prompt_calls()
        world.run(prompt_s + 1.0)
        if theme.rests_s is not None:
            world.run(theme.rests_s)

    # --- the cast -------------------------------------------------------------------------------------

    def _network(self) -> NetworkModel:
        rng, theme = self._rng, self.theme
        slowest_s = rng.choice(theme.slowest_s)
        return NetworkModel(
            delay_s=(slowest_s / 10, slowest_s),
            notice_s=(0.0, 0.0) if theme.lossless else (0.0005, 0.05),
            messages_in_flight_max=rng.choice(theme.in_flight_max),
            monitored=rng.random() < 0.5,
        )

    def _schedule(self, mortal: Sequence[str]) -> list[Fault]:
        theme = self.theme
        hit = self.workers[theme.spared :]
        peers = [
            *(hit if theme.who is not Who.CLIENTS else ()),
            *(self.clients if theme.who is not Who.WORKERS else ()),
        ]
        return random_schedule(
            random.Random(f"{self.seed} faults"),
            brokers=self.brokers,
            processes={
                Who.ANYBODY: [*self.brokers, *hit, *hit, *mortal],
                Who.BROKERS: self.brokers,
                Who.WORKERS: hit,
                Who.CLIENTS: mortal,
            }[theme.who],
            peers=peers,
            count=self._rng.choice(theme.count),
            over_s=theme.over_s,
            last_s=theme.last_s,
            kinds=theme.kinds,
        )

    def _cast(self) -> None:
        rng, theme = self._rng, self.theme
        for name in self.brokers:
            self.world.broker(name, self._broker)
        for number, name in enumerate(self.workers):
            config = WorkerConfig(concurrency=rng.choice(theme.concurrency), limits=self._limits)
            everywhere = number == 0 or theme.everywhere or rng.random() < 0.5
            brokers = self.brokers if everywhere else [rng.choice(self.brokers)]
            self._registered[name] = brokers
            self.world.worker(name, self._handler, services=SERVICES, brokers=brokers, config=config)
        for name in self.clients:
            patience_s = max(rng.choice(theme.patience_s), 5 * self.world.network.model.delay_s[1])
            retry = RetryPolicy(
                attempts=rng.choice(theme.attempts), attempt_timeout_s=patience_s, budget=rng.choice(theme.budgets)
            )
            order = rng.sample(self.brokers, len(self.brokers))
            client_config = ClientConfig(
                retry=retry,
                breaker=BreakerPolicy(failures=rng.choice(theme.breakers)),
                return_after_s=rng.choice((None, 1.0, 30.0)),
            )
            self._actors.append(self.world.client(name, brokers=order, config=client_config))

    def _strangers(self) -> None:
        """In some worlds a worker and a client that are not ours take part."""
        rng = self._rng
        if rng.random() < 0.3 * self.theme.strangers:
            broker = rng.choice(self.brokers)
            self.workers.append("p1")
            self._registered["p1"] = [broker]
            self.world.plain_worker("p1", self._handler, "echo", broker)
        if rng.random() < 0.4 * self.theme.strangers:
            self.clients.append("q1")
            self._plain = self.world.plain_client("q1", rng.choice(self.brokers))

    def _handler(self, job: Job) -> Run:
        rng, runs = self.world.rng, self.theme.runs
        draw = rng.random()
        duration_s = rng.uniform(*runs.quick_s)
        if self._healed:
            return Run(0.001 + 0.2 * rng.random())
        if rng.random() < runs.refuse_share:
            return Run(0.0, JobError("ImportError", "drawn", executed=False), enters=False)
        obeys_after_s = rng.uniform(0.0, 0.1) if rng.random() < runs.obey_share else None
        if rng.random() < runs.hung_share:
            return Run(None, obeys_after_s=obeys_after_s)
        news = rng.randint(1, 3) if rng.random() < runs.news_share else 0
        if draw < runs.fail_share:
            return Run(duration_s, JobError("ValueError", "drawn"), news=news, obeys_after_s=obeys_after_s)
        if draw < runs.fail_share + runs.slow_share:
            duration_s = rng.uniform(*runs.slow_s)
        parts = rng.randint(1, 4) if rng.random() < runs.stream_share else 0
        return Run(duration_s, parts=parts, news=news, obeys_after_s=obeys_after_s)

    # --- the calls ------------------------------------------------------------------------------------

    def _call(self, key: bytes) -> _Caller:
        rng, theme = self._rng, self.theme
        return _Caller(
            rng.choice(self._actors),
            key,
            rng.choice(theme.services),
            rng.choice(theme.timeouts_s),
            rng.choice(theme.said),
            rng.random() < theme.fail_fast_share,
            rng.uniform(0.0, theme.cancel_within_s) if rng.random() < theme.cancel_share else None,
            rng.choice(theme.manners),
            "healed" if theme.sure else "",
        )

    def _healed_calls(self) -> None:
        for actor in self._actors:
            for offer in SERVICES:
                key = f"healed-{actor.name}-{offer.name.decode()}".encode()
                actor.submit(key, offer.name.decode(), timeout_s=_HEALED_TIMEOUT_S, phase="healed")
        if self._plain is not None:
            self._plain.submit(b"healed-q1", "echo", timeout_s=_HEALED_TIMEOUT_S, phase="healed")

    def _prompt_calls(self) -> float:
        """One after the other, so that not even the smallest queue is full; returns how long all of it may take."""
        slowest_s = self.world.network.model.delay_s[1]
        timeout_s = _PROMPT_TIMEOUT_S + 10 * slowest_s
        # A worker of one slot gets its next call only when its report has come and the request has gone.
        every_s = _PROMPT_EVERY_S + 2 * slowest_s
        delay_s = 0.0
        for actor in self._actors:
            for number in range(_PROMPT_CALLS):
                key = f"prompt-{actor.name}-{number}".encode()
                ask = functools.partial(actor.submit, key, "pure", timeout_s=timeout_s, phase="healed")
                self.world.at(delay_s, ask)
                delay_s += every_s
        return delay_s + timeout_s

    # --- the verdict ----------------------------------------------------------------------------------

    def _report(self, crash: tuple[str, ...]) -> Report:
        world = self.world
        endings = [call.ending for call in world.history.calls.values() if call.ending is not None]
        return Report(
            seed=self.seed,
            theme=self.theme.name,
            problems=(*crash, *world.problems(), *self._probe.problems, *self._stranded(), *self._afterwards()),
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

    def _afterwards(self) -> list[str]:
        brokers = dict.fromkeys(self.brokers, self._broker)
        wrong = after_effects(self.world, brokers, self._actors)
        if self.theme.blameless:
            wrong += blamed(self.world, brokers)
        if self.theme.calm:
            wrong += beyond_budget(self._actors)
        if self.theme.rests_s is not None:
            wrong += hoarded(self.world)
        return wrong

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
    timeout_s: float | None
    idempotent: bool | None
    fail_fast: bool
    cancel_after_s: float | None
    manner: str | None
    phase: str

    def __call__(self) -> Call | None:
        if not self.client.running:
            return None
        call = self.client.submit(
            self.key,
            self.service,
            timeout_s=self.timeout_s,
            idempotent=self.idempotent,
            fail_fast=self.fail_fast,
            phase=self.phase,
            one_way=self.manner == "one way",
            wants_progress=self.manner == "watched",
            hedge=HedgePolicy(delay_s=0.05) if self.manner == "hedged" and self.idempotent else None,
        )
        if self.cancel_after_s is not None:
            self.client.cancel_later(self.key, self.cancel_after_s)
        return call


def run_world(
    seed: int,
    *,
    verbose: bool = False,
    faults: Sequence[Fault] | None = None,
    theme: Theme = ANYTHING,
    keep_trace: bool = True,
) -> Report:
    """Run the world of a seed; see ``RandomWorld``."""
    return RandomWorld(seed, verbose=verbose, faults=faults, theme=theme, keep_trace=keep_trace).run()
