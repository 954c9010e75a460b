"""Engines are handed time, jitter and ids: with a clock or chance of their own, no failure could be replayed."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Module, planted, sources, under
from tests.architecture.test_imports import BROKER_ENGINES

PURE = ("reliable.wire", "reliable.protocol", "reliable.engine", *BROKER_ENGINES, "chaos.sim")
AMBIENT = (
    "time",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "datetime.date.today",
    "os.urandom",
    "os.getrandom",
    "os.getpid",
    "random",
    "secrets",
    "uuid.uuid1",
    "uuid.uuid4",
)
# A generator with a seed of its own is the very opposite of an ambient one.
SEEDED = ("random.Random",)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, wherever in the file it is imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return None


def _uses(module: Module) -> Iterator[tuple[str, int]]:
    aliases = _aliases(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := _dotted(node)) is not None:
            head, _, rest = dotted.partition(".")
            if head in aliases:
                yield (f"{aliases[head]}.{rest}" if rest else aliases[head]), node.lineno


def _violations(module: Module) -> list[str]:
    found = []
    for name, line in _uses(module):
        # The bare module also comes by, as the left part of each dotted name; its use is judged as a whole.
        bare = name in ("random", "time", "secrets")
        if under(name, AMBIENT) and not under(name, SEEDED) and not bare:
            found.append(f"{module.path}:{line}: uses {name}")
    return found


def test_pure_layers_use_neither_clock_nor_chance() -> None:
    """Same seed, same run: that holds only while all time and chance come in as arguments."""
    checked = [module for module in sources() if under(module.name, PURE)]
    assert len(checked) > 10
    assert [line for module in checked for line in _violations(module)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import time\nnow = time.monotonic()",
        "import time as t\nnow = t.time()",
        "from time import monotonic\nnow = monotonic()",
        "def f() -> object:\n    import random\n    return random.random()",
        "from random import choice\nx = choice([1])",
        "import os\nident = os.urandom(16)",
        "from os import urandom as fresh\nident = fresh(16)",
        "import uuid\nident = uuid.uuid4()",
        "import datetime\nnow = datetime.datetime.now()",
        "from datetime import datetime\nnow = datetime.now()",
        "import random\ndefault = random.random",
    ],
)
def test_ambient_time_and_chance_are_found(text: str) -> None:
    """A check that has never failed proves nothing."""
    assert _violations(planted("reliable.engine.client", text))


@pytest.mark.parametrize(
    "text",
    [
        "import random\nrng = random.Random(7)\nx = rng.random()",
        "from random import Random\nrng = Random(7)",
        "import datetime\nday = datetime.timedelta(days=1)",
        "def f(time: float) -> float:\n    return time",
    ],
)
def test_seeded_chance_and_mere_words_are_left_alone(text: str) -> None:
    """A check that cries without need is switched off one day."""
    assert _violations(planted("chaos.sim.world", text)) == []
