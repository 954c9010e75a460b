"""The deadline wheel: never early, at most one bucket late, nothing left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.wheel import BUCKET_S, Timed, Wheel

MOMENTS = st.floats(min_value=0.0, max_value=1e7, allow_nan=False)


def fired(wheel: Wheel, now: float) -> list[Timed]:
    """What is due, all of it."""
    return list(wheel.due(now))


def test_nothing_is_due_in_an_empty_wheel() -> None:
    """A shell with nothing to wait for must be able to sleep until input comes."""
    wheel = Wheel(5.0)
    assert wheel.next_deadline() is None
    assert fired(wheel, 1e9) == []
    assert len(wheel) == 0


@given(start=MOMENTS, delay=st.floats(min_value=0.0, max_value=1e6))
def test_fires_not_early_and_at_most_a_bucket_late(start: float, delay: float) -> None:
    """Early would break promises made in seconds; later than a bucket would break deadlines."""
    wheel, entry = Wheel(start), Timed()
    deadline = start + delay
    wheel.set(entry, deadline)
    due = wheel.next_deadline()
    assert due is not None
    assert deadline <= due <= deadline + BUCKET_S * 1.001
    assert fired(wheel, due) == [entry]
    assert entry.bucket == -1


@given(start=MOMENTS, delays=st.lists(st.floats(min_value=-10.0, max_value=100.0), max_size=20), step=MOMENTS)
def test_next_deadline_is_later_than_now_after_all_was_read(start: float, delays: list[float], step: float) -> None:
    """Else a shell, or a simulator whose clock jumps to that very moment, spins for ever."""
    wheel = Wheel(start)
    for delay in delays:
        wheel.set(Timed(), start + delay)
    now = start + step
    for _ in range(30):
        fired(wheel, now)
        due = wheel.next_deadline()
        if due is None:
            break
        assert due > now
        now = due
    assert len(wheel) == 0


def test_past_deadline_fires_in_the_next_bucket() -> None:
    """Who sets a deadline while deadlines are carried out must not keep the loop busy for ever."""
    wheel = Wheel(100.0)
    again = Timed()
    wheel.set(again, 50.0)
    seen = 0
    for entry in wheel.due(100.1):
        seen += 1
        wheel.set(entry, 100.0)
    assert seen == 1
    assert fired(wheel, 100.2) == [again]


def test_order_is_that_of_setting() -> None:
    """The same input must give the same output, or no simulated failure can be replayed."""
    wheel = Wheel(0.0)
    entries = [Timed() for _ in range(50)]
    for entry in entries:
        wheel.set(entry, 1.0)
    late = Timed()
    wheel.set(late, 0.5)
    assert fired(wheel, 2.0) == [late, *entries]


def test_dropped_entry_does_not_fire() -> None:
    """A call that was answered must not expire."""
    wheel, entry = Wheel(0.0), Timed()
    wheel.set(entry, 1.0)
    wheel.drop(entry)
    wheel.drop(entry)
    assert fired(wheel, 10.0) == []
    assert wheel.next_deadline() is None


def test_entry_dropped_or_moved_while_its_bucket_is_emptied_does_not_fire() -> None:
    """The first of two that are due may end the second."""
    wheel = Wheel(0.0)
    first, dropped, moved = Timed(), Timed(), Timed()
    for entry in (first, dropped, moved):
        wheel.set(entry, 1.0)
    seen = []
    for entry in wheel.due(1.5):
        seen.append(entry)
        wheel.drop(dropped)
        wheel.set(moved, 3.0)
    assert seen == [first]
    assert fired(wheel, 3.1) == [moved]


def test_setting_again_moves() -> None:
    """One entry, one deadline."""
    wheel, entry = Wheel(0.0), Timed()
    wheel.set(entry, 1.0)
    wheel.set(entry, 1.0)
    wheel.set(entry, 5.0)
    assert len(wheel) == 1
    assert fired(wheel, 4.0) == []
    assert fired(wheel, 5.1) == [entry]


def test_dropped_far_deadlines_leave_nothing_behind() -> None:
    """A peer that names far deadlines and ends its calls at once must not fill the memory."""
    wheel = Wheel(0.0)
    for number in range(10_000):
        entry = Timed()
        wheel.set(entry, 1e6 + number)
        wheel.drop(entry)
    assert len(wheel) == 0
    assert len(wheel._buckets) == 0
    assert len(wheel._heap) < 200


@pytest.mark.parametrize("moment", [10001.1, 0.05, 0.15, 3.0000000000000004, 123456.85])
def test_clock_set_to_the_announced_moment_finds_it_due(moment: float) -> None:
    """0.05 is no binary fraction: products and quotients of it disagree in the last bit."""
    wheel, entry = Wheel(0.0), Timed()
    wheel.set(entry, moment)
    due = wheel.next_deadline()
    assert due is not None
    assert fired(wheel, due) == [entry]
