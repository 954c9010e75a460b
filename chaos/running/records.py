"""Reads what the processes wrote about their own runs (``chaos.running.recorder``)."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from chaos.history import Execution
from chaos.running.recorder import SUFFIX

__all__ = ["read_executions", "runs_by_key"]


def read_executions(folder: Path, begun_at: float) -> list[Execution]:
    """All runs that were written down, in order of their start; times are seconds since ``begun_at``."""
    found: list[Execution] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        runs: dict[int, Execution] = {}
        # What stands after the last line break is being written right now.
        for line in path.read_text().split("\n")[:-1]:
            value = json.loads(line)
            if "key" in value:
                started_s = value["started"] - begun_at
                runs[value["run"]] = Execution(value["key"].encode(), path.stem, started_s)
            else:
                run = runs[value["run"]]
                run.ended_s = value["ended"] - begun_at
                run.finished_s = run.ended_s if value["finished"] else None
        found += runs.values()
    return sorted(found, key=lambda run: run.started_s)


def runs_by_key(executions: list[Execution]) -> dict[bytes, list[Execution]]:
    """The same, by call."""
    by_key: dict[bytes, list[Execution]] = defaultdict(list)
    for run in executions:
        by_key[run.key].append(run)
    return by_key
