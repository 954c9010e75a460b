"""The sources as the architecture tests see them: modules by name, with their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PACKAGES = ("reliable", "brokers", "chaos")


@attrs.frozen
class Module:
    """One source file.

    Attributes:
        name: As it is imported; a package's ``__init__`` has the package's name.
        path: Relative to the root of the project.
        text: Its source.
        is_package: Whether it is an ``__init__``.
    """

    name: str
    path: Path
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return _parsed(self.text, str(self.path))

    @property
    def is_main(self) -> bool:
        """Whether it is run, not imported."""
        return self.name.endswith(".__main__")


@cache
def _parsed(text: str, path: str) -> ast.Module:
    return ast.parse(text, path)


@cache
def modules(folder: str) -> tuple[Module, ...]:
    """All modules of one top-level package, in order of their names."""
    found = [_module(path) for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, folder
    return tuple(found)


def sources() -> Iterator[Module]:
    """All modules that are installed."""
    for package in PACKAGES:
        yield from modules(package)


def planted(name: str, text: str) -> Module:
    """A module that only exists in a test, to see a rule fail."""
    return Module(name, Path(name.replace(".", "/")).with_suffix(".py"), text)


def _module(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    parts = list(relative.with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    if is_package:
        parts.pop()
    return Module(".".join(parts), relative, path.read_text(encoding="utf-8"), is_package)


def under(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these, or below one of them."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
