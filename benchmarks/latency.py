"""What one blocking call costs, against bare pyzmq doing the same: ``python -m benchmarks.latency``.

``req``: our client in the dialect ``req`` against ``send`` and ``recv`` on a REQ socket; both talk to one REP server in
a process of its own. ``broker``: our client against a bare DEALER that sends the same frames; both go through one
broker process to one worker process (``benchmarks.loops`` says what is timed).

All loops take turns within each round, in an order that rotates, so that what disturbs the machine disturbs all of
them. The bare loop runs twice per round; the ratio of the two is the noise. A fourth loop, "shared", waits as a client
must that several threads may use at once, and does nothing else: it is the floor under any such client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.children import child
from benchmarks.figures import Case, about_machine
from benchmarks.loops import Round, bare_dealer, bare_req, our_client, shared_dealer, shared_req
from benchmarks.profiling import profile
from reliable.config import Dialect

__all__ = ["CASES", "loops", "main", "measure"]

CASES: Final = ("req", "broker")


@contextmanager
def loops(case: str, body: bytes) -> Iterator[tuple[Round, Round, Round, Round]]:
    """The bare loop, ours, the bare one again, and the one that can be shared; each on a connection that was used.

    Raises:
        ValueError: There is no such case.
    """
    if case not in CASES:
        raise ValueError(f"there is no case {case!r}; there are {', '.join(CASES)}")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        if case == "req":
            url = enter(child("rep"))
            bare, control = enter(bare_req(url, body)), enter(bare_req(url, body))
            shared = enter(shared_req(url, body))
            ours = enter(our_client(url, body, Dialect.REQ))
        else:
            url = enter(child("broker"))
            enter(child("worker", url))
            bare, control = enter(bare_dealer(url, body)), enter(bare_dealer(url, body))
            shared = enter(shared_dealer(url, body))
            ours = enter(our_client(url, body))
        for each in (bare, ours, control, shared):
            each(1)
        yield bare, ours, control, shared


def measure(case: str, *, rounds: int, calls: int, body: bytes, seconds_max: float) -> Case:
    """Run one case.

    Args:
        case: One of ``CASES``.
        rounds: How often each loop gets its turn.
        calls: In each turn.
        body: Of each call and its reply.
        seconds_max: No round begins after so long.
    """
    result = Case(case)
    end = time.monotonic() + seconds_max
    with loops(case, body) as (bare, ours, control, shared):
        turns: list[tuple[Round, list[float], list[float]]] = [
            (bare, result.bare_ns, result.bare_cpu_ns),
            (ours, result.ours_ns, result.ours_cpu_ns),
            (control, result.control_ns, []),
            (shared, result.floor_ns, result.floor_cpu_ns),
        ]
        for loop, _, _ in turns:
            loop(calls)
        for number in range(rounds):
            if number and time.monotonic() > end:
                break
            shift = number % len(turns)
            for loop, medians, cpu in (*turns[shift:], *turns[:shift]):
                taken = loop(calls)
                medians.append(statistics.median(taken.each_ns))
                cpu.append(taken.cpu_ns / calls)
    return result


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.latency", description="Blocking calls against bare pyzmq.")
    parser.add_argument("--case", choices=CASES, action="append", help="this one only; may be repeated")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="turns of each loop [%(default)s]")
    parser.add_argument("--calls", type=int, default=300, metavar="N", help="calls in each turn [%(default)s]")
    parser.add_argument("--body", type=int, default=64, metavar="BYTES", help="size of a body [%(default)s]")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="per case: no round begins after so long [%(default)s]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--profile", action="store_true", help="show where the time of our client goes instead")
    chosen = parser.parse_args(arguments)
    for name in ("rounds", "calls", "seconds"):
        if not getattr(chosen, name) > 0:
            parser.error(f"--{name} must be above 0")
    if chosen.body < 0:
        parser.error("--body must be 0 or more")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for and print it."""
    chosen = _arguments(arguments)
    body, machine = bytes(chosen.body), about_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    cases = chosen.case or CASES
    if chosen.profile:
        for name in cases:
            with loops(name, body) as (_, ours, _, _):
                print("\n".join([name, *profile(ours, chosen.calls)]))
        return 0
    results = []
    for name in cases:
        result = measure(name, rounds=chosen.rounds, calls=chosen.calls, body=body, seconds_max=chosen.seconds)
        print("\n".join(result.lines()), flush=True)
        results.append(result)
    if chosen.json is not None:
        found = {
            "machine": machine,
            "calls": chosen.calls,
            "body_bytes": chosen.body,
            "cases": {result.name: result.as_json() for result in results},
        }
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
