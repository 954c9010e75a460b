"""What figures depend on besides the code."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import zmq

from reliable import messages

__all__ = ["about_machine"]


def about_machine() -> dict[str, object]:
    """Processor, number of processors we may use, load average, system, and versions."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "reliable": _version(),
        "transport": messages.implementation(),
    }


def _version() -> str:
    try:
        return metadata.version("reliable")
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
