"""``bench matrix``: size of a message by number of clients."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import attrs

from reliable.bench.crowd import Cell, Crowd
from reliable.bench.figures import size_text
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns

__all__ = ["ALL_CLIENTS", "ALL_SIZES", "MatrixPlan", "measure"]

ALL_SIZES: Final = (16, 256, 1_000, 16_000, 64_000, 1_000_000, 16_000_000, 64_000_000)
ALL_CLIENTS: Final = (1, 3, 10, 30, 100, 300, 1_000)


@attrs.frozen(kw_only=True)
class MatrixPlan:
    """What ``bench matrix`` measures."""

    sizes: Sequence[int] = (16, 1_000, 64_000, 1_000_000)
    """Bytes of a request, and of its reply."""
    clients: Sequence[int] = (1, 10, 100)
    """Each has one call under way at a time."""
    workers: int = 4
    processes: int = 2
    """That share the clients."""
    turn_s: float = 0.5
    under_way_bytes_max: int = 256_000_000
    """Combinations whose requests together are larger are left out: they would measure the machine's memory."""
    bounds: Bounds


def measure(plan: MatrixPlan, command: str, say: Say) -> Report:
    """Run it.

    Raises:
        ChildFailed: A process could not do its part.
    """
    machine = about_machine()
    wanted = [
        (size, clients)
        for clients in sorted(plan.clients)
        for size in plan.sizes
        if size * clients <= plan.under_way_bytes_max
    ]
    cells = {key: Cell() for key in wanted}
    with contextlib.ExitStack() as stack:
        say("progress", "starting")
        crowd = Crowd(stack, client_processes=plan.processes, worker_processes=1)
        crowd.grow(plan.workers)
        for number in plan.bounds.numbers():
            for size, clients in turns(wanted, number):
                say("progress", f"round {number + 1} of {plan.bounds.rounds}: {size_text(size)}, {clients} clients")
                crowd.turn(cells[size, clients], clients=clients, body_bytes=size, seconds=plan.turn_s)
    return _report(plan, cells, machine, command)


def _report(plan: MatrixPlan, cells: dict[tuple[int, int], Cell], machine: dict[str, object], command: str) -> Report:
    head = ["size", *(f"{clients:,} client{'s' * (clients > 1)}" for clients in plan.clients)]

    def table(title: str, show: str) -> Table:
        rows = [
            [size_text(size), *(_shown(cells.get((size, clients)), show, size) for clients in plan.clients)]
            for size in plan.sizes
        ]
        return Table(head, rows, title)

    rounds = max((len(cell.per_second) for cell in cells.values()), default=0)
    notes = [f"Medians of {rounds} rounds; one broker, {plan.workers} workers in one process, handlers inline."]
    if len(cells) < len(plan.sizes) * len(plan.clients):
        notes.append(f"-: not measured, more than {size_text(plan.under_way_bytes_max)} would be under way at once.")
    failed = sum(cell.failed for cell in cells.values())
    notes.append(f"{failed} calls failed.")
    return Report(
        name="matrix",
        command=command,
        machine=machine,
        tables=[
            table("calls per second", "rate"),
            table("megabytes per second, one way", "megabytes"),
            table("p50, microseconds", "p50"),
            table("p99, microseconds", "p99"),
        ],
        notes=notes,
        data={
            "plan": attrs.asdict(plan),
            "cells": [
                {"body_bytes": size, "clients": clients, **attrs.asdict(cell)}
                for (size, clients), cell in cells.items()
            ],
        },
    )


def _shown(cell: Cell | None, what: str, size: int) -> str:
    if cell is None or not cell.p50_us:
        return "-"
    figures = {"rate": cell.rate, "megabytes": cell.rate * size / 1e6, "p50": cell.p50, "p99": cell.p99}
    digits = 1 if figures[what] < 10 else 0
    return f"{figures[what]:,.{digits}f}"
