"""What a run must hold: pure functions from the evidence to lines that say what was wrong.

The rules of ``chaos.checkers`` hold for every history, simulated or real. The ones here need what only a real run has:
the lateness of its own process, the brokers' own words, faults with proofs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from chaos import checkers
from chaos.history import End, History
from chaos.reporting.value import CheckLine
from chaos.running.evidence import CallFacts, Evidence
from chaos.running.faults import SlowReplies
from chaos.running.model import Kind

__all__ = [
    "CHECKS",
    "RULES",
    "STREAMS",
    "Found",
    "accepted_is_run",
    "answered_meanwhile",
    "bounded_queues",
    "ends_in_time",
    "faults_proven",
    "gil_was_held",
    "judge",
    "losers_stop",
    "news_in_order",
    "no_false_deaths",
    "no_surprises",
    "nothing_ends_alone",
    "nothing_is_left",
    "nothing_stranded",
    "parts_in_order",
    "poison_is_stopped",
    "recovers",
    "residents_go_on",
    "streams_are_cut",
    "tail_is_cut",
]

Found: TypeAlias = tuple[str, Sequence[str]]
"""A figure in a few words, and one line per offence."""

_OFFENCES_KEPT: Final = 10
_STOOD_S_MAX: Final = 0.4
"""For how long this process may stand still in a run in which lengths of calls are judged."""
_STOP_SLACK_S: Final = 0.5
"""How long the word that nobody waits may take to the handler."""
STREAMS: Final = (Kind.STREAM, Kind.STREAM_AGAIN)
_DELIVERY_CAP: Final = 3
"""Of each life of each broker: each of them finds out for itself."""

RULES: Final[tuple[tuple[str, Callable[[History], list[str]]], ...]] = (
    ("not idempotent: at most once", checkers.at_most_once),
    ("nothing starts after its deadline", checkers.starts_in_time),
    ("NOT_EXECUTED is true", checkers.not_executed_is_true),
    ("EXECUTED is true", checkers.executed_implies_executed),
    ("every reply is the caller's own", checkers.own_reply),
    ("the claim fits the end", checkers.same_claim),
    ("no worker beyond its slots", checkers.one_call_per_slot),
    ("calls after healing succeed", checkers.healed_calls_succeed),
)


def _name(facts: CallFacts) -> str:
    return f"{facts.call.key.decode()} ({facts.kind})"


def ends_in_time(evidence: Evidence) -> Found:
    """Every call ends once, by its deadline; the lateness of this process itself is not the call's."""
    wrong, latest_s = [], 0.0
    for facts in evidence.calls:
        endings = facts.call.endings
        if not endings:
            wrong.append(f"{_name(facts)} made at {facts.call.invoked_s:.3f} never ended")
            continue
        if len(endings) > 1:
            wrong.append(f"{_name(facts)} ended {len(endings)} times")
        if facts.call.deadline_s is None:
            continue
        late_s = endings[0].at_s - facts.call.deadline_s - facts.lag_s
        latest_s = max(latest_s, late_s)
        if late_s > checkers.DEADLINE_SLACK_S:
            wrong.append(f"{_name(facts)} ended {late_s:.3f} s after its deadline")
    hung = sum(1 for facts in evidence.calls if not facts.call.endings)
    return f"{len(evidence.calls)} calls, {hung} hung, latest {latest_s * 1000:.0f} ms after its deadline", wrong


def no_surprises(evidence: Evidence) -> Found:
    """No call ends with anything but a reply or an error of the library's own tree."""
    wrong = [f"{_name(facts)}: {facts.surprise}" for facts in evidence.calls if facts.surprise]
    return f"{len(wrong)} surprises", wrong


def parts_in_order(evidence: Evidence) -> Found:
    """Parts of a reply come in order, none is missing in between and none comes twice; a good end has them all."""
    wrong, count = [], 0
    for facts in evidence.calls:
        if facts.kind not in STREAMS:
            continue
        count += len(facts.parts)
        if facts.parts != tuple(range(len(facts.parts))):
            wrong.append(f"{_name(facts)} got the parts {facts.parts}")
        if len(facts.part_runs) > 1:
            wrong.append(f"{_name(facts)} got parts of several runs: {', '.join(sorted(facts.part_runs))}")
        ending = facts.call.ending
        if ending is not None and ending.end is End.OK and len(facts.parts) != facts.parts_wanted:
            wrong.append(f"{_name(facts)} ended well after {len(facts.parts)} parts of {facts.parts_wanted}")
    return f"{count} parts", wrong


def news_in_order(evidence: Evidence) -> Found:
    """Words of progress come in order: rising within a run, and never again of a run after those of another."""
    wrong, count = [], 0
    for facts in evidence.calls:
        count += len(facts.news)
        runs = [run for run, _ in itertools.groupby(facts.news, key=lambda word: word[0])]
        risen = all(one[0] != other[0] or one[1] < other[1] for one, other in itertools.pairwise(facts.news))
        if len(set(runs)) != len(runs) or not risen:
            wrong.append(f"{_name(facts)} got the news {facts.news}")
    return f"{count} words of progress", wrong


def streams_are_cut(evidence: Evidence) -> Found:
    """Some streams ended badly after a part had come, and some well that were open while things broke."""
    streams = [facts for facts in evidence.calls if facts.kind in STREAMS and facts.call.phase == "faults"]
    cut = sum(1 for facts in streams if facts.parts and facts.call.ending is not None and facts.call.ending.error)
    return f"{cut} of {len(streams)} broken off after a part", [] if cut else ["no stream was cut in its middle"]


def tail_is_cut(evidence: Evidence) -> Found:
    """Among hedged calls slow ones are rarer than among the others that workers hold back as often.

    A client that stood still sends no hedge, and then all that is due at once. Such a run says nothing of hedging.
    """
    stood_s = max((one.stood_s for one in evidence.calls if one.call.phase == "faults"), default=0.0)
    if stood_s >= _STOOD_S_MAX:
        return f"not judged, as the suite itself stood still for {stood_s:.1f} s", []
    by_s = min(fault.by_s for fault in evidence.scenario.faults if isinstance(fault, SlowReplies))
    shares = []
    for kind in (Kind.HEDGED, Kind.SAFE):
        made = [one.call for one in evidence.calls if one.kind == kind and one.call.phase == "faults"]
        slow = [call for call in made if call.ending is None or call.ending.at_s - call.invoked_s >= by_s]
        shares.append(len(slow) / max(1, len(made)))
    hedged, plain = shares
    wrong = [] if plain > 1.5 * hedged else [f"slow were {hedged:.1%} of the hedged calls, {plain:.1%} of the others"]
    return f"slow: {hedged:.1%} of hedged calls, {plain:.1%} of the others", wrong


def losers_stop(evidence: Evidence) -> Found:
    """The slower one of a pair is told that nobody waits for it: it does not go on to its end."""
    wrong, stopped = [], 0
    for facts in evidence.calls:
        ending = facts.call.ending
        if not facts.call.hedged or ending is None or ending.end is not End.OK:
            continue
        for run in evidence.history.runs_of(facts.call.key):
            stopped += run.ended_s is not None and run.finished_s is None
            if run.finished_s is not None and run.finished_s > ending.at_s + _STOP_SLACK_S:
                late_s = run.finished_s - ending.at_s
                wrong.append(f"{_name(facts)} was worked on at {run.worker} {late_s:.2f} s after its end")
    return f"{stopped} stopped", wrong if stopped else [*wrong, "no run was stopped"]


def accepted_is_run(evidence: Evidence) -> Found:
    """A one-way call that a broker took when nothing was broken any more has been run."""
    accepted = [facts for facts in evidence.calls if facts.call.one_way and _accepted(facts)]
    healed = [facts for facts in accepted if facts.call.phase == "healed"]
    wrong = [
        f"{_name(facts)} was accepted and never run" for facts in healed if not evidence.history.runs_of(facts.call.key)
    ]
    return f"{len(accepted)} accepted, {len(healed)} of them after healing", wrong


def _accepted(facts: CallFacts) -> bool:
    return facts.call.ending is not None and facts.call.ending.end is End.ACCEPTED


def residents_go_on(evidence: Evidence) -> Found:
    """Who was connected before is served while newcomers are kept out, and those end with an error."""
    made = [one for one in evidence.calls if one.kind != Kind.NEWCOMER and one.call.phase == "faults"]
    wrong = [
        f"{_name(one)} ended with {one.call.ending.error}"
        for one in made
        if one.call.ending is not None and one.call.ending.error
    ]
    return f"{len(made)} calls of clients that were there", wrong


def faults_proven(evidence: Evidence) -> Found:
    """Each fault left a trace: a signal's effect, a toxic read back, a drop counter above zero."""
    wrong = [f"{fault.text}: {fault.proof}" for fault in evidence.faults if not fault.proven]
    return f"{len(evidence.faults)} faults", wrong


def answered_meanwhile(evidence: Evidence) -> Found:
    """As many calls as demanded are answered, or accepted if they are one-way, while things are broken."""
    made = [facts.call for facts in evidence.calls if facts.call.phase == "faults"]
    answered = sum(1 for call in made if call.ending is not None and not call.ending.error)
    share = answered / len(made) if made else 1.0
    wanted = evidence.scenario.demands.answered_min
    wrong = [] if share >= wanted else [f"{answered} of {len(made)} calls were answered; demanded are {wanted:.0%}"]
    return f"{share:.0%} of {len(made)}", wrong


def recovers(evidence: Evidence) -> Found:
    """Soon after the last fault every client gets replies again and every worker is in service."""
    allowed_s = evidence.scenario.demands.recovery_s
    if evidence.healed_s is None:
        return "no fault to recover from", []
    if evidence.recovered_s is None:
        return f"not within {allowed_s:g} s", [f"{allowed_s:g} s after the last fault: {evidence.missing}"]
    took_s = evidence.recovered_s - evidence.healed_s
    wrong = [] if took_s <= allowed_s else [f"it took {took_s:.1f} s; {allowed_s:g} s are allowed"]
    return f"{took_s:.2f} s", wrong


def bounded_queues(evidence: Evidence) -> Found:
    """No broker ever holds more than its limits, or than the scenario allows."""
    allowed = evidence.scenario.demands.queued_max
    wrong = [f"{look.broker} at {look.at_s:.1f}: {text}" for look in evidence.samples for text in look.over]
    longest = max((look.queued for look in evidence.samples), default=0)
    if allowed is not None and longest > allowed:
        wrong.append(f"{longest} requests were queued; {allowed} are allowed")
    return f"at most {longest} queued", wrong


def nothing_stranded(evidence: Evidence) -> Found:
    """After the last call every worker that lives is idle in the eyes of every broker, and no queue holds anything."""
    wrong = []
    for broker, names in evidence.expected.items():
        look = evidence.final.get(broker)
        if look is None:
            wrong.append(f"{broker} does not answer")
            continue
        states = {name: look.workers.get(name, "unknown to it") for name in sorted(names)}
        wrong += [f"{name} is {state} at {broker}" for name, state in states.items() if state != "idle"]
        if look.queued:
            wrong.append(f"{look.queued} requests are still queued at {broker}")
    workers = len(frozenset().union(*evidence.expected.values()))
    return f"{workers} workers at {len(evidence.expected)} brokers", wrong


def no_false_deaths(evidence: Evidence) -> Found:
    """No worker that lives is taken for lost: its name never vanishes from a broker's list once it was there."""
    wrong, looks = [], 0
    seen: dict[str, set[str]] = {}
    for look in evidence.samples:
        looks += 1
        known = seen.setdefault(look.broker, set())
        wrong += [
            f"{name} vanished from {look.broker} at {look.at_s:.1f}" for name in sorted(known - set(look.workers))
        ]
        seen[look.broker] = set(look.workers)
    lost = max((look.counters.get("worker_lost", 0) for look in evidence.samples), default=0)
    if lost:
        wrong.append(f"{lost} calls ended since their worker was taken for lost")
    return f"{looks} looks", wrong


def poison_is_stopped(evidence: Evidence) -> Found:
    """A request that kills workers kills no more of them than each broker's delivery cap, and its caller is told."""
    wrong = []
    lives = {(look.broker, look.life) for look in evidence.samples}
    poisons = [facts for facts in evidence.calls if facts.kind == Kind.POISON]
    runs = [len(evidence.history.runs_of(facts.call.key)) for facts in poisons]
    for facts, count in zip(poisons, runs, strict=True):
        if count > _DELIVERY_CAP * max(1, len(lives)):
            wrong.append(f"{_name(facts)} killed {count} workers")
        error = facts.call.ending.error if facts.call.ending is not None else "nothing"
        if error != "WorkerLost":
            wrong.append(f"{_name(facts)} ended with {error or 'a reply'}, not with WorkerLost")
    return f"{sum(runs)} workers killed by {len(poisons)} requests", wrong


def gil_was_held(evidence: Evidence) -> Found:
    """The run that held the interpreter lock lasted as long as it was meant to, and its caller got the reply.

    Not if it is killed by another fault: then it is only proven that it ran.
    """
    wrong, longest_s = [], 0.0
    holds = [facts for facts in evidence.calls if facts.kind == Kind.HOLD]
    wanted = [fault.for_s for fault in evidence.scenario.faults if type(fault).__name__ == "HoldGil"]
    for facts, wanted_s in zip(holds, wanted, strict=False):
        runs = evidence.history.runs_of(facts.call.key)
        took_s = max((run.finished_s - run.started_s for run in runs if run.finished_s is not None), default=0.0)
        longest_s = max(longest_s, took_s)
        if took_s < 0.95 * wanted_s and any(run.ended_s is not None for run in runs):
            wrong.append(f"{_name(facts)} held it for {took_s:.2f} s, not {wanted_s:.2f} s")
        alone = len(evidence.scenario.faults) == 1
        if alone and (facts.call.ending is None or facts.call.ending.end is not End.OK):
            wrong.append(f"{_name(facts)} got no reply")
    return f"{longest_s:.2f} s", wrong


def nothing_ends_alone(evidence: Evidence) -> Found:
    """No process ends unless it is killed."""
    return f"{len(evidence.ended_alone)} ended", list(evidence.ended_alone)


def nothing_is_left(evidence: Evidence) -> Found:
    """No process outlives the run."""
    return f"{len(evidence.left)} left", list(evidence.left)


_WITHOUT_RUNS: Final = (checkers.same_claim, checkers.healed_calls_succeed)
"""What can be judged where nobody writes down what was run."""

CHECKS: Final[tuple[tuple[str, Callable[[Evidence], Found]], ...]] = (
    ("every call ends by its deadline", ends_in_time),
    ("only replies and typed errors", no_surprises),
    ("parts in order", parts_in_order),
    ("progress in order", news_in_order),
    ("answered during the faults", answered_meanwhile),
    ("recovery", recovers),
    ("bounded queues", bounded_queues),
    ("no stranded worker", nothing_stranded),
    ("every fault is proven", faults_proven),
    ("no process ends by itself", nothing_ends_alone),
    ("no process is left", nothing_is_left),
)


def judge(evidence: Evidence) -> list[CheckLine]:
    """All checks that concern this scenario, in the order of reports."""
    scenario = evidence.scenario
    kinds = {type(fault).__name__ for fault in scenario.faults}
    wanted = list(CHECKS)
    if scenario.demands.no_worker_lost:
        wanted.append(("no false deaths", no_false_deaths))
    if "Poison" in kinds:
        wanted.append(("poison is stopped", poison_is_stopped))
    if "HoldGil" in kinds:
        wanted.append(("the GIL was held", gil_was_held))
    if scenario.demands.streams_cut:
        wanted.append(("streams were cut in the middle", streams_are_cut))
    if "SlowReplies" in kinds:
        wanted += [("hedging cuts the tail", tail_is_cut), ("losers of hedged pairs stop", losers_stop)]
    if any(facts.call.one_way for facts in evidence.calls):
        wanted.append(("what was accepted is run", accepted_is_run))
    if "Descriptors" in kinds:
        wanted.append(("who is there is served on", residents_go_on))
    lines = [_line(name, *check(evidence)) for name, check in wanted]
    runs = len(evidence.executions)
    rules = RULES if scenario.guest is None else [(name, rule) for name, rule in RULES if rule in _WITHOUT_RUNS]
    lines[1:1] = [_line(name, f"{runs} executions", rule(evidence.history)) for name, rule in rules]
    if scenario.guest is not None:
        lines.append(_line(f"executions in {scenario.guest.target}", "not seen, so not judged", []))
    return lines


def _line(name: str, figure: str, offences: Sequence[str]) -> CheckLine:
    return CheckLine(
        name=name,
        ok=not offences,
        figure=figure,
        offences=list(offences[:_OFFENCES_KEPT]),
        offences_count=len(offences),
    )
