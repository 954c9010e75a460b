"""Each checker refuses the history that it is there to refuse: one that never fails proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from chaos import checkers
from chaos.checkers import CHECKERS, check
from chaos.history import Call, Dismissal, End, Ending, Execution, History, Pause, Wait
from reliable.errors import Outcome

OK = Ending(11.0, End.OK, Outcome.EXECUTED, reply=(b"k",))
REFUSED = Ending(11.0, End.FAILED, Outcome.NOT_EXECUTED, "QueueFull")
LOST = Ending(11.0, End.UNKNOWN, Outcome.UNKNOWN, "WorkerLost")


def history(
    *endings: Ending, runs: tuple[Execution, ...] = (), idempotent: bool | None = False, phase: str = ""
) -> History:
    """One call at 10 with deadline 15."""
    call = Call(b"k", "c1", "echo", idempotent, 10.0, 15.0, phase, list(endings))
    return History({b"k": call}, list(runs), {"w1#1": 1})


def ran(started_s: float = 10.1, ended_s: float = 10.5, *, worker: str = "w1#1", key: bytes = b"k") -> Execution:
    return Execution(key, worker, started_s, ended_s, ended_s)


KILLED = Execution(b"k", "w1#1", 10.1, None, 10.3)
OTHER_REPLY = Ending(11.0, End.OK, Outcome.EXECUTED, reply=(b"j",))
EMPTY_REPLY = Ending(11.0, End.OK, Outcome.EXECUTED, reply=())
CONFUSED = Ending(11.0, End.FAILED, Outcome.UNKNOWN, "WorkerLost")
LATE = Ending(15.2, End.UNKNOWN, Outcome.UNKNOWN, "DeadlineExceeded")

ACCEPTED = Ending(11.0, End.ACCEPTED, Outcome.UNKNOWN)


def streamed(
    *numbers: int, origins: tuple[bytes, ...] = (b"w1#1/1",), key: bytes = b"k", whole: int | None = None
) -> History:
    """A streamed reply whose caller got these parts, of so many."""
    count = len(numbers) if whole is None else whole
    case = history(Ending(11.0, End.OK, Outcome.EXECUTED, reply=(b"k", b"done", b"%d" % count)), runs=(ran(),))
    case.calls[b"k"].parts = [
        (key, b"part", origins[index % len(origins)], b"%d" % number) for index, number in enumerate(numbers)
    ]
    return case


def informed(*words: tuple[bytes, int], key: bytes = b"k", asked: bool = True) -> History:
    """A caller that got these words of progress: who says it, and its number."""
    case = history(OK, runs=(ran(),))
    case.calls[b"k"].wants_progress = asked
    case.calls[b"k"].news = [(key, b"news", who, b"%d" % number) for who, number in words]
    return case


def told(at_s: float, *, ours: bool = False) -> Dismissal:
    """A peer was told to go."""
    return Dismissal("b1#1", "p1/1", at_s, ours)


def answered(case: History, answers: int) -> History:
    """In calm, with so many final answers to the call."""
    case.calm = True
    case.calls[b"k"].answers = answers
    case.calls[b"k"].one_way = case.calls[b"k"].ending == ACCEPTED
    return case


def crowd(*, passed: int) -> History:
    """A call lost its worker and ran again behind ``passed`` later ones."""
    case = history(
        Ending(15.0, End.OK, Outcome.EXECUTED, reply=(b"k",)), runs=(KILLED, ran(14.8, 14.9)), idempotent=True
    )
    case.returns_first = True
    for number in range(passed):
        key = b"x%d" % number
        end = Ending(14.5, End.OK, Outcome.EXECUTED, reply=(key,))
        case.calls[key] = Call(key, "c1", "echo", True, 10.2, 15.0, "", [end])
        case.executions.append(ran(13.0 + number / 10, 13.05 + number / 10, key=key))
    return case


BAD: list[tuple[str, History]] = [
    ("times_out_in_time", history()),
    ("times_out_in_time", history(OK, OK, runs=(ran(),))),
    ("times_out_in_time", history(LATE)),
    ("at_most_once", history(OK, runs=(ran(), ran(10.6, 10.8)))),
    ("at_most_once", history(LOST, runs=(KILLED, ran(10.6, 10.8)))),
    ("not_executed_is_true", history(REFUSED, runs=(ran(),))),
    ("not_executed_is_true", history(REFUSED, runs=(ran(17.0, 17.1),))),
    ("not_executed_is_true", history(REFUSED, runs=(KILLED,))),
    ("executed_implies_executed", history(OK)),
    ("executed_implies_executed", history(OK, runs=(KILLED,))),
    ("executed_implies_executed", history(OK, runs=(ran(10.1, 12.0),))),
    ("own_reply", history(OTHER_REPLY, runs=(ran(),))),
    ("own_reply", history(EMPTY_REPLY, runs=(ran(),))),
    ("same_claim", history(CONFUSED)),
    ("one_call_per_slot", history(OK, runs=(ran(), ran(10.2, 10.4, key=b"j")))),
    ("healed_calls_succeed", history(REFUSED, phase="healed")),
    ("parts_in_order", streamed(0, 2)),
    ("parts_in_order", streamed(1, 0)),
    ("parts_in_order", streamed(0, 0)),
    ("parts_in_order", streamed(0, whole=2)),
    ("parts_in_order", streamed(0, 1, origins=(b"w1#1/1", b"w2#1/1"))),
    ("parts_in_order", streamed(0, 1, key=b"j")),
    ("news_in_order", informed((b"w1#1/1", 0), (b"w1#1/1", 0))),
    ("news_in_order", informed((b"w1#1/1", 1), (b"w1#1/1", 0))),
    ("news_in_order", informed((b"w1#1/1", 0), (b"w2#1/1", 0), (b"w1#1/1", 1))),
    ("news_in_order", informed((b"w1#1/1", 0), key=b"j")),
    ("news_in_order", informed((b"w1#1/1", 0), asked=False)),
    ("starts_in_time", history(LOST, runs=(ran(900.0, 900.1),))),
    ("backoff_is_spread", attrs.evolve(history(LOST), waits=[Wait(f"w{n}#1", 0.1) for n in range(3)])),
    ("told_once", attrs.evolve(history(LOST), dismissals=[told(1.0), told(1.5)])),
    ("told_once", attrs.evolve(history(LOST), dismissals=[told(1.0, ours=True)])),
    ("cancel_stops_the_run", attrs.evolve(history(LOST, runs=(ran(10.1, 14.0),)), calm=True)),
    ("cancel_stops_the_run", attrs.evolve(history(LOST, runs=(ran(12.5, 12.6),)), calm=True)),
    ("one_answer", answered(history(OK, runs=(ran(),)), 2)),
    ("one_answer", answered(history(ACCEPTED, runs=(ran(),)), 1)),
    ("no_wait_beside_idle", attrs.evolve(history(OK, runs=(ran(10.9, 10.95),)), start_bound_s=0.5)),
    ("returned_calls_first", crowd(passed=3)),
]

GOOD: list[History] = [
    history(OK, runs=(ran(),)),
    history(OK, runs=(ran(), ran(10.2, 10.4, worker="w2#1")), idempotent=True),
    history(LOST, runs=(KILLED,)),
    history(LOST),
    history(REFUSED),
    history(Ending(15.05, End.UNKNOWN, Outcome.UNKNOWN, "DeadlineExceeded")),
    history(OK, runs=(ran(), ran(10.5, 10.6, key=b"j"))),
    history(OK, runs=(ran(),), phase="healed"),
    streamed(0, 1, 2),
    attrs.evolve(history(LOST, runs=(attrs.evolve(ran(10.1, 14.0), told_s=11.3),)), calm=True),
    attrs.evolve(history(LOST, runs=(attrs.evolve(ran(900.0, 900.1), plain=True),)), calm=True),
    attrs.evolve(history(LOST), waits=[Wait("w1#1", 0.1), Wait("w2#1", 0.1), Wait("w1#1", 0.2)]),
    attrs.evolve(history(LOST), dismissals=[told(1.0), told(4.5)]),
    answered(history(OK, runs=(ran(),)), 1),
    answered(history(ACCEPTED, runs=(ran(),)), 0),
    attrs.evolve(history(OK, runs=(ran(10.9, 10.95),)), start_bound_s=1.0),
    attrs.evolve(history(OK, runs=(ran(10.9, 10.95), ran(9.0, 10.9, key=b"j"))), start_bound_s=0.5),
    crowd(passed=2),
]


@pytest.mark.parametrize(("name", "bad"), BAD)
def test_a_checker_refuses_what_it_is_there_for_and_only_that(name: str, bad: History) -> None:
    """Each history is wrong in one way, so exactly one checker speaks."""
    assert {line.split(":")[0] for line in check(bad)} == {name}


@pytest.mark.parametrize("good", GOOD)
def test_nothing_is_said_of_a_history_in_which_all_is_well(good: History) -> None:
    """A false alarm would soon be switched off."""
    assert check(good) == []


def test_every_checker_has_a_history_that_it_refuses() -> None:
    """No entry in the list is decoration."""
    assert {checker.__name__ for checker in CHECKERS} == {name for name, _ in BAD}
    public: set[Callable[..., object]] = {
        getattr(checkers, n) for n in checkers.__all__ if n.islower() and n != "check"
    }
    assert public == set(CHECKERS)


def test_a_worker_with_two_slots_may_run_two_calls_but_not_one_call_twice() -> None:
    """Joining a second copy of a running call is the worker's own duty."""
    two = history(OK, runs=(ran(), ran(10.2, 10.4, key=b"j")))
    two.capacity["w1#1"] = 2
    assert check(two) == []
    twice = history(OK, runs=(ran(), ran(10.2, 10.4)), idempotent=True)
    twice.capacity["w1#1"] = 2
    assert [line.split(":")[0] for line in check(twice)] == ["one_call_per_slot"]


def test_a_call_whose_client_was_killed_need_not_end() -> None:
    """There is nobody to tell."""
    lost = history()
    lost.calls[b"k"].abandoned = True
    assert check(lost) == []


def test_a_client_that_stood_still_at_its_deadline_may_end_the_call_when_it_goes_on() -> None:
    """Nothing can be demanded of a process that does not run, but it must not dally afterwards."""
    case = history(Ending(19.05, End.UNKNOWN, Outcome.UNKNOWN, "DeadlineExceeded"))
    case.pauses["c1"] = [Pause(14.0, 19.0)]
    assert check(case) == []
    case.pauses["c1"] = [Pause(14.0, 18.0)]
    assert [line.split(":")[0] for line in check(case)] == ["times_out_in_time"]


@pytest.mark.parametrize(
    ("said", "declared", "vetoed", "repeatable"),
    [
        (True, False, False, True),
        (True, False, True, False),
        (False, True, False, False),
        (None, True, False, True),
        (None, False, False, False),
    ],
)
def test_what_may_run_twice_is_decided_by_call_and_service(
    said: bool | None, declared: bool, vetoed: bool, repeatable: bool
) -> None:
    """Default no; a service's explicit no vetoes."""
    case = history(OK, runs=(ran(), ran(10.6, 10.8)), idempotent=said)
    case.declared |= {"echo"} if declared else set()
    case.vetoed |= {"echo"} if vetoed else set()
    assert (check(case) == []) is repeatable
