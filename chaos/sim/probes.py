"""What a look at the processes themselves shows, at regular times and at the end: faults that no single call shows.

A history tells how calls ended. It does not tell that a broker keeps a call queued beside an idle worker, that it
still takes a worker for well that has said nothing for a minute, or that a table grows.
"""

from __future__ import annotations

import gc
import types
from typing import Final

import attrs

from brokers.config import BrokerConfig
from brokers.snapshot import BrokerSnapshot, WorkerView
from chaos.sim.actors import BrokerActor, ClientActor
from chaos.sim.world import World

__all__ = ["Probe", "after_effects", "beyond_budget", "blamed", "hoarded", "reachable"]

_EVERY_S: Final = 1.0
_SLACK_S: Final = 0.25
"""What the wheel of a broker, and the delays between its turns, may add to a timeout."""
_GHOST_S: Final = 2.5
"""A worker whose connection is gone is found out by the next heartbeat, an interval later."""
_LOOKS: Final = 3
_HOARD_MIN: Final = 400
"""Objects. An engine that was just started has 80 to 160, and one that has been at rest for long not twice as many."""
_CODE: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.CodeType,
    property,
)


@attrs.define
class _Seen:
    """What the looks before showed of one life of a broker."""

    dispatched: int = -1
    credit: int = 0
    """The most that its workers took at once."""
    looks: int = 0
    """In a row with somebody waiting beside an idle worker, and nothing handed out."""
    unread: int = 0
    """In a row with messages that arrived and were not read."""
    ghosts: dict[str, float] = attrs.field(factory=dict)
    """Registered workers without a connection, and since when."""


class Probe:
    """Looks at the brokers of a world once per second, while they run.

    Attributes:
        problems: One line per kind of offence and broker.
    """

    def __init__(self, world: World, brokers: dict[str, BrokerConfig]) -> None:
        """Look from now on.

        Args:
            world: Where to look.
            brokers: Names, and the settings of each.
        """
        self.problems: list[str] = []
        self._world = world
        self._brokers = brokers
        self._seen: dict[str, _Seen] = {}
        self._reported: set[tuple[str, str]] = set()
        self._look()

    def _look(self) -> None:
        for name, config in self._brokers.items():
            actor = self._world.broker_actor(name)
            if not actor.running or actor.engine is None:
                continue
            seen = self._seen.setdefault(actor.process_name, _Seen())
            seen.unread = seen.unread + 1 if actor.unread else 0
            if not actor.unread:
                self._judge(actor, config, actor.engine.snapshot(actor.now()), seen)
            elif seen.unread > 1:
                self._wrong("unread", name, f"sleeps with {actor.unread} messages unread")
        self._world.agenda.after(_EVERY_S, self._look)

    def _wrong(self, kind: str, broker: str, text: str) -> None:
        if (kind, broker) not in self._reported:
            self._reported.add((kind, broker))
            self.problems.append(f"{kind}: at {self._world.clock():.3f} {broker} {text}")

    def _judge(self, actor: BrokerActor, config: BrokerConfig, snapshot: BrokerSnapshot, seen: _Seen) -> None:
        self._silences(actor, config, snapshot)
        self._ghosts(actor, snapshot, seen)
        self._progress(actor, snapshot, seen)
        self._bounds(actor, config, snapshot, seen)

    def _silences(self, actor: BrokerActor, config: BrokerConfig, snapshot: BrokerSnapshot) -> None:
        heartbeat = config.heartbeat
        for worker in snapshot.workers:
            if worker.ours:
                judged = worker.state == "stuck"
                patience_s = heartbeat.timeout_s + 2 * heartbeat.interval_s
            else:
                judged = worker.state == "unverified"
                patience_s = heartbeat.timeout_s + heartbeat.interval_s
            if not judged and worker.last_heard_s > patience_s + _SLACK_S:
                text = f"takes {worker.peer} for {worker.state}, silent for {worker.last_heard_s:.3f} s"
                self._wrong("silence unjudged", actor.name, text)

    def _ghosts(self, actor: BrokerActor, snapshot: BrokerSnapshot, seen: _Seen) -> None:
        now = self._world.clock()
        gone = {worker.peer for worker in snapshot.workers if not actor.knows(bytes.fromhex(worker.peer))}
        seen.ghosts = {peer: seen.ghosts.get(peer, now) for peer in gone}
        for peer, since in seen.ghosts.items():
            if now - since > _GHOST_S and actor.stood_still_s is None:
                self._wrong("ghost", actor.name, f"counts on {peer}, which has no connection since {since:.3f}")

    def _progress(self, actor: BrokerActor, snapshot: BrokerSnapshot, seen: _Seen) -> None:
        waiting = [service.name for service in snapshot.services if service.queued]
        idle = [worker for worker in snapshot.workers if _idle(worker) and set(worker.services) & set(waiting)]
        dispatched = snapshot.counters["dispatched"]
        beside = bool(idle) and dispatched == seen.dispatched
        seen.looks = seen.looks + 1 if beside else 0
        seen.dispatched = dispatched
        if seen.looks >= _LOOKS:
            self._wrong("no progress", actor.name, f"keeps {waiting} queued beside the idle {idle[0].peer}")

    def _bounds(self, actor: BrokerActor, config: BrokerConfig, snapshot: BrokerSnapshot, seen: _Seen) -> None:
        # Also of workers that are gone by now: what they held is in the queue.
        seen.credit = max(seen.credit, sum(worker.credit for worker in snapshot.workers))
        for service in snapshot.services:
            # What comes back from workers is let in again whatever the bound says.
            bound = config.queued_per_service_max + seen.credit
            if service.queued > bound:
                self._wrong("no bound", actor.name, f"queues {service.queued} for {service.name}; {bound} are allowed")
        for usage, limit in (("finished_calls", "finished_calls_max"), ("late_tokens", "late_tokens_max")):
            if snapshot.usage[usage] > snapshot.limits[limit]:
                self._wrong("no bound", actor.name, f"has {snapshot.usage[usage]} {usage}")


def _idle(worker: WorkerView) -> bool:
    return worker.state == "idle" and worker.credit > 0 and worker.last_heard_s < 1.0 + _SLACK_S


def after_effects(world: World, brokers: dict[str, BrokerConfig], clients: list[ClientActor]) -> list[str]:
    """What is left behind when everything was healed and every call has ended."""
    wrong = []
    for name in brokers:
        actor = world.broker_actor(name)
        snapshot = world.snapshot(name)
        if snapshot is None:
            continue
        left = [f"{snapshot.usage[what]} {what}" for what in ("queued", "held_bytes", "limbo") if snapshot.usage[what]]
        if actor.unread:
            left.append(f"{actor.unread} unread messages")
        if left:
            wrong.append(f"left behind: {name} still has {', '.join(left)}")
    wrong += [
        f"left behind: {client.name} still has {client.calls_open} calls" for client in clients if client.calls_open
    ]
    return wrong


def blamed(world: World, brokers: dict[str, BrokerConfig]) -> list[str]:
    """Workers that a broker found silent, where none was."""
    wrong = []
    for name in brokers:
        counters = world.broker_engine(name).counters
        found = counters.workers_stuck + counters.workers_expired
        if found:
            wrong.append(f"blamed: {name} took workers for stuck or gone {found} times; the silence was its own")
    return wrong


def beyond_budget(clients: list[ClientActor]) -> list[str]:
    """Clients that asked again more often than their retry budget allows."""
    wrong = []
    for client in clients:
        budget = client.config.retry.budget
        if budget is None:
            continue
        counters = client.engine.counters
        allowed = budget.tokens_max + budget.ratio * counters.calls
        if counters.retries > allowed + 1e-6:
            wrong.append(f"beyond the budget: {client.name} asked again {counters.retries} times; {allowed:g} are paid")
    return wrong


def hoarded(world: World) -> list[str]:
    """Engines that keep more than they need when they have had nothing to do for long."""
    wrong = []
    for name, engine in world.engines().items():
        count = reachable(engine)
        if count > _HOARD_MIN:
            wrong.append(f"hoard: {name} keeps {count} objects after a long rest")
    return wrong


def reachable(root: object) -> int:
    """How many objects hang on to one, other than code."""
    seen: dict[int, object] = {}
    found = [root]
    while found:
        item = found.pop()
        if id(item) not in seen and not isinstance(item, _CODE):
            seen[id(item)] = item
            found.extend(gc.get_referents(item))
    return len(seen)
