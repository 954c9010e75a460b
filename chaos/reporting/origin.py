"""Where a report comes from: what its reader needs to have the same again. Nothing is reckoned with it."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata

import zmq

__all__ = ["command_of", "machine", "version"]


def machine() -> str:
    """System, cores, and versions of what this stands on."""
    libraries = f"Python {platform.python_version()}, pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}"
    return f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {libraries}"


def version() -> str:
    """Of this library."""
    try:
        return metadata.version("reliable")
    except metadata.PackageNotFoundError:
        return "unknown"


def command_of(arguments: Sequence[str]) -> str:
    """What to type for the same run, from ``sys.argv``."""
    words = list(arguments[1:])
    program = ["reliable"] if words[:1] == ["chaos"] else ["python", "-m", "chaos"]
    return shlex.join([*program, *words])
