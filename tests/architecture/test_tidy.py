"""Sizes and habits: what makes code hard to change is kept out before it grows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, Module, modules, planted, sources

FUNCTION_LINES_MAX = 80
MODULE_LINES_MAX = 600
TESTED = {
    "reliable/wire": "tests/wire",
    "reliable/protocol": "tests/protocol",
    "reliable/engine": "tests/engine",
    "brokers": "tests/brokers",
}
# Split off for their size: tested through the module that they are parts of, which must import them.
PARTS = {
    "reliable.protocol.call_endings": "reliable.protocol.call",
    "reliable.protocol.call_events": "reliable.protocol.call",
    "reliable.engine.client_calls": "reliable.engine.client",
    "reliable.engine.client_links": "reliable.engine.client",
    "reliable.engine.client_state": "reliable.engine.client",
    "reliable.engine.client_views": "reliable.engine.client",
    "reliable.engine.client_watch": "reliable.engine.client",
    "reliable.engine.desk": "reliable.engine.worker",
    "reliable.engine.jobs": "reliable.engine.worker",
    "reliable.engine.plain_core": "reliable.engine.plain",
    "reliable.engine.worker_links": "reliable.engine.worker",
    "reliable.engine.worker_view": "reliable.engine.worker",
    "brokers.clients": "brokers.majordomo",
    "brokers.counters": "brokers.majordomo",
    "brokers.delivery": "brokers.majordomo",
    "brokers.endings": "brokers.majordomo",
    "brokers.replies": "brokers.majordomo",
    "brokers.workers": "brokers.majordomo",
}
# Protocols for the type checker only: there is nothing to run.
WITHOUT_BEHAVIOUR = {"reliable.engine.base"}
# Sockets are tested where the sockets are.
ELSEWHERE = {
    "brokers.serving": "tests/loopback",
    "brokers.shell": "tests/loopback",
    "brokers.queue_shell": "tests/loopback",
}
# The one place that may skip, as it also says so at the end of the run.
MAY_SKIP = Path("tests/support/injection_report.py")
_SKIPS = {"skip", "skipif", "xfail", "importorskip", "skipIf", "skipUnless", "SkipTest"}


def _functions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _long_functions(module: Module) -> list[str]:
    return [
        f"{module.path}:{function.lineno}: {function.name} has {lines} lines"
        for function in _functions(module)
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]


def _silent_excepts(module: Module) -> list[str]:
    """Handlers that do nothing and do not say why."""
    lines = module.text.splitlines()
    return [
        f"{module.path}:{node.lineno}: an error vanishes without a reason"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and all(_does_nothing(statement) for statement in node.body)
        and not any("#" in line for line in lines[node.lineno - 1 : node.end_lineno])
    ]


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    )


def _skips(module: Module) -> list[str]:
    return [
        f"{module.path}:{node.lineno}: {node.attr} hides a test"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in _SKIPS
    ] + [
        f"{module.path}:{node.lineno}: {alias.name} hides a test"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in _SKIPS
    ]


def _unexplained_tests(module: Module) -> list[str]:
    return [
        f"{module.path}:{function.lineno}: {function.name} does not say why it matters"
        for function in _functions(module)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]


def _imports(tests: tuple[Module, ...], target: str) -> bool:
    """Whether one of them imports the module, or a name that the package passes on from it."""
    package, _, name = target.rpartition(".")
    passed_on = _passed_on(package, target)
    for module in tests:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                if node.module == target or (node.module == package and names & {name, *passed_on}):
                    return True
            if isinstance(node, ast.Import) and any(alias.name == target for alias in node.names):
                return True
    return False


def _passed_on(package: str, target: str) -> set[str]:
    (init,) = [module for module in modules(package.split(".")[0]) if module.name == package]
    return {
        alias.name
        for node in init.tree.body
        if isinstance(node, ast.ImportFrom) and node.module == target
        for alias in node.names
    }


def test_no_function_is_too_long() -> None:
    """What does not fit on a screen is not read as a whole."""
    assert [line for module in sources() for line in _long_functions(module)] == []


def test_no_module_is_too_long() -> None:
    """The file that everyone must edit is where good designs get hard to change."""
    found = {str(module.path): module.text.count("\n") for module in sources()}
    assert {path: lines for path, lines in found.items() if lines > MODULE_LINES_MAX} == {}


def test_no_error_vanishes_without_a_reason() -> None:
    """An empty handler without a comment looks like an oversight, and often is one."""
    assert [line for module in sources() for line in _silent_excepts(module)] == []


def test_nothing_is_skipped_in_silence() -> None:
    """A test that is not run must be named at the end of the run, or fail where it has to run."""
    tests = [module for module in modules("tests") if module.path != MAY_SKIP]
    assert [line for module in tests for line in _skips(module)] == []


def test_every_test_says_why_it_matters() -> None:
    """Whoever sees it fail must be able to judge whether the test or the code is right."""
    assert [line for module in modules("tests") for line in _unexplained_tests(module)] == []


def _tests_under(folder: str) -> tuple[Module, ...]:
    return tuple(module for module in modules("tests") if str(module.path).startswith(f"{folder}/"))


def _is_tested(module: Module, tests: tuple[Module, ...]) -> bool:
    return any(test.path.name == f"test_{module.path.name}" for test in tests) or _imports(tests, module.name)


@pytest.mark.parametrize("folder", TESTED)
def test_every_module_has_its_tests(folder: str) -> None:
    """Some test module of the same layer is named after it or imports it."""
    wanted = [
        module
        for module in modules(folder.split("/")[0])
        if str(module.path).startswith(f"{folder}/")
        and not module.is_package
        and not module.is_main
        and module.name not in {*PARTS, *WITHOUT_BEHAVIOUR}
    ]
    assert wanted
    untested = [
        str(module.path)
        for module in wanted
        if not _is_tested(module, _tests_under(ELSEWHERE.get(module.name, TESTED[folder])))
    ]
    assert untested == []


def _reached(name: str) -> set[str]:
    """All modules of the same folder that a module imports, directly or by way of others there."""
    package = name.rpartition(".")[0]
    known = {module.name: module for module in modules(package.split(".")[0])}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for node in ast.walk(known[waiting.pop()].tree):
            target = node.module if isinstance(node, ast.ImportFrom) else None
            if target in known and target not in found and target.rpartition(".")[0] == package:
                found.add(target)
                waiting.append(target)
    return found


def test_parts_belong_to_what_is_tested() -> None:
    """A part that its whole no longer uses has lost its tests."""
    assert [part for part, whole in PARTS.items() if part not in _reached(whole)] == []
    assert PARTS.keys().isdisjoint(PARTS.values())


def test_no_file_is_named_after_what_it_is_not() -> None:
    """A test module that pytest does not collect is never run."""
    strays = [
        str(module.path)
        for module in modules("tests")
        if not module.path.name.startswith("test_")
        and any(function.name.startswith("test_") for function in _functions(module))
    ]
    assert strays == []


def test_every_folder_of_tests_is_known_to_its_root() -> None:
    """Modules of the same name in two folders are told apart by their packages."""
    names = [module.name for module in modules("tests")]
    assert len(names) == len(set(names))
    assert (ROOT / "tests" / "__init__.py").exists()


def test_breaches_are_found() -> None:
    """A check that has never failed proves nothing."""
    long = planted("reliable.planted", "def f() -> None:\n" + "    x = 1\n" * FUNCTION_LINES_MAX)
    assert len(_long_functions(long)) == 1
    silent = "try:\n    x = 1\nexcept ValueError:\n    pass\n"
    assert len(_silent_excepts(planted("reliable.planted", silent))) == 1
    assert _silent_excepts(planted("reliable.planted", silent.replace("pass", "pass  # it is optional"))) == []
    for text in (
        "import pytest\npytest.skip('no')",
        "import pytest\n@pytest.mark.xfail\ndef test_x() -> None: ...",
        "from pytest import importorskip",
        "import unittest\n@unittest.skipIf(True, 'no')\ndef test_x() -> None: ...",
    ):
        assert len(_skips(planted("tests.planted", text))) == 1
    assert len(_unexplained_tests(planted("tests.planted", "def test_x() -> None:\n    assert 1"))) == 1
    tests = (planted("tests.planted", "from reliable.wire import mdp\nimport reliable.wire.mmi"),)
    assert _imports(tests, "reliable.wire.mdp")
    assert _imports(tests, "reliable.wire.mmi")
    assert not _imports(tests, "reliable.wire.extension")
