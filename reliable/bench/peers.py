"""``bench peers``: our calls beside those of others, in one run whose rounds are interleaved, told as ratios."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from reliable.bench.children import Child, ChildFailed
from reliable.bench.figures import Spread, percentile, ratios
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns

__all__ = ["BASE", "PEERS", "Peer", "PeersPlan", "measure", "missing"]

BASE: Final = "req-rep"
"""What all others are compared with."""
_OURS: Final = "ours"
_CONTROL: Final = "req-rep again"
_TURN_S_MAX: Final = 120.0


@attrs.frozen
class Peer:
    """A contestant."""

    name: str
    about: str
    stages: tuple[str, ...]
    """The processes that serve it, in order; the first one is called."""
    caller: str
    modules: tuple[str, ...] = ()
    """Importable names that it needs."""
    programs: tuple[str, ...] = ()
    """Programs on PATH that it needs."""
    install: str = ""
    """How to get them."""
    pipelines: bool = True
    """Whether one connection of it can have many calls under way."""


PEERS: Final = (
    Peer("req-rep", "bare pyzmq, REQ and REP, no broker", ("rep",), "req", pipelines=False),
    Peer("dealer-router", "bare pyzmq, DEALER and ROUTER, no broker", ("router",), "dealer"),
    Peer("zmq-proxy", "the same through zmq.proxy", ("proxy", "proxied"), "dealer"),
    Peer("ours-req", "our client at a bare REP server, no broker", ("rep",), "ours-req", pipelines=False),
    Peer("ours", "our client, broker and worker", ("our-broker", "our-worker"), "ours"),
    Peer("ours-asyncio", "our asyncio client, broker and worker", ("our-broker", "our-worker"), "ours-asyncio"),
    Peer("ours-inline", "as ours, the handler inline", ("our-broker", "our-inline-worker"), "ours"),
    Peer("pyro5", "no broker", ("pyro5",), "pyro5", ("Pyro5",), (), "pip install Pyro5", pipelines=False),
    Peer("xmlrpc", "standard library, no broker", ("xmlrpc",), "xmlrpc", pipelines=False),
    Peer("zerorpc", "no broker", ("zerorpc",), "zerorpc", ("zerorpc",), (), "pip install zerorpc", pipelines=False),
    Peer("grpc", "threads, no broker", ("grpc",), "grpc", ("grpc",), (), "pip install grpcio"),
    Peer("grpc-asyncio", "no broker", ("grpc-asyncio",), "grpc-asyncio", ("grpc",), (), "pip install grpcio"),
    Peer(
        "nats",
        "nats-py through nats-server",
        ("nats-server", "nats-worker"),
        "nats",
        ("nats",),
        ("nats-server",),
        "pip install nats-py, and nats-server on PATH (go install github.com/nats-io/nats-server/v2@latest)",
    ),
    Peer(
        "redis",
        "two lists in redis-server",
        ("redis-server", "redis-worker"),
        "redis",
        ("redis",),
        ("redis-server",),
        "pip install redis, and redis-server on PATH",
    ),
)
"""All contestants."""


@attrs.frozen(kw_only=True)
class PeersPlan:
    """What ``bench peers`` measures."""

    names: Sequence[str] = tuple(peer.name for peer in PEERS)
    body_bytes: int = 32
    calls: int = 200
    """One after the other, in each turn."""
    in_flight: int = 100
    bounds: Bounds

    @property
    def calls_together(self) -> int:
        """With ``in_flight`` under way, in each turn."""
        return 5 * self.calls


@attrs.define(eq=False)
class _Row:
    """A contestant that takes part, or the control."""

    name: str
    peer: Peer
    p50_us: list[float] = attrs.field(factory=list)
    """Of each round."""
    p99_us: list[float] = attrs.field(factory=list)
    cpu_us: list[float] = attrs.field(factory=list)
    """Processor time of the client's process per call, one at a time."""
    per_second: list[float] = attrs.field(factory=list)
    """Of each round, with many under way."""


def missing(peer: Peer) -> str | None:
    """What a contestant lacks here, in words; or None."""
    lacks = [f"no module {name!r}" for name in peer.modules if importlib.util.find_spec(name) is None]
    lacks += [f"no program {name!r}" for name in peer.programs if shutil.which(name) is None]
    return ", ".join(lacks) or None


def measure(plan: PeersPlan, command: str, say: Say) -> Report:
    """Run it.

    Raises:
        ChildFailed: A process of pyzmq or of this library could not do its part. One of another contestant takes only
            that out, with a note.
    """
    machine = about_machine()
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        contestants = _started(plan, stack, notes, say)
        for number in plan.bounds.numbers():
            for row in turns(list(contestants), number):
                say("progress", f"round {number + 1} of {plan.bounds.rounds}: {row.name}")
                with _taking_out(row.peer, notes, functools.partial(contestants.pop, row)):
                    _turn(row, contestants[row], plan)
    return _report(plan, list(contestants), machine, notes, command)


def _started(plan: PeersPlan, stack: contextlib.ExitStack, notes: list[str], say: Say) -> dict[_Row, Child]:
    """All that can take part, each with the process that calls; those that cannot are noted.

    What does not wait for another is started at once: starting takes longer than measuring.
    """
    say("progress", "starting")
    servers = {}
    for peer in PEERS:
        if peer.name not in {*plan.names, BASE, _OURS}:
            continue
        lacks = missing(peer)
        if lacks is not None:
            notes.append(f"not measured: {peer.name} ({lacks}; to get it: {peer.install})")
            continue
        servers[peer] = stack.enter_context(Child("peer-server", stage=peer.stages[0]))
    found: dict[_Row, Child] = {}
    for peer, server in servers.items():
        say("progress", f"starting {peer.name}")
        with _taking_out(peer, notes):
            facts = server.ready()
            for stage in peer.stages[1:]:
                url = facts.get("back", facts["url"])
                stack.enter_context(Child("peer-server", stage=stage, url=url)).ready()
            for name in [peer.name, *([_CONTROL] if peer.name == BASE else [])]:
                client = Child("peer-client", caller=peer.caller, url=facts["url"], body_bytes=plan.body_bytes)
                found[_Row(name, peer)] = stack.enter_context(client)
    for row, client in list(found.items()):
        with _taking_out(row.peer, notes, functools.partial(found.pop, row)):
            client.ready()
    return found


@contextlib.contextmanager
def _taking_out(peer: Peer, notes: list[str], take_out: Callable[[], object] = lambda: None) -> Iterator[None]:
    """A contestant that breaks is noted and taken out; one that all others are compared with ends the run."""
    try:
        yield
    except ChildFailed as error:
        if not peer.modules:
            raise
        notes.append(f"not measured: {peer.name} ({error})")
        take_out()


def _turn(row: _Row, client: Child, plan: PeersPlan) -> None:
    found = client.ask(_TURN_S_MAX, calls=plan.calls)
    ordered = sorted(found["each_ns"])
    row.p50_us.append(percentile(ordered, 50) / 1000)
    row.p99_us.append(percentile(ordered, 99) / 1000)
    row.cpu_us.append(found["cpu_ns"] / plan.calls / 1000)
    if row.peer.pipelines:
        whole_ns = client.ask(_TURN_S_MAX, calls=plan.calls_together, in_flight=plan.in_flight)["whole_ns"]
        row.per_second.append(plan.calls_together / whole_ns * 1e9)


def _report(
    plan: PeersPlan, rows: Sequence[_Row], machine: dict[str, object], notes: Sequence[str], command: str
) -> Report:
    base = next(row for row in rows if row.name == BASE)
    ours = next(row for row in rows if row.name == _OURS)
    data: list[dict[str, Any]] = []
    lines = []
    for row in rows:
        of_base = ratios(row.p50_us, base.p50_us)
        of_ours = ratios(row.p50_us, ours.p50_us)
        faster = ratios(ours.per_second, row.per_second) if row.per_second else None
        cells = [f"{statistics.median(figures):,.0f}" for figures in (row.p50_us, row.p99_us, row.cpu_us)]
        cells += [of_base.text(), _text(of_ours)]
        cells += [f"{statistics.median(row.per_second):,.0f}" if row.per_second else "-", _text(faster)]
        lines.append([row.name, *cells])
        data.append(
            {
                **attrs.asdict(row, filter=attrs.filters.exclude("peer")),
                "about": row.peer.about,
                "p50_over_base": attrs.asdict(of_base),
                "p50_over_ours": attrs.asdict(of_ours),
                "ours_per_second_over_this": attrs.asdict(faster) if faster is not None else None,
            }
        )
    head = ["one at a time", "p50 us", "p99 us", "cpu us", f"p50 / {BASE}", "p50 / ours"]
    head += [f"{plan.in_flight} in flight /s", "ours / this"]
    control = next(row for row in rows if row.name == _CONTROL)
    noise = ratios(control.p50_us, base.p50_us)
    return Report(
        name="peers",
        command=command,
        machine=machine,
        tables=[Table(head, lines)],
        notes=[
            f"{len(base.p50_us)} rounds, interleaved; ratios are taken round by round: median (quartiles).",
            f"Noise: the same loop twice differs by {noise.text()}; trust no ratio that lies within that of 1.",
            "cpu: processor time of the client's process per call. "
            "-: one connection of it has one call under way at a time.",
            *notes,
        ],
        data={"plan": attrs.asdict(plan), "peers": data, "noise": attrs.asdict(noise)},
    )


def _text(found: Spread | None) -> str:
    return found.text() if found is not None else "-"
