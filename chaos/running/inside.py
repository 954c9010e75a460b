"""A run that has moved into a process of its own, mostly for a network namespace, and its tie to the one outside.

Outside, ``run`` starts this module inside, follows its news through a file and reads its report. Inside, the run is
the same as any other: ``python -m chaos.running.inside SCENARIO SEED LENGTH FOLDER GUEST``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec

from chaos.injection import NotInjected
from chaos.netns import run_in_namespace
from chaos.process import ChildProcess, StartFailed
from chaos.reporting.value import Report, RunReport, decode, encode
from chaos.running.catalogue import find
from chaos.running.model import Guest, Scenario
from chaos.running.run import Say, broken_off, run_here
from chaos.running.stage import environment
from reliable.errors import ReliableError

__all__ = ["main", "run", "run_apart"]

_NEWS: Final = "news"
_REPORT: Final = "report.json"
_RUN_S_MAX: Final = 300.0
_LOOK_EVERY_S: Final = 0.1


def run(scenario: Scenario, *, seed: int, short: bool, say: Say) -> RunReport:
    """Run a scenario, in a namespace if packets must vanish; see ``chaos.running.run.run_here``.

    A fault that this machine cannot inject gives a report with the verdict ``not injected``; a system that did not
    come up, one with ``failed``.
    """
    try:
        if scenario.needs_namespace:
            return run_apart(scenario, seed=seed, short=short, say=say)
        return run_here(scenario, seed=seed, short=short, say=say)
    except NotInjected as absence:
        return broken_off(scenario, seed=seed, short=short, verdict="not injected", reason=str(absence))
    except (ReliableError, TimeoutError) as failure:
        return broken_off(scenario, seed=seed, short=short, verdict="failed", reason=str(failure))


def run_apart(
    scenario: Scenario, *, seed: int, short: bool, say: Say, python: Sequence[str] = ("-m", "chaos.running.inside")
) -> RunReport:
    """Run a scenario of the catalogue in a process of its own, in a namespace if packets must vanish.

    Args:
        scenario: What; only its name and its guest are handed on.
        seed: Its seed.
        short: Its short form.
        say: Gets news while it runs.
        python: What makes Python do the part inside.

    Raises:
        NotInjected: There can be no namespace here.
        StartFailed: The process ended without a report.
        TimeoutError: It did not end; it has been killed.
    """
    with tempfile.TemporaryDirectory(prefix="reliable-chaos-") as name:
        folder = Path(name)
        (folder / _NEWS).touch()
        guest = msgspec.json.encode(scenario.guest).decode()
        length = "short" if short else "long"
        argv = [sys.executable, *python, scenario.name, str(seed), length, name, guest]
        # Its own files lie in ours: when it is killed, nobody else would remove them.
        env = {**environment(), "TMPDIR": name}
        with _followed(folder / _NEWS, say):
            if scenario.needs_namespace:
                done = run_in_namespace(argv, timeout_s=_RUN_S_MAX, env=env)
                exit_code, output = done.exit_code, done.output
            else:
                with ChildProcess(argv, name="run", env=env) as child:
                    exit_code, output = child.wait(_RUN_S_MAX), child.output()
        if exit_code != 0:
            raise StartFailed(f"the run in a process of its own ended with {exit_code}: {output[-1000:]}")
        (found,) = decode((folder / _REPORT).read_bytes()).runs
        return found


@contextlib.contextmanager
def _followed(path: Path, say: Say) -> Iterator[None]:
    """Pass on each line of a file as it is written, meanwhile and once more at the end."""
    stopping = threading.Event()

    def follow() -> None:
        with path.open() as file:
            while True:
                last = stopping.is_set()
                for line in file:
                    say(*json.loads(line))
                if last:
                    return
                stopping.wait(_LOOK_EVERY_S)

    thread = threading.Thread(target=follow, name="news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(2.0)


def main(name: str, seed: str, length: str, folder: str, guest: str) -> None:
    """The part inside."""
    news = Path(folder) / _NEWS

    def say(kind: str, text: str) -> None:
        # One write per line: the reader never sees half of one.
        with news.open("a") as file:
            file.write(json.dumps([kind, text]) + "\n")

    scenario = attrs.evolve(find(name), guest=msgspec.json.decode(guest, type=Guest | None))
    short = length == "short"
    try:
        report = run_here(scenario, seed=int(seed), short=short, say=say)
    except NotInjected as absence:
        report = broken_off(scenario, seed=int(seed), short=short, verdict="not injected", reason=str(absence))
    except ReliableError as failure:
        report = broken_off(scenario, seed=int(seed), short=short, verdict="failed", reason=str(failure))
    (Path(folder) / _REPORT).write_bytes(encode(Report(runs=[report])))


if __name__ == "__main__":
    main(*sys.argv[1:6])
