"""Streamed replies over links that break: whole, or an end that says that they are not."""

from __future__ import annotations

import pytest

from chaos.history import End
from chaos.sim.actors import Job, Run
from chaos.sim.network import Loss, NetworkModel
from chaos.sim.world import World
from reliable.errors import Outcome
from reliable.protocol.events import JobError

STEP_S = 0.01
FIXED = NetworkModel(delay_s=(STEP_S, STEP_S), notice_s=(STEP_S, STEP_S))


def streaming(job: Job) -> Run:
    """Four parts, one each 0.1 s, and then how many there were."""
    return Run(0.5, parts=4)


def world_with(handler: object = streaming) -> World:
    world = World(1, model=FIXED)
    world.network.loss = Loss.ALL
    world.broker("b1")
    world.worker("w1", handler)  # type: ignore[arg-type]  # one of the handlers above
    return world


def test_a_stream_over_a_link_that_holds_comes_in_order_and_whole() -> None:
    """The plain case."""
    world = world_with()
    call = world.client("c1").submit(b"k1", "echo", timeout_s=5.0)
    assert world.ended(call)
    assert call.ending is not None and call.ending.reply == (b"k1", b"done", b"4")
    assert [part[3] for part in call.parts] == [b"0", b"1", b"2", b"3"]
    assert world.problems() == []


@pytest.mark.parametrize("lost_after", [0, 1, 2, 3, 4])
def test_a_last_part_that_is_said_again_on_a_new_link_does_not_pass_for_the_whole_reply(lost_after: int) -> None:
    """The link went dead in silence after some parts; the rest and the end went into it and were lost. The end is
    repeated on the next link, the parts are not."""
    world = world_with()
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0)
    assert world.run_until(lambda: bool(world.history.executions), within_s=5.0, step_s=0.001)
    world.run(0.1 * lost_after + 0.05)
    assert world.cut("w1", "b1", silent=True) == 1

    assert world.ended(call)
    assert call.ending is not None
    assert len(call.parts) == lost_after
    assert (call.ending.end, call.ending.outcome, call.ending.error) == (End.FAILED, Outcome.EXECUTED, "ReplyEvicted")
    assert len(world.history.executions) == 1
    assert world.problems() == []


def test_a_failure_after_a_part_is_still_told_over_a_new_link() -> None:
    """An error says nothing of how many parts there were, so it needs no mending."""

    def failing(job: Job) -> Run:
        return Run(0.5, JobError("ValueError", "drawn"), parts=4)

    world = world_with(failing)
    call = world.client("c1").submit(b"k1", "echo", timeout_s=10.0, idempotent=False)
    assert world.run_until(lambda: len(call.parts) == 2, within_s=5.0, step_s=0.001)
    world.cut("w1", "b1", silent=True)
    assert world.ended(call)
    assert call.ending is not None and call.ending.outcome in (Outcome.EXECUTED, Outcome.UNKNOWN)
    assert world.problems() == []
