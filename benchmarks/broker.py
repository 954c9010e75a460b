"""What a request costs the broker, in processor time: ``python -m benchmarks.broker``.

The measure is a minimal broker in C on the same libzmq (``benchmarks/c/broker.c``), under the same load in C: MDP 0.1,
32 workers with one request each, 200 requests under way, bodies of 32 bytes. Ours runs as ``reliable broker`` does,
with everything that it checks and counts: in pure Python, with the accelerator where it is built, and both once more
with our own peers, which keep 64 requests in hand on one connection and speak the extension.

All brokers run from the beginning to the end and take turns within each round, in an order that rotates. The C broker
runs twice; the ratio of the two is the noise. What counts is the processor time of all threads of a broker, as the
kernel has it, over the requests of the turn: it hardly depends on what else the machine does, as the clock would.

``--idle-workers N`` measures instead what workers cost that only beat, ``--memory`` what requests leave behind, and
``--profile`` shows where the time of the engine goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Final

import attrs

from benchmarks.broker_engine import KINDS, profile
from benchmarks.broker_parts import Broker, Cost, Load, build, c_broker, our_broker
from benchmarks.broker_queued import QUEUED_BODY_BYTES, waiting
from benchmarks.figures import Spread, about_machine, spread_of

__all__ = ["CASES", "Case", "main", "measure"]

CASES: Final = ("c", "c again", "pure", "accelerated", "pure, credit", "accelerated, credit")
"""The first is the measure, the second the control."""
_ACCELERATOR: Final = "reliable._accelerator"
_CLIENTS: Final = 4
_WORKERS: Final = 32
_IN_FLIGHT: Final = 200
_CREDIT: Final = 64
_IDLE_S: Final = 20.0
_LOADS: Final = 4
"""Processes for idle workers."""
_QUEUED: Final = 8_000
_MIB: Final = 1024 * 1024


@attrs.define
class Case:
    """One broker under one load, turn by turn."""

    name: str
    main_us: list[float] = attrs.field(factory=list)
    """Processor time per request of the thread that runs the broker."""
    others_us: list[float] = attrs.field(factory=list)
    """Of libzmq's threads."""
    seconds: list[float] = attrs.field(factory=list)
    """By the clock, which other processes disturb."""

    @property
    def all_us(self) -> list[float]:
        """Both."""
        return [main + others for main, others in zip(self.main_us, self.others_us, strict=True)]

    def ratio(self, measure_of: Case) -> Spread:
        """To another one, round by round."""
        return spread_of([mine / other for mine, other in zip(self.all_us, measure_of.all_us, strict=True)])


@attrs.define
class _Turn:
    case: Case
    broker: Broker
    load: Load

    def run(self, requests: int) -> tuple[Cost, float]:
        before = self.broker.cost()
        seconds = self.load.make(requests)
        return self.broker.cost().since(before), seconds


def _accelerated() -> bool:
    return util.find_spec(_ACCELERATOR) is not None


@contextlib.contextmanager
def _turns(names: Sequence[str], body_bytes: int) -> Iterator[list[_Turn]]:
    """Each case with its broker and its load, which are ended with the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        c_program, load = build("broker", folder), build("load", folder)
        turns = []
        for name in names:
            broker = c_broker(c_program) if name.startswith("c") else our_broker(pure=name.startswith("pure"))
            stack.callback(broker.close)
            credit = name.endswith("credit")
            loaded = Load(
                load,
                broker,
                "credit" if credit else "plain",
                clients=1 if credit else _CLIENTS,
                workers=1 if credit else _WORKERS,
                in_flight=_CREDIT if credit else _IN_FLIGHT,
                body_bytes=body_bytes,
            )
            stack.callback(loaded.close)
            turns.append(_Turn(Case(name), broker, loaded))
        yield turns


def measure(
    names: Sequence[str], *, rounds: int, requests: int, body_bytes: int, seconds_max: float = float("inf")
) -> list[Case]:
    """Let brokers take turns.

    Args:
        names: Of ``CASES``.
        rounds: Turns of each; one more comes before them and does not count.
        requests: In each turn.
        body_bytes: Of each request and reply.
        seconds_max: No round begins after so long.
    """
    with _turns(names, body_bytes) as turns:
        end = time.monotonic() + seconds_max
        for turn in turns:
            turn.run(requests)
        for number in range(rounds):
            if number and time.monotonic() > end:
                break
            shift = number % len(turns)
            for turn in (*turns[shift:], *turns[:shift]):
                cost, seconds = turn.run(requests)
                turn.case.main_us.append(cost.main_ns / requests / 1000)
                turn.case.others_us.append(cost.others_ns / requests / 1000)
                turn.case.seconds.append(seconds)
        return [turn.case for turn in turns]


def _table(cases: Sequence[Case], requests: int) -> list[str]:
    first = cases[0]
    lines = [f"processor time of the broker per request, {len(first.seconds)} rounds of {requests} requests"]
    for case in cases:
        whole, main, others = (spread_of(figures) for figures in (case.all_us, case.main_us, case.others_us))
        per_s = requests / spread_of(case.seconds).median
        lines.append(
            f"  {case.name:20} {whole.text(' us', 1):28} main {main.median:5.1f} + libzmq {others.median:5.1f}"
            f"   {case.ratio(first).text():22} x {first.name}   {per_s:,.0f}/s"
        )
    return lines


# --- what idle workers cost ---------------------------------------------------------------------------


def _idle(workers: int, kind: str, seconds: float, *, c: bool) -> dict[str, float]:
    """Processor time and memory of workers that only beat once a second."""
    each = workers // _LOADS
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = build("load", folder)
        broker = c_broker(build("broker", folder)) if c else our_broker(pure=not _accelerated())
        stack.callback(broker.close)
        empty = broker.memory_bytes()
        for _ in range(_LOADS):
            load = Load(program, broker, kind, clients=1, workers=each, in_flight=1, body_bytes=1, beat_s=1.0)
            stack.callback(load.close)
        time.sleep(3.0)  # until everybody is registered and the first heartbeats have gone out
        before, began = broker.cost(), time.monotonic()
        time.sleep(seconds)
        cost, taken = broker.cost().since(before), time.monotonic() - began
        full = broker.memory_bytes()
    return {
        "workers": each * _LOADS,
        "main_percent": cost.main_ns / taken / 1e7,
        "others_percent": cost.others_ns / taken / 1e7,
        "bytes_each": (full - empty) / (each * _LOADS),
    }


def _idle_lines(workers: int, seconds: float) -> Iterator[str]:
    """The C broker first: what is no less there is libzmq's."""
    for name, kind, c in (("MDP 0.1, C", "plain", True), ("MDP 0.1", "plain", False), ("our own", "credit", False)):
        found = _idle(workers, kind, seconds, c=c)
        yield (
            f"{found['workers']:.0f} idle workers ({name}), one heartbeat a second each way: "
            f"{found['main_percent'] + found['others_percent']:.2f} % of one processor "
            f"(main {found['main_percent']:.2f}, libzmq {found['others_percent']:.2f}), "
            f"{found['bytes_each'] / 1024:.1f} KiB each"
        )


# --- what requests leave behind -----------------------------------------------------------------------


def _memory_lines(requests: int) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = build("load", folder)
        broker = our_broker(pure=not _accelerated())
        stack.callback(broker.close)
        yield f"after the start: {broker.memory_bytes() / _MIB:.1f} MiB"
        load = Load(program, broker, "plain", clients=4, workers=32, in_flight=200, body_bytes=32)
        stack.callback(load.close)
        load.make(requests // 20)
        warm = broker.memory_bytes()
        for part in range(4):
            load.make(requests // 4)
            yield (
                f"after {requests // 4 * (part + 1):,} requests: {broker.memory_bytes() / _MIB:.1f} MiB "
                f"({(broker.memory_bytes() - warm) / _MIB:+.2f} since it was warm)"
            )
    yield from _queued_lines()


def _queued_lines() -> Iterator[str]:
    """Requests that wait, since the one worker has its hands full."""
    for whose in ("plain", "our own"):
        with contextlib.closing(our_broker(pure=not _accelerated())) as broker, waiting(broker.url) as send:
            send(_QUEUED // 10, ours=whose != "plain")
            before = broker.memory_bytes()
            send(_QUEUED, ours=whose != "plain")
            each = (broker.memory_bytes() - before) / _QUEUED
            yield f"a {whose} request of {QUEUED_BODY_BYTES} bytes that is queued: {each:.0f} bytes"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.broker", description="What requests cost the broker.")
    parser.add_argument("--case", choices=CASES, action="append", help="this one, beside the measure; may be repeated")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="turns of each broker [%(default)s]")
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="in each turn [%(default)s]")
    parser.add_argument("--body", type=int, default=32, metavar="BYTES", help="size of a body [%(default)s]")
    parser.add_argument("--seconds", type=float, default=300.0, help="no round begins after so long [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--idle-workers", type=int, metavar="N", help="measure so many workers that only beat instead")
    parser.add_argument(
        "--memory", type=int, nargs="?", const=1_000_000, metavar="N", help="measure memory instead [over %(const)s]"
    )
    parser.add_argument("--profile", action="store_true", help="show where the time of the engine goes instead")
    chosen = parser.parse_args(arguments)
    for name in ("rounds", "requests", "seconds"):
        if not getattr(chosen, name) > 0:
            parser.error(f"--{name} must be above 0")
    if chosen.body < 1:
        parser.error("--body must be 1 or more")
    return chosen


def _names(chosen: Sequence[str] | None) -> list[str]:
    wanted = ["c", *(name for name in chosen or CASES if name != "c")]
    return [name for name in wanted if _accelerated() or not name.startswith("accelerated")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for and print it."""
    chosen = _arguments(arguments)
    machine = about_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    if chosen.profile:
        for kind in KINDS:
            print("\n".join(profile(kind, chosen.requests)), flush=True)
        return 0
    if chosen.idle_workers or chosen.memory:
        lines = _idle_lines(chosen.idle_workers, _IDLE_S) if chosen.idle_workers else _memory_lines(chosen.memory)
        for line in lines:
            print(line, flush=True)
        return 0
    cases = measure(
        _names(chosen.case),
        rounds=chosen.rounds,
        requests=chosen.requests,
        body_bytes=chosen.body,
        seconds_max=chosen.seconds,
    )
    print("\n".join(_table(cases, chosen.requests)))
    if chosen.json is not None:
        found = {
            "machine": machine,
            "requests": chosen.requests,
            "body_bytes": chosen.body,
            "cases": {case.name: {**attrs.asdict(case), "ratio": attrs.asdict(case.ratio(cases[0]))} for case in cases},
        }
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
