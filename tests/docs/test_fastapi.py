"""The application of the page about FastAPI serves as the page says."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from reliable import Worker
from tests.support.loopback import QUICK_WORKER, RunningWorker
from tests.support.ports import free_endpoint
from tests.support.served import broker_at

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "fastapi.md").read_text(encoding="utf-8")
(APP,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
_ADDRESS = "tcp://127.0.0.1:5555"


def _price(article: str) -> float:
    return {"lamp": 9.99}[article]


@pytest.fixture
def url() -> Iterator[str]:
    """A broker with a worker that has prices and does not return from ``charge``."""
    endpoint = free_endpoint()
    with ExitStack() as stack:
        stack.enter_context(broker_at(endpoint))
        released = asyncio.Event()
        worker = Worker(endpoint, config=QUICK_WORKER, concurrency=2)
        worker.service("price", idempotent=True)(_price)

        @worker.service("charge", idempotent=False)
        async def charge(card: str, cents: int) -> str:
            if card == "slow":
                await released.wait()
            return f"charged {cents}"

        running = RunningWorker(worker, None)
        stack.callback(running.stop, 0.0)
        running.wait_ready()
        yield endpoint


@asynccontextmanager
async def _asked(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who asks the application, between its start and its end."""
    assert _ADDRESS in APP
    shop = types.ModuleType("shop")
    exec(compile(APP.replace(_ADDRESS, url), "shop.py", "exec"), shop.__dict__)
    async with (
        shop.app.router.lifespan_context(shop.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(shop.app), base_url="http://shop") as http,
    ):
        yield http


async def test_calls_are_answered_side_by_side(url: str) -> None:
    """What it is for."""
    async with _asked(url) as http:
        replies = await asyncio.gather(*(http.get("/price/lamp") for _ in range(20)))
        assert [(reply.status_code, reply.json()) for reply in replies] == [(200, {"price": 9.99})] * 20
        paid = await http.post("/charge/visa", params={"cents": 999})
        assert (paid.status_code, paid.json()) == (200, {"charged": "charged 999"})


async def test_the_deadline_is_the_one_of_the_header(url: str) -> None:
    """And the caller is told that the charge may have been made."""
    async with _asked(url) as http:
        reply = await http.post("/charge/slow", params={"cents": 1}, headers={"X-Timeout": "0.3"})
        assert reply.status_code == 504
        told = reply.json()
        assert (told["error"], told["outcome"], told["safe_to_repeat"]) == ("DeadlineExceeded", "UNKNOWN", False)
        for bad in ("0", "31", "soon"):
            assert (await http.get("/price/lamp", headers={"X-Timeout": bad})).status_code == 422


async def test_a_handler_that_failed_is_a_502(url: str) -> None:
    """It ran, so it is not for the caller's proxy to repeat."""
    async with _asked(url) as http:
        reply = await http.get("/price/unicorn")
        assert (reply.status_code, reply.json()["error"], reply.json()["outcome"]) == (502, "WorkerFailed", "EXECUTED")


async def test_without_a_broker_it_is_alive_and_not_ready() -> None:
    """503 and a proof that nothing was charged."""
    async with _asked(free_endpoint()) as http:
        reply = await http.post("/charge/visa", params={"cents": 1}, headers={"X-Timeout": "0.3"})
        told = reply.json()
        assert (reply.status_code, told["error"], told["safe_to_repeat"]) == (503, "BrokerUnreachable", True)
        assert (await http.get("/health/live")).json() == {"status": "ok"}
        assert (await http.get("/health/ready")).status_code in (503, 504)


async def test_with_a_broker_it_is_ready(url: str) -> None:
    """The figure is the way to the broker and back."""
    async with _asked(url) as http:
        reply = await http.get("/health/ready")
        assert reply.status_code == 200 and 0 < reply.json()["broker_s"] < 5
