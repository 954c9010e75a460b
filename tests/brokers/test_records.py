"""Records of calls: what may be said of them, and what happens when memory is full."""

from __future__ import annotations

import math

import pytest

from brokers.peers import ClientPeer, Worker
from brokers.records import FRAME_BYTES, Call, CallState, CallTable, HandOver, LateTokens, weight
from brokers.services import Service
from reliable.errors import Outcome
from reliable.status import Status
from reliable.types import Frames
from reliable.wire.extension import CallFlag, Place
from reliable.wire.mdp import Version

NONE, YES, NO = int(CallFlag.NONE), int(CallFlag.IDEMPOTENT), int(CallFlag.NOT_IDEMPOTENT)


def make_call(
    number: int = 1, *, now: float = 0.0, ours: bool = True, flags: int = 0, service: Service | None = None
) -> Call:
    """A call as the broker makes it."""
    return Call(
        call_id=number.to_bytes(16, "big"),
        ours=ours,
        service=service or Service(b"echo"),
        body=[b"hello"],
        size=5,
        peer=ClientPeer(),
        answer_to=b"client",
        stack=[],
        version=Version.MDP02,
        client_key=b"client",
        deadline=now + 30.0,
        now=now,
        flags=flags,
    )


def make_table(*, finished: int = 10, reply_bytes: int = 100, fences: int = 3) -> CallTable:
    """A small table that began at 100."""
    return CallTable(100.0, finished_max=finished, reply_bytes_max=reply_bytes, fences_max=fences)


def finished(table: CallTable, number: int, reply: Frames | None, now: float = 100.0) -> Call:
    """A call that was answered."""
    call = make_call(number, now=now)
    table.calls[call.call_id] = call
    call.state, call.status, call.reply = CallState.DONE, Status.OK, reply
    table.finish(call)
    return call


@pytest.mark.parametrize(
    ("ours", "flags", "declared", "expected"),
    [
        (True, NONE, None, False),
        (True, NONE, True, True),
        (True, NONE, False, False),
        (True, YES, None, True),
        (True, YES, True, True),
        (True, YES, False, False),
        (True, NO, None, False),
        (True, NO, True, False),
        (True, NO, False, False),
        (True, YES | NO, None, False),
        (False, NONE, None, True),
        (False, NONE, True, True),
        (False, NONE, False, False),
    ],
)
def test_who_may_be_repeated(ours: bool, flags: int, declared: bool | None, expected: bool) -> None:
    """A wrong yes here runs somebody's payment twice."""
    service = Service(b"echo")
    service.idempotent = declared
    assert make_call(ours=ours, flags=flags, service=service).may_repeat() is expected


def test_only_proof_makes_a_call_not_executed() -> None:
    """Each hand-over counts until it is proven not to have begun; so does a time before the record."""
    call = make_call()
    assert call.proven_outcome() is Outcome.NOT_EXECUTED
    call.unproven = 1
    assert call.proven_outcome() is Outcome.UNKNOWN
    call.unproven = 0
    call.prior = True
    assert call.proven_outcome() is Outcome.UNKNOWN


def test_place_follows_the_call() -> None:
    """It is the last line of the story that a caller reads after a timeout."""
    service = Service(b"echo")
    call = make_call(service=service)
    assert call.place() is Place.QUEUED_NO_WORKER
    worker = Worker(b"w", Version.MDP02, 0.0, instance=b"i" * 16)
    service.offer(worker, None)
    assert call.place() is Place.QUEUED
    hand_over = HandOver(b"t" * 16, call, worker, 0.0)
    call.state, call.held = CallState.HELD, hand_over
    assert call.place() is Place.DELIVERED
    assert hand_over.current
    hand_over.started = True
    assert call.place() is Place.RUNNING
    worker.stuck = True
    assert call.place() is Place.STUCK
    hand_over.limbo = True
    assert call.place() is Place.LIMBO
    call.held = None
    assert call.place() is Place.ENDED
    call.state = CallState.DONE
    assert call.place() is Place.ENDED


def test_horizon_begins_with_the_life() -> None:
    """What was first sent before this process began may have run in the one before."""
    assert make_table().horizon == 100.0


def test_oldest_finished_call_is_forgotten_and_moves_the_horizon_behind_it() -> None:
    """A call that left no trace must never be taken for a new one."""
    table = make_table(finished=2)
    first, second = finished(table, 1, [b"a"], now=110.0), finished(table, 2, [b"b"], now=105.0)
    assert table.horizon == 100.0
    third = make_call(3, now=120.0)
    table.calls[third.call_id] = third
    assert table.finish(third) == [first]
    assert first.reply is None
    assert table.horizon == math.nextafter(110.0, math.inf)
    fourth = make_call(4, now=121.0)
    table.calls[fourth.call_id] = fourth
    assert table.finish(fourth) == [second]
    assert table.horizon > 110.0, "the horizon never goes back"
    assert table.forgotten == 2
    assert set(table.calls) == {third.call_id, fourth.call_id}


def test_calls_in_flight_are_never_forgotten() -> None:
    """They are the only guard against a second run."""
    table = make_table(finished=1)
    flying = [make_call(number) for number in range(10, 15)]
    for call in flying:
        table.calls[call.call_id] = call
    for number in range(1, 5):
        finished(table, number, None)
    assert all(call.call_id in table.calls for call in flying)


def test_reply_bodies_go_before_ids() -> None:
    """Evicted says "it ran"; forgotten could not."""
    table = make_table(reply_bytes=10)
    first, second = finished(table, 1, [b"123456"]), finished(table, 2, [b"1234"])
    assert (first.reply, second.reply) == ([b"123456"], [b"1234"])
    third = finished(table, 3, [b"1"])
    assert first.reply is None
    assert (second.reply, third.reply) == ([b"1234"], [b"1"])
    assert first.call_id in table.calls
    assert table.evicted == 1
    assert table.usage() == {"calls": 3, "finished_calls": 3, "reply_cache_bytes": 5, "fences": 0}


def test_reply_that_alone_is_too_large_is_not_kept() -> None:
    """One huge reply must not push out all others and still not fit."""
    table = make_table(reply_bytes=10)
    small = finished(table, 1, [b"1"])
    huge = finished(table, 2, [b"x" * 11])
    assert huge.reply is None
    assert small.reply is None
    assert table.usage()["reply_cache_bytes"] == 0


def test_dropped_call_gives_its_bytes_back() -> None:
    """Else the cache shrinks with every call until it keeps nothing."""
    table = make_table(reply_bytes=10)
    call = finished(table, 1, [b"123456"])
    table.drop(call)
    table.drop(call)
    assert table.usage() == {"calls": 0, "finished_calls": 0, "reply_cache_bytes": 0, "fences": 0}
    assert call.reply is None


def test_reply_that_came_late_is_counted_once() -> None:
    """A record that is upgraded by a late reply must not be counted twice."""
    table = make_table(reply_bytes=100)
    call = finished(table, 1, None)
    call.reply = [b"12345"]
    table.cache(call)
    table.cache(call)
    assert table.usage()["reply_cache_bytes"] == 5


def test_frames_weigh_too() -> None:
    """A message of a million empty frames has no bytes and fills the memory all the same."""
    assert weight([b"abc"]) == 3
    assert weight([b""] * 1001) == 1000 * FRAME_BYTES


def test_fence_refuses_attempts_up_to_its_own() -> None:
    """The first copy is what it is there for; the next attempt is what its asker is free to send."""
    table = make_table()
    assert not table.fenced(b"a", 1)
    fence, gone = table.fence(b"a", 2, 101.0)
    assert gone is None
    assert table.fenced(b"a", 1) and table.fenced(b"a", 2)
    assert not table.fenced(b"a", 3)
    assert not table.fenced(b"b", 1)
    assert table.fence(b"a", 5, 102.0)[0] is fence
    assert table.fence(b"a", 1, 102.0)[0].attempt == 5
    table.drop_fence(fence)
    table.drop_fence(fence)
    assert not table.fenced(b"a", 1)


def test_fence_that_does_not_fit_moves_the_horizon() -> None:
    """The promise "it will not run" is then kept by the horizon instead."""
    table = make_table(fences=1)
    first, _ = table.fence(b"a", 1, 101.0)
    _, gone = table.fence(b"b", 1, 103.0)
    assert gone is first
    assert table.horizon == math.nextafter(101.0, math.inf)


def test_late_token_is_understood_only_from_the_process_that_had_it() -> None:
    """A token is a permission to answer somebody's call."""
    late = LateTokens(2)
    ours = Worker(b"w1", Version.MDP02, 0.0, instance=b"i" * 16)
    again = Worker(b"w2", Version.MDP02, 0.0, instance=b"i" * 16)
    foreign = Worker(b"w3", Version.MDP01, 0.0)
    other_foreign = Worker(b"w4", Version.MDP01, 0.0)
    mine, theirs = HandOver(b"1", make_call(), ours, 0.0), HandOver(b"2", make_call(), foreign, 0.0)
    late.add(mine)
    late.add(theirs)
    assert late.get(b"1", ours) is mine
    assert late.get(b"1", again) is mine
    assert late.get(b"1", foreign) is None
    assert late.get(b"2", foreign) is theirs
    assert late.get(b"2", other_foreign) is None
    assert late.get(b"3", ours) is None
    assert late.find(b"2") is theirs
    late.add(HandOver(b"3", make_call(), ours, 0.0))
    assert late.find(b"1") is None, "the oldest goes first"
    late.pop(b"2")
    late.pop(b"2")
    assert len(late) == 1
