"""The build of the accelerator: what it makes, and that nothing that is missing fails it."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
_SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))


def _hook_module() -> Any:
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Application:
    """What the hook says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def display_info(self, text: str) -> None:
        self.said.append(text)

    display_warning = display_info


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has nothing but the source of the accelerator."""
    for variable in ("RELIABLE_NO_EXTENSION", "CC", "CFLAGS", "LDFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "reliable").mkdir()
    shutil.copy(ROOT / "reliable" / "_accelerator.pyx", tmp_path / "reliable")
    return tmp_path


def _build(root: Path, version: str) -> tuple[dict[str, Any], str]:
    module = _hook_module()
    application = Application()
    hook = module.AcceleratorHook(str(root), {}, None, None, str(root), "wheel", application)
    build_data: dict[str, Any] = {"pure_python": True, "infer_tag": False, "force_include": {}}
    hook.initialize(version, build_data)
    (said,) = application.said
    return build_data, said


_PURE = {"pure_python": True, "infer_tag": False, "force_include": {}}


def test_without_the_extension_the_wheel_fits_everywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that is tied to one Python for nothing cannot be installed elsewhere."""
    monkeypatch.setenv("RELIABLE_NO_EXTENSION", "1")
    assert _build(root, "standard") == (_PURE, "reliable: no accelerator in this build: RELIABLE_NO_EXTENSION is set")


@pytest.mark.parametrize(("compiler", "why"), [("false", "false failed: "), ("/no/such/cc", "there is no C compiler")])
def test_a_compiler_that_fails_or_is_missing_does_not_fail_the_build(
    root: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, why: str
) -> None:
    """Who cannot compile can still install."""
    monkeypatch.setenv("CC", compiler)
    build_data, said = _build(root, "standard")
    assert build_data == _PURE
    assert said.startswith(f"reliable: no accelerator in this build: {why}")


def test_a_mistake_in_the_source_is_told_in_one_line(root: Path) -> None:
    """Whoever changes it sees at once why the accelerator is gone."""
    (root / "reliable" / "_accelerator.pyx").write_text("def broken(:\n")
    build_data, said = _build(root, "standard")
    assert build_data == _PURE
    assert "\n" not in said
    assert "python" in said


def test_an_editable_install_without_a_compiler_removes_the_old_extension(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on to be used, though its source may be another one by now; other Pythons' files stay."""
    monkeypatch.setenv("RELIABLE_NO_EXTENSION", "1")
    old, other = (root / "reliable" / f"_accelerator{suffix}" for suffix in (_SUFFIX, ".cpython-39-other.so"))
    old.touch()
    other.touch()
    _build(root, "editable")
    assert not old.exists()
    assert other.exists()


@pytest.mark.parametrize("version", ["standard", "editable"])
def test_with_the_extension_the_wheel_is_for_this_python_and_platform(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """On another one it could not be loaded."""
    built = root / "built.so"
    built.write_bytes(b"new")
    beside = root / "reliable" / f"_accelerator{_SUFFIX}"
    beside.write_bytes(b"old")
    module = _hook_module()
    monkeypatch.setattr(module, "_build", lambda _: built)
    hook = module.AcceleratorHook(str(root), {}, None, None, str(root), "wheel", Application())
    build_data: dict[str, Any] = {"pure_python": True, "infer_tag": False, "force_include": {}}
    hook.initialize(version, build_data)
    editable = version == "editable"
    included = {} if editable else {str(built): f"reliable/_accelerator{_SUFFIX}"}
    assert build_data == {"pure_python": False, "infer_tag": True, "force_include": included}
    assert beside.read_bytes() == (b"new" if editable else b"old")
    assert [path.suffix for path in beside.parent.iterdir() if path.suffix == ".new"] == []
