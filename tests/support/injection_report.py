"""The pytest side of ``chaos.injection``: skip or fail where a fault cannot be injected, and say it once at the end.

Loaded by ``-p`` in the settings of pytest. This is the one place in the tests that may skip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import pytest

from chaos.injection import REQUIRE_VARIABLE, NotInjected, faults_required, not_injected_line

__all__ = ["injected", "require"]

T = TypeVar("T")

# Of this process, as is the run: a plain function has no way to the configuration object of pytest.
_absences: list[NotInjected] = []
_HANDED_ON = "not injected"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process that runs a part of the tests: hand on what was missing to the one that prints the end."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_HANDED_ON] = [(absence.fault, absence.reason) for absence in _absences]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the one that prints the end. A process that crashed has handed on nothing; its crash is a failure."""
    output = getattr(node, "workeroutput", {})
    _absences.extend(NotInjected(fault, reason) for fault, reason in output.get(_HANDED_ON, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line that names what this run did not test."""
    line = not_injected_line(_absences)
    if line:
        terminalreporter.write_line(line, yellow=True)


def injected(make: Callable[[], T]) -> T:
    """What ``make`` gives; where it raises ``NotInjected``, the test is skipped and named, or fails if demanded."""
    try:
        return make()
    except NotInjected as absence:
        _give_up(absence)


def require(absence: NotInjected | None) -> None:
    """The same for a probe that returns what is missing."""
    if absence is not None:
        _give_up(absence)


def _give_up(absence: NotInjected) -> NoReturn:
    _absences.append(absence)
    if faults_required():
        pytest.fail(f"not injected: {absence}, and {REQUIRE_VARIABLE} demands it", pytrace=False)
    pytest.skip(f"not injected: {absence}")
