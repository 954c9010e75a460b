"""``reliable demo``: see calls survive what usually loses them."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from typing import TextIO

import click

from reliable.cli.demo_report import DemoReport, judge, render, value
from reliable.cli.demo_run import run_demo
from reliable.cli.demo_screen import Screen

__all__ = ["demo"]

_SEEDS = 10_000


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Who is killed after how many calls. [default: a new one]")
@click.option("--files", "files_max", type=click.IntRange(min=1), help="Take so many files at most. [default: all]")
@click.option(
    "--json",
    "json_file",
    type=click.File("w", lazy=False),
    metavar="PATH",
    help="Write the numbers as JSON; - prints them.",
)
def demo(seed: int | None, files_max: int | None, json_file: TextIO | None) -> int:
    """Hash every file of Python's standard library through workers that are killed meanwhile.

    Two brokers and four workers run on this machine. One client has each file hashed by a worker, dozens at a time,
    while the demo kills workers (SIGKILL), freezes one (SIGSTOP), and kills the broker in use, twice. Each digest is
    compared with one computed here. It takes about half a minute and cleans up after itself.

    \b
    Example:
      reliable demo --seed 7

    Exit codes: 0 if every call was answered, in time and rightly; 1 if not.
    """
    to_stdout = json_file is None or json_file.name != "<stdout>"
    screen = Screen(sys.stdout if to_stdout else sys.stderr)
    report = asyncio.run(_run(random.randrange(_SEEDS) if seed is None else seed, files_max, screen))
    screen.line(render(report))
    if json_file is not None:
        json.dump(value(report), json_file, indent=2)
        json_file.write("\n")
    return judge(report.planned, report.calls).exit_code


async def _run(seed: int, files_max: int | None, screen: Screen) -> DemoReport:
    task = asyncio.current_task()
    assert task is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, terminate)
    try:
        return await run_demo(seed, files_max, screen)
    except asyncio.CancelledError:
        if terminated:
            raise KeyboardInterrupt from None
        raise
