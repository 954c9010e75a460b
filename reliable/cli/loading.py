"""Find the object that ``module:attribute`` names."""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType

import click

from reliable.cli.exits import CommandFailed

__all__ = ["load_object"]


def load_object(target: str) -> object:
    """The object behind ``package.module:attribute`` (or ``:attribute.of.it``).

    Raises:
        click.UsageError: It is not written so, or there is no such module or attribute.
        CommandFailed: The module exists and fails while it is imported.
    """
    module_name, separator, path = target.partition(":")
    if not (separator and module_name and path):
        raise click.UsageError(f"{target!r} is not MODULE:OBJECT, for example my_services:worker")
    found: object = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise click.UsageError(f"module {module_name!r} has no {path!r}")
        found = getattr(found, name)
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A parent package may be what is missing; another name means that the module exists and lacks a dependency.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise click.UsageError(f"there is no module {error.name!r} here or on the Python path") from error
        raise CommandFailed(_failure_text(name, error)) from error
    except Exception as error:
        raise CommandFailed(_failure_text(name, error)) from error


def _failure_text(name: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"importing {name!r} failed: {type(error).__name__}: {error}{where}"
