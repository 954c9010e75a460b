"""Pure functions from a history to what was wrong in it.

Each returns one line per offence and nothing if all is well; ``check`` runs them all. A checker that has never
failed proves nothing: ``tests/chaos_sim/test_checkers.py`` shows each of them a history that it must refuse.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from chaos.history import Call, End, Ending, Execution, History
from reliable.errors import Outcome

__all__ = [
    "CHECKERS",
    "DEADLINE_SLACK_S",
    "at_most_once",
    "check",
    "executed_implies_executed",
    "healed_calls_succeed",
    "not_executed_is_true",
    "one_call_per_slot",
    "own_reply",
    "same_claim",
    "times_out_in_time",
]

DEADLINE_SLACK_S: Final = 0.1
"""How much later than its deadline a call may end, for the caller's own scheduling."""


def _name(call: Call) -> str:
    said = {True: "idempotent", False: "not idempotent", None: "nothing said"}[call.idempotent]
    return f"call {call.key.decode('ascii', 'replace')} of {call.client} to {call.service} ({said})"


def _ended(history: History) -> list[tuple[Call, Ending]]:
    return [(call, call.ending) for call in history.calls.values() if call.ending is not None]


def times_out_in_time(history: History) -> list[str]:
    """Every call ends exactly once, by its deadline."""
    wrong = []
    for call in history.calls.values():
        if not call.endings and not call.abandoned:
            wrong.append(f"{_name(call)} never ended")
        if len(call.endings) > 1:
            wrong.append(f"{_name(call)} ended {len(call.endings)} times")
        if call.ending is not None and call.deadline_s is not None:
            late_s = call.ending.at_s - call.deadline_s
            if late_s > DEADLINE_SLACK_S:
                wrong.append(f"{_name(call)} ended {late_s:.3f} s after its deadline")
    return wrong


def at_most_once(history: History) -> list[str]:
    """A call that is not idempotent runs at most once."""
    runs = _runs_by_key(history)
    return [
        f"{_name(call)} ran {len(runs[call.key])} times: {_places(runs[call.key])}"
        for call in history.calls.values()
        if not history.repeatable(call) and len(runs[call.key]) > 1
    ]


def not_executed_is_true(history: History) -> list[str]:
    """A call that was reported as NOT_EXECUTED did not run, and does not run later either."""
    runs = _runs_by_key(history)
    return [
        f"{_name(call)} ended at {end.at_s:.3f} with {end.error}, NOT_EXECUTED, but ran: {_places(runs[call.key])}"
        for call, end in _ended(history)
        if end.outcome is Outcome.NOT_EXECUTED and runs[call.key]
    ]


def executed_implies_executed(history: History) -> list[str]:
    """A call that was reported as EXECUTED, with a reply or without, had been run to its end by then."""
    runs = _runs_by_key(history)
    wrong = []
    for call, end in _ended(history):
        finished = [run for run in runs[call.key] if run.finished_s is not None and run.finished_s <= end.at_s]
        if end.outcome is Outcome.EXECUTED and not finished:
            wrong.append(f"{_name(call)} ended at {end.at_s:.3f} as EXECUTED, but no run had finished")
    return wrong


def own_reply(history: History) -> list[str]:
    """A reply carries the key of its own call."""
    return [
        f"{_name(call)} got the reply {end.reply!r}"
        for call, end in _ended(history)
        if end.end is End.OK and (not end.reply or end.reply[0] != call.key)
    ]


def same_claim(history: History) -> list[str]:
    """The claim of an ending fits its kind: ok means EXECUTED, failed that or NOT_EXECUTED, the others UNKNOWN."""
    allowed = {
        End.OK: {Outcome.EXECUTED},
        End.UNKNOWN: {Outcome.UNKNOWN},
        End.ACCEPTED: {Outcome.UNKNOWN},
        End.FAILED: {Outcome.EXECUTED, Outcome.NOT_EXECUTED},
    }
    return [
        f"{_name(call)} ended {end.end.value} and claims {end.outcome.name}"
        for call, end in _ended(history)
        if end.outcome not in allowed[end.end]
    ]


def one_call_per_slot(history: History) -> list[str]:
    """No worker runs more handlers at once than it has slots, nor one call twice at a time."""
    by_worker: dict[str, list[Execution]] = defaultdict(list)
    for run in history.executions:
        by_worker[run.worker].append(run)
    wrong = []
    for worker, runs in by_worker.items():
        ordered = sorted(runs, key=lambda run: run.started_s)
        wrong += _overlaps(history, worker, ordered, history.capacity.get(worker, 1))
    return wrong


def _overlaps(history: History, worker: str, runs: list[Execution], slots: int) -> list[str]:
    wrong = []
    running: list[tuple[float, int, Execution]] = []
    for order, run in enumerate(runs):
        while running and running[0][0] <= run.started_s:
            heapq.heappop(running)
        heapq.heappush(running, (float("inf") if run.ended_s is None else run.ended_s, order, run))
        if len(running) > slots:
            wrong.append(f"{worker} ran {len(running)} calls at once at {run.started_s:.3f}; it has {slots} slots")
        call = history.calls.get(run.key)
        copies_max = 2 if call is not None and call.hedged else 1
        if sum(1 for _, _, other in running if other.key == run.key) > copies_max:
            wrong.append(f"{worker} ran call {run.key!r} twice at once at {run.started_s:.3f}")
    return wrong


def healed_calls_succeed(history: History) -> list[str]:
    """In the phase named "healed" nothing is broken any more, so every call gets its reply."""
    wrong = []
    for call in history.calls.values():
        if call.phase == "healed" and (call.ending is None or call.ending.end is not End.OK):
            how = "never ended" if call.ending is None else f"ended with {call.ending.error}"
            wrong.append(f"{_name(call)}, made after everything was healed, {how}")
    return wrong


def _runs_by_key(history: History) -> dict[bytes, list[Execution]]:
    runs: dict[bytes, list[Execution]] = defaultdict(list)
    for run in history.executions:
        runs[run.key].append(run)
    return runs


def _places(runs: list[Execution]) -> str:
    return ", ".join(f"{run.worker} at {run.started_s:.3f}" for run in runs)


CHECKERS: Final[tuple[Callable[[History], list[str]], ...]] = (
    times_out_in_time,
    at_most_once,
    not_executed_is_true,
    executed_implies_executed,
    own_reply,
    same_claim,
    one_call_per_slot,
    healed_calls_succeed,
)


def check(history: History) -> list[str]:
    """All offences in a history, each with the checker's name in front."""
    return [f"{checker.__name__}: {line}" for checker in CHECKERS for line in checker(history)]
