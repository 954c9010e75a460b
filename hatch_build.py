"""Builds the accelerator into the wheel where a C compiler is present; elsewhere the wheel is the same without it.

``RELIABLE_NO_EXTENSION=1`` leaves it out on purpose. The wheel is tied to one Python and platform only if it holds the
accelerator. No failure here fails the build: one line says what was missing.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = Path("reliable") / "_accelerator.pyx"
_COMPILE_S_MAX = 120
_LINK = {"linux": ["-shared"], "darwin": ["-bundle", "-undefined", "dynamic_lookup"]}


class _NotBuilt(Exception):
    """Why there is no accelerator."""


class AcceleratorHook(BuildHookInterface):  # type: ignore[type-arg] # Its parameter is for plugins that add settings.
    """Run by hatchling before it gathers the files of a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the extension to what is built; beside its source, if this is an editable install."""
        root = Path(self.root)
        beside = root / "reliable" / f"_accelerator{sysconfig.get_config_var('EXT_SUFFIX')}"
        if version == "editable":
            # An old one would be used though this build cannot be: other Pythons' files stay.
            beside.unlink(missing_ok=True)
        try:
            built = _build(root)
        except _NotBuilt as why:
            self.app.display_warning(f"reliable: no accelerator in this build: {why}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version == "editable":
            # By renaming: a process that runs may have the old one mapped.
            shutil.copy2(built, beside.with_suffix(".new"))
            beside.with_suffix(".new").replace(beside)
        else:
            build_data["force_include"][str(built)] = str(beside.relative_to(root))
        self.app.display_info("reliable: the accelerator is built")


def _build(root: Path) -> Path:
    if os.environ.get("RELIABLE_NO_EXTENSION", "0") not in ("", "0"):
        raise _NotBuilt("RELIABLE_NO_EXTENSION is set")
    if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise _NotBuilt("it is made for CPython with its lock")
    if sys.platform not in _LINK:
        raise _NotBuilt(f"it is not made for {sys.platform}")
    folder = root / "build" / "accelerator"
    folder.mkdir(parents=True, exist_ok=True)
    generated = folder / "_accelerator.c"
    built = folder / f"_accelerator{sysconfig.get_config_var('EXT_SUFFIX')}"
    _run([sys.executable, "-m", "cython", "-3", str(root / _SOURCE), "-o", str(generated)], root)
    _run(
        [
            *_compiler(),
            *("-O2", "-g0", "-fPIC", "-fwrapv", "-DNDEBUG", *_LINK[sys.platform]),
            f"-I{sysconfig.get_path('include')}",
            f"-I{sysconfig.get_path('platinclude')}",
            *shlex.split(os.environ.get("CFLAGS", "")),
            str(generated),
            *("-o", str(built)),
            *shlex.split(os.environ.get("LDFLAGS", "")),
        ],
        root,
    )
    return built


def _compiler() -> list[str]:
    """``CC``, else what Python itself was compiled with, else ``cc``."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
        if command and command == os.environ.get("CC"):
            break
    raise _NotBuilt("there is no C compiler")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_COMPILE_S_MAX)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NotBuilt(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = next((line for line in said if "error" in line.lower()), said[-1] if said else "it said nothing")
        raise _NotBuilt(f"{Path(command[0]).name} failed: {told.strip()[:200]}")
