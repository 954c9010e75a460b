"""Fixtures for tests with real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
