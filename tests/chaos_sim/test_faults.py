"""Fault schedules are values that a seed decides."""

from __future__ import annotations

import random

from chaos.sim.faults import Clog, Cut, Freeze, Kill, Leave, Part, Stall, Stop, end_of, random_schedule


def draw(seed: int, count: int = 8) -> list[object]:
    return list(
        random_schedule(
            random.Random(seed), brokers=["b1"], processes=["b1", "w1"], peers=["w1", "c1"], count=count, over_s=10.0
        )
    )


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    """Anything else could not be replayed."""
    assert draw(1) == draw(1) != draw(2)


def test_every_kind_of_fault_is_drawn_sooner_or_later_and_in_order_of_time() -> None:
    """A kind that is never drawn would be a hole that nobody sees."""
    faults = [fault for seed in range(30) for fault in draw(seed)]
    assert {type(fault) for fault in faults} == {Kill, Stop, Leave, Freeze, Stall, Cut, Part, Clog}
    times = [
        fault.at_s
        for fault in random_schedule(
            random.Random(3), brokers=["b"], processes=["b", "w"], peers=["w", "c"], count=20, over_s=5.0
        )
    ]
    assert times == sorted(times) and max(times) <= 5.0


def test_a_fault_is_over_at_its_end() -> None:
    """Healing starts when the last one is."""
    assert end_of(Kill(1.0, "b1", 2.0)) == 3.0
    assert end_of(Stop(1.0, "b1", 2.0)) == 3.0
    assert end_of(Leave(1.0, "b1", 2.0, 0.5)) == 3.5
    assert end_of(Freeze(1.0, "b1", 2.5)) == 3.5
    assert end_of(Part(1.0, "w1", "b1", 0.5)) == 1.5
    assert end_of(Cut(1.0, "w1", "b1")) == 1.0


def test_a_schedule_can_be_printed_and_pasted_into_a_test() -> None:
    """A failing seed becomes a regression that way."""
    names = {kind.__name__: kind for kind in (Kill, Stop, Leave, Freeze, Stall, Cut, Part, Clog)}
    schedule = draw(5)
    assert eval(repr(schedule), names) == schedule
