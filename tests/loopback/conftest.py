"""Fixtures for tests with real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, fleet_in
from tests.support.loopback import ShellKind, Stage


@pytest.fixture
def stage(no_leaks: None) -> Iterator[Stage]:
    """Brokers."""
    made = Stage()
    yield made
    made.close()


@pytest.fixture(params=["sync", "asyncio"])
def shell(request: pytest.FixtureRequest, stage: Stage) -> Iterator[ShellKind]:
    """Clients and workers of one shell; each test runs with both."""
    made = ShellKind(request.param)
    yield made
    made.close()


@pytest.fixture
def fleet(tmp_path: Path, stage: Stage) -> Iterator[Fleet]:
    """Worker processes; gone before the brokers are."""
    with fleet_in(tmp_path) as made:
        yield made
