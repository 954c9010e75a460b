"""``bench call``: how long calls of our two classes take, in a closed and in an open loop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import attrs

from reliable.bench.callers import CALL_S_MAX
from reliable.bench.children import Child
from reliable.bench.figures import histogram, latency_of
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns
from reliable.bench.servers import ECHO

__all__ = ["KINDS", "CallPlan", "measure"]

KINDS: Final = ("blocking", "asyncio")
_SLACK_S: Final = 20.0


@attrs.frozen(kw_only=True)
class CallPlan:
    """What ``bench call`` measures."""

    broker: str | None = None
    """None: a broker and a worker of our own."""
    service: str = ECHO
    kinds: Sequence[str] = KINDS
    body_bytes: int = 64
    in_flight: int = 1
    """Of the closed loop."""
    rate: float | None = 500.0
    """Calls per second of the open loop; None: there is none."""
    arrivals: str = "random"
    waiting_max: int = 64
    """Of the open loop: calls that are under way at once; what is due beyond them waits, and that counts."""
    turn_s: float = 1.0
    """How long each loop goes on in one round."""
    bounds: Bounds


@attrs.define
class _Loop:
    """One row of the table."""

    kind: str
    command: dict[str, Any]
    each_ns: list[int] = attrs.field(factory=list)
    service_ns: list[int] = attrs.field(factory=list)
    failed: int = 0
    whole_ns: int = 0
    cpu_ns: int = 0

    @property
    def name(self) -> str:
        """``asyncio, open at 500/s``."""
        if self.command["loop"] == "open":
            return f"{self.kind}, open at {self.command['rate']:g}/s"
        return f"{self.kind}, closed, {self.command['in_flight']} in flight"

    def take(self, found: dict[str, Any]) -> None:
        """Add a round."""
        self.each_ns += found["each_ns"]
        self.service_ns += found["service_ns"]
        self.failed += found["failed"]
        self.whole_ns += found["whole_ns"]
        self.cpu_ns += found["cpu_ns"]


def measure(plan: CallPlan, command: str, say: Say) -> Report:
    """Run it.

    Raises:
        ChildFailed: A process could not do its part, for instance because nobody offers the service.
    """
    machine = about_machine()
    loops = [_Loop(kind, wanted) for kind in plan.kinds for wanted in _commands(plan)]
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        url = plan.broker
        if url is None:
            url = enter(Child("broker")).url
            enter(Child("worker", url=url, concurrency=8)).ready()
        callers = {
            kind: enter(Child("caller", url=url, service=plan.service, kind=kind, body_bytes=plan.body_bytes))
            for kind in plan.kinds
        }
        for child in callers.values():
            child.ready()
        for number in plan.bounds.numbers():
            for loop in turns(loops, number):
                say("progress", f"round {number + 1} of {plan.bounds.rounds}: {loop.name}")
                wanted = {**loop.command, "seed": number} if loop.command["loop"] == "open" else loop.command
                loop.take(callers[loop.kind].ask(plan.turn_s + CALL_S_MAX + _SLACK_S, **wanted))
    return _report(plan, loops, machine, command)


def _commands(plan: CallPlan) -> list[dict[str, Any]]:
    closed = {"loop": "closed", "in_flight": plan.in_flight, "seconds": plan.turn_s}
    if plan.rate is None:
        return [closed]
    opened = {
        "loop": "open",
        "rate": plan.rate,
        "in_flight": plan.waiting_max,
        "seconds": plan.turn_s,
        "arrivals": plan.arrivals,
    }
    return [closed, opened]


def _report(plan: CallPlan, loops: Sequence[_Loop], machine: dict[str, object], command: str) -> Report:
    rows, data = [], []
    for loop in loops:
        if not loop.each_ns:
            continue
        found = latency_of(loop.each_ns)
        per_second = found.count / (loop.whole_ns / 1e9)
        cpu_us = loop.cpu_ns / found.count / 1000
        cells = [f"{found.count:,}", f"{per_second:,.0f}", *found.cells(), f"{cpu_us:.0f}", str(loop.failed)]
        rows.append([loop.name, *cells])
        data.append(
            {
                "name": loop.name,
                "kind": loop.kind,
                **loop.command,
                "calls": found.count,
                "calls_per_s": per_second,
                "failed": loop.failed,
                "cpu_us_per_call": cpu_us,
                "from_due": attrs.asdict(found),
                "from_sent": attrs.asdict(latency_of(loop.service_ns)),
                "histogram_us": histogram(loop.each_ns),
            }
        )
    head = ["microseconds", "calls", "calls/s", "p50", "p90", "p99", "p99.9", "max", "cpu", "failed"]
    notes = ["cpu: processor time of the client's whole process per call."]
    if plan.rate is not None:
        notes.append(_omission(data))
    where = plan.broker or "a broker and a worker of its own"
    notes.append(f"Through {where}, service {plan.service!r}, bodies of {plan.body_bytes} bytes.")
    return Report(
        name="call",
        command=command,
        machine=machine,
        tables=[Table(head, rows)],
        notes=notes,
        data={"plan": attrs.asdict(plan), "loops": data},
    )


def _omission(data: Sequence[dict[str, Any]]) -> str:
    """What a loop that forgets the waiting would have said."""
    parts = [
        f"{row['kind']} {row['from_sent']['p99_us']:,.0f} instead of {row['from_due']['p99_us']:,.0f}"
        for row in data
        if row["loop"] == "open"
    ]
    return f"Open loop: time counts from when a call was due. From when it was sent, p99 would be {', '.join(parts)}."
