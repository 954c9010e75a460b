"""A process that carries one known mistake, and hands it on to every process that a run inside it starts.

``python -m chaos.planted.carrier BUG MODULE [ARGUMENT…]`` is ``python -m MODULE [ARGUMENT…]`` with that bug in it. The
production code knows nothing of this: the bug is patched in before the module is run, and so is the way in which the
stage of the scenarios starts Python programs.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections.abc import Sequence
from typing import Final

from chaos.planted.catalogue import BUGS
from chaos.process import ChildProcess

__all__ = ["command", "main"]

_RUN: Final = "chaos.running.inside"


def command(bug: str, module: str, *arguments: str) -> list[str]:
    """What to give to Python in place of ``-m MODULE ARGUMENTS``.

    Raises:
        KeyError: There is no such bug.
    """
    return ["-m", "chaos.planted.carrier", BUGS[bug].name, module, *arguments]


def main(arguments: Sequence[str]) -> None:
    """Be that module, with that bug."""
    bug, module, *rest = arguments
    if module == _RUN:
        _hand_on(bug)
    sys.argv = [module, *rest]
    with BUGS[bug].planted():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _hand_on(bug: str) -> None:
    # Only a run needs it: a broker that imported all this would be slow to start.
    from chaos.running import stage

    plain = stage.spawn_python

    @functools.wraps(plain)
    def carrying(*arguments: str, name: str) -> ChildProcess:
        dash_m, module, *rest = arguments
        assert dash_m == "-m", arguments
        return plain(*command(bug, module, *rest), name=name)

    stage.spawn_python = carrying


if __name__ == "__main__":
    main(sys.argv[1:])
