"""``python -m reliable.testing.inside FILE MODULE FUNCTION``: one scenario, run where ``Partition`` starts it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import cast

from chaos.netns import Network
from reliable.testing.partitions import RESULT_MARK, Hosts

__all__ = ["main"]


def main(path: str, module_name: str, name: str) -> None:
    """Load the file as the module that it was there, run the function, print what it returned."""
    # Its own file, not an import by name: test modules of one name may lie in several folders.
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scenario = cast(Callable[[Hosts], object], getattr(module, name))
    result = scenario(Hosts(Network()))
    print(RESULT_MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
