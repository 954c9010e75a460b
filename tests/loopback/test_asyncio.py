"""What only the asyncio shell can get wrong: cancelled tasks, loops, and edges of descriptors."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from reliable import AsyncClient, AsyncWorker, Client, RequestAbandoned, RequestError, ServiceNotFound, current_request
from tests.support.loopback import QUICK_CLIENT, QUICK_WORKER, Stage
from tests.support.ports import free_endpoint


async def _echo(frame: bytes) -> bytes:
    return frame


def _worker(endpoint: str, concurrency: int = 8) -> AsyncWorker:
    worker = AsyncWorker(endpoint, config=QUICK_WORKER, concurrency=concurrency)
    worker.service("echo", raw=True, idempotent=True)(_echo)
    return worker


async def _start(worker: AsyncWorker) -> asyncio.Task[int]:
    running = asyncio.create_task(worker.run())
    assert await worker.wait_ready(5)
    return running


async def test_cancelled_tasks_cost_nobody_else_a_reply(stage: Stage, rng: random.Random) -> None:
    """Five hundred at once, a third cancelled at odd moments: the rest get the reply to their own question."""
    broker = stage.broker()
    worker = _worker(broker.endpoint)
    running = await _start(worker)
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        tasks = [asyncio.create_task(client.request("echo", b"%d" % number)) for number in range(500)]
        victims = set(rng.sample(range(500), 150))
        for number in victims:
            await asyncio.sleep(rng.random() * 0.002)
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if number in victims and isinstance(result, asyncio.CancelledError):
                continue
            assert result == [b"%d" % number]
        assert await client.request("echo", b"after") == [b"after"]
        snapshot = client.snapshot()
        assert snapshot is not None and snapshot.calls == 0
    worker.stop()
    assert await running == 0


async def test_a_cancelled_call_reaches_the_handler(stage: Stage) -> None:
    """The coroutine at the worker is cancelled too: nobody waits for it any more."""
    broker = stage.broker()
    worker = AsyncWorker(broker.endpoint, config=QUICK_WORKER)
    entered, ended = asyncio.Event(), asyncio.Event()

    @worker.service("forever", raw=True)
    async def forever(frame: bytes) -> bytes:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            assert current_request().cancelled
            ended.set()
        return frame

    running = await _start(worker)
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        call = asyncio.create_task(client.request("forever", b""))
        await asyncio.wait_for(entered.wait(), 5)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
    worker.stop()
    assert await running == 0


async def test_wait_for_bounds_a_call_from_outside(stage: Stage) -> None:
    """The usual way of asyncio works as well as our own timeout."""
    broker = stage.broker()
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.request("nobody", b""), 0.2)
        assert time.monotonic() - began < 0.5


@pytest.mark.slow
async def test_the_loop_sleeps_while_nothing_happens(stage: Stage) -> None:
    """A descriptor that is left readable, or a timer that is due for ever, would spin a whole processor."""
    broker = stage.broker()
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        call = asyncio.create_task(client.request("nobody", b"", timeout=2.0))
        await asyncio.sleep(0.3)
        before = time.thread_time()
        await asyncio.sleep(1.0)
        assert time.thread_time() - before < 0.2
        with pytest.raises(ServiceNotFound):
            await call


async def test_a_reply_that_comes_with_a_send_is_not_left_lying(stage: Stage) -> None:
    """A send may consume the edge of a reply: calls that overlap in lockstep show it as a stall."""
    broker = stage.broker()
    worker = _worker(broker.endpoint)
    running = await _start(worker)
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:

        async def ask(first: int) -> float:
            slowest = 0.0
            for number in range(first, first + 200):
                began = time.monotonic()
                assert await client.request("echo", b"%d" % number) == [b"%d" % number]
                slowest = max(slowest, time.monotonic() - began)
            return slowest

        slowest = await asyncio.gather(*(ask(1_000 * task) for task in range(5)))
        assert max(slowest) < QUICK_CLIENT.retry.attempt_timeout_s
        assert client.stats().retries == 0
    worker.stop()
    assert await running == 0


def test_a_client_moves_to_a_new_loop_when_its_old_one_is_closed(stage: Stage) -> None:
    """asyncio.run twice with one client is common in scripts."""
    broker = stage.broker()
    client = AsyncClient(broker.endpoint, config=QUICK_CLIENT)

    async def ask() -> list[bytes]:
        return await client.request("mmi.service", b"nobody")

    assert asyncio.run(ask()) == [b"404"]
    assert asyncio.run(ask()) == [b"404"]
    asyncio.run(client.close())


async def test_a_client_of_another_running_loop_refuses(stage: Stage) -> None:
    """Futures of one loop must not be completed from another."""
    broker = stage.broker()
    client = AsyncClient(broker.endpoint, config=QUICK_CLIENT)
    assert await client.request("mmi.service", b"nobody") == [b"404"]

    def elsewhere() -> str:
        try:
            asyncio.run(client.request("mmi.service", b"nobody"))
        except RuntimeError as error:
            return str(error)
        return "no error"

    assert "another event loop" in await asyncio.to_thread(elsewhere)
    await client.close()


async def test_closing_the_client_ends_its_tasks(stage: Stage) -> None:
    """With an error of ours, not with a cancellation that looks like the user's."""
    broker = stage.broker()
    client = AsyncClient(broker.endpoint, config=QUICK_CLIENT)
    calls = [asyncio.create_task(client.request("nobody", b"")) for _ in range(10)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 1.0
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, RequestAbandoned)


async def test_plain_functions_do_not_hold_the_loop(stage: Stage) -> None:
    """They run in threads: heartbeats and coroutines go on."""
    broker = stage.broker()
    worker = _worker(broker.endpoint)
    release = threading.Event()
    worker.service("block", raw=True)(lambda frame: release.wait(5) and frame)
    running = await _start(worker)
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        blocked = asyncio.create_task(client.request("block", b"x"))
        for number in range(20):
            assert await client.request("echo", b"%d" % number) == [b"%d" % number]
        assert not blocked.done()
        release.set()
        assert await blocked == [b"x"]
    worker.stop()
    assert await running == 0


async def test_cancelling_the_worker_task_ends_it_at_once(stage: Stage) -> None:
    """TaskGroups and asyncio.run do that; callers of what it held hear of it."""
    broker = stage.broker()
    worker = AsyncWorker(broker.endpoint, config=QUICK_WORKER)
    entered = asyncio.Event()

    @worker.service("forever", raw=True)
    async def forever(frame: bytes) -> bytes:
        entered.set()
        await asyncio.sleep(60)
        return frame

    running = await _start(worker)
    async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
        call = asyncio.create_task(client.request("forever", b""))
        await asyncio.wait_for(entered.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(RequestError):
            await asyncio.wait_for(call, 5)


async def test_both_shells_live_in_one_process(stage: Stage) -> None:
    """A blocking client in a thread beside an asyncio one, on the same broker."""
    broker = stage.broker()
    worker = _worker(broker.endpoint)
    running = await _start(worker)
    with Client(broker.endpoint, config=QUICK_CLIENT) as blocking:
        async with AsyncClient(broker.endpoint, config=QUICK_CLIENT) as client:
            results = await asyncio.gather(
                asyncio.to_thread(blocking.request, "echo", b"1"), client.request("echo", b"2")
            )
    assert list(results) == [[b"1"], [b"2"]]
    worker.stop()
    assert await running == 0


async def test_a_worker_without_a_broker_can_be_stopped() -> None:
    """It waits for one to come, and must not need one to end."""
    worker = _worker(free_endpoint())
    running = asyncio.create_task(worker.run())
    assert not await worker.wait_ready(0.1)
    worker.stop()
    assert await asyncio.wait_for(running, 5) == 0
