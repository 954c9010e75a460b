"""Who may import whom: decisions stay free of sockets, clocks and threads only if the arrows are kept.

errors, status, config, types ← wire ← protocol ← engine ← shell parts ← sync | aio ← reliable ← cli, testing, bench
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import attrs
import pytest

from tests.architecture.sources import PACKAGES, Module, modules, planted, sources, under

VOCABULARY = ("reliable.errors", "reliable.status", "reliable.config", "reliable.types")
ENGINES = (*VOCABULARY, "reliable.wire", "reliable.protocol", "reliable.engine")
ROOTS = (
    "reliable.cli",
    "reliable.testing",
    "reliable.bench",
    "reliable.__main__",
    "brokers.__main__",
    "chaos.__main__",
)
BROKER_SHELLS = ("brokers.shell", "brokers.queue_shell", "brokers.serving")
BROKER_ENGINES = tuple(
    module.name
    for module in modules("brokers")
    if not module.is_main and not module.is_package and not under(module.name, BROKER_SHELLS)
)


@attrs.frozen
class Layer:
    """Modules under ``prefixes`` may import our modules under ``allowed``, and of others all but ``banned``."""

    prefixes: tuple[str, ...]
    allowed: tuple[str, ...]
    banned: tuple[str, ...] = ()


INPUT_OUTPUT = (
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "queue",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "zmq",
)
SHELL_PARTS = ("reliable",)

# The first layer whose prefix fits is the one that counts.
LAYERS = (
    Layer(("reliable.errors", "reliable.config", "reliable.types"), (), INPUT_OUTPUT),
    Layer(("reliable.status",), ("reliable.errors",), INPUT_OUTPUT),
    Layer(("reliable.wire",), (*VOCABULARY, "reliable.wire"), INPUT_OUTPUT),
    Layer(("reliable.protocol",), (*VOCABULARY, "reliable.wire", "reliable.protocol"), INPUT_OUTPUT),
    Layer(("reliable.engine",), ENGINES, INPUT_OUTPUT),
    # It measures bare sockets beside ours.
    Layer(("reliable.bench",), PACKAGES),
    Layer(ROOTS, PACKAGES, ("zmq",)),
    Layer(BROKER_SHELLS, ("reliable", "brokers")),
    Layer(BROKER_ENGINES, (*ENGINES, *BROKER_ENGINES), INPUT_OUTPUT),
    Layer(("brokers",), ("reliable", "brokers"), ("zmq",)),
    Layer(("chaos.sim",), (*ENGINES, *BROKER_ENGINES, "chaos.sim", "chaos.history", "chaos.checkers"), INPUT_OUTPUT),
    Layer(
        ("chaos.toxi",),
        ("reliable.errors", "chaos.toxi", "chaos.process", "chaos.ports", "chaos.injection"),
        ("zmq",),
    ),
    Layer(("chaos",), PACKAGES),
    Layer(("reliable.sync",), (*ENGINES, "reliable.sync", "@parts"), ("asyncio",)),
    Layer(("reliable.aio",), (*ENGINES, "reliable.aio", "@parts")),
    # What both shells share lies in the package itself: transport, name resolution, payloads, threads.
    Layer(("reliable",), (*ENGINES, "@parts")),
)
ZMQ_ALLOWED = (
    "reliable.transport",
    "reliable.messages",
    "reliable.sync",
    "reliable.aio",
    "reliable.bench",
    *BROKER_SHELLS,
    "chaos",
)


def _is_shell_part(name: str) -> bool:
    """Neither an engine, nor a shell, nor a root: a module of the package ``reliable`` itself."""
    outside = (*ENGINES, *ROOTS, "reliable.sync", "reliable.aio")
    return name.count(".") == 1 and under(name, SHELL_PARTS) and not under(name, outside)


def _imported(module: Module) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in the file, also inside functions and for type checking only."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: relative import"
            assert node.module is not None
            yield from ((_submodule(node.module, alias.name), node.lineno) for alias in node.names)


def _submodule(module: str, name: str) -> str:
    """``from brokers import majordomo`` imports a module, ``from brokers.config import BrokerConfig`` does not."""
    full = f"{module}.{name}"
    return full if full in _names() else module


def _names() -> frozenset[str]:
    return frozenset(module.name for module in sources())


def _layer(name: str) -> Layer:
    return next(layer for layer in LAYERS if under(name, layer.prefixes))


def _allowed(layer: Layer, target: str) -> bool:
    return under(target, layer.allowed) or ("@parts" in layer.allowed and _is_shell_part(target))


def _violations(module: Module) -> list[str]:
    # The package gathers what users see: it may import all of its own, but not the roots.
    gathers = module.name == "reliable"
    layer = _layer(module.name)
    found = []
    for target, line in _imported(module):
        ours = under(target, PACKAGES)
        if ours and not under(module.name, ROOTS) and under(target, ROOTS):
            found.append(f"{module.path}:{line}: imports {target}, which nothing may import")
        elif ours and not (gathers and under(target, ("reliable",))) and not _allowed(layer, target):
            found.append(f"{module.path}:{line}: imports {target}, against the arrows")
        elif not ours and under(target, layer.banned):
            found.append(f"{module.path}:{line}: imports {target}, which only shells may use")
        elif target.split(".")[0] == "zmq" and not under(module.name, ZMQ_ALLOWED):
            found.append(f"{module.path}:{line}: imports zmq, which only transport and shells may use")
        elif target.split(".")[0] == "toxiproxy" and module.name != "chaos.toxi.proxy":
            found.append(f"{module.path}:{line}: imports the Toxiproxy library, which only chaos.toxi.proxy may use")
        elif target.split(".")[0] == "tests":
            found.append(f"{module.path}:{line}: imports the tests, which are not installed")
    return found


def test_every_import_follows_the_arrows() -> None:
    """One import in the wrong direction, and an engine can no longer be simulated."""
    assert [line for module in sources() for line in _violations(module)] == []


PLANTED = [
    ("reliable.wire.mdp", "import zmq"),
    ("reliable.wire.mdp", "from reliable.protocol.events import Send"),
    ("reliable.errors", "from reliable.types import Frames"),
    ("reliable.protocol.call", "from reliable.engine import client"),
    ("reliable.protocol.call", "def f() -> None:\n    import time"),
    ("reliable.engine.client", "from reliable.transport import LinkTable"),
    ("reliable.engine.client", "import threading"),
    ("reliable.engine.client", "from brokers.config import BrokerConfig"),
    ("reliable.transport", "from reliable.sync.client import Client"),
    ("reliable.names", "import zmq"),
    ("reliable.sync.client", "from reliable.aio.client import AsyncClient"),
    ("reliable.sync.client", "import asyncio"),
    ("reliable.sync.client", "from reliable.cli.main import main"),
    ("reliable.sync.client", "from reliable import Client"),
    ("reliable.aio.client", "from brokers import MajordomoBroker"),
    ("reliable", "from reliable.cli.main import main"),
    ("reliable.sync.client", "from reliable.bench.figures import Spread"),
    ("reliable.cli.bench", "import zmq"),
    ("reliable", "import brokers"),
    ("brokers.majordomo", "from reliable.transport import LinkTable"),
    ("brokers.majordomo", "import socket"),
    ("brokers.majordomo", "from brokers.shell import MajordomoBroker"),
    ("brokers.shell", "from chaos.process import ChildProcess"),
    ("chaos.sim.world", "from reliable.sync.client import Client"),
    ("chaos.sim.world", "from brokers.shell import MajordomoBroker"),
    ("chaos.sim.world", "from brokers import MajordomoEngine"),
    ("chaos.sim.world", "import asyncio"),
    ("chaos.toxi.server", "from chaos.history import History"),
    ("chaos.toxi.server", "import toxiproxy"),
    ("chaos.process", "from tests.support import vectors"),
]


@pytest.mark.parametrize(("name", "text"), PLANTED, ids=[f"{name}: {text}" for name, text in PLANTED])
def test_import_in_the_wrong_direction_is_found(name: str, text: str) -> None:
    """A check that has never failed proves nothing."""
    assert len(_violations(planted(name, text))) == 1


def test_planted_modules_have_their_layer() -> None:
    """A layer whose prefix no longer fits anything would check nothing."""
    for layer in LAYERS:
        assert any(_layer(module.name) is layer for module in sources()), layer.prefixes
