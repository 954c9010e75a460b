"""Soak the client: a million calls that time out, a hundred thousand reconnects, and memory that must stay flat.

    .venv/bin/python scripts/soak_client.py                          # the full run, some minutes for each part
    .venv/bin/python scripts/soak_client.py --shell asyncio --timeouts 50000 --reconnects 0

Each part runs once per shell, with its half of the calls, on one client. The server is a process of its own: it says
hello and then nothing, or hangs up in the midst of each call, so that the call must go on over a new connection at its
other address. Every few seconds one line tells resident memory, descriptors and threads.

Exit code 0: resident memory grew by less than ``--growth-mb`` after the warm-up, and at the end there are as many
descriptors and threads as before the client was made. 1: not so, or a call ended in another way than it had to.
2: bad arguments, or the time given by ``--limit-s`` ran out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from reliable import AsyncClient, Client, ClientConfig, RequestError
from reliable.config import Backoff, BreakerPolicy, RetryPolicy
from tests.support.hostile import server_process

_MB: Final = 1024 * 1024
_PAGE_BYTES: Final = 4096
_SETTLE_S_MAX: Final = 5.0
_CONFIG: Final = ClientConfig(
    retry=RetryPolicy(attempts=None, backoff=Backoff(initial_s=0.001, delay_s_max=0.01), budget=None),
    reconnect=Backoff(initial_s=0.001, delay_s_max=0.02),
    # The server is bad on purpose; it must be asked all the same.
    breaker=BreakerPolicy(failures=None),
    return_after_s=None,
)


class SoakFailed(Exception):
    """What must not happen; the text says what."""


class OutOfTime(Exception):
    """``--limit-s`` is over."""


@attrs.frozen
class Usage:
    """What this process holds at one moment."""

    rss_bytes: int
    fds: int
    threads: int

    @classmethod
    def now(cls) -> Usage:
        """Measured now."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        fds = sum(1 for _ in Path("/proc/self/fd").iterdir())
        threads = sum(1 for _ in Path("/proc/self/task").iterdir())
        return cls(pages * _PAGE_BYTES, fds, threads)

    def __str__(self) -> str:
        return f"rss {self.rss_bytes / _MB:6.1f} MB  fds {self.fds:4d}  threads {self.threads:4d}"


class Watch:
    """Counts what was done, prints how the process fares, and ends a run that takes too long.

    Args:
        name: Of the part.
        total: How many units there are to do.
        warm_up: After how many the memory is measured that counts as the start.
        every_s: Seconds between two lines.
        limit: Reading of ``time.monotonic()`` at which the run is given up.
    """

    def __init__(self, name: str, total: int, warm_up: int, every_s: float, limit: float) -> None:
        self.done = 0
        self.warm: Usage | None = None
        self._name, self._total, self._warm_up, self._every_s, self._limit = name, total, warm_up, every_s, limit
        self._given = 0
        self._lock = threading.Lock()
        self._began = self._printed = time.monotonic()

    def next(self) -> int | None:
        """The number of the next unit to do; None: all were given out.

        Raises:
            OutOfTime: The limit is reached.
        """
        if time.monotonic() > self._limit:
            raise OutOfTime(f"{self._name}: {self.done} of {self._total} done")
        with self._lock:
            if self._given >= self._total:
                return None
            self._given += 1
            return self._given

    def note(self) -> None:
        """One unit is done."""
        with self._lock:
            self.done += 1
            now = time.monotonic()
            if self.done == self._warm_up:
                gc.collect()
                self.warm = Usage.now()
            if self.done in (self._warm_up, self._total) or now - self._printed > self._every_s:
                self._printed = now
                rate = self.done / (now - self._began)
                what = "  (warm)" if self.done == self._warm_up else ""
                print(
                    f"{self._name:20s} {self.done:8d} of {self._total}  {rate:6.0f}/s  {Usage.now()}{what}", flush=True
                )

    def check(self, growth_bytes_max: float) -> None:
        """After the last unit, with the client still open.

        Raises:
            SoakFailed: Memory grew.
        """
        gc.collect()
        end, warm = Usage.now(), self.warm
        if warm is None or self.done != self._total:
            raise SoakFailed(f"{self._name}: {self.done} of {self._total} done")
        growth = end.rss_bytes - warm.rss_bytes
        print(
            f"{self._name:20s} grew by {growth / _MB:+.2f} MB and {end.fds - warm.fds:+d} descriptors after warm-up",
            flush=True,
        )
        if growth >= growth_bytes_max:
            raise SoakFailed(f"{self._name}: resident memory grew by {growth / _MB:.1f} MB")


@attrs.frozen(kw_only=True)
class Part:
    """One part of the run, for one shell."""

    kind: str
    """``timeouts`` or ``reconnects``."""
    endpoints: tuple[str, ...]
    config: ClientConfig
    watch: Watch
    at_once: int
    growth_bytes_max: float

    def body(self, number: int) -> tuple[bytes, bytes]:
        """What tells the server to say nothing, or to hang up."""
        return (b"never" if self.kind == "timeouts" else b"cut"), b"%d" % number

    def judge(self, number: int, error: RequestError | None) -> None:
        """Note the end of a call.

        Raises:
            SoakFailed: It should have ended otherwise.
        """
        if self.kind == "timeouts" and not isinstance(error, TimeoutError | ConnectionError):
            raise SoakFailed(f"call {number}, which nobody answers, ended with {error!r}")
        if self.kind == "reconnects" and error is not None:
            raise SoakFailed(f"call {number} did not outlive its connection") from error
        self.watch.note()

    def check(self, links_opened: int) -> None:
        """After the last call, with the client still open."""
        print(f"{links_opened} connections were opened", flush=True)
        if self.kind == "reconnects" and links_opened < self.watch.done:
            raise SoakFailed(f"only {links_opened} connections for {self.watch.done} cuts")
        self.watch.check(self.growth_bytes_max)


def _soak_sync(part: Part) -> None:
    def work(client: Client) -> None:
        while (number := part.watch.next()) is not None:
            error: RequestError | None = None
            try:
                client.request("any", *part.body(number), idempotent=True)
            except RequestError as raised:
                error = raised
            part.judge(number, error)

    with Client(*part.endpoints, config=part.config) as client:
        with ThreadPoolExecutor(part.at_once) as pool:
            for future in [pool.submit(work, client) for _ in range(part.at_once)]:
                future.result()
        part.check(client.stats().links_opened)


def _soak_async(part: Part) -> None:
    async def work(client: AsyncClient) -> None:
        while (number := part.watch.next()) is not None:
            error: RequestError | None = None
            try:
                await client.request("any", *part.body(number), idempotent=True)
            except RequestError as raised:
                error = raised
            part.judge(number, error)

    async def main() -> None:
        async with AsyncClient(*part.endpoints, config=part.config) as client:
            await asyncio.gather(*(work(client) for _ in range(part.at_once)))
            part.check(client.stats().links_opened)

    asyncio.run(main())


@contextmanager
def _given_back(what: str) -> Iterator[None]:
    """At the end there are as many descriptors and threads as at the start.

    Raises:
        SoakFailed: Not so, although libzmq got a moment.
    """
    before = Usage.now()
    yield
    deadline = time.monotonic() + _SETTLE_S_MAX
    while True:
        after = Usage.now()
        if after.fds <= before.fds and after.threads <= before.threads:
            print(f"{what:20s} all given back: {after}", flush=True)
            return
        if time.monotonic() > deadline:
            raise SoakFailed(f"{what}: left behind after close: {after}, before it was {before}")
        time.sleep(0.01)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shell", choices=["sync", "asyncio", "both"], default="both")
    parser.add_argument("--dialect", default="mdp", help="what client and server speak (default: mdp)")
    parser.add_argument("--timeouts", type=int, default=1_000_000, help="calls that time out, over all shells")
    parser.add_argument("--reconnects", type=int, default=100_000, help="connections that break, over all shells")
    parser.add_argument("--at-once", type=int, default=200, help="callers that wait for a timeout at the same time")
    parser.add_argument("--timeout-s", type=float, default=0.02, help="of each call that times out")
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the calls before memory must be flat")
    parser.add_argument("--growth-mb", type=float, default=5.0, help="how much resident memory may grow after that")
    parser.add_argument("--every-s", type=float, default=10.0, help="seconds between two lines")
    parser.add_argument("--limit-s", type=float, default=3_600.0, help="seconds for everything")
    found = parser.parse_args(argv)
    if min(found.timeouts, found.reconnects) < 0 or found.at_once < 1 or not 0 < found.warm_up < 1:
        parser.error("counts cannot be negative, and the warm-up is a share between 0 and 1")
    return found


def _run(options: argparse.Namespace) -> None:
    shells = {"sync": _soak_sync, "asyncio": _soak_async}
    chosen = [options.shell] if options.shell != "both" else list(shells)
    limit = time.monotonic() + options.limit_s
    for kind, total, at_once, timeout_s in (
        ("timeouts", options.timeouts, options.at_once, options.timeout_s),
        ("reconnects", options.reconnects, 1, 30.0),
    ):
        config = attrs.evolve(_CONFIG, dialect=options.dialect, timeout_s=timeout_s)
        for shell in chosen if total else []:
            name, count = f"{shell} {kind}", max(2, total // len(chosen))
            watch = Watch(name, count, max(1, int(count * options.warm_up)), options.every_s, limit)
            with server_process(options.dialect, addresses=2) as server, _given_back(name):
                part = Part(
                    kind=kind,
                    endpoints=server.endpoints,
                    config=config,
                    watch=watch,
                    at_once=at_once,
                    growth_bytes_max=options.growth_mb * _MB,
                )
                shells[shell](part)


def main(argv: list[str]) -> int:
    """Run it; the exit code."""
    options = _arguments(argv)
    try:
        _run(options)
    except SoakFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except OutOfTime as error:
        print(f"out of time: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
