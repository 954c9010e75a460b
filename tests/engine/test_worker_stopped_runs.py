"""A run that was told to stop, and the same call delivered again: its error is not the call's reply."""

from __future__ import annotations

from reliable.protocol.events import JobPartial
from reliable.wire.extension import CallFlag
from tests.support.worker_bench import LIFE_B, WorkerBench

YES = CallFlag.IDEMPOTENT


def stopped_bench(flags: CallFlag) -> tuple[WorkerBench, bytes]:
    """A worker whose one run was told to stop; the token that its broker still waits for."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    token = bench.token()
    bench.deliver(token, flags=flags)
    assert bench.cancel(token) == [("started", 1, token), ("cancel job", 1)]
    return bench, token


def test_a_call_delivered_while_its_run_is_being_stopped_runs_again() -> None:
    """The new delivery is waited for: it must not hear that nobody waits."""
    bench, first = stopped_bench(YES)
    second = bench.token(LIFE_B)
    bench.deliver(second, link=2, flags=YES)
    assert bench.fail(1, "Cancelled") == [("error", 1, first, "Cancelled", "executed"), ("start", 2, b"work")]
    assert bench.finish(2, b"r") == [("result", 2, second, b"r")]


def test_a_call_delivered_after_its_run_was_stopped_runs_again() -> None:
    """What is kept for later is the reply of a call, and the end of a stopped run is none."""
    bench, _ = stopped_bench(YES)
    bench.fail(1, "Cancelled")
    second = bench.token(LIFE_B)
    assert bench.deliver(second, link=2, flags=YES) == [("start", 2, b"work")]
    assert bench.finish(2, b"r") == [("result", 2, second, b"r")]


def test_a_call_that_is_not_idempotent_does_not_run_again() -> None:
    """It ran in part: the error is what became of it, for whoever asks."""
    bench, first = stopped_bench(CallFlag.NONE)
    second = bench.token(LIFE_B)
    bench.deliver(second, link=2)
    told = bench.fail(1, "Cancelled")
    assert ("error", 1, first, "Cancelled", "executed") in told and (
        "error",
        2,
        second,
        "Cancelled",
        "executed",
    ) in told
    third = bench.token()
    assert bench.deliver(third) == [("error", 1, third, "Cancelled", "executed")]


def test_a_handler_that_ended_with_its_result_all_the_same_has_answered() -> None:
    """To be told to stop is a request."""
    bench, first = stopped_bench(YES)
    second = bench.token(LIFE_B)
    bench.deliver(second, link=2, flags=YES)
    assert bench.finish(1, b"r") == [("result", 1, first, b"r"), ("result", 2, second, b"r")]


def test_a_stream_that_was_stopped_does_not_begin_anew_for_who_read_its_beginning() -> None:
    """Two beginnings would look like one stream."""
    bench = WorkerBench("a", "b")
    bench.register(1)
    bench.register(2, LIFE_B)
    first, second = bench.token(), bench.token(LIFE_B)
    bench.deliver(first, flags=YES)
    bench.cancel(first)
    bench.deliver(second, link=2, flags=YES)
    assert ("partial", 2, second, b"1") in bench.handle(JobPartial(1, [b"1"]))
    assert bench.fail(1, "Cancelled")[-1] == ("start", 2, b"work")
    (ended,) = bench.finish(2, b"whole")
    assert ended[:3] == ("error", 2, second)
