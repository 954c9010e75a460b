"""One client and very many callers: every one gets its own reply, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from reliable import AsyncClient, Frames
from reliable.config import RetryPolicy
from tests.support.answering import DIALECTS, SERVICE, Answering, answering
from tests.support.load import (
    Ended,
    Plan,
    assert_nothing_is_left,
    async_client,
    calls_wanted,
    make_calls,
)
from tests.support.loopback import QUICK_CLIENT, AnyClient, ShellKind

_CALLERS: Final = 32
_CALLS: Final = calls_wanted(4_800)
_AT_ONCE: Final = 1_000
_TIMEOUT_S: Final = 30.0
# A busy machine must not make a slow answer look like a lost one: retries are not what is tested here.
_CONFIG: Final = attrs.evolve(QUICK_CLIENT, retry=RetryPolicy(attempts=None, attempt_timeout_s=10.0))


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """What the client speaks."""
    return str(request.param)


@pytest.fixture
def service(dialect: str, tmp_path: Path) -> Iterator[Answering]:
    """What answers."""
    with answering(dialect, tmp_path) as made:
        yield made


@pytest.fixture
def client(shell: ShellKind, dialect: str, service: Answering) -> AnyClient:
    """The one client."""
    return shell.client(service.endpoint, config=attrs.evolve(_CONFIG, dialect=dialect))


@pytest.mark.slow
@pytest.mark.timeout(60 + _CALLS // 100)
def test_callers_in_many_threads_or_tasks_each_get_the_reply_to_their_own_call(
    shell: ShellKind, client: AnyClient, service: Answering
) -> None:
    """Thirty-two share one client; leaders and followers change with each reply, and nobody may be forgotten."""
    ends: Counter[str] = Counter()
    wrong: list[Ended] = []

    def note(ended: Ended) -> None:
        ends["done"] += 1
        if ended.result != [b"re", *ended.plan.body[1:]]:
            wrong.append(ended)

    plans = (Plan(SERVICE, [b"well", b"%d" % number], _TIMEOUT_S) for number in range(_CALLS))
    began = time.monotonic()
    make_calls(shell, client, plans, _CALLERS, note)
    print(f"{shell.name}: {_CALLS} calls of {_CALLERS} callers in {time.monotonic() - began:.1f} s")
    assert wrong == []
    assert ends["done"] == _CALLS
    assert_nothing_is_left(client)
    runs = service.runs()
    assert not runs or (len(runs) == _CALLS and set(runs.values()) == {1})


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["asyncio"], indirect=True)
def test_cancelled_calls_leave_no_trace_and_cost_nobody_else_a_reply(
    shell: ShellKind, client: AnyClient, rng: random.Random
) -> None:
    """A thousand calls at once and a third of them cancelled, before they are sent, while they run, and as their
    replies come in: the others are all right, and the client holds nothing of any of them."""

    async def cancel_some(asker: AsyncClient) -> tuple[list[Frames | BaseException], set[int]]:
        bodies = [[b"late %.4f" % (rng.random() ** 2), b"%d" % number] for number in range(_AT_ONCE)]
        tasks = [asyncio.create_task(asker.request(SERVICE, *body, timeout=_TIMEOUT_S)) for body in bodies]
        victims = rng.sample(range(_AT_ONCE), _AT_ONCE // 3)
        for number, batch in itertools.groupby(victims, lambda number: number % 40):
            await asyncio.sleep(rng.random() * 0.004 if number else 0)
            for victim in batch:
                tasks[victim].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), set(victims)

    assert shell.loop is not None
    results, victims = shell.loop.run(cancel_some(async_client(client)))
    cancelled = {number for number, result in enumerate(results) if isinstance(result, asyncio.CancelledError)}
    assert cancelled <= victims
    assert len(cancelled) > _AT_ONCE // 10, "hardly any call was cancelled in time"
    wrong = [(n, result) for n, result in enumerate(results) if n not in cancelled and result != [b"re", b"%d" % n]]
    assert wrong == []
    assert_nothing_is_left(client)
    assert client.request(SERVICE, b"well", b"after", timeout=_TIMEOUT_S) == [b"re", b"after"]
