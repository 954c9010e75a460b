"""Each checker refuses the history that it is there to refuse: one that never fails proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos import checkers
from chaos.checkers import CHECKERS, check
from chaos.history import Call, End, Ending, Execution, History
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

BAD: list[tuple[str, History]] = [
    ("times_out_in_time", history()),
    ("times_out_in_time", history(OK, OK, runs=(ran(),))),
    ("times_out_in_time", history(LATE)),
    ("at_most_once", history(OK, runs=(ran(), ran(10.6, 10.8)))),
    ("at_most_once", history(LOST, runs=(KILLED, ran(10.6, 10.8)))),
    ("not_executed_is_true", history(REFUSED, runs=(ran(),))),
    ("not_executed_is_true", history(REFUSED, runs=(ran(900.0, 900.1),))),
    ("not_executed_is_true", history(REFUSED, runs=(KILLED,))),
    ("executed_implies_executed", history(OK)),
    ("executed_implies_executed", history(OK, runs=(KILLED,))),
    ("executed_implies_executed", history(OK, runs=(ran(10.1, 12.0),))),
    ("own_reply", history(OTHER_REPLY, runs=(ran(),))),
    ("own_reply", history(EMPTY_REPLY, runs=(ran(),))),
    ("same_claim", history(CONFUSED)),
    ("one_call_per_slot", history(OK, runs=(ran(), ran(10.2, 10.4, key=b"j")))),
    ("healed_calls_succeed", history(REFUSED, phase="healed")),
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
