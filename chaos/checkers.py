"""Pure functions from a history to what was wrong in it.

Each returns one line per offence and nothing if all is well; ``check`` runs them all. A checker that has never
failed proves nothing: ``tests/chaos_sim/test_checkers.py`` shows each of them a history that it must refuse.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from chaos.history import Call, End, Ending, Execution, History
from reliable.errors import Outcome

__all__ = [
    "CHECKERS",
    "DEADLINE_SLACK_S",
    "at_most_once",
    "backoff_is_spread",
    "cancel_stops_the_run",
    "check",
    "executed_implies_executed",
    "healed_calls_succeed",
    "news_in_order",
    "no_wait_beside_idle",
    "not_executed_is_true",
    "one_answer",
    "one_call_per_slot",
    "own_reply",
    "parts_in_order",
    "returned_calls_first",
    "same_claim",
    "starts_in_time",
    "times_out_in_time",
    "told_once",
]

DEADLINE_SLACK_S: Final = 0.1
"""How much later than its deadline a call may end, for the caller's own scheduling."""
_START_SLACK_S: Final = 3.0
"""How much later than its deadline a call may start: each session reckons deadlines from its hello, which may take a
second there and another one back, twice."""
_STOP_SLACK_S: Final = 1.0
"""How long the word that nobody waits may take to the handler, when nothing is broken."""
_SAME_WAITS_MIN: Final = 3
_NOTICED_S: Final = 2.5
"""Within which a broker finds out that a worker is gone."""
_PASSED_MAX: Final = 2
_TOLD_AGAIN_S: Final = 2.9
"""Within which a peer that was told to go is not to be told again: one heartbeat timeout, less the delays."""


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
            late_s = call.ending.at_s - _excused(history, call.client, call.deadline_s)
            if late_s > DEADLINE_SLACK_S:
                wrong.append(f"{_name(call)} ended {late_s:.3f} s after its deadline")
    return wrong


def _excused(history: History, process: str, due_s: float) -> float:
    """When a process can do at the earliest what was due: not while it stands still."""
    for pause in history.pauses.get(process, ()):
        if pause.from_s <= due_s <= pause.to_s:
            due_s = pause.to_s
    return due_s


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
    """In the phase named "healed" nothing is broken any more, or nothing that does harm: each call gets its reply."""
    wrong = []
    for call in history.calls.values():
        if call.phase == "healed" and (call.ending is None or call.ending.end not in (End.OK, End.ACCEPTED)):
            how = "never ended" if call.ending is None else f"ended with {call.ending.error}"
            wrong.append(f"{_name(call)}, made after everything was healed, {how}")
    return wrong


def parts_in_order(history: History) -> list[str]:
    """The parts of a streamed reply are all of one run, in order and without a gap; a reply that ends well is whole."""
    wrong = []
    for call in history.calls.values():
        numbers = [part[3] for part in call.parts if len(part) == 4]
        if numbers != [b"%d" % number for number in range(len(call.parts))]:
            wrong.append(f"{_name(call)} got the parts {numbers} of {len(call.parts)}")
        if any(part[0] != call.key for part in call.parts) or len({part[2:3] for part in call.parts}) > 1:
            wrong.append(f"{_name(call)} got parts of several runs: {call.parts}")
        end = call.ending
        # Who wants no reply gets no parts either, but may get the reply, for want of another word.
        if end is None or end.end is not End.OK or len(end.reply) != 3 or call.one_way:
            continue
        if end.reply[2] != b"%d" % len(call.parts):
            wrong.append(f"{_name(call)} got {len(call.parts)} parts of {end.reply[2].decode()} and a good end")
    return wrong


def news_in_order(history: History) -> list[str]:
    """Words of progress reach who asked for them: those of its own call, of one run after the other, none twice."""
    wrong = []
    for call in history.calls.values():
        if call.news and not call.wants_progress:
            wrong.append(f"{_name(call)} asked for no progress and got {call.news}")
        words = [(word[2], int(word[3])) for word in call.news if len(word) == 4 and word[0] == call.key]
        runs = [run for run, _ in itertools.groupby(words, key=lambda word: word[0])]
        risen = all(one[0] != other[0] or one[1] < other[1] for one, other in itertools.pairwise(words))
        if len(words) != len(call.news) or len(set(runs)) != len(runs) or not risen:
            wrong.append(f"{_name(call)} got the news {call.news}")
    return wrong


def starts_in_time(history: History) -> list[str]:
    """Nothing starts long after the deadline of its call: somebody on the way has to drop it."""
    wrong = []
    for run in history.executions:
        call = history.calls.get(run.key)
        if call is None or call.deadline_s is None or run.plain:
            continue
        late_s = run.started_s - call.deadline_s
        if late_s > _START_SLACK_S:
            wrong.append(f"{_name(call)} was started at {run.worker} {late_s:.3f} s after its deadline")
    return wrong


def backoff_is_spread(history: History) -> list[str]:
    """Workers that connect anew wait for lengths of their own: equal ones come back as a crowd, again and again."""
    waits = Counter(round(wait.seconds, 6) for wait in history.waits if wait.seconds > 0.0)
    return [
        f"{times} waits before a new connection took exactly {seconds} s"
        for seconds, times in sorted(waits.items())
        if times >= _SAME_WAITS_MIN
    ]


def told_once(history: History) -> list[str]:
    """A peer that was told to go is not told again for each message that it had under way; ours are never told."""
    wrong = []
    last: dict[tuple[str, str], float] = {}
    for told in history.dismissals:
        before_s = last.get((told.broker, told.peer))
        if before_s is not None and told.at_s - before_s < _TOLD_AGAIN_S:
            wrong.append(f"{told.broker} told {told.peer} to go at {before_s:.3f} and again at {told.at_s:.3f}")
        if told.ours:
            wrong.append(f"{told.broker} told {told.peer}, a well-behaved worker of ours, to go at {told.at_s:.3f}")
        last[told.broker, told.peer] = told.at_s
    return wrong


def cancel_stops_the_run(history: History) -> list[str]:
    """When nothing is broken, a handler whose call has ended without it learns of that, or is not even started."""
    wrong = []
    for run in history.executions if history.calm else ():
        call = history.calls.get(run.key)
        if call is None or call.ending is None or call.one_way or run.plain:
            continue
        by_s = call.ending.at_s + _STOP_SLACK_S
        if run.started_s > by_s:
            wrong.append(f"{_name(call)} was over at {call.ending.at_s:.3f}, but started at {_places([run])}")
        elif (run.ended_s is None or run.ended_s > by_s) and (run.told_s is None or run.told_s > by_s):
            wrong.append(f"{_name(call)} was over at {call.ending.at_s:.3f}, and {run.worker} was not told to stop it")
    return wrong


def no_wait_beside_idle(history: History) -> list[str]:
    """Where that is demanded, no call waits for long while a worker has a free slot."""
    bound_s = history.start_bound_s
    wrong = []
    for call in history.calls.values() if bound_s is not None else ():
        runs = history.runs_of(call.key)
        until_s = runs[0].started_s if runs else call.ending.at_s if call.ending is not None else call.invoked_s
        idle_s = _idle_s(history, call.invoked_s, until_s)
        if bound_s is not None and idle_s > bound_s:
            wrong.append(
                f"{_name(call)} waited for {until_s - call.invoked_s:.3f} s, {idle_s:.3f} of them beside an idle"
            )
    return wrong


def _idle_s(history: History, from_s: float, to_s: float) -> float:
    """How long between two moments some slot was free."""
    slots = sum(history.capacity.values())
    steps = sorted(
        [(max(run.started_s, from_s), 1) for run in history.executions]
        + [(max(run.ended_s, from_s), -1) for run in history.executions if run.ended_s is not None]
    )
    idle_s, at_s, busy = 0.0, from_s, 0
    for when, change in [*steps, (to_s, 0)]:
        when = min(when, to_s)
        if busy < slots:
            idle_s += when - at_s
        at_s, busy = when, busy + change
    return idle_s


def returned_calls_first(history: History) -> list[str]:
    """Where that is demanded, a call whose worker was killed is not overtaken by those that came after it."""
    wrong = []
    runs = _runs_by_key(history)
    firsts = [taken[0] for taken in runs.values()] if history.returns_first else []
    for call in history.calls.values() if history.returns_first else ():
        taken = runs[call.key]
        for broken, again in itertools.pairwise(taken):
            if broken.finished_s is not None or broken.ended_s is None:
                continue
            noticed_s = broken.ended_s + _NOTICED_S
            passed = [
                run
                for run in firsts
                if noticed_s < run.started_s < again.started_s and history.calls[run.key].invoked_s > call.invoked_s
            ]
            if len(passed) > _PASSED_MAX:
                wrong.append(
                    f"{_name(call)} came back at {broken.ended_s:.3f}, and {len(passed)} later ones ran before it"
                )
    return wrong


def one_answer(history: History) -> list[str]:
    """When nothing is broken, each call gets one final answer, and none after it was accepted as a one-way call."""
    wrong = []
    for call, end in _ended(history) if history.calm else ():
        answers_max = 0 if end.end is End.ACCEPTED else 1
        if end.error == "RequestAbandoned" or call.hedged:
            answers_max = 2  # the answer and the cancel have crossed
        if call.answers > answers_max:
            wrong.append(f"{_name(call)} ended {end.end.value} and got {call.answers} final answers")
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
    parts_in_order,
    news_in_order,
    starts_in_time,
    backoff_is_spread,
    told_once,
    cancel_stops_the_run,
    one_answer,
    no_wait_beside_idle,
    returned_calls_first,
)


def check(history: History) -> list[str]:
    """All offences in a history, each with the checker's name in front."""
    return [f"{checker.__name__}: {line}" for checker in CHECKERS for line in checker(history)]
