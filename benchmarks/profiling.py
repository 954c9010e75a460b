"""Where the time of a loop goes, function by function.

The profiler makes each Python call dearer, functions written in C less so: read the order and the counts, and measure a
change without it.
"""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path
from typing import Final

from benchmarks.loops import Round

__all__ = ["profile"]

_ROWS: Final = 45


def profile(loop: Round, calls: int) -> list[str]:
    """Own time and number of calls of each function, per call of the loop, the dearest first.

    Args:
        loop: Run once without the profiler, once with it.
        calls: In each of the two.
    """
    loop(calls)
    profiler = cProfile.Profile()
    profiler.enable()
    loop(calls)
    profiler.disable()
    # Typed by typeshed as something else than it is at run time.
    found = vars(pstats.Stats(profiler))["stats"]
    rows = [(own, count, where) for where, (_, count, own, _, _) in found.items()]
    rows.sort(reverse=True)
    total = sum(own for own, _, _ in rows)
    shown = [f"  {total / calls * 1e6:8.1f} us  own time in all, per call"]
    return shown + [
        f"  {own / calls * 1e6:8.2f} us {count / calls:6.2f} x  {_name(*where)}" for own, count, where in rows[:_ROWS]
    ]


def _name(file: str, line: int, function: str) -> str:
    if file == "~":
        return function
    path = Path(file)
    return f"{path.parent.name}/{path.name}:{line} {function}"
