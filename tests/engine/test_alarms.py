"""Alarms: one per key, in order, and no more memory than what is set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reliable.engine.alarms import Alarms


def ring(alarms: Alarms, now: float) -> list[bytes]:
    """Everything that is due, in order."""
    due = []
    while (key := alarms.pop_due(now)) is not None:
        due.append(key)
    return due


def test_alarms_ring_in_order_of_time_then_of_setting() -> None:
    """Who waits longer comes first, and ties do not depend on hashing."""
    alarms = Alarms()
    for key, when in ((b"b", 2.0), (b"c", 1.0), (b"a", 2.0)):
        alarms.set(key, when)
    assert alarms.next() == 1.0
    assert ring(alarms, 1.9) == [b"c"]
    assert ring(alarms, 2.0) == [b"b", b"a"]
    assert alarms.next() is None and len(alarms) == 0


def test_an_alarm_can_be_moved_both_ways_and_taken_back() -> None:
    """Each answer moves a call's silence; each end takes its alarm back."""
    alarms = Alarms()
    alarms.set(b"a", 5.0)
    alarms.set(b"a", 7.0)
    assert alarms.next() == 7.0 and ring(alarms, 6.0) == []
    alarms.set(b"a", 3.0)
    assert alarms.next() == 3.0
    alarms.set(b"a", 9.0)
    alarms.set(b"a", 4.0)
    assert ring(alarms, 4.0) == [b"a"] and ring(alarms, 99.0) == []
    alarms.set(b"a", 5.0)
    alarms.clear(b"a")
    alarms.clear(b"a")
    assert alarms.next() is None and ring(alarms, 99.0) == []


def test_memory_follows_what_is_set_and_not_what_was() -> None:
    """Calls are answered in milliseconds and their deadlines lie half a minute ahead."""
    alarms = Alarms()
    for number in range(20_000):
        alarms.set(number.to_bytes(4, "big"), 30.0 + number)
        alarms.set(number.to_bytes(4, "big"), 2.0 + number)
        if number >= 10:
            alarms.clear((number - 10).to_bytes(4, "big"))
    assert len(alarms) == 10
    assert len(alarms._heap) <= 100


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 20)), st.integers(0, 3)), max_size=60
    )
)
def test_alarms_do_what_a_plain_dict_would_do(steps: list[tuple[str, int | None, int]]) -> None:
    """The laziness must not show."""
    alarms, model, now = Alarms(), dict[bytes, float](), 0.0
    for name, when, passed in steps:
        key = name.encode()
        if when is None:
            alarms.clear(key)
            model.pop(key, None)
        else:
            alarms.set(key, float(when))
            model[key] = float(when)
        now += passed
        due = sorted(key for key, moment in model.items() if moment <= now)
        assert sorted(ring(alarms, now)) == due
        for key in due:
            del model[key]
        assert alarms.next() == min(model.values(), default=None) and len(alarms) == len(model)
