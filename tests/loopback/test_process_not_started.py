"""A handler process that cannot be started after its worker has said that it holds the call."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import attrs
import pytest

from reliable import Outcome, WorkerFailed
from tests.support.loopback import QUICK_WORKER, ShellKind, Stage

_ONLY_HERE = """
import os, time
if os.getpid() != {pid}:
    time.sleep(1)
    raise RuntimeError("not in a child")
def job():
    return "done"
"""


@pytest.mark.parametrize(("started_after_s", "outcome"), [(30.0, Outcome.NOT_EXECUTED), (0.1, Outcome.UNKNOWN)])
def test_a_process_that_cannot_be_started_is_not_said_to_have_run(
    started_after_s: float,
    outcome: Outcome,
    stage: Stage,
    shell: ShellKind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took so long that the worker said "started" before: then nothing is proven, but no run is claimed either."""
    name = f"only_here_{shell.name}_{int(started_after_s)}"
    (tmp_path / f"{name}.py").write_text(_ONLY_HERE.format(pid=os.getpid()))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    broker = stage.broker()
    worker = shell.worker(broker.endpoint, config=attrs.evolve(QUICK_WORKER, started_after_s=started_after_s))
    worker.service("job", executor="process")(module.job)
    shell.run(worker)
    with pytest.raises(WorkerFailed, match="not in a child") as caught:
        shell.client(broker.endpoint, timeout=20.0).call("job")
    assert caught.value.remote_type == "ProcessNotStarted"
    assert caught.value.outcome is outcome
