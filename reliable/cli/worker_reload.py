"""Hears of changed source files, for ``reliable worker --reload``."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from reliable.cli.exits import CommandFailed

__all__ = ["Places", "check_watchfiles", "places_of", "watch"]


@attrs.frozen
class Places:
    """Folders whose ``.py`` files are watched."""

    deep: tuple[Path, ...]
    """With everything below."""
    flat: tuple[Path, ...] = ()
    """Without: a single module may lie beside a whole library."""


def check_watchfiles() -> None:
    """See that the extra is there.

    Raises:
        CommandFailed: It is not.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise CommandFailed("--reload needs the extra: pip install 'reliable[reload]'")


def places_of(module: str, here: Path) -> Places:
    """Where the sources of a module are, and the working directory. Imports nothing.

    Args:
        module: Its name; unknown ones and those without a file add nothing.
        here: The working directory.
    """
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return Places((here,))
    if spec.submodule_search_locations:
        folders = [Path(folder).resolve() for folder in spec.submodule_search_locations]
        return Places((here, *(folder for folder in folders if not folder.is_relative_to(here) and folder.is_dir())))
    if not spec.has_location or spec.origin is None:
        return Places((here,))
    folder = Path(spec.origin).resolve().parent
    return Places((here,)) if folder.is_relative_to(here) else Places((here,), (folder,))


async def watch(places: Places, changed: Callable[[Sequence[str]], None]) -> None:
    """Report changed ``.py`` files until cancelled.

    Args:
        places: What to watch.
        changed: Is called in the loop, with paths relative to the working directory where that is shorter.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch(places.deep, changed, recursive=True))
        if places.flat:
            group.create_task(_watch(places.flat, changed, recursive=False))


async def _watch(folders: Sequence[Path], changed: Callable[[Sequence[str]], None], *, recursive: bool) -> None:
    from watchfiles import PythonFilter, awatch  # an extra: whoever does not reload need not have it

    async for changes in awatch(*folders, watch_filter=PythonFilter(), recursive=recursive):
        changed(sorted({_short(path) for _, path in changes}))


def _short(path: str) -> str:
    return min(path, os.path.relpath(path), key=len)
