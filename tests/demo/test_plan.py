"""The plan of what is broken is a function of the seed."""

from __future__ import annotations

import pytest

from reliable.cli.demo_plan import WORKERS, FaultKind, plan_faults


def test_the_same_seed_gives_the_same_plan() -> None:
    """Else nobody could show the same run twice."""
    assert plan_faults(7, 1790) == plan_faults(7, 1790)
    assert plan_faults(7, 1790) != plan_faults(8, 1790)


@pytest.mark.parametrize("calls", [40, 120, 1790, 10_000])
def test_every_plan_is_one_that_can_be_carried_out(calls: int) -> None:
    """In order, within the run, and nothing is thawed, restarted or killed that is not in the state for it."""
    for seed in range(300):
        plan = plan_faults(seed, calls)
        afters = [fault.after_calls for fault in plan]
        assert afters == sorted(afters)
        assert afters[0] > 0 and afters[-1] < calls
        frozen: int | None = None
        brokers = 2
        for fault in plan:
            match fault.kind:
                case FaultKind.FREEZE_WORKER:
                    assert frozen is None
                    frozen = fault.worker
                case FaultKind.THAW_WORKER:
                    assert frozen is not None and fault.worker == frozen
                    frozen = None
                case FaultKind.KILL_WORKER:
                    assert fault.worker in range(1, WORKERS + 1) and fault.worker != frozen
                case FaultKind.KILL_BROKER:
                    brokers -= 1
                    assert brokers == 1
                case FaultKind.RESTART_BROKER:
                    brokers += 1
        assert (frozen, brokers) == (None, 2)


def test_every_kind_of_fault_is_in_every_plan() -> None:
    """A demo without a dead broker would show less than it says."""
    for seed in range(50):
        assert {fault.kind for fault in plan_faults(seed, 500)} == set(FaultKind)
