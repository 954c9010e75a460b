"""``bench unfair-join``: who gets how many jobs if workers come late, by PUSH and by our dispatch."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

import attrs

from reliable.bench.children import Child, ChildFailed
from reliable.bench.machine import about_machine
from reliable.bench.options import Bounds, Say
from reliable.bench.report import Report, Table
from reliable.bench.schedule import turns

__all__ = ["WAYS", "UnfairPlan", "measure"]

WAYS: Final = ("PUSH", "ours")
_SLACK_S: Final = 60.0
_LOOK_S: Final = 0.01


@attrs.frozen(kw_only=True)
class UnfairPlan:
    """What ``bench unfair-join`` measures."""

    jobs: int = 900
    workers: int = 3
    """The first is there from the beginning."""
    late_s: float = 0.1
    """How long after the first job the others join."""
    job_s: float = 0.002
    bounds: Bounds

    @property
    def job_seconds(self) -> float:
        """What one worker alone would take."""
        return self.jobs * self.job_s


@attrs.define
class _Way:
    name: str
    jobs: list[list[int]] = attrs.field(factory=list)
    """Of each round: of each worker."""
    seconds: list[float] = attrs.field(factory=list)
    """Of each round: until the last job was done."""


def measure(plan: UnfairPlan, command: str, say: Say) -> Report:
    """Run it.

    Raises:
        ChildFailed: A process could not do its part, or jobs were lost.
    """
    machine = about_machine()
    ways = [_Way(name) for name in WAYS]
    for number in plan.bounds.numbers():
        for way in turns(ways, number):
            say("progress", f"round {number + 1} of {plan.bounds.rounds}: {way.name}")
            jobs, seconds = _turn(plan, way.name)
            way.jobs.append(jobs)
            way.seconds.append(seconds)
    return _report(plan, ways, machine, command)


def _turn(plan: UnfairPlan, way: str) -> tuple[list[int], float]:
    """With processes of its own, since a worker cannot be late twice."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        if way == "PUSH":
            source = enter(Child("push"))
            workers = [enter(Child("pull", url=source.url, job_s=plan.job_s)) for _ in range(plan.workers)]
        else:
            url = enter(Child("broker")).url
            source = enter(Child("submitter", url=url))
            workers = [enter(Child("counting-worker", url=url, job_s=plan.job_s)) for _ in range(plan.workers)]
        for child in (source, *workers):
            child.ready()
        first, *others = workers
        first.ask(do="join")
        # It is there once it has done a job: then both ways begin alike.
        source.ask(_SLACK_S, jobs=1)
        _await_jobs([first], 1, _SLACK_S)
        begun = time.monotonic()
        source.tell(jobs=plan.jobs)
        time.sleep(plan.late_s)
        for worker in others:
            worker.tell(do="join")
        for worker in others:
            worker.answer(_SLACK_S)
        jobs = _await_jobs(workers, plan.jobs + 1, plan.job_seconds + _SLACK_S)
        seconds = time.monotonic() - begun
        source.answer(_SLACK_S)
    jobs[0] -= 1
    return jobs, seconds


def _await_jobs(workers: Sequence[Child], wanted: int, seconds_max: float) -> list[int]:
    end = time.monotonic() + seconds_max
    while True:
        counts = [int(worker.ask(do="count")["jobs"]) for worker in workers]
        if sum(counts) >= wanted:
            return counts
        if time.monotonic() > end:
            raise ChildFailed(f"only {sum(counts)} of {wanted} jobs were done within {seconds_max:g} s")
        time.sleep(_LOOK_S)


def _report(plan: UnfairPlan, ways: Sequence[_Way], machine: dict[str, object], command: str) -> Report:
    rows, data = [], []
    for way in ways:
        medians = [statistics.median(counts) for counts in zip(*way.jobs, strict=True)]
        seconds = statistics.median(way.seconds)
        rows.append([way.name, *(f"{jobs:,.0f}" for jobs in medians), f"{seconds:.2f}"])
        data.append({**attrs.asdict(way), "median_jobs": medians, "median_seconds": seconds})
    late = [f"worker {number}, late" for number in range(2, plan.workers + 1)]
    found: list[dict[str, Any]] = data
    return Report(
        name="unfair-join",
        command=command,
        machine=machine,
        tables=[Table(["jobs of", "worker 1", *late, "seconds"], rows)],
        notes=[
            f"Medians of {len(ways[0].jobs)} rounds. {plan.jobs:,} jobs of {plan.job_s * 1000:g} ms; all but the first "
            f"worker join {plan.late_s:g} s after the first job.",
            f"One worker alone would take {plan.job_seconds:.2f} s, {plan.workers} from the beginning "
            f"{plan.job_seconds / plan.workers:.2f} s.",
        ],
        data={"plan": attrs.asdict(plan), "ways": found},
    )
