"""Nothing piles up in a client that is used for long: the short form of ``scripts/soak_client.py``.

It runs in a process of its own, where resident memory, descriptors and threads are the client's alone.
"""

from __future__ import annotations

from typing import Final

import pytest

from chaos.process import ChildProcess
from tests.support.answering import DIALECTS
from tests.support.commands import ROOT

_SOAK: Final = ROOT / "scripts" / "soak_client.py"
_END_S_MAX: Final = 50.0
_PARTS: Final = {
    "calls that time out": ("--timeouts", "12000", "--reconnects", "0", "--at-once", "100"),
    "reconnects": ("--timeouts", "0", "--reconnects", "600"),
}


def _soak(*arguments: str) -> tuple[int, str]:
    with ChildProcess.python(_SOAK, *arguments, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}) as process:
        return process.wait(_END_S_MAX), process.output()


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shell", ["sync", "asyncio"])
@pytest.mark.parametrize("part", _PARTS)
def test_memory_stays_flat_and_descriptors_and_threads_are_given_back(part: str, shell: str, dialect: str) -> None:
    """What leaks a little with each timeout or each reconnect ends a service after some days, and always at night."""
    arguments = ("--shell", shell, "--dialect", dialect, *_PARTS[part], "--warm-up", "0.5", "--growth-mb", "3")
    code, output = _soak(*arguments)
    assert code == 0, output
    assert "all given back" in output


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
def test_the_soak_fails_where_memory_grows_or_time_runs_out() -> None:
    """A measurement that has never failed proves nothing: here any growth is too much, and then any time."""
    code, output = _soak("--shell", "asyncio", "--timeouts", "2000", "--reconnects", "0", "--growth-mb", "-1000")
    assert code == 1, output
    assert "resident memory grew" in output
    code, output = _soak("--shell", "sync", "--timeouts", "1000000", "--reconnects", "0", "--limit-s", "0.5")
    assert code == 2, output
    assert "out of time" in output
