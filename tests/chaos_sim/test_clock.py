"""Virtual time: it moves only when told, and what is due happens in one order."""

from __future__ import annotations

import functools

import pytest

from chaos.sim.clock import Agenda, Appointment, VirtualClock


def test_the_clock_stands_still_until_it_is_moved_and_never_goes_back() -> None:
    """Engines assert that time does not run backwards; the world must not be what breaks it."""
    clock = VirtualClock(5.0)
    assert clock() == clock() == 5.0
    clock.advance_to(6.5)
    assert clock() == 6.5
    with pytest.raises(ValueError, match="backwards"):
        clock.advance_to(6.4)


def test_appointments_are_kept_by_time_and_then_by_order_of_entry() -> None:
    """Ties decided by anything else, such as a hash, would make two runs of one seed differ."""
    agenda = Agenda(VirtualClock(0.0))
    seen: list[str] = []
    for when, name in [(2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")]:
        agenda.at(when, functools.partial(seen.append, name))
    agenda.run_until(3.0)
    assert seen == ["a", "b", "c", "d"]
    assert agenda.clock() == 3.0
    assert agenda.happened == 4


def test_a_cancelled_appointment_is_not_kept() -> None:
    """Timers are moved all the time."""
    agenda = Agenda(VirtualClock(0.0))
    seen: list[int] = []
    first = agenda.at(1.0, lambda: seen.append(1))
    agenda.at(1.0, lambda: seen.append(2))
    first.cancel()
    assert not first.open
    agenda.run_until(1.0)
    assert seen == [2]


def test_a_world_in_which_time_stands_still_is_an_error_and_not_a_hang() -> None:
    """Two engines that answer each other without delay would otherwise keep a test busy for ever."""
    agenda = Agenda(VirtualClock(0.0))

    def again() -> None:
        agenda.after(0.0, again)

    agenda.at(1.0, again)
    with pytest.raises(RuntimeError, match="stands still"):
        agenda.run_until(2.0)


def test_what_is_entered_for_now_comes_behind_all_that_was_due_now() -> None:
    """The order of entry decides, whether or not the moment had come when it was entered."""
    agenda = Agenda(VirtualClock(0.0))
    seen: list[str] = []
    again = Appointment(0.0, None)

    def first() -> None:
        seen.append("first")
        agenda.at_once(again, functools.partial(seen.append, "at once"))
        agenda.at(0.5, functools.partial(seen.append, "late"))

    agenda.at(1.0, first)
    agenda.at(1.0, functools.partial(seen.append, "second"))
    agenda.run_until(1.0)
    assert seen == ["first", "second", "at once", "late"]
    assert not again.open and agenda.happened == 4


def test_an_appointment_is_used_again_and_cancelled_like_any_other() -> None:
    """A process that is killed just after it was woken must not turn."""
    agenda = Agenda(VirtualClock(0.0))
    seen: list[int] = []
    again = Appointment(0.0, None)
    agenda.at_once(again, lambda: seen.append(1))
    assert again.open
    again.cancel()
    agenda.at_once(again, lambda: seen.append(2))
    agenda.run_until(0.0)
    assert seen == [2]


def test_what_is_entered_while_running_happens_in_the_same_run_if_it_is_due() -> None:
    """A message sent in answer to a message arrives although both lie within one step of the caller."""
    agenda = Agenda(VirtualClock(0.0))
    seen: list[float] = []
    agenda.at(1.0, lambda: agenda.after(0.5, lambda: seen.append(agenda.clock())))
    agenda.at(1.0, lambda: agenda.at(0.2, lambda: seen.append(agenda.clock())))
    agenda.run_until(2.0)
    assert seen == [1.0, 1.5]
