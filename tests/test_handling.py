"""One handler, from body to result: nothing that it does gets out, and whether it was entered is known."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from reliable.handling import Handler, ServiceOptions, Services
from reliable.payload import MSGPACK, encode_call
from reliable.protocol.events import JobError, StartJob
from reliable.request import Request, current_request
from reliable.running import job_error, run_coroutine, run_function
from reliable.threads import HandlerThreads
from reliable.types import Frames


def _job(body: Frames) -> StartJob:
    return StartJob(job=1, service=b"s", body=body, deadline=None, call_id=b"c" * 16)


def _handler(function: object, *, raw: bool = False) -> Handler:
    assert callable(function)
    return Services().add("s", function, ServiceOptions(raw=raw))


@pytest.mark.parametrize(
    ("limit", "brokers", "told"), [(None, 1, None), (4, 1, 4), (4, 2, 2), (3, 2, 1), (1, 3, 1), (100_000, 1, 0xFFFF)]
)
def test_brokers_are_told_their_share_of_what_a_service_may_run(
    limit: int | None, brokers: int, told: int | None
) -> None:
    """What they do not know of would wait in the worker, in slots that its other services could use."""
    services = Services()
    services.add("s", len, ServiceOptions(concurrency=limit, idempotent=True))
    (offer,) = services.offers(brokers)
    assert (offer.name, offer.idempotent, offer.at_once) == (b"s", True, told)


def _run(handler: Handler | None, body: Frames) -> Frames | JobError:
    job = _job(body)
    return run_function(handler, MSGPACK, job, Request(job, lambda _: None))


def test_a_handler_gets_arguments_and_its_result_comes_back() -> None:
    """The plain case."""
    body = encode_call(MSGPACK, [1], {"b": 2})
    assert _run(_handler(lambda a, *, b: [a, b]), body) == [MSGPACK.encode([1, 2])]
    assert _run(_handler(lambda *frames: list(frames), raw=True), [b"a", b""]) == [b"a", b""]


@pytest.mark.parametrize("error", [ValueError("text"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_handler_throws_is_an_answer(error: BaseException) -> None:
    """SystemExit from a handler must not end the worker's thread and leave the caller waiting."""

    def fail() -> None:
        raise error

    result = _run(_handler(fail), encode_call(MSGPACK, [], {}))
    assert result == JobError(type(error).__name__, str(error), executed=True)


def test_what_fails_before_the_handler_is_entered_did_not_run() -> None:
    """So the caller may try elsewhere without fear."""
    entered: list[object] = []
    handler = _handler(lambda a: entered.append(a))
    for body in ([b"\xc1"], encode_call(MSGPACK, [], {}), encode_call(MSGPACK, [1, 2], {}), [b"", b""]):
        result = _run(handler, body)
        assert isinstance(result, JobError)
        assert not result.executed
    missing = _run(None, [b""])
    assert isinstance(missing, JobError)
    assert (missing.type_name, missing.executed) == ("ServiceNotFound", False)
    assert entered == []


def test_a_type_error_inside_the_handler_is_not_taken_for_bad_arguments() -> None:
    """Both are TypeError in Python; only one of them means that nothing ran."""

    def fail(a: int) -> int:
        return a + "x"  # type: ignore[operator]

    result = _run(_handler(fail), encode_call(MSGPACK, [1], {}))
    assert isinstance(result, JobError)
    assert (result.type_name, result.executed) == ("TypeError", True)


def test_functions_whose_signature_cannot_be_told_are_handlers_too() -> None:
    """Some that are written in C."""
    assert _run(_handler(max), encode_call(MSGPACK, [[3, 5]], {})) == [MSGPACK.encode(5)]


def test_error_texts_are_bounded_and_may_be_missing() -> None:
    """They cross the network, and an exception's own text may be code that fails."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert len(job_error(ValueError("x" * 100_000)).message) == 4096
    assert job_error(Odd()) == JobError("Odd", "(its text cannot be had)")


async def test_a_coroutine_handler_that_is_cancelled_answers() -> None:
    """Every job ends with a result; the task that ran it ends normally."""
    entered = asyncio.Event()

    async def forever() -> None:
        entered.set()
        await asyncio.sleep(60)

    job = _job(encode_call(MSGPACK, [], {}))
    task = asyncio.create_task(run_coroutine(_handler(forever), MSGPACK, job, Request(job, lambda _: None)))
    await entered.wait()
    task.cancel()
    assert await task == JobError("CancelledError", "", executed=True)


def test_callable_objects_with_a_coroutine_method_are_coroutine_handlers() -> None:
    """Otherwise their coroutine would be returned as the result."""

    class Service:
        async def __call__(self) -> None: ...

    assert _handler(Service()).executor == "task"
    assert _handler(lambda: None).executor == "thread"


# --- the request as the handler sees it -----------------------------------------------------------


def test_the_current_request_is_there_while_the_handler_runs_and_gone_afterwards() -> None:
    """Threads are used again: the next handler must not see the last one's request."""
    seen: list[Request] = []
    _run(_handler(lambda: seen.append(current_request())), encode_call(MSGPACK, [], {}))
    assert (seen[0].service, seen[0].call_id) == ("s", b"c" * 16)
    with pytest.raises(LookupError):
        current_request()


def test_remaining_time_counts_down_to_zero_and_no_further() -> None:
    """Handlers hand it on as a timeout, and a negative one means something else everywhere."""
    now = [100.0]
    job = StartJob(job=1, service=b"s", body=[b""], deadline=102.0)
    request = Request(job, lambda _: None, lambda: now[0])
    assert request.remaining_s == 2.0
    now[0] = 105.0
    assert request.remaining_s == 0.0
    assert Request(_job([b""]), lambda _: None).remaining_s is None


def test_cancelling_is_seen_and_ends_a_wait_for_it() -> None:
    """Handlers that sleep should sleep on this."""
    request = Request(_job([b""]), lambda _: None)
    assert not request.cancelled
    assert not request.wait_cancelled(0.0)
    threading.Timer(0.05, request.cancel).start()
    began = time.monotonic()
    assert request.wait_cancelled(5.0)
    assert time.monotonic() - began < 2.0
    assert request.cancelled


def test_progress_is_passed_on_as_frames() -> None:
    """And text is refused like everywhere else."""
    told: list[Frames] = []
    request = Request(_job([b""]), told.append)
    request.progress(b"a", b"b")
    assert told == [[b"a", b"b"]]
    with pytest.raises(ValueError, match="not str"):
        request.progress("half")  # type: ignore[arg-type]


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_leaks")
def test_handlers_run_at_once_up_to_the_size_and_threads_are_used_again() -> None:
    """No more threads than were asked for, and none for handlers that take turns."""
    pool = HandlerThreads(2, "test")
    names: list[str] = []
    barrier = threading.Barrier(2)
    done = threading.Semaphore(0)

    def meet() -> None:
        barrier.wait(5)
        names.append(threading.current_thread().name)
        done.release()

    for _ in range(10):
        pool.run(meet)
    for _ in range(10):
        assert done.acquire(timeout=5)
    assert set(names) == {"test-0", "test-1"}
    pool.close(5.0)


@pytest.mark.usefixtures("no_leaks")
def test_a_thread_in_a_handler_does_not_hold_up_the_close() -> None:
    """It ends by itself when the handler does; until then it is a daemon that no exit waits for."""
    pool = HandlerThreads(2, "test")
    release = threading.Event()

    def hang() -> None:
        release.wait(5)

    pool.run(hang)
    began = time.monotonic()
    pool.close(0.1)
    assert time.monotonic() - began < 1.0
    release.set()
