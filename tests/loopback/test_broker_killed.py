"""A broker process that is killed and started again under a running client and worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from reliable import Client, ClientConfig, Outcome, RequestError, RetryPolicy
from tests.support.commands import Running, running
from tests.support.loopback import eventually
from tests.support.ports import free_endpoint

_WORKER = """
import sys, time
from pathlib import Path
from reliable import Worker
log = Path({log!r})
worker = Worker({url!r}, concurrency=4)
@worker.service("twice", raw=True)
def twice(body: bytes) -> bytes:
    with log.open("ab") as file:
        file.write(body + b"\\n")
    time.sleep(0.02)
    return body + body
"""
# Until the next broker is there: on a busy machine the process alone takes seconds to start.
_CLIENT = ClientConfig(timeout_s=30.0, retry=RetryPolicy(attempts=None, attempt_timeout_s=0.5))
_LIVES = 4
_THREADS = 8


class _Load:
    """Calls from many threads until told to stop; every body is used once, so a reply tells whose it is."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.stopped = False
        self.ok = 0
        self.wrong: list[str] = []
        self.errors: dict[bytes, RequestError] = {}

    def run(self, thread: int) -> None:
        count = 0
        while not self.stopped:
            count += 1
            idempotent = count % 2 == 0
            body = f"{thread}-{count}-{'again' if idempotent else 'once'}".encode()
            try:
                reply = self._client.request("twice", body, idempotent=idempotent)
            except RequestError as error:
                self.errors[body] = error
            else:
                self.ok += 1
                if reply != [body + body]:
                    self.wrong.append(f"{body!r} got {reply!r}")


def _start_broker(stack: ExitStack, url: str) -> Running:
    broker = stack.enter_context(running("broker", "--bind", url))
    assert "listening" in broker.line()
    return broker


@pytest.mark.slow
@pytest.mark.parametrize("first", ["broker", "worker", "client"])
def test_calls_go_on_over_kills_of_the_broker_and_nobody_gets_anothers_reply(tmp_path: Path, first: str) -> None:
    """Routing ids and queued messages of a former life are the classic way to a wrong reply, or to a second run."""
    url = free_endpoint()
    log = tmp_path / "ran"
    log.touch()
    (tmp_path / "job.py").write_text(_WORKER.format(url=url, log=str(log)), encoding="utf-8")
    with ExitStack() as stack:
        starters: dict[str, Callable[[], object]] = {
            "broker": lambda: _start_broker(stack, url),
            "worker": lambda: stack.enter_context(running("worker", "job:worker", cwd=tmp_path)),
            "client": lambda: stack.enter_context(Client(url, config=_CLIENT)),
        }
        order = [first, *(name for name in starters if name != first)]
        made = {name: starters[name]() for name in order}
        broker, client = made["broker"], made["client"]
        assert isinstance(broker, Running) and isinstance(client, Client)
        load = _Load(client)
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        threads: list[Future[None]] = [pool.submit(load.run, number) for number in range(_THREADS)]
        try:
            for _ in range(_LIVES):
                before = load.ok
                eventually(lambda before=before: load.ok >= before + 50, "calls succeed in this life", 20.0)  # type: ignore[misc]
                broker.process.kill()
                broker.process.wait(5)
                broker = _start_broker(stack, url)
            before = load.ok
            eventually(lambda: load.ok >= before + 50, "calls succeed in the last life", 20.0)
        finally:
            load.stopped = True
        for thread in threads:
            thread.result(20)
        settle = client.request("twice", b"last", timeout=10.0)
        assert settle == [b"lastlast"]
        time.sleep(1.0)  # Whatever an old life still has under way would run by now.
    ran = log.read_bytes().splitlines()
    assert load.wrong == []
    assert {body: error for body, error in load.errors.items() if body.endswith(b"again")} == {}
    once = [body for body in ran if body.endswith(b"once")]
    assert len(once) == len(set(once)), "a call that is not idempotent ran twice"
    refused = {body for body, error in load.errors.items() if error.outcome is Outcome.NOT_EXECUTED}
    assert refused.isdisjoint(ran), "reported as not executed, and yet it ran"
    assert any(error.outcome is Outcome.UNKNOWN for error in load.errors.values()), "no kill hit a call in flight"
