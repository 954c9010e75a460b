"""Requests that a broken connection swallows on their way to a worker: the next READY proves that they did not run."""

from __future__ import annotations

import pytest

from chaos.history import End
from chaos.sim.network import Loss, NetworkModel
from chaos.sim.world import World, takes
from reliable.config import WorkerConfig
from reliable.errors import Outcome

STEP_S = 0.01
"""One message, one way."""
FIXED = NetworkModel(delay_s=(STEP_S, STEP_S), notice_s=(STEP_S, STEP_S))


@pytest.mark.parametrize("silent", [False, True])
def test_a_call_that_never_reached_its_worker_runs_once_and_is_answered(silent: bool) -> None:
    """Without the proof nobody would know whether it ran, and the caller would hear just that."""
    world = World(1, model=FIXED)
    world.broker("b1")
    world.network.loss = Loss.ALL
    world.worker("w1", takes(0.05), config=WorkerConfig(concurrency=3))
    client = world.client("c1")
    world.run(1.0)
    first = client.submit(b"k0", "echo", timeout_s=10.0, idempotent=False)
    assert world.ended(first)
    calls = [client.submit(b"k%d" % number, "echo", timeout_s=20.0, idempotent=False) for number in range(1, 4)]
    world.run(1.5 * STEP_S)
    assert world.cut("w1", "b1", silent=silent) == 1
    for call in calls:
        assert world.ended(call)
        assert call.ending is not None
        assert (call.ending.end, call.ending.outcome) == (End.OK, Outcome.EXECUTED)
        assert len(world.history.runs_of(call.key)) == 1
    assert world.broker_engine("b1").counters.never_arrived == 3
    assert world.problems() == []
