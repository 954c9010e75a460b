"""Each check of a real run refuses what it is there for: one that has never failed proves nothing."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from chaos.history import Call, End, Ending, Execution, History
from chaos.reporting.value import CheckLine, FaultLine
from chaos.running import checks
from chaos.running.evidence import CallFacts, Evidence, Queue
from chaos.running.faults import Descriptors, HoldGil, Kill, Poison, SlowReplies
from chaos.running.model import Demands, Kind, Scenario
from reliable.errors import Outcome

KILL = Kill(at_s=1.0, for_s=1.0, target="worker 1")
SCENARIO = Scenario(name="planted", title="t", promise="p", faults=(KILL,))


def facts(
    key: str = "c.1",
    *,
    ended_s: float | None = 0.5,
    end: End = End.OK,
    outcome: Outcome = Outcome.EXECUTED,
    error: str = "",
    kind: str = Kind.SAFE,
    **more: Any,
) -> CallFacts:
    """A call made at 0 with its deadline at 1, and how it ended."""
    endings = (
        [] if ended_s is None else [Ending(ended_s, end, outcome, error, (key.encode(),) if end is End.OK else ())]
    )
    of_call = {name: more.pop(name) for name in ("one_way", "hedged") if name in more}
    call = Call(
        key=key.encode(),
        client="c",
        service=more.pop("service", "safe"),
        idempotent=True,
        invoked_s=0.0,
        deadline_s=1.0,
        phase=more.pop("phase", "faults"),
        endings=endings,
        **of_call,
    )
    return CallFacts(call=call, kind=kind, **more)


def run_of(key: str, worker: str = "worker-1.1", started_s: float = 0.1, finished_s: float | None = 0.2) -> Execution:
    """A run of a handler."""
    return Execution(key.encode(), worker, started_s, finished_s, finished_s)


def evidence(*calls: CallFacts, runs: tuple[Execution, ...] = (), **more: Any) -> Evidence:
    """A run with these calls; a good one if nothing else is said."""
    history = History(
        calls={found.call.key: found.call for found in calls},
        executions=list(runs),
        vetoed={"once", "parts"},
        declared={"safe"},
        capacity={run.worker: 2 for run in runs},
    )
    given: dict[str, Any] = {"scenario": SCENARIO, "faults": (), "healed_s": 2.0, "recovered_s": 3.0, **more}
    return Evidence(history=history, calls=calls, **given)


def broken(found: list[CheckLine]) -> list[str]:
    """Names of the checks that do not hold."""
    return [line.name for line in found if not line.ok]


def test_good_run_passes() -> None:
    """A suite that is always red is as useless as one that is always green."""
    assert broken(checks.judge(evidence(facts(), runs=(run_of("c.1"),)))) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("every call ends by its deadline", evidence(facts(ended_s=None))),
        (
            "every call ends by its deadline",
            evidence(facts(ended_s=1.2, end=End.FAILED, outcome=Outcome.NOT_EXECUTED, error="DeadlineExceeded")),
        ),
        (
            "not idempotent: at most once",
            evidence(facts(service="once"), runs=(run_of("c.1"), run_of("c.1", started_s=0.3, finished_s=0.4))),
        ),
        (
            "NOT_EXECUTED is true",
            evidence(facts(end=End.FAILED, outcome=Outcome.NOT_EXECUTED, error="QueueFull"), runs=(run_of("c.1"),)),
        ),
        ("EXECUTED is true", evidence(facts())),
        (
            "calls after healing succeed",
            evidence(facts(phase="healed", end=End.UNKNOWN, outcome=Outcome.UNKNOWN, error="BrokerLost")),
        ),
        ("only replies and typed errors", evidence(facts(surprise="TypeError: no"), runs=(run_of("c.1"),))),
        ("parts in order", evidence(facts(kind=Kind.STREAM, parts=(0, 2, 1, 3)), runs=(run_of("c.1"),))),
        ("parts in order", evidence(facts(kind=Kind.STREAM, parts=(0, 1, 1, 2)), runs=(run_of("c.1"),))),
        ("parts in order", evidence(facts(kind=Kind.STREAM, parts=(0, 1)), runs=(run_of("c.1"),))),
        (
            "parts in order",
            evidence(
                facts(
                    kind=Kind.STREAM_AGAIN, parts=(0, 1, 2, 3), part_runs=frozenset({"worker-1.1/1", "worker-2.1/1"})
                ),
                runs=(run_of("c.1"),),
            ),
        ),
        ("recovery", evidence(recovered_s=None, missing="no reply")),
        ("recovery", evidence(recovered_s=8.0)),
        (
            "bounded queues",
            evidence(samples=(Queue(at_s=1.0, broker="b", life="1", queued=7, over=("queued 7 of 5",)),)),
        ),
        ("no stranded worker", evidence(expected={"b": frozenset({"worker-1.1"})})),
        (
            "no stranded worker",
            evidence(
                expected={"b": frozenset({"worker-1.1"})},
                final={"b": Queue(at_s=9.0, broker="b", life="1", queued=0, workers={"worker-1.1": "working"})},
            ),
        ),
        (
            "no stranded worker",
            evidence(
                expected={"b": frozenset({"worker-1.1"})},
                final={"b": Queue(at_s=9.0, broker="b", life="1", queued=3, workers={"worker-1.1": "idle"})},
            ),
        ),
        (
            "every fault is proven",
            evidence(faults=[FaultLine(text="f", lane="", began_s=1, ended_s=2, proof="no packet", proven=False)]),
        ),
        ("no process ends by itself", evidence(ended_alone=["worker 1 ended with 1"])),
        ("no process is left", evidence(left=["process 7"])),
    ],
)
def test_check_refuses(name: str, found: Evidence) -> None:
    """The one that is named, whatever others say of the same run."""
    assert name in broken(checks.judge(found))


def test_lateness_of_this_process_is_not_the_call_s() -> None:
    """On a machine that stood still for a second, calls end a second late, and nobody is to blame."""
    late = facts(ended_s=1.9, end=End.FAILED, outcome=Outcome.NOT_EXECUTED, error="DeadlineExceeded")
    assert "every call ends by its deadline" in broken(checks.judge(evidence(late)))
    assert broken(checks.judge(evidence(attrs.evolve(late, lag_s=0.85)))) == []


def test_too_few_answers_are_refused() -> None:
    """Errors in time are not enough where the system could have answered."""
    demanding = attrs.evolve(SCENARIO, demands=Demands(answered_min=0.6))
    failed = facts("c.2", end=End.UNKNOWN, outcome=Outcome.UNKNOWN, error="BrokerLost")
    found = evidence(facts(), failed, runs=(run_of("c.1"),), scenario=demanding)
    assert broken(checks.judge(found)) == ["answered during the faults"]


def test_queue_beyond_what_the_scenario_allows_is_refused() -> None:
    """The broker's own limits may be far above what is sane here."""
    strict = attrs.evolve(SCENARIO, demands=Demands(queued_max=5))
    found = evidence(scenario=strict, samples=(Queue(at_s=1.0, broker="b", life="1", queued=6),))
    assert broken(checks.judge(found)) == ["bounded queues"]


def test_worker_that_vanishes_while_it_lives_is_a_false_death() -> None:
    """Requeueing the work of a live worker runs it twice."""
    looks = [
        Queue(at_s=at_s, broker="b", life="1", queued=0, workers=workers)
        for at_s, workers in ((1.0, {"worker-1.1": "idle"}), (2.0, {}), (3.0, {"worker-1.1": "idle"}))
    ]
    strict = attrs.evolve(SCENARIO, demands=Demands(no_worker_lost=True))
    assert broken(checks.judge(evidence(scenario=strict, samples=looks))) == ["no false deaths"]
    assert broken(checks.judge(evidence(scenario=strict, samples=looks[:1]))) == []


def test_poison_that_kills_on_is_refused() -> None:
    """A request that kills every worker it meets takes the whole service down."""
    poisoned = attrs.evolve(SCENARIO, faults=(Poison(at_s=1.0, for_s=1.0),))
    call = facts(kind=Kind.POISON, end=End.UNKNOWN, outcome=Outcome.UNKNOWN, error="WorkerLost")
    runs = tuple(run_of("c.1", f"worker-{n}.1", finished_s=None) for n in range(4))
    assert broken(checks.judge(evidence(call, runs=runs[:3], scenario=poisoned))) == []
    assert broken(checks.judge(evidence(call, runs=runs, scenario=poisoned))) == ["poison is stopped"]


def test_lock_that_was_not_held_is_refused() -> None:
    """A handler that returned at once held nothing, and the rest of the run proves nothing."""
    held = attrs.evolve(SCENARIO, faults=(HoldGil(at_s=0.0, for_s=0.4),))
    call = facts(kind=Kind.HOLD, ended_s=0.9)
    long, brief = run_of("c.1", finished_s=0.55), run_of("c.1", finished_s=0.2)
    assert broken(checks.judge(evidence(call, runs=(long,), scenario=held))) == []
    assert broken(checks.judge(evidence(call, runs=(brief,), scenario=held))) == ["the GIL was held"]


def test_progress_that_goes_back_is_refused() -> None:
    """A bar that jumps back and forth between two runs tells its reader nothing."""
    one, other = "worker-1.1/1", "worker-2.1/1"
    for news in (((one, 0), (one, 0)), ((one, 1), (one, 0)), ((one, 0), (other, 0), (one, 1))):
        found = evidence(facts(kind=Kind.PROGRESS, news=news), runs=(run_of("c.1"),))
        assert broken(checks.judge(found)) == ["progress in order"]
    begun_anew = facts(kind=Kind.PROGRESS, news=((one, 0), (one, 2), (other, 0), (other, 1)))
    assert broken(checks.judge(evidence(begun_anew, runs=(run_of("c.1"),)))) == []


def test_stream_that_nothing_cut_shows_nothing() -> None:
    """A fault between two streams would prove that streams survive faults between them."""
    strict = attrs.evolve(SCENARIO, demands=Demands(streams_cut=True))
    whole = facts(kind=Kind.STREAM, parts=(0, 1, 2, 3))
    cut = facts("c.2", kind=Kind.STREAM, parts=(0, 1), end=End.UNKNOWN, outcome=Outcome.UNKNOWN, error="WorkerLost")
    runs = (run_of("c.1"), run_of("c.2", started_s=0.3, finished_s=None))
    assert broken(checks.judge(evidence(whole, runs=runs[:1], scenario=strict))) == ["streams were cut in the middle"]
    assert broken(checks.judge(evidence(whole, cut, runs=runs, scenario=strict))) == []


def _hedging(*calls: CallFacts, loser_finishes_s: float | None) -> list[str]:
    hedged = attrs.evolve(SCENARIO, faults=(SlowReplies(at_s=0.0, for_s=1.0, by_s=0.8),))
    loser = Execution(b"h.1", "worker-1.1", 0.0, loser_finishes_s, loser_finishes_s or 0.2)
    winner = run_of("h.1", "worker-2.1")
    others = tuple(run_of(call.call.key.decode(), "worker-3.1", finished_s=0.15) for call in calls)
    pair = facts("h.1", ended_s=0.3, kind=Kind.HEDGED, hedged=True)
    return broken(checks.judge(evidence(pair, *calls, runs=(loser, winner, *others), scenario=hedged)))


def test_slow_reply_that_no_hedge_saved_is_refused() -> None:
    """Hedging that costs runs and saves nobody is worse than none."""
    slow, quick = facts("c.1", ended_s=0.95), facts("c.1", ended_s=0.2)
    assert _hedging(slow, loser_finishes_s=None) == []
    assert _hedging(quick, loser_finishes_s=None) == ["hedging cuts the tail"]


def test_run_in_which_the_suite_stood_still_says_nothing_of_hedging() -> None:
    """A client that does not run sends no hedge, whoever wrote it."""
    quick = facts("c.1", ended_s=0.2)
    assert _hedging(attrs.evolve(quick, stood_s=0.1), loser_finishes_s=None) == ["hedging cuts the tail"]
    assert _hedging(attrs.evolve(quick, stood_s=0.7), loser_finishes_s=None) == []


def test_loser_that_works_on_for_nobody_is_refused() -> None:
    """It takes a slot from somebody who waits."""
    slow = facts("c.1", ended_s=0.95)
    assert _hedging(slow, loser_finishes_s=0.9) == ["losers of hedged pairs stop"]


def test_accepted_call_that_never_ran_is_refused() -> None:
    """Its caller has gone home: nobody else will ever notice."""
    sent = facts(
        service="note", kind=Kind.ONE_WAY, phase="healed", end=End.ACCEPTED, outcome=Outcome.UNKNOWN, one_way=True
    )
    assert broken(checks.judge(evidence(sent, runs=(run_of("c.1"),)))) == []
    assert broken(checks.judge(evidence(sent))) == ["what was accepted is run"]


def test_client_that_suffers_for_newcomers_is_refused() -> None:
    """Who is connected needs no new descriptor."""
    full = attrs.evolve(SCENARIO, faults=(Descriptors(at_s=1.0, for_s=1.0),))
    kept_out: dict[str, Any] = {"end": End.FAILED, "outcome": Outcome.NOT_EXECUTED, "error": "BrokerUnreachable"}
    newcomer, resident = facts("n.1", kind=Kind.NEWCOMER, **kept_out), facts("c.1", **kept_out)
    assert broken(checks.judge(evidence(newcomer, scenario=full))) == []
    assert broken(checks.judge(evidence(newcomer, resident, scenario=full))) == ["who is there is served on"]
