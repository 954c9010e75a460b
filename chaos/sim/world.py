"""A world: brokers, workers and clients on one virtual clock and one network, all of it from one seed.

world = World(seed=7)
world.broker("b1")
world.worker("w1", echo(0.1))
client = world.client("c1")
call = client.submit(b"k1", "echo", timeout_s=5.0)
world.run(5.0)
assert world.problems() == []
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from brokers.config import BrokerConfig
from brokers.majordomo import MajordomoEngine
from brokers.snapshot import BrokerSnapshot
from chaos.checkers import check
from chaos.history import Call, History
from chaos.sim.actors import BrokerActor, ClientActor, Handler, Job, Run, WorkerActor
from chaos.sim.clock import Agenda, VirtualClock
from chaos.sim.faults import Clog, Cut, Fault, Freeze, Kill, Leave, Part, Stall, Stop
from chaos.sim.network import Network, NetworkModel, Ways
from chaos.sim.process import Surroundings
from chaos.sim.strangers import PlainClientActor, PlainWorkerActor
from chaos.sim.trace import Trace
from reliable.config import ClientConfig, WorkerConfig
from reliable.wire.extension import ServiceOffer

__all__ = ["World", "address_of", "takes"]

_DRAIN_S: Final = 2.0


def takes(duration_s: float | None) -> Handler:
    """A handler that runs so long (None: for ever) and gives the reply that belongs to the call."""

    def handler(_job: Job) -> Run:
        return Run(duration_s)

    return handler


class World:
    """Everything that one seed makes happen.

    Attributes:
        clock: The virtual clock.
        started_s: Its reading at the beginning.
        agenda: What is going to happen.
        network: All connections.
        history: What was called and run.
        trace: What happened, with its hash.
        rng: For the scenario's own draws.
    """

    def __init__(
        self,
        seed: int,
        *,
        model: NetworkModel | None = None,
        keep_trace: bool = True,
        verbose: bool = False,
        drift: float = 0.0,
    ) -> None:
        """Start at one moment with nobody in it.

        Args:
            seed: Decides everything that is drawn.
            model: Delays and timeouts of the network.
            keep_trace: False keeps only the hash of the trace.
            verbose: Also keep every message in words.
            drift: How far off a process's clock may go, as a share of the time: 0.001 is a millisecond per second.
        """
        self.clock = VirtualClock()
        self.started_s = self.clock()
        self.agenda = Agenda(self.clock)
        self.trace = Trace(self.clock, keep=keep_trace, verbose=verbose)
        self.history = History()
        self.rng = random.Random(f"{seed} scenario")
        self.network = Network(self.agenda, random.Random(f"{seed} network"), self.trace, model)
        ids = random.Random(f"{seed} ids")
        jitter = random.Random(f"{seed} jitter")
        self._around = Surroundings(
            self.agenda, self.network, self.trace, self.history, ids.randbytes, jitter.random, self._rate_of
        )
        self._seed = seed
        self._drift = drift
        self._brokers: dict[str, BrokerActor] = {}
        self._workers: dict[str, WorkerActor | PlainWorkerActor] = {}
        self._clients: dict[str, ClientActor] = {}

    def _rate_of(self, name: str) -> float:
        return 1.0 + random.Random(f"{self._seed} clock of {name}").uniform(-self._drift, self._drift)

    # --- who is in it ---------------------------------------------------------------------------------

    def broker(self, name: str, config: BrokerConfig | None = None) -> BrokerActor:
        """Start a broker."""
        actor = BrokerActor(self._around, name, address_of(name), config or BrokerConfig())
        self._brokers[name] = actor
        actor.start()
        return actor

    def worker(
        self,
        name: str,
        handler: Handler,
        *,
        services: Sequence[ServiceOffer] = (ServiceOffer(b"echo"),),
        brokers: Sequence[str] | None = None,
        config: WorkerConfig | None = None,
    ) -> WorkerActor:
        """Start a worker, registered with all brokers unless some are named."""
        for offer in services:
            if offer.idempotent is not None:
                group = self.history.declared if offer.idempotent else self.history.vetoed
                group.add(offer.name.decode())
        addresses = [address_of(broker) for broker in (self._brokers if brokers is None else brokers)]
        actor = WorkerActor(self._around, name, addresses, services, handler, config or WorkerConfig())
        self._workers[name] = actor
        actor.start()
        return actor

    def client(
        self, name: str, *, brokers: Sequence[str] | None = None, config: ClientConfig | None = None
    ) -> ClientActor:
        """Start a client of all brokers, in order, unless some are named."""
        addresses = [address_of(broker) for broker in (self._brokers if brokers is None else brokers)]
        actor = ClientActor(self._around, name, addresses, config or ClientConfig())
        self._clients[name] = actor
        return actor

    def plain_worker(self, name: str, handler: Handler, service: str, broker: str) -> PlainWorkerActor:
        """Start a worker that is not ours: MDP 0.1, one service, one request at a time."""
        actor = PlainWorkerActor(self._around, name, address_of(broker), service.encode(), handler)
        self._workers[name] = actor
        actor.start()
        return actor

    def plain_client(self, name: str, broker: str) -> PlainClientActor:
        """Start a client that is not ours: MDP 0.1, one request at a time, each sent once."""
        return PlainClientActor(self._around, name, address_of(broker))

    # --- what happens to it ---------------------------------------------------------------------------

    def at(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do something ``delay_s`` seconds from now."""
        self.agenda.after(delay_s, action)

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.agenda.run_until(self.clock() + seconds)

    def run_until(self, condition: Callable[[], bool], *, within_s: float, step_s: float = 0.01) -> bool:
        """Let time pass until ``condition`` holds, ``within_s`` at most; returns whether it does."""
        end = self.clock() + within_s
        while not condition() and self.clock() < end:
            self.agenda.run_until(min(self.clock() + step_s, end))
        return condition()

    def ended(self, call: Call, *, within_s: float = 60.0) -> bool:
        """Let time pass until a call has ended; returns whether it did."""
        return self.run_until(lambda: bool(call.endings), within_s=within_s)

    def kill(self, name: str) -> None:
        """SIGKILL a process."""
        self._process(name).kill()

    def start(self, name: str) -> None:
        """Start a process again; nothing if it runs."""
        self._process(name).start()

    def freeze(self, name: str) -> None:
        """SIGSTOP a process."""
        self._process(name).freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT a process."""
        self._process(name).thaw()

    def stall(self, name: str) -> None:
        """Let the loop of a process stand still while its connections live."""
        self._process(name).stall()

    def unstall(self, name: str) -> None:
        """Let the loop of a process go on."""
        self._process(name).unstall()

    def schedule(self, faults: Iterable[Fault]) -> None:
        """Let faults happen, counted from now."""
        for fault in faults:
            self.agenda.after(fault.at_s, functools.partial(self._apply, fault))

    def cut(self, peer: str, broker: str, *, silent: bool = False, ways: Ways = Ways.BOTH) -> int:
        """Break the connections between a process and a broker."""
        return self.network.cut(peer, address_of(broker), silent=silent, ways=ways)

    def broker_engine(self, broker: str) -> MajordomoEngine:
        """The engine of a broker's present or last life."""
        engine = self._brokers[broker].engine
        if engine is None:
            raise KeyError(f"{broker} never ran")
        return engine

    def broker_actor(self, name: str) -> BrokerActor:
        """The process of a broker."""
        return self._brokers[name]

    def engines(self) -> dict[str, object]:
        """The engines of all processes that run and have one, by the names of the processes."""
        actors = (*self._brokers.values(), *self._workers.values(), *self._clients.values())
        engines = {actor.name: getattr(actor, "engine", None) for actor in actors if actor.alive}
        return {name: engine for name, engine in engines.items() if engine is not None}

    def snapshot(self, broker: str) -> BrokerSnapshot | None:
        """How a broker sees itself; None if it does not run."""
        actor = self._brokers[broker]
        return actor.engine.snapshot() if actor.alive and actor.engine is not None else None

    def problems(self) -> list[str]:
        """What the checkers find in the history so far."""
        return check(self.history)

    def _apply(self, fault: Fault) -> None:
        self.trace(f"fault {fault}")
        match fault:
            case Kill(target=target, down_s=down_s):
                self.kill(target)
                self.agenda.after(down_s, self._process(target).start)
            case Stop(target=target, down_s=down_s):
                self._stop(target)
                self.agenda.after(down_s + _DRAIN_S, lambda: self._start_once_gone(target))
            case Leave(target=target, drain_s=drain_s, down_s=down_s):
                self._brokers[target].drain(drain_s)
                self.agenda.after(drain_s + down_s, lambda: self._start_once_gone(target))
            case Freeze(target=target, for_s=for_s):
                self.freeze(target)
                self.agenda.after(for_s, self._process(target).thaw)
            case Stall(target=target, for_s=for_s):
                self.stall(target)
                self.agenda.after(for_s, self._process(target).unstall)
            case Cut(peer=peer, broker=broker, silent=silent, ways=ways):
                self.cut(peer, broker, silent=silent, ways=Ways(ways))
            case Part(peer=peer, broker=broker, for_s=for_s):
                self.network.part(peer, address_of(broker))
                self.agenda.after(for_s, lambda: self.network.heal(peer, address_of(broker)))
            case Clog(peer=peer, broker=broker, for_s=for_s):
                self.network.clog(peer, address_of(broker), self.clock() + for_s)

    def _start_once_gone(self, target: str) -> None:
        """A process that stood still during its drain ends later."""
        process = self._process(target)
        if process.alive and process.leaving:
            self.agenda.after(_DRAIN_S, lambda: self._start_once_gone(target))
        else:
            process.start()

    def _process(self, name: str) -> BrokerActor | WorkerActor | PlainWorkerActor | ClientActor:
        if name in self._clients:
            return self._clients[name]
        return self._brokers[name] if name in self._brokers else self._workers[name]

    def _stop(self, name: str) -> None:
        process = self._process(name)
        if isinstance(process, BrokerActor | ClientActor):
            process.stop()
        else:
            process.drain(_DRAIN_S)


def address_of(broker: str) -> str:
    """The address that a broker binds in every world."""
    return f"tcp://{broker}:5555"
