#!/usr/bin/env python3
"""Run random worlds for hours, and look for the seed that finds each planted bug.

    nice scripts/soak_simulation.py --seeds 5000 --theme all --jobs 2
    scripts/soak_simulation.py --bugs --seeds 2000

What is known so far is kept in a JSON file after each batch, so that the search can be stopped at any time and goes on
where it was. A clean seed with a problem is a defect, in an engine or in the simulator; its replay command is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.planted import BUGS
from chaos.sim.random_world import run_world
from chaos.sim.shrink import kinds_of
from chaos.sim.themes import ANYTHING, THEMES

_BATCH = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Search as the command line says; 1 if a clean seed has a problem or a bug was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="clean: up to this seed; bugs: give up after so many")
    parser.add_argument("--theme", action="append", choices=[*THEMES, "all"], help="of clean worlds; may be repeated")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bugs", action="store_true", help="find a seed for each planted bug instead")
    parser.add_argument("--only", action="append", choices=list(BUGS), help="of the bugs")
    parser.add_argument("--file", type=Path, default=Path("build/soak_simulation.json"))
    chosen = parser.parse_args(arguments)
    known = json.loads(chosen.file.read_text()) if chosen.file.exists() else {}
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        if chosen.bugs:
            return _search(pool, known, chosen.file, chosen.only or list(BUGS), chosen.seeds)
        themes = list(THEMES) if "all" in (chosen.theme or ()) else chosen.theme or [ANYTHING.name]
        return _soak(pool, known, chosen.file, themes, chosen.seeds)


def clean(world: tuple[str, int]) -> tuple[int, list[str], int, float]:
    """Seed, problems, calls and simulated seconds of one world."""
    theme, seed = world
    report = run_world(seed, theme=THEMES[theme])
    return seed, list(report.problems), report.calls, report.simulated_s


def first_seed(search: tuple[str, int, int]) -> tuple[str, int | None, list[str]]:
    """The first seed from a batch that finds a bug by the checker that is there for it; who else found something."""
    name, first, last = search
    bug = BUGS[name]
    others: set[str] = set()
    for seed in range(first, last):
        with bug.planted():
            found = kinds_of(run_world(seed, theme=THEMES[bug.theme]).problems)
        others |= found
        if bug.found_by in found:
            return name, seed, sorted(others)
    return name, None, sorted(others)


def _soak(pool: Any, known: dict[str, Any], file: Path, themes: Sequence[str], seeds: int) -> int:
    figures = known.setdefault("clean", {})
    for theme in themes:
        done = figures.setdefault(theme, {"seeds": 0, "calls": 0, "simulated_s": 0.0, "real_s": 0.0, "problems": {}})
        while done["seeds"] < seeds:
            began = time.monotonic()
            last = min(done["seeds"] + _BATCH, seeds)
            worlds = [(theme, seed) for seed in range(done["seeds"], last)]
            for seed, problems, calls, simulated_s in pool.imap_unordered(clean, worlds):
                done["calls"] += calls
                done["simulated_s"] += simulated_s
                if problems:
                    done["problems"][str(seed)] = problems
                    print(f"reliable chaos replay {seed} --theme {theme!r}", *problems, sep="\n  ", flush=True)
            done["seeds"] = last
            done["real_s"] += time.monotonic() - began
            file.write_text(json.dumps(known, indent=1))
        print(f"{theme}: {done['seeds']} seeds, {len(done['problems'])} with problems", flush=True)
    return 1 if any(figures[theme]["problems"] for theme in themes) else 0


def _search(pool: Any, known: dict[str, Any], file: Path, names: Sequence[str], seeds: int) -> int:
    figures = known.setdefault("bugs", {})
    for name in names:
        bug = BUGS[name]
        done = figures.setdefault(name, {"theme": bug.theme, "found_by": bug.found_by, "tried": 0, "seed": None})
        if (done["theme"], done["found_by"]) != (bug.theme, bug.found_by):
            done.update(theme=bug.theme, found_by=bug.found_by, tried=0, seed=None)
        while done["seed"] is None and done["tried"] < seeds:
            last = min(done["tried"] + _BATCH, seeds)
            _, seed, others = pool.apply(first_seed, ((name, done["tried"], last),))
            done.update(tried=last if seed is None else seed + 1, seed=seed, found=others)
            file.write_text(json.dumps(known, indent=1))
        said = f"after {done['tried']} seeds" + ("" if done["seed"] is not None else ": NOT FOUND")
        print(f"{name}: {bug.found_by} in {bug.theme!r} {said}", flush=True)
    return 1 if any(figures[name]["seed"] is None for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
