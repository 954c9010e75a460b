"""Something that answers, in processes of its own, for each dialect: what the client's load is aimed at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from chaos.process import ChildProcess
from tests.support.commands import ROOT
from tests.support.hostile import HostileProcess, server_process
from tests.support.ports import free_endpoint

__all__ = ["DIALECTS", "SERVICE", "Answering", "answering"]

DIALECTS: Final = ("mdp", "req")
"""Those of the client that the loopback tests of its promise run with."""
SERVICE: Final = "any"
_END_S_MAX: Final = 20.0

_WORKER: Final = """
import asyncio, json, sys
from collections import Counter
from reliable import AsyncWorker, current_request
url, log = sys.argv[1:]
worker = AsyncWorker(url, concurrency=200)
runs = Counter()
@worker.service("any", raw=True)
async def answer(trick, *frames):
    if frames:
        runs[frames[0].decode("latin-1")] += 1
    name, _, argument = trick.partition(b" ")
    if name == b"late":
        await asyncio.sleep(float(argument))
    if name == b"who":
        return [b"re", current_request().call_id]
    return [b"re", *frames]
async def main():
    running = asyncio.create_task(worker.run())
    assert await worker.wait_ready(10)
    print("ready", flush=True)
    await running
    with open(log, "w") as file:
        json.dump(runs, file)
asyncio.run(main())
"""


class Answering:
    """The service ``any``: the first frame says how, the others come back behind ``re``.

    ``well`` at once, ``late SECONDS`` after a while, ``who`` with the id of the call instead (mdp only).
    """

    def __init__(self, endpoint: str, ends: ChildProcess | HostileProcess, log: Path) -> None:
        self.endpoint = endpoint
        self._ends = ends
        self._log = log

    def runs(self) -> dict[str, int]:
        """End the worker, and learn how often it ran each second frame; nothing where there is no worker."""
        if isinstance(self._ends, HostileProcess):
            return {}
        self._ends.terminate(_END_S_MAX)
        found: dict[str, int] = json.loads(self._log.read_text(encoding="utf-8"))
        return found

    def ran_again(self) -> int:
        """How many second frames that end with ``once`` were run more than that; ends what answers."""
        if isinstance(self._ends, HostileProcess):
            return self._ends.figures().get("once again", 0)
        return sum(count > 1 for word, count in self.runs().items() if word.endswith("once"))


@contextmanager
def answering(dialect: str, folder: Path) -> Iterator[Answering]:
    """For ``mdp`` a broker and a worker, else a server without a broker; ``folder`` is for the worker's log."""
    log = folder / "runs"
    with ExitStack() as stack:
        if dialect != "mdp":
            server = stack.enter_context(server_process(dialect))
            yield Answering(server.endpoint, server, log)
            return
        url, env = free_endpoint(), {"PYTHONPATH": str(ROOT)}
        stack.enter_context(
            ChildProcess.python("-m", "reliable", "broker", "--bind", url, ready="listening", cwd=ROOT, env=env)
        )
        worker = ChildProcess.python("-c", _WORKER, url, log, ready="^ready$", cwd=ROOT, env=env)
        yield Answering(url, stack.enter_context(worker), log)
