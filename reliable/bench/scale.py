"""``bench scale``: many workers and many clients of one broker."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import attrs

from reliable.bench.crowd import Cell, Crowd
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns

__all__ = ["ALL_COUNTS", "ScalePlan", "measure"]

ALL_COUNTS: Final = (1, 10, 100, 1_000)


@attrs.frozen(kw_only=True)
class ScalePlan:
    """What ``bench scale`` measures."""

    workers: Sequence[int] = (1, 10, 100)
    """Each handles one request at a time."""
    clients: Sequence[int] = (1, 10, 100)
    """Each has one call under way at a time."""
    body_bytes: int = 64
    processes: int = 2
    """That share the clients, and as many again that share the workers."""
    turn_s: float = 0.5
    bounds: Bounds


def measure(plan: ScalePlan, command: str, say: Say) -> Report:
    """Run it. The rounds of one number of workers follow each other, since workers are added and never taken away.

    Raises:
        ChildFailed: A process could not do its part.
    """
    machine = about_machine()
    cells: dict[tuple[int, int], Cell] = {}
    with contextlib.ExitStack() as stack:
        crowd = Crowd(stack, client_processes=plan.processes, worker_processes=plan.processes)
        each = attrs.evolve(plan.bounds, seconds=plan.bounds.seconds / len(plan.workers))
        for workers in sorted(set(plan.workers)):
            say("progress", f"starting {workers} workers")
            crowd.grow(workers)
            for number in each.numbers():
                for clients in turns(plan.clients, number):
                    text = f"{workers} workers, {clients} clients"
                    say("progress", f"round {number + 1} of {plan.bounds.rounds}: {text}")
                    cell = cells.setdefault((workers, clients), Cell())
                    crowd.turn(cell, clients=clients, body_bytes=plan.body_bytes, seconds=plan.turn_s)
    return _report(plan, cells, machine, command)


def _report(plan: ScalePlan, cells: dict[tuple[int, int], Cell], machine: dict[str, object], command: str) -> Report:
    rows = [
        [f"{workers:,}", f"{clients:,}", *_figures(cell), str(len(cell.per_second)), str(cell.failed)]
        for (workers, clients), cell in sorted(cells.items())
    ]
    head = ["workers", "clients", "calls/s", "p50 us", "p99 us", "rounds", "failed"]
    return Report(
        name="scale",
        command=command,
        machine=machine,
        tables=[Table(head, rows)],
        notes=["Medians of the rounds; each client has one call under way, each worker one in hand, handlers inline."],
        data={
            "plan": attrs.asdict(plan),
            "cells": [
                {"workers": workers, "clients": clients, **attrs.asdict(cell)}
                for (workers, clients), cell in sorted(cells.items())
            ],
        },
    )


def _figures(cell: Cell) -> list[str]:
    if not cell.p50_us:
        return ["0", "-", "-"]
    return [f"{figure:,.0f}" for figure in (cell.rate, cell.p50, cell.p99)]
