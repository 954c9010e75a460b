"""Everything that a scenario needs, set up and taken down: processes, proxies, addresses, a folder for records."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

import chaos
from chaos.injection import FaultUnproven, NotInjected
from chaos.netns import Drop, Network, host
from chaos.ports import free_port
from chaos.process import ChildProcess
from chaos.running.child_worker import WorkerOrder
from chaos.running.faults import CLIENTS, WORKERS, Storm
from chaos.running.members import Member, StateChange
from chaos.running.model import Guest, Scenario
from chaos.toxi.server import ToxiproxyServer

if TYPE_CHECKING:
    from chaos.toxi.proxy import ToxiProxy

__all__ = ["CONTROL", "QUEUE", "STORM", "Stage", "environment", "spawn_python", "worker_name"]

CONTROL: Final = "control"
"""The link of the control, and the name of its server."""
STORM: Final = "storm"
QUEUE: Final = "queue 1"
_LOCAL: Final = "127.0.0.1"
_READY: Final = "ready"
_BROKER_READY: Final = "listening on"


class Stage:
    """One run's system; a context manager that leaves nothing behind.

    Args:
        scenario: What to set up.
        seed: Chooses victims.
        folder: For the records of executions; it must exist.
    Raises:
        NotInjected: On entry, or on the way: this machine lacks what the faults need.
        StartFailed: A process did not come up.
    """

    def __init__(self, scenario: Scenario, seed: int, folder: Path) -> None:
        self.scenario = scenario
        self.chance = random.Random(f"{seed} victims")
        self.folder = folder
        self.members: dict[str, Member] = {}
        self.states: list[StateChange] = []
        self.proxies: dict[str, list[ToxiProxy]] = {}
        self.network: Network | None = None
        self.drops: dict[int, list[Drop]] = {}
        self.supervised = False
        """Start workers again that ended without our doing."""
        self.deaths = 0
        """Of supervised workers."""
        self._cleanup = contextlib.ExitStack()
        self._server_host = host(2) if scenario.needs_namespace else _LOCAL
        self._ports = [free_port(self._server_host) for _ in range(scenario.topology.brokers)]
        self._server_ports = [free_port(self._server_host) for _ in range(scenario.topology.servers)]
        self._queue_ports = [free_port(self._server_host) for _ in range(2 * scenario.topology.queue)]
        """In front, for clients, and behind, for workers."""
        self._control_port = free_port(self._server_host)
        self._mute_port = free_port()

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _set_up(self) -> None:
        topology = self.scenario.topology
        if self.scenario.needs_namespace:
            self.network = Network()
        if self.scenario.needs_toxiproxy:
            self._set_up_proxies()
        for number in range(1, topology.brokers + 1):
            self._add(f"broker {number}", functools.partial(self._spawn_broker, number), _BROKER_READY)
        if topology.queue:
            self._add(QUEUE, self._spawn_queue, _BROKER_READY)
        for number in range(1, topology.servers + 1):
            port = self._server_ports[number - 1]
            self._add(f"server {number}", functools.partial(self._spawn_server, f"server-{number}", port), _READY)
        if self.scenario.control:
            self._add(CONTROL, functools.partial(self._spawn_server, CONTROL, self._control_port), _READY)
        if self.scenario.needs_mute:
            self._add("mute", self._spawn_mute, _READY)
        if topology.brokers or topology.queue:
            for number in range(1, topology.workers + 1):
                self._add(f"worker {number}", functools.partial(self._spawn_worker, number), _READY)
        # All at once: workers find their brokers in any order, and a Python process takes its time to start.
        for member in self.members.values():
            member.launch()
        for member in self.members.values():
            member.await_ready()

    def _add(self, name: str, spawn: functools.partial[ChildProcess] | object, ready: str) -> Member:
        assert callable(spawn)
        member = Member(name, spawn, ready, self.states.append)
        self.members[name] = member
        self._cleanup.callback(member.close)
        return member

    # --- processes --------------------------------------------------------------------------------

    def _spawn_broker(self, number: int, _incarnation: int) -> ChildProcess:
        url = f"tcp://{self._server_host}:{self._ports[number - 1]}"
        heartbeat = f"{self.scenario.topology.heartbeat_s:g}"
        arguments = ["-m", "reliable", "broker", "--bind", url, "--heartbeat", heartbeat]
        return spawn_python(*arguments, name=f"broker {number}")

    def _spawn_queue(self, _incarnation: int) -> ChildProcess:
        front, back = (f"tcp://{self._server_host}:{port}" for port in self._queue_ports)
        clients = self.scenario.topology.clients
        expiry = f"{max(one.timeout_s for one in clients):g}"
        heartbeat = f"{self.scenario.topology.heartbeat_s:g}"
        ends = ["--frontend", front, "--backend", back]
        return spawn_python(
            "-m", "brokers", "ppp", *ends, "--heartbeat-interval", heartbeat, "--expiry", expiry, name=QUEUE
        )

    def _spawn_worker(self, number: int, incarnation: int) -> ChildProcess:
        if self.scenario.guest is not None:
            return self._guest_process(self.scenario.guest, f"worker {number}")
        name = worker_name(number, incarnation)
        return self._worker_process(name, self.scenario.topology.concurrency, 1)

    def _guest_process(self, guest: Guest, name: str) -> ChildProcess:
        brokers = [part for address in self.addresses(WORKERS) for part in ("--broker", address)]
        concurrency = str(self.scenario.topology.concurrency)
        return spawn_python("-m", "reliable", "worker", guest.target, *brokers, "--concurrency", concurrency, name=name)

    def _worker_process(self, name: str, concurrency: int, copies: int) -> ChildProcess:
        order = WorkerOrder(
            name=name,
            brokers=self.addresses(WORKERS),
            folder=str(self.folder),
            concurrency=concurrency,
            heartbeat_s=self.scenario.topology.heartbeat_s,
            copies=copies,
            ppp=self.scenario.topology.queue,
        )
        text = msgspec.json.encode(order).decode()
        return spawn_python("-m", "chaos.running.child_worker", text, name=name)

    def _spawn_server(self, name: str, port: int, incarnation: int) -> ChildProcess:
        url = f"tcp://{self._server_host}:{port}"
        dialect = "freelance" if "freelance" in self.scenario.dialects and name != CONTROL else "req"
        arguments = ["-m", "chaos.running.child_server", dialect, url, str(self.folder), f"{name}.{incarnation}"]
        return spawn_python(*arguments, name=name)

    def _spawn_mute(self, _incarnation: int) -> ChildProcess:
        return spawn_python("-m", "chaos.running.child_mute", _LOCAL, str(self._mute_port), name="mute")

    def start_storm(self, storm: Storm, number: int) -> Member:
        """A process that is many workers."""
        name = f"{STORM} {number}"
        member = self._add(
            name, lambda incarnation: self._worker_process(f"storm-{number}.{incarnation}", 1, storm.workers), _READY
        )
        member.launch()
        return member

    def tend(self) -> None:
        """Notice what became of the processes; replace supervised workers that ended."""
        for member in list(self.members.values()):
            member.look()
            if self.supervised and member.name.startswith("worker ") and member.lost():
                self.deaths += 1
                member.launch()

    @property
    def settled(self) -> bool:
        """Whether no process is on its way up."""
        return all(member.state != "starting" for member in self.members.values())

    def running(self, target: str) -> list[Member]:
        """The member of that name, if it runs; for ``worker ?`` all workers that do."""
        any_of = target.removesuffix("?") if target.endswith("?") else None
        return [
            member
            for name, member in self.members.items()
            if member.state == "up" and (name == target if any_of is None else name.startswith(any_of))
        ]

    def pick(self, target: str) -> Member:
        """One of those, by the seed.

        Raises:
            FaultUnproven: There is none.
        """
        running = self.running(target)
        if not running:
            raise FaultUnproven(f"no {target} was running")
        return self.chance.choice(running)

    # --- addresses --------------------------------------------------------------------------------

    def addresses(self, link: str) -> list[str]:
        """Where clients (or workers) find the brokers, or the servers if there are none."""
        ports = self._served_ports(link)
        if self.scenario.proxied(link):
            found = [proxy.endpoint for proxy in self.proxies[link]]
        else:
            found = [f"tcp://{self._source(link)}{self._server_host}:{port}" for port in ports]
        if self.scenario.needs_mute and link == CLIENTS:
            found.insert(0, f"tcp://{_LOCAL}:{self._mute_port}")
        return found

    def _served_ports(self, link: str) -> list[int]:
        if self._queue_ports:
            front, back = self._queue_ports
            return [front if link == CLIENTS else back]
        return self._ports or self._server_ports

    def control_address(self) -> str:
        """Where the control's client finds its server."""
        if self.scenario.proxied(CLIENTS):
            return self.proxies[CONTROL][0].endpoint
        return f"tcp://{self._source(CLIENTS)}{self._server_host}:{self._control_port}"

    def watch_addresses(self) -> dict[str, str]:
        """The brokers as seen by nobody's fault."""
        return {f"broker {number}": f"tcp://{self._server_host}:{port}" for number, port in enumerate(self._ports, 1)}

    def _source(self, link: str) -> str:
        return f"{self.side(link)}:0;" if self.scenario.needs_namespace else ""

    def side(self, which: str) -> str:
        """The address that a side of the system has within the namespace."""
        return {CLIENTS: host(1), "broker": host(2), WORKERS: host(3)}[which]

    # --- faults of the network --------------------------------------------------------------------

    def apply_drops(self) -> int:
        """Make the present drops the rules of the network; how many packets vanished so far."""
        assert self.network is not None
        self.network.set([drop for drops in self.drops.values() for drop in drops])
        return self.network.dropped()

    def _set_up_proxies(self) -> None:
        try:
            from chaos.toxi.proxy import ToxiProxy
        except ImportError as error:
            raise NotInjected("toxiproxy", f"no module {error.name!r}; the extra 'chaos' has it") from error
        server = self._cleanup.enter_context(ToxiproxyServer())
        for link in (CLIENTS, WORKERS):
            if self.scenario.proxied(link):
                ports = self._served_ports(link)
                self.proxies[link] = [
                    ToxiProxy(server, f"{self._server_host}:{port}", name=f"{link}-{number}")
                    for number, port in enumerate(ports, 1)
                ]
        if self.scenario.control and self.scenario.proxied(CLIENTS):
            self.proxies[CONTROL] = [ToxiProxy(server, f"{self._server_host}:{self._control_port}", name=CONTROL)]

    def proxies_of(self, link: str) -> Sequence[ToxiProxy]:
        """All proxies that a fault of this link concerns; the control suffers with the clients."""
        return [*self.proxies[link], *(self.proxies.get(CONTROL, []) if link == CLIENTS else [])]

    def pids(self) -> list[int]:
        """Of every process that was ever part of this."""
        return [pid for member in self.members.values() for pid in member.pids]


def environment() -> dict[str, str]:
    """Variables with which a child imports the very packages that this process did, wherever it was started."""
    place = str(Path(chaos.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": place if not inherited else os.pathsep.join([place, inherited])}


def spawn_python(*arguments: str, name: str) -> ChildProcess:
    """Start a Python program that is part of a run."""
    return ChildProcess.python(*arguments, name=name, env=environment())


def worker_name(number: int, incarnation: int) -> str:
    """How an incarnation of a worker calls itself, in records and as a service."""
    return f"worker-{number}.{incarnation}"
