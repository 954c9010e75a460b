#!/usr/bin/env python3
"""Run random worlds for hours, and look for the seed that finds each planted bug.

    nice scripts/soak_simulation.py --seeds 5000 --theme all --jobs 2
    nice scripts/soak_simulation.py --theme 'quiet hours' --simulated-hours 1000
    scripts/soak_simulation.py --bugs --seeds 2000
    scripts/soak_simulation.py --renew
    scripts/soak_simulation.py --figures

What is known so far is kept in a JSON file after each batch, so that the search can be stopped at any time and goes on
where it was. A clean seed with a problem is a defect, in an engine or in the simulator; its replay command is printed.
``--renew`` looks for the seed of each bug anew, as far as the known one does not find it any more, and writes it into
the catalogue. ``--figures`` prints what is in the file as tables of Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.cli_sim import spare_collector
from chaos.planted import BUGS, catalogue
from chaos.sim.random_world import run_world
from chaos.sim.shrink import kinds_of
from chaos.sim.themes import ANYTHING, SHORT_THEMES, THEMES

ROOT = Path(__file__).resolve().parents[1]
_BATCH = 50
_BATCH_LONG = 4
_ADDED = ("calls", "ok", "unknown", "executions", "happenings")
_LOOKS = 12
"""As many worlds as the test of the planted bugs tries, from the known seed on."""


@attrs.frozen
class World:
    """What is kept of one clean world."""

    theme: str
    seed: int
    problems: list[str]
    figures: dict[str, int]
    faults: dict[str, int]
    simulated_s: float
    took_s: float
    """Of processor time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search as the command line says; 1 if a clean seed has a problem or a bug was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="clean: up to this seed; bugs: give up after so many")
    parser.add_argument("--simulated-hours", type=float, help="clean: per theme, in place of a number of seeds")
    parser.add_argument("--theme", action="append", choices=[*THEMES, "all"], help="of clean worlds; may be repeated")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after the batch in which they are over"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bugs", action="store_true", help="find a seed for each planted bug instead")
    parser.add_argument("--renew", action="store_true", help="write seeds that find their bug into the catalogue")
    parser.add_argument("--figures", action="store_true", help="print what is known so far")
    parser.add_argument("--only", action="append", choices=list(BUGS), help="of the bugs")
    parser.add_argument("--file", type=Path, default=Path("build/soak_simulation.json"))
    chosen = parser.parse_args(arguments)
    known = json.loads(chosen.file.read_text()) if chosen.file.exists() else {}
    if chosen.figures:
        print(*tables(known), sep="\n")
        return 0
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60.0 * chosen.minutes
    with _pool(chosen.jobs) as pool:
        if chosen.renew:
            return _renew(pool, chosen.only or list(BUGS), chosen.seeds)
        if chosen.bugs:
            return _search(pool, known, chosen.file, chosen.only or list(BUGS), chosen.seeds)
        themes = [*dict.fromkeys(name for given in chosen.theme or [ANYTHING.name] for name in _themes(given))]
        wanted_s = None if chosen.simulated_hours is None else 3600.0 * chosen.simulated_hours
        return _soak(pool, known, chosen.file, themes, chosen.seeds, wanted_s, ends)


def _pool(jobs: int) -> Any:
    """One job stays in this process, so that a signal reaches all there is."""
    return (
        ThreadPool(1, spare_collector)
        if jobs == 1
        else multiprocessing.get_context("spawn").Pool(jobs, spare_collector)
    )


def _themes(name: str) -> Iterable[str]:
    return SHORT_THEMES if name == "all" else [name]


def tree() -> str:
    """Names the state of everything that a world is made of: a hash over the sources."""
    found = hashlib.blake2b(digest_size=5)
    for path in sorted(path for part in ("reliable", "brokers", "chaos") for path in (ROOT / part).rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def clean(world: tuple[str, int]) -> World:
    """What comes of one world without a bug."""
    theme, seed = world
    began = time.process_time()
    report = run_world(seed, theme=THEMES[theme], keep_trace=False)
    return World(
        theme,
        seed,
        list(report.problems),
        {name: getattr(report, name) for name in _ADDED},
        dict(Counter(type(fault).__name__.lower() for fault in report.faults)),
        report.simulated_s,
        time.process_time() - began,
    )


def first_seed(search: tuple[str, int, int]) -> tuple[str, int | None, list[str]]:
    """The first seed from a batch that finds a bug by the checker that is there for it; who else found something."""
    name, first, last = search
    bug = BUGS[name]
    others: set[str] = set()
    for seed in range(first, last):
        with bug.planted():
            found = kinds_of(run_world(seed, theme=THEMES[bug.theme], keep_trace=False).problems)
        others |= found
        if bug.found_by in found:
            return name, seed, sorted(others)
    return name, None, sorted(others)


def _soak(
    pool: Any,
    known: dict[str, Any],
    file: Path,
    themes: Sequence[str],
    seeds: int,
    wanted_s: float | None,
    ends: float,
) -> int:
    figures = known.setdefault("clean", {})
    state = tree()
    for theme in themes:
        done = _figures_of(figures, theme)
        batch = _BATCH_LONG if THEMES[theme].long else _BATCH
        while time.monotonic() < ends and _more(done, seeds, wanted_s):
            last = done["seeds"] + batch if wanted_s is not None else min(done["seeds"] + batch, seeds)
            worlds = [(theme, seed) for seed in range(done["seeds"], last)]
            for world in pool.imap_unordered(clean, worlds):
                _add(done, world, state)
            done["trees"][state] = done["trees"].get(state, 0) + len(worlds)
            done["seeds"] = last
            _write(file, known)
        hours = done["simulated_s"] / 3600
        print(f"{theme}: {done['seeds']} seeds, {hours:.1f} h, {len(done['problems'])} with problems", flush=True)
    return 1 if any(figures[theme]["problems"] for theme in themes) else 0


def _figures_of(figures: dict[str, Any], theme: str) -> dict[str, Any]:
    fresh: dict[str, Any] = {"seeds": 0, "simulated_s": 0.0, "cpu_s": 0.0, "faults": {}, "trees": {}, "problems": {}}
    return figures.setdefault(theme, fresh | dict.fromkeys(_ADDED, 0))  # type: ignore[no-any-return]


def _more(done: dict[str, Any], seeds: int, wanted_s: float | None) -> bool:
    return bool(done["seeds"] < seeds if wanted_s is None else done["simulated_s"] < wanted_s)


def _add(done: dict[str, Any], world: World, state: str) -> None:
    for name, value in world.figures.items():
        done[name] += value
    for kind, count in world.faults.items():
        done["faults"][kind] = done["faults"].get(kind, 0) + count
    done["simulated_s"] += world.simulated_s
    done["cpu_s"] += world.took_s
    if world.problems:
        done["problems"][str(world.seed)] = [f"in {state}", *world.problems]
        print(f"reliable chaos replay {world.seed} --theme {world.theme!r}", *world.problems, sep="\n  ", flush=True)


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
            _write(file, known)
        said = f"after {done['tried']} seeds" + ("" if done["seed"] is not None else ": NOT FOUND")
        print(f"{name}: {bug.found_by} in {bug.theme!r} {said}", flush=True)
    return 1 if any(figures[name]["seed"] is None for name in names) else 0


def _write(file: Path, known: dict[str, Any]) -> None:
    """Whole or not at all: who is stopped in the middle of it must find what was there before."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(known, indent=1))
    fresh.replace(file)


def _renew(pool: Any, names: Sequence[str], seeds: int) -> int:
    """Write seeds that find their bug into the catalogue, where those that stand there do not."""
    missing = 0
    known = [(name, BUGS[name].seed, BUGS[name].seed + _LOOKS) for name in names]
    for name, seed, _ in pool.imap_unordered(first_seed, known):
        if seed is None:
            _, seed, _ = pool.apply(first_seed, ((name, 0, seeds),))
        if seed is None:
            missing += 1
            print(f"{name}: NOT FOUND in {seeds} worlds of {BUGS[name].theme!r}", flush=True)
        elif seed != BUGS[name].seed:
            _write_seed(name, seed)
            print(f"{name}: seed {BUGS[name].seed} becomes {seed}", flush=True)
    return 1 if missing else 0


def _write_seed(name: str, seed: int) -> None:
    path = Path(catalogue.__file__)
    pattern = re.compile(rf'(name="{re.escape(name)}",.*?\n        seed=)\d+', re.DOTALL)
    path.write_text(pattern.sub(rf"\g<1>{seed}", path.read_text(), count=1))


def tables(known: dict[str, Any]) -> list[str]:
    """What was found so far, as Markdown."""
    lines = [
        "| theme | worlds | hours simulated | times as fast | calls | ok | unknown | faults | with problems |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows = known.get("clean", {})
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    trees: Counter[str] = Counter()
    for theme, done in rows.items():
        row = Counter({name: done[name] for name in ("seeds", "simulated_s", "cpu_s", "calls", "ok", "unknown")})
        row.update(faults=sum(done["faults"].values()), problems=len(done["problems"]))
        total, faults, trees = total + row, faults + Counter(done["faults"]), trees + Counter(done["trees"])
        lines.append(_row(theme, row))
    lines += [_row("all", total), "", f"{total['simulated_s'] / 3600 / 8766:.3f} years. Faults: "]
    lines[-1] += ", ".join(f"{count:,} {kind}" for kind, count in faults.most_common()) + "."
    lines += ["", "States of the sources: " + ", ".join(f"{name} ({count:,} worlds)" for name, count in trees.items())]
    return lines


def _row(name: str, row: Counter[str]) -> str:
    speed = row["simulated_s"] / max(row["cpu_s"], 1e-9)
    return (
        f"| {name} | {row['seeds']:,} | {row['simulated_s'] / 3600:,.1f} | {speed:,.0f} | {row['calls']:,} | "
        f"{row['ok']:,} | {row['unknown']:,} | {row['faults']:,} | {row['problems']:,} |"
    )


if __name__ == "__main__":
    sys.exit(main())
