"""The pytest plugin of ``reliable``: fixtures for tests of services and of their callers.

A module of its own, outside the package: pytest loads it in every project of the environment, and must not have to
import the library, its sockets included, where nobody uses the fixtures. ``-p no:reliable`` switches it off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from chaos.injection import NotInjected
    from chaos.toxi import ToxiproxyServer
    from chaos.toxi.proxy import ToxiProxy
    from reliable import AsyncClient, Client
    from reliable.testing import Partition, RunningBroker, RunningWorker, Simulation, WorkerProcess

__all__ = [
    "reliable_async_client",
    "reliable_broker",
    "reliable_client",
    "reliable_make_async_client",
    "reliable_make_client",
    "reliable_partition",
    "reliable_simulation",
    "reliable_toxiproxy",
    "reliable_toxiproxy_server",
    "reliable_worker",
    "reliable_worker_process",
]


def _cannot(fixture: str, absence: NotInjected) -> NoReturn:
    pytest.fail(f"{fixture}: {absence}", pytrace=False)


@pytest.fixture
def reliable_broker() -> Iterator[RunningBroker]:
    """A broker on a free port of 127.0.0.1, in a thread; a ``RunningBroker``."""
    from reliable.testing import running_broker

    with running_broker() as broker:
        yield broker


@pytest.fixture
def reliable_worker(reliable_broker: RunningBroker) -> Iterator[Callable[..., RunningWorker]]:
    """Factory of workers in threads: ``reliable_worker(function, …)`` or ``reliable_worker(worker)``, registered.

    ``broker=`` registers elsewhere than with ``reliable_broker``, for instance through ``reliable_toxiproxy``; the
    other options are those of ``running_worker``.
    """
    from reliable.testing import running_worker

    with contextlib.ExitStack() as stack:

        def start(offered: Any, *more: Any, broker: Any = None, **options: Any) -> RunningWorker:
            at = reliable_broker if broker is None else broker
            return stack.enter_context(running_worker(offered, at, more=more, **options))

        yield start


@pytest.fixture
def reliable_worker_process(
    reliable_broker: RunningBroker, request: pytest.FixtureRequest
) -> Iterator[Callable[..., WorkerProcess]]:
    """Factory of workers in processes: ``reliable_worker_process("module:object")``; ``kill``, ``pause``, ``resume``.

    They start in pytest's root directory, unless ``cwd=`` says otherwise, and can import what the test can.
    """
    from reliable.testing import WorkerProcess

    with contextlib.ExitStack() as stack:

        def start(target: str, *, broker: Any = None, cwd: Any = None, **options: Any) -> WorkerProcess:
            at = reliable_broker if broker is None else broker
            return stack.enter_context(WorkerProcess(target, at, cwd=cwd or request.config.rootpath, **options))

        yield start


@pytest.fixture
def reliable_make_client(reliable_broker: RunningBroker) -> Iterator[Callable[..., Client]]:
    """Factory of clients: ``reliable_make_client(broker=…, timeout=…)``; other arguments are those of ``Client``."""
    from reliable import Client
    from reliable.testing import QUICK_CLIENT
    from reliable.testing.brokers import endpoint_of

    with contextlib.ExitStack() as stack:

        def make(broker: Any = None, **options: Any) -> Client:
            at = endpoint_of(reliable_broker if broker is None else broker)
            return stack.enter_context(Client(at, **{"config": QUICK_CLIENT, **options}))

        yield make


@pytest.fixture
def reliable_client(reliable_make_client: Callable[..., Client]) -> Client:
    """A client of ``reliable_broker``."""
    return reliable_make_client()


@pytest.fixture
def reliable_make_async_client(reliable_broker: RunningBroker) -> Iterator[Callable[..., AsyncClient]]:
    """Factory of asyncio clients, to be used in one event loop of the test's; otherwise as ``reliable_make_client``."""
    from reliable import AsyncClient
    from reliable.testing import QUICK_CLIENT, close_async_client
    from reliable.testing.brokers import endpoint_of

    with contextlib.ExitStack() as stack:

        def make(broker: Any = None, **options: Any) -> AsyncClient:
            at = endpoint_of(reliable_broker if broker is None else broker)
            client = AsyncClient(at, **{"config": QUICK_CLIENT, **options})
            stack.callback(close_async_client, client)
            return client

        yield make


@pytest.fixture
def reliable_async_client(reliable_make_async_client: Callable[..., AsyncClient]) -> AsyncClient:
    """An asyncio client of ``reliable_broker``; closed by the fixture if the test does not."""
    return reliable_make_async_client()


@pytest.fixture(scope="session")
def reliable_toxiproxy_server() -> Iterator[ToxiproxyServer]:
    """One Toxiproxy server for all tests; ``reliable.testing.running_proxy`` makes further proxies with it."""
    from chaos.injection import NotInjected
    from reliable.testing import running_toxiproxy

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_toxiproxy())
        except NotInjected as absence:
            _cannot("reliable_toxiproxy", absence)
        yield server


@pytest.fixture
def reliable_toxiproxy(
    reliable_broker: RunningBroker, reliable_toxiproxy_server: ToxiproxyServer
) -> Iterator[ToxiProxy]:
    """A real proxy in front of ``reliable_broker``: connect clients or workers to its ``endpoint``."""
    from reliable.testing import running_proxy

    with running_proxy(reliable_broker, reliable_toxiproxy_server) as proxy:
        yield proxy


@pytest.fixture
def reliable_partition() -> Partition:
    """Runs a scenario in a network namespace whose packets nftables drops; see ``Partition``."""
    from chaos.injection import NotInjected
    from reliable.testing import Partition

    try:
        return Partition()
    except NotInjected as absence:
        _cannot("reliable_partition", absence)


@pytest.fixture
def reliable_simulation() -> Iterator[Callable[..., Simulation]]:
    """Factory of simulated worlds: ``reliable_simulation(seed)``; those that the test did not check are checked."""
    from reliable.testing import Simulation

    made: list[Simulation] = []

    def simulation(seed: int, **options: Any) -> Simulation:
        world = Simulation(seed, **options)
        made.append(world)
        return world

    yield simulation
    for world in made:
        if not world.checked:
            world.check()
