"""``__all__`` says what a module offers: all of its public names, none of others, in order."""

from __future__ import annotations

import ast
import importlib
import warnings
from collections.abc import Iterator

import pytest

from tests.architecture.sources import PACKAGES, Module, planted, sources, under

# Bound by an assignment, but tools of typing rather than something to offer.
_TYPING_TOOLS = ("TypeVar", "ParamSpec", "NewType")


def _importable() -> list[Module]:
    return [module for module in sources() if not module.is_main]


def _sort_key(name: str) -> tuple[int, str]:
    """As the linter sorts: constants, classes, functions."""
    rank = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return rank, name


def _listed(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                assert node.value is not None
                return list(ast.literal_eval(node.value))
    return None


def _statements(module: Module) -> Iterator[ast.stmt]:
    """What runs on import, both halves of a condition included."""
    waiting = list(module.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse]
        yield node


def _defined(module: Module) -> set[str]:
    """Names bound at the top of the file by a definition; in a package's own file also by an import of ours."""
    found: set[str] = set()
    for node in _statements(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not _is_typing_tool(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.ImportFrom) and module.is_package:
            found.update(alias.asname or alias.name for alias in node.names if node.module != "__future__")
    return {name for name in found if not name.startswith("_")}


def _passed_on(module: Module) -> set[str]:
    """Names of ours that a module imports: it may offer them too, if a part of it was split off."""
    return {
        alias.asname or alias.name
        for node in _statements(module)
        if isinstance(node, ast.ImportFrom) and node.module is not None and under(node.module, PACKAGES)
        for alias in node.names
    }


def _is_typing_tool(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _TYPING_TOOLS


def _problem(module: Module) -> str | None:
    defined, listed = _defined(module), _listed(module)
    if listed is None:
        return f"{module.path}: no __all__, but {sorted(defined)}" if defined else None
    missing, surplus = sorted(defined - set(listed)), sorted(set(listed) - defined - _passed_on(module))
    if missing or surplus:
        return f"{module.path}: __all__ lacks {missing} and has {surplus} too much"
    if listed != sorted(set(listed), key=_sort_key):
        return f"{module.path}: __all__ is not sorted, or names something twice"
    return None


def test_every_module_lists_its_public_names() -> None:
    """What is not listed may change at any time; what is listed may not."""
    assert [problem for module in _importable() if (problem := _problem(module)) is not None] == []


@pytest.mark.parametrize("name", [module.name for module in _importable()])
def test_every_listed_name_can_be_had(name: str) -> None:
    """A star import of a name that is gone fails at the user's."""
    with warnings.catch_warnings():
        # Third parties that are only imported here are not what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = importlib.import_module(name)
    for listed in getattr(found, "__all__", []):
        assert hasattr(found, listed), listed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def public() -> None: ...", "no __all__"),
        ('__all__ = ["gone"]', "too much"),
        ('__all__ = ["Public"]\nclass Public: ...\nLIMIT = 3', "lacks"),
        ('__all__ = ["Path"]\nfrom pathlib import Path', "too much"),
        ('__all__ = ["b", "a"]\na = b = 1', "not sorted"),
        ('__all__ = ["a", "a"]\na = 1', "not sorted"),
    ],
)
def test_untrue_list_is_found(text: str, why: str) -> None:
    """A check that has never failed proves nothing."""
    problem = _problem(planted("reliable.planted", text))
    assert problem is not None
    assert why in problem


def test_private_names_and_typing_tools_need_no_entry() -> None:
    """The rule is about what users may use."""
    text = '__all__ = ["Public"]\nfrom typing import TypeVar\nT = TypeVar("T")\n_x = 1\nclass Public: ...'
    assert _problem(planted("reliable.planted", text)) is None
