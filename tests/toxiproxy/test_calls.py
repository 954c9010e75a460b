"""Calls through a real proxy that misbehaves: every one ends by its deadline, typed, and succeeds once it is over."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import attrs
import pytest

from chaos.ports import free_port
from chaos.toxi import ToxiproxyServer
from chaos.toxi.proxy import ToxiProxy
from chaos.toxi.toxics import (
    Bandwidth,
    Blackhole,
    Direction,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Toxic,
)
from reliable import AsyncClient, Client, RequestError
from tests.support.ends import End, call
from tests.support.served import Executions, broker_at, worker_at

pytestmark = [pytest.mark.toxiproxy, pytest.mark.slow]

TIMEOUT_S = 2.0
# What a call may take beyond its deadline on a machine that does other things, too.
SLACK_S = 0.5
HEALED_S = 10.0

HARMLESS: list[Toxic] = [
    Latency(latency_s=0.1, jitter_s=0.05),
    Bandwidth(bytes_per_s=20_000),
    SlowClose(delay_s=0.5),
    Slicer(average_bytes=20, variation_bytes=10, delay_s=0.0002),
]
# Nothing gets through while these last; after them the link must recover by itself.
CUTTING: list[Toxic] = [
    Blackhole(),
    Blackhole(close_after_s=0.3),
    ResetPeer(),
    ResetPeer(after_s=0.4),
]
# Connections break again and again, and some calls get through.
BREAKING: list[Toxic] = [LimitData(limit_bytes=2_000), LimitData(limit_bytes=600)]


@attrs.frozen
class Link:
    """A client's way to the broker, and what the worker at its end did."""

    proxy: ToxiProxy
    executions: Executions


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Executions]]:
    """One broker and worker for all tests here: only the links between are broken."""
    address = f"127.0.0.1:{free_port()}"
    executions = Executions()
    with broker_at(f"tcp://{address}"), worker_at(f"tcp://{address}", executions):
        yield address, executions


@pytest.fixture
def link(toxiproxy: ToxiproxyServer, served: tuple[str, Executions]) -> Iterator[Link]:
    address, executions = served
    with ToxiProxy(toxiproxy, address, name="calls") as proxy:
        yield Link(proxy, executions)


def _in_time(end: End, timeout_s: float = TIMEOUT_S) -> bool:
    return end.elapsed_s <= timeout_s + SLACK_S


def _honest(end: End, word: str, executions: Executions) -> bool:
    """What a call that must not be repeated says agrees with what happened to it."""
    ran = executions.of(word)
    if end.ok:
        return ran == 1
    return ran == 0 if end.outcome == "NOT_EXECUTED" else ran <= 1


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("toxic", HARMLESS, ids=repr)
def test_calls_succeed_on_a_slow_link(link: Link, toxic: Toxic, direction: Direction) -> None:
    """Slow is not dead: nothing is given up and nothing is done twice."""
    with Client(link.proxy.endpoint) as client, link.proxy.suffering(toxic, direction):
        ends = {f"{toxic} {direction} {n}": call(client, "once", f"{toxic} {direction} {n}", 10) for n in range(3)}
        assert [end.error for end in ends.values()] == [""] * 3, ends
        assert all(link.executions.of(word) == 1 for word in ends)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("toxic", CUTTING, ids=repr)
def test_calls_end_by_their_deadline_on_a_dead_link_and_succeed_after_it(
    link: Link, toxic: Toxic, direction: Direction
) -> None:
    """A bare request socket hangs for good under each of these."""
    word = f"{toxic} {direction}"
    with Client(link.proxy.endpoint) as client:
        assert call(client, "echo", "before", 10).ok
        with link.proxy.suffering(toxic, direction):
            for service in ("echo", "once"):
                end = call(client, service, f"{word} {service}", TIMEOUT_S)
                assert _in_time(end), end
                # Data still in flight when the toxic began may answer the first call.
                assert end.ok or end.error in ("DeadlineExceeded", "BrokerUnreachable", "BrokerLost"), end
                assert service == "echo" or _honest(end, f"{word} once", link.executions), end
        healed = call(client, "once", f"{word} healed", HEALED_S)
        assert healed.ok, healed
        assert link.executions.of(f"{word} healed") == 1
        assert link.executions.of(f"{word} once") <= 1


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("toxic", BREAKING, ids=repr)
def test_calls_end_by_their_deadline_on_a_link_that_keeps_breaking(
    link: Link, toxic: Toxic, direction: Direction
) -> None:
    """Each break costs at most the attempt that it hit."""
    word = f"{toxic} {direction}"
    with Client(link.proxy.endpoint) as client:
        with link.proxy.suffering(toxic, direction):
            for number in range(4):
                end = call(client, "once", f"{word} {number}", TIMEOUT_S)
                assert _in_time(end), end
                assert _honest(end, f"{word} {number}", link.executions), end
        assert call(client, "once", f"{word} healed", HEALED_S).ok
        assert all(link.executions.of(f"{word} {number}") <= 1 for number in range(4))


def test_link_that_is_down_means_not_executed_and_recovers(link: Link) -> None:
    """Refused connections are the one fault after which a client knows that nothing ran."""
    with Client(link.proxy.endpoint) as client:
        with link.proxy.down():
            end = call(client, "once", "down", TIMEOUT_S)
            assert (end.error, end.outcome) == ("BrokerUnreachable", "NOT_EXECUTED"), end
            assert _in_time(end)
        assert call(client, "once", "up", HEALED_S).ok
        assert (link.executions.of("down"), link.executions.of("up")) == (0, 1)


def test_link_that_goes_down_under_a_call_is_waited_for(link: Link) -> None:
    """A proxy that restarts within the caller's patience costs time, not calls."""
    with Client(link.proxy.endpoint) as client:
        assert call(client, "echo", "before", 10).ok
        link.proxy.disable()
        timer = threading.Timer(1.0, link.proxy.enable)
        timer.start()
        try:
            end = call(client, "echo", "meanwhile", HEALED_S)
        finally:
            timer.join(10)
        assert end.ok, end
        assert end.elapsed_s > 0.8


def test_client_fails_over_to_a_link_that_works(link: Link, served: tuple[str, Executions]) -> None:
    """With two ways to a broker, one dead way costs an attempt, not the call."""
    address, _ = served
    with Client(link.proxy.endpoint, f"tcp://{address}") as client:
        assert call(client, "echo", "before", 10).ok
        with link.proxy.suffering(Blackhole(), Direction.TO_CLIENT):
            end = call(client, "echo", "around", HEALED_S, idempotent=True)
        assert end.ok, end


@pytest.mark.parametrize("toxic", [Blackhole(), ResetPeer()], ids=repr)
async def test_asyncio_client_ends_by_its_deadline_too(link: Link, toxic: Toxic) -> None:
    """Both shells stand over one engine, but each has its own way to wait."""
    async with AsyncClient(link.proxy.endpoint) as client:
        assert await client.call("echo", "before") == "before"
        proxy = link.proxy
        await asyncio.to_thread(proxy.add, toxic, Direction.TO_CLIENT, name="cut")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ended = "with its reply"
        with contextlib.suppress(RequestError):
            await client.options(timeout=TIMEOUT_S).call("once", f"async {toxic}")
            ended = ""
        assert ended, "the reply came through a dead link"
        assert loop.time() - begun <= TIMEOUT_S + SLACK_S
        await asyncio.to_thread(proxy.heal)
        assert await client.options(timeout=HEALED_S).call("echo", "after") == "after"
