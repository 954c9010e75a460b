"""The table of kept replies: it remembers within its bounds, and says when it cannot tell."""

from __future__ import annotations

import math

from reliable.engine.replies import GRACE_S, ReplyTable
from reliable.protocol.events import JobError
from reliable.types import Frames
from tests.support.worker_bench import call_id

DIGEST = b"d" * 16


def make_table(bytes_max: int = 1000, entries_max: int = 10, kept_s: float = 60.0) -> ReplyTable:
    return ReplyTable(bytes_max=bytes_max, entries_max=entries_max, kept_s=kept_s)


def keep(
    table: ReplyTable,
    number: int,
    result: Frames | JobError | None = None,
    *,
    now: float = 0.0,
    deadline: float = 1000.0,
    idempotent: bool = False,
    empty: bool = False,
) -> None:
    body = None if empty else ([b"r%d" % number] if result is None else result)
    table.keep(call_id(number), DIGEST, body, deadline=deadline, idempotent=idempotent, now=now)


def test_a_reply_is_found_again() -> None:
    """What a repeated delivery is answered from."""
    table = make_table()
    keep(table, 1)
    kept = table.find(call_id(1), 1.0)
    assert kept is not None
    assert kept.result == [b"r1"]
    assert kept.digest == DIGEST
    assert table.find(call_id(2), 1.0) is None


def test_an_error_is_kept_like_a_reply() -> None:
    """A handler that failed after half its work must not run again either."""
    table = make_table()
    error = JobError("ValueError", "no")
    keep(table, 1, error)
    kept = table.find(call_id(1), 1.0)
    assert kept is not None
    assert kept.result == error


def test_a_reply_ends_with_its_time() -> None:
    """The bound in seconds."""
    table = make_table(kept_s=60.0)
    keep(table, 1)
    assert table.find(call_id(1), 59.9) is not None
    assert table.find(call_id(1), 60.0) is None
    assert len(table) == 0


def test_a_reply_ends_soon_after_its_deadline() -> None:
    """Nobody can ask any more, so it would only push others out."""
    table = make_table()
    keep(table, 1, deadline=10.0)
    assert table.find(call_id(1), 10.0 + GRACE_S - 0.1) is not None
    assert table.find(call_id(1), 10.0 + GRACE_S) is None


def test_old_entries_leave_without_being_asked_for() -> None:
    """A worker that serves each call once would else keep them all."""
    table = make_table()
    for number in range(5):
        keep(table, number, now=float(number))
    table.expire(62.0)
    assert len(table) == 2
    assert table.size_bytes == 2 * len(b"rN ")


def test_bodies_go_before_ids_oldest_first() -> None:
    """Past the bytes, "it ran" is still known; only the reply is lost."""
    table = make_table(bytes_max=25)
    for number in range(1, 4):
        keep(table, number, [b"x" * 10])
    first, second, third = (table.find(call_id(number), 1.0) for number in (1, 2, 3))
    assert first is not None and first.result is None
    assert second is not None and second.result == [b"x" * 10]
    assert third is not None and third.result == [b"x" * 10]
    assert table.size_bytes == 22
    assert table.evicted_bodies == 1


def test_a_body_above_the_whole_bound_is_not_kept_but_its_id_is() -> None:
    """One huge reply must neither break the bound nor be forgotten."""
    table = make_table(bytes_max=25)
    keep(table, 1, [b"x" * 100])
    kept = table.find(call_id(1), 1.0)
    assert kept is not None and kept.result is None
    assert table.size_bytes == 0


def test_no_bound_of_bytes_keeps_ids_alone() -> None:
    """``replies_kept_bytes_max=0`` means no bodies, not no memory."""
    table = make_table(bytes_max=0)
    keep(table, 1, [b""])
    kept = table.find(call_id(1), 1.0)
    assert kept is not None and kept.result is None


def test_ids_stay_within_their_number_oldest_first() -> None:
    """The bound in entries."""
    table = make_table(entries_max=3)
    for number in range(1, 6):
        keep(table, number)
    assert len(table) == 3
    assert [table.find(call_id(number), 1.0) is not None for number in range(1, 6)] == [False, False, True, True, True]
    assert table.evicted_ids == 2


def test_an_id_that_went_too_early_leaves_a_horizon() -> None:
    """Fail closed: a repeat that might be of that id must not be run."""
    table = make_table(entries_max=1)
    keep(table, 1, deadline=100.0)
    assert not table.may_have_run(50.0)
    keep(table, 2, deadline=200.0)
    assert table.may_have_run(100.0)
    assert table.may_have_run(100.0 + GRACE_S), "two brokers may tell the deadline a little apart"
    assert not table.may_have_run(100.1 + GRACE_S)
    assert not table.may_have_run(math.inf)


def test_the_horizon_never_goes_back() -> None:
    """The latest of the forgotten deadlines is what counts."""
    table = make_table(entries_max=1)
    for number, deadline in enumerate([300.0, 100.0, 200.0, 50.0]):
        keep(table, number, deadline=deadline)
    assert table.may_have_run(300.0)


def test_an_idempotent_id_leaves_no_horizon() -> None:
    """It may run again; refusing it would only do harm."""
    table = make_table(entries_max=1)
    keep(table, 1, deadline=100.0, idempotent=True)
    keep(table, 2)
    assert not table.may_have_run(50.0)


def test_an_id_that_nobody_can_ask_for_leaves_no_horizon() -> None:
    """Or the table would refuse for ever after its first hour."""
    table = make_table()
    keep(table, 1, deadline=10.0)
    table.expire(10.0 + GRACE_S)
    assert len(table) == 0
    assert not table.may_have_run(5.0)


def test_an_id_that_outlived_its_seconds_but_not_its_deadline_leaves_a_horizon() -> None:
    """Both ways to go too early count alike."""
    table = make_table(kept_s=60.0)
    keep(table, 1, deadline=500.0)
    assert table.find(call_id(1), 61.0) is None
    assert table.may_have_run(500.0)


def test_a_forgotten_call_without_a_deadline_makes_every_such_repeat_doubtful() -> None:
    """There is no time after which nobody can ask."""
    table = make_table(entries_max=1)
    keep(table, 1, deadline=math.inf)
    keep(table, 2, deadline=math.inf)
    assert table.may_have_run(math.inf)
    assert not table.may_have_run(1e9)


def test_a_call_that_ran_again_replaces_its_entry() -> None:
    """An idempotent call may run twice; the bytes of the former reply are given free."""
    table = make_table(bytes_max=1000)
    keep(table, 1, [b"x" * 100])
    keep(table, 1, [b"y" * 10])
    kept = table.find(call_id(1), 1.0)
    assert kept is not None and kept.result == [b"y" * 10]
    assert len(table) == 1
    assert table.size_bytes == 11


def test_a_reply_that_cannot_be_given_again_is_remembered_without_body() -> None:
    """A streamed reply: its last part alone is not the reply."""
    table = make_table()
    keep(table, 1, empty=True)
    kept = table.find(call_id(1), 1.0)
    assert kept is not None and kept.result is None
    assert table.evicted_bodies == 0


def test_a_short_lived_entry_behind_a_long_lived_one_is_not_used() -> None:
    """Entries leave in order of arrival; one that waits behind another must not answer after its time."""
    table = make_table()
    keep(table, 1, deadline=1000.0)
    keep(table, 2, deadline=10.0)
    table.expire(20.0)
    assert table.find(call_id(2), 20.0) is None
    assert table.find(call_id(1), 20.0) is not None
