"""``reliable bench``: measure this machine, with this library beside others.

What the commands do is in ``reliable.cli.bench_run`` and ``reliable.bench``, which are imported when one of them is
asked for: measuring must not cost every ``reliable broker`` its time to start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from reliable.cli.params import BROKER_URL, SECONDS, SERVICE

__all__ = ["Numbers", "bench", "call", "matrix", "mesh", "peers", "scale", "unfair_join"]

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_UNITS: Final = {"kb": 1_000, "mb": 1_000_000, "b": 1}


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between, as ``1,10,100`` or ``16,64kB,1MB``; a range is ``2-10``.

    Args:
        low: The least that is allowed.
        high: The most.
    """

    name = "numbers"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found = [number for part in value.split(",") for number in self._part(part, param, ctx)]
        if not found:
            self.fail(f"{value!r} is empty", param, ctx)
        for number in found:
            if not self._low <= number <= self._high:
                self.fail(f"{number} is not from {self._low} to {self._high}", param, ctx)
        return tuple(dict.fromkeys(found))

    def _part(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> range | tuple[int]:
        first, dash, last = text.strip().partition("-")
        try:
            return range(int(first), int(last) + 1) if dash else (self._one(first),)
        except ValueError:
            self.fail(f"{text!r} is no whole number", param, ctx)

    @staticmethod
    def _one(text: str) -> int:
        lower = text.lower().replace("_", "")
        for unit, factor in _UNITS.items():
            if lower.endswith(unit):
                return int(lower.removesuffix(unit)) * factor
        return int(lower)


class _Names(click.ParamType[tuple[str, ...]]):
    name = "names"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",")))


_COUNTS: Final = Numbers(1, 1_000)
_SIZES: Final = Numbers(0, 64_000_000)
_NODES: Final = Numbers(2, 10)
_POSITIVE: Final = click.IntRange(min=1)
_SIZE: Final = click.IntRange(min=0, max=64_000_000)


def _common(rounds: int, seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--rounds``, ``--seconds``, ``--json`` and ``--plot``."""
    options = [
        click.option("--rounds", type=_POSITIVE, default=rounds, show_default=True, help="Turns of each contestant."),
        click.option(
            "--seconds", type=SECONDS, default=seconds, show_default=True, help="No round begins after so long."
        ),
        click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write all figures there, as JSON."),
        click.option(
            "--plot", "plot_file", type=_FILE, metavar="FILE", help="Draw them: FILE.png or FILE.svg; needs matplotlib."
        ),
    ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _turn(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--turn``."""
    text = "Seconds that each turn lasts."
    return click.option("--turn", "turn_s", type=SECONDS, default=seconds, show_default=True, help=text)


def _run(name: str, wanted: dict[str, Any]) -> int:
    from reliable.cli import bench_run

    return bench_run.run(name, wanted, click.get_current_context())


@click.group()
def bench() -> None:
    """Measure: latency, throughput, and how that compares with others, on this machine.

    Everything runs in processes of its own on 127.0.0.1, which end with the command. Whatever is told as a ratio was
    measured in the same run, in turns, beside a control that shows the noise.

    \b
    Example:
      reliable bench call
      reliable bench peers --plot peers.svg
    """


@bench.command()
@click.option("--broker", type=BROKER_URL, help="Measure through this broker.  [default: one of its own]")
@click.option("--service", type=SERVICE, default="echo", show_default=True, help="With --broker: what to call, raw.")
@click.option(
    "--client",
    "kind",
    type=click.Choice(["blocking", "asyncio", "both"]),
    default="both",
    show_default=True,
    help="Of our two classes.",
)
@click.option("--body", "body_bytes", type=_SIZE, default=64, show_default=True, metavar="BYTES", help="Of a request.")
@click.option(
    "--in-flight", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Calls at once, in a closed loop."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, max=1e6),
    default=500.0,
    show_default=True,
    help="Calls due per second, in an open loop.",
)
@click.option(
    "--arrivals",
    type=click.Choice(["even", "random"]),
    default="random",
    show_default=True,
    help="How they follow each other.",
)
@click.option(
    "--waiting",
    "waiting_max",
    type=click.IntRange(1, 1_000),
    default=64,
    show_default=True,
    help="At most so many of them under way at once.",
)
@_turn(1.0)
@_common(rounds=5, seconds=60.0)
def call(**wanted: Any) -> int:
    """How long one call takes: percentiles and a histogram.

    In a closed loop the next call is made when the one before has ended. In an open loop --rate calls are due per
    second, whatever becomes of those before (--rate 0: no open loop), and the time of each counts from when it was due,
    so that nothing that had to wait is left out. At most --waiting calls are under way at once.

    \b
    Example:
      reliable bench call --rate 2000 --plot call.png
      reliable bench call --broker tcp://127.0.0.1:5555 --service echo

    Exit codes: 0 when it was measured; 1 if a call of the warm-up or a process failed, or nothing could be drawn; 2 for
    wrong usage; 130 after Ctrl-C.
    """
    return _run("call", wanted)


@bench.command()
@click.option("--only", "names", type=_Names(), metavar="NAMES", help="Some of them: ours,nats.  [default: all]")
@click.option("--body", "body_bytes", type=_SIZE, default=32, show_default=True, metavar="BYTES", help="Of a request.")
@click.option("--calls", type=_POSITIVE, default=200, show_default=True, help="One after the other, in each turn.")
@click.option("--in-flight", type=_POSITIVE, default=100, show_default=True, help="The second figure: so many at once.")
@_common(rounds=7, seconds=60.0)
def peers(**wanted: Any) -> int:
    """This library beside bare pyzmq, Pyro5, XML-RPC, zerorpc, gRPC, NATS and Redis, whichever are installed.

    One client, one server or worker, all in Python; each gets its turn in each round. What is not installed is named,
    with how to get it.

    \b
    Example:
      reliable bench peers --plot peers.svg
      reliable bench peers --only ours,nats,grpc --rounds 20

    Exit codes: 0 when it was measured, also if some are not installed; 1 if a process of pyzmq or of this library
    failed, or nothing could be drawn; 2 for wrong usage; 130 after Ctrl-C.
    """
    return _run("peers", wanted)


@bench.command()
@click.option("--sizes", type=_SIZES, default="16,1kB,64kB,1MB", show_default=True, help="Bytes of a request.")
@click.option("--clients", type=_COUNTS, default="1,10,100", show_default=True, help="Each with one call under way.")
@click.option("--workers", type=click.IntRange(1, 1_000), default=4, show_default=True, help="In one process.")
@click.option("--all", "every", is_flag=True, help="16 B to 64 MB by 1 to 1,000 clients; takes many minutes.")
@_turn(0.5)
@_common(rounds=3, seconds=30.0)
def matrix(**wanted: Any) -> int:
    """Size of a message by number of clients: calls and megabytes per second, p50 and p99.

    \b
    Example:
      reliable bench matrix --plot matrix.png
      reliable bench matrix --sizes 16,64MB --clients 1,3

    Exit codes: 0 when it was measured; 1 if a process failed, or nothing could be drawn; 2 for wrong usage; 130 after
    Ctrl-C.
    """
    return _run("matrix", wanted)


@bench.command()
@click.option("--nodes", type=_NODES, default="2-10", show_default=True, help="Sizes of the mesh.")
@click.option("--body", "body_bytes", type=_SIZE, default=64, show_default=True, metavar="BYTES", help="Of a message.")
@click.option("--in-flight", type=_POSITIVE, default=16, show_default=True, help="Under way per node, if it can.")
@_turn(0.25)
@_common(rounds=5, seconds=60.0)
def mesh(**wanted: Any) -> int:
    """Nodes that all send to each other: messages per second over the number of nodes, in four ways.

    A new connection for each message with JSON over netstrings; the same over connections that stay; message passing
    with DEALER and ROUTER; and this library, where each node is a service of one broker.

    \b
    Example:
      reliable bench mesh --plot mesh.svg

    Exit codes: 0 when it was measured; 1 if a process failed, or nothing could be drawn; 2 for wrong usage; 130 after
    Ctrl-C.
    """
    return _run("mesh", wanted)


@bench.command("unfair-join")
@click.option("--jobs", type=click.IntRange(1, 100_000), default=900, show_default=True, help="Handed out at once.")
@click.option("--workers", type=click.IntRange(2, 50), default=3, show_default=True, help="All but one of them late.")
@click.option("--late", "late_s", type=SECONDS, default=0.1, show_default=True, help="By so many seconds.")
@click.option("--job", "job_s", type=SECONDS, default=0.002, show_default=True, help="Seconds that a job takes.")
@_common(rounds=3, seconds=60.0)
def unfair_join(**wanted: Any) -> int:
    """Who gets how many jobs if workers come late: a PUSH socket beside this library.

    PUSH gives what it has to whoever is connected; those who join later find nothing left. Here a worker gets what it
    has room for, and the rest waits for whoever is free.

    \b
    Example:
      reliable bench unfair-join --plot unfair.png

    Exit codes: 0 when it was measured; 1 if a process failed, or nothing could be drawn; 2 for wrong usage; 130 after
    Ctrl-C.
    """
    return _run("unfair-join", wanted)


@bench.command()
@click.option("--workers", type=_COUNTS, default="1,10,100", show_default=True, help="Each with one request in hand.")
@click.option("--clients", type=_COUNTS, default="1,10,100", show_default=True, help="Each with one call under way.")
@click.option("--body", "body_bytes", type=_SIZE, default=64, show_default=True, metavar="BYTES", help="Of a request.")
@click.option("--processes", type=click.IntRange(1, 32), default=2, show_default=True, help="That share each of them.")
@click.option("--all", "every", is_flag=True, help="1 to 1,000 of each; takes some minutes.")
@_turn(0.5)
@_common(rounds=3, seconds=30.0)
def scale(**wanted: Any) -> int:
    """Many workers by many clients: calls per second, p50 and p99.

    \b
    Example:
      reliable bench scale --plot scale.png
      reliable bench scale --workers 1000 --clients 1000 --processes 4

    Exit codes: 0 when it was measured; 1 if a process failed, or nothing could be drawn; 2 for wrong usage; 130 after
    Ctrl-C.
    """
    return _run("scale", wanted)
