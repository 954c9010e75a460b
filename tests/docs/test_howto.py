"""The Python of the how-to pages runs as it stands there, and prints what it should."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reliable import Worker, current_request
from tests.support.loopback import QUICK_WORKER, RunningWorker
from tests.support.ports import free_endpoint
from tests.support.served import broker_at

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
ADDRESS = "tcp://127.0.0.1:5555"
PRINTED = {
    "asyncio.md": ["9900\n"],
    "hedging.md": ["5\n"],
    "idempotent-or-not.md": ["", "9.99\n", "charged 999\n"],
    "many-calls.md": [
        "0\n2\n4\n6\n8\n",
        "got 0.25\nfailed: reciprocal: ZeroDivisionError: division by zero (it ran)\ngot 0.5\n['1/3', '2/3', '3/3']\n",
        "[0, 2, 4]\n",
        "0\n1\n2\n",
        "",
        "at [b'50 %']\ndone\n",
    ],
    "overload.md": ["5\n"],
    "threads-and-forks.md": ["5050\n", "parent: 2\nchild: 4\n"],
}
"""What each block of a page prints, in order."""
_WAIT_S_MAX = 40.0


def blocks(page: str) -> list[str]:
    """The Python of one page."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _count(n: int) -> Iterator[int]:
    yield from range(n)


def _long() -> str:
    current_request().progress(b"50 %")
    return "done"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker with a worker that offers what the pages call."""
    endpoint = free_endpoint()
    worker = Worker(endpoint, config=QUICK_WORKER, concurrency=4)
    worker.service("add", idempotent=True)(lambda a, b: a + b)
    worker.service("price", idempotent=True)(lambda article: {"lamp": 9.99}[article])
    worker.service("charge", idempotent=False)(lambda card, cents: f"charged {cents}")
    worker.service("double", idempotent=True)(lambda n: 2 * n)
    worker.service("reciprocal")(lambda n: 1 / n)
    worker.service("count")(_count)
    worker.service("note")(lambda text: None)
    worker.service("long")(_long)
    with broker_at(endpoint):
        running = RunningWorker(worker, None)
        running.wait_ready()
        yield endpoint
        running.stop(0.0)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page, printed in PRINTED.items() for number in range(len(printed))]
)
def test_block_of_a_page_runs_and_prints_what_it_should(page: str, number: int, url: str) -> None:
    """Whoever copies it must not be the first to run it."""
    text = blocks(page)[number]
    assert ADDRESS in text
    done = subprocess.run(
        [sys.executable, "-c", text.replace(ADDRESS, url)],
        capture_output=True,
        text=True,
        timeout=_WAIT_S_MAX,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, PRINTED[page][number]), done.stderr


@pytest.mark.parametrize("page", PRINTED)
def test_every_block_of_these_pages_is_run(page: str) -> None:
    """A block that was added must be added here, too."""
    assert len(blocks(page)) == len(PRINTED[page])
