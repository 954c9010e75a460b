"""Drawings of what the benchmarks found, from the JSON that they write. matplotlib is imported when one is made."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from reliable.bench.figures import size_text

__all__ = ["SUFFIXES", "available", "draw"]

SUFFIXES: Final = (".png", ".svg")
"""What can be written."""
_DPI: Final = 110
_COLOURS: Final = ("#1f5fa8", "#d1691f", "#3a8a4d", "#8a4fa3", "#b3333b", "#6b6b6b")
_OTHERS: Final = "#9aa7b5"


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw one report.

    Args:
        found: ``Report.as_json()``, also after it was written and read again.
        path: Ends in one of ``SUFFIXES``.

    Raises:
        OSError: It cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Any: its type names all of some three hundred settings.
    plain: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        # Text as text, and the same names in each drawing: small files that change only where the figures do.
        "svg.fonttype": "none",
        "svg.hashsalt": "reliable",
    }
    with mpl.rc_context(plain):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        _DRAWINGS[found["benchmark"]](found, figure)
        figure.supxlabel(_foot(found), fontsize=7, color="#555555", x=0.01, ha="left")
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=_DPI, metadata=metadata)


def _foot(found: dict[str, Any]) -> str:
    machine = found["machine"]
    words = f"{machine['processors']} x {machine['processor']}, load {machine['load'][0]:g} at the start, "
    words += f"Python {machine['python']}, pyzmq {machine['pyzmq']}, libzmq {machine['libzmq']}, "
    words += f"{machine['transport']}"
    return f"{found['command']}\n{words}"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _call(found: dict[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    for number, loop in enumerate(found["loops"]):
        edges = [edge for edge, _ in loop["histogram_us"]]
        counts = [count / loop["calls"] for _, count in loop["histogram_us"]]
        colour = _colour(number)
        left.step(edges, counts, where="post", color=colour, label=loop["name"])
        left.axvline(loop["from_due"]["p50_us"], color=colour, linewidth=0.8, linestyle=":")
        names = ("p50_us", "p90_us", "p99_us", "p999_us")
        right.plot(range(4), [loop["from_due"][name] for name in names], color=colour, marker="o", label=loop["name"])
        if loop["loop"] == "open":
            sent = [loop["from_sent"][name] for name in names]
            right.plot(range(4), sent, color=colour, linestyle=":", marker=".", label="the same from when it was sent")
    left.set(xscale="log", xlabel="microseconds per call", ylabel="share of calls", title="Latency (dotted: p50)")
    right.set(yscale="log", ylabel="microseconds per call", title="Percentiles")
    right.set_xticks(range(4), ["p50", "p90", "p99", "p99.9"])
    right.legend(fontsize=7, frameon=False)


def _peers(found: dict[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    peers = [row for row in found["peers"] if not row["name"].endswith(" again")]
    base = found["noise"]
    _bars(left, sorted(peers, key=lambda row: -row["p50_over_base"]["median"]), "p50_over_base")
    left.axvspan(min(base["low"], 1), max(base["high"], 1), color="#cccccc", alpha=0.6, linewidth=0)
    # Logarithmic: otherwise the slowest makes mere lines of all others.
    left.set_xscale("log")
    left.set(xlabel="p50 as a multiple of bare REQ/REP (grey: noise)", title="One call at a time: shorter is better")
    many = sorted((row for row in peers if row["per_second"]), key=lambda row: statistics.median(row["per_second"]))
    names = [row["name"] for row in many]
    rates = [statistics.median(row["per_second"]) for row in many]
    right.barh(names, rates, color=[_own(name) for name in names])
    for at, rate in enumerate(rates):
        right.text(rate, at, f" {rate:,.0f}", va="center", fontsize=7)
    right.margins(x=0.15)
    in_flight = found["plan"]["in_flight"]
    right.set(xlabel="calls per second", title=f"{in_flight} in flight: longer is better")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)


def _bars(axes: Any, rows: Sequence[dict[str, Any]], key: str) -> None:
    names = [row["name"] for row in rows]
    values = [row[key]["median"] for row in rows]
    low = [row[key]["median"] - row[key]["low"] for row in rows]
    high = [row[key]["high"] - row[key]["median"] for row in rows]
    axes.barh(names, values, xerr=[low, high], color=[_own(name) for name in names], error_kw={"linewidth": 0.8})
    for at, (value, above) in enumerate(zip(values, high, strict=True)):
        axes.text(value + above, at, f"  {value:.2f}", va="center", fontsize=7)
    axes.margins(x=0.15)


def _own(name: str) -> str:
    return _COLOURS[0] if name.startswith("ours") else _OTHERS


def _grid(axes: Any, found: dict[str, Any], key: tuple[str, str], figure_of: Callable[[dict[str, Any]], float]) -> None:
    """A field of colours on a scale of powers, the figures written in."""
    import numpy as np
    from matplotlib.colors import LogNorm

    across, down = key
    columns, rows = (sorted({cell[name] for cell in found["cells"]}) for name in key)
    values = np.full((len(rows), len(columns)), np.nan)
    for cell in found["cells"]:
        if cell["p50_us"]:
            values[rows.index(cell[down]), columns.index(cell[across])] = figure_of(cell)
    norm = LogNorm(np.nanmin(values), np.nanmax(values)) if np.nanmin(values) < np.nanmax(values) else None
    axes.imshow(values, norm=norm, cmap="Blues", aspect="auto", origin="lower")
    middle = float(np.nanmin(values) * np.nanmax(values)) ** 0.5
    for row, column in itertools.product(range(len(rows)), range(len(columns))):
        value = values[row, column]
        if not np.isnan(value):
            colour = "white" if value > middle else "black"
            axes.text(column, row, _short(value), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), [_label(across, value) for value in columns])
    axes.set_yticks(range(len(rows)), [_label(down, value) for value in rows])
    axes.set(xlabel=across, ylabel="size" if down == "body_bytes" else down)
    axes.grid(visible=False)


def _label(name: str, value: int) -> str:
    return size_text(value) if name == "body_bytes" else f"{value:,}"


def _short(value: float) -> str:
    return f"{value / 1000:,.0f}k" if value >= 10_000 else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _matrix(found: dict[str, Any], figure: Any) -> None:
    left, middle, right = figure.subplots(1, 3)
    key = ("clients", "body_bytes")
    _grid(left, found, key, lambda cell: statistics.median(cell["per_second"]))
    left.set_title("calls per second")
    _grid(middle, found, key, lambda cell: statistics.median(cell["per_second"]) * cell["body_bytes"] / 1e6)
    middle.set_title("megabytes per second, one way")
    _grid(right, found, key, lambda cell: statistics.median(cell["p50_us"]) / 1000)
    right.set_title("p50, milliseconds")


def _scale(found: dict[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    clients = sorted({cell["clients"] for cell in found["cells"]})
    for number, workers in enumerate(sorted({cell["workers"] for cell in found["cells"]})):
        cells = {cell["clients"]: cell for cell in found["cells"] if cell["workers"] == workers and cell["p50_us"]}
        there = [count for count in clients if count in cells]
        name, colour = f"{workers:,} worker{'s' * (workers > 1)}", _colour(number)
        left.plot(
            there, [statistics.median(cells[at]["per_second"]) for at in there], color=colour, marker="o", label=name
        )
        right.plot(
            there, [statistics.median(cells[at]["p50_us"]) / 1e3 for at in there], color=colour, marker="o", label=name
        )
        right.plot(there, [statistics.median(cells[at]["p99_us"]) / 1e3 for at in there], color=colour, linestyle=":")
    left.set(xscale="log", xlabel="clients", ylabel="calls per second", title="Throughput", ylim=(0, None))
    right.set(xscale="log", yscale="log", xlabel="clients", ylabel="milliseconds", title="p50 (dotted: p99)")
    for axes in (left, right):
        axes.set_xticks(clients, [f"{count:,}" for count in clients])
        axes.minorticks_off()
        axes.legend(fontsize=7, frameon=False)


def _mesh(found: dict[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    for axes, key in ((left, "per_second"), (right, "cpu_us")):
        for number, (way, rates) in enumerate(found[key].items()):
            nodes = [int(node) for node in rates]
            medians = [statistics.median(rates[str(node)]) for node in nodes]
            again = way.endswith(" again")
            colour = _colour(1) if again else _colour(number)
            style = ":" if again else "-"
            axes.plot(nodes, medians, color=colour, linestyle=style, marker="." if again else "o", label=way)
            if not again:
                low, high = ([pick(rates[str(node)]) for node in nodes] for pick in (min, max))
                axes.fill_between(nodes, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(yscale="log", xlabel="nodes")
        axes.set_xticks(found["plan"]["nodes"])
    left.set(ylabel="messages per second, all nodes", title="All-to-all mesh (band: slowest to fastest round)")
    right.set(ylabel="microseconds per message", title="Processor time of all nodes")
    left.legend(fontsize=7, frameon=False)


def _unfair(found: dict[str, Any], figure: Any) -> None:
    axes = figure.subplots(1, 1)
    ways = found["ways"]
    plan = found["plan"]
    width = 0.8 / len(ways)
    for number, way in enumerate(ways):
        places = [at + number * width for at in range(plan["workers"])]
        label = f"{way['name']}: all done after {way['median_seconds']:.2f} s"
        colour = _COLOURS[0] if way["name"] == "ours" else _COLOURS[1]
        axes.bar(places, way["median_jobs"], width * 0.95, color=colour, label=label)
        for place, jobs in zip(places, way["median_jobs"], strict=True):
            axes.text(place, jobs, f"{jobs:,.0f}", ha="center", va="bottom", fontsize=8)
    axes.axhline(plan["jobs"] / plan["workers"], color="#555555", linewidth=0.8, linestyle=":")
    names = ["worker 1", *(f"worker {number}\n{plan['late_s']:g} s late" for number in range(2, plan["workers"] + 1))]
    axes.set_xticks([at + width * (len(ways) - 1) / 2 for at in range(plan["workers"])], names)
    axes.set(ylabel="jobs done", title="Who gets the jobs if workers come late (dotted: an equal share)")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False)


_DRAWINGS: Final[dict[str, Callable[[dict[str, Any], Any], None]]] = {
    "call": _call,
    "peers": _peers,
    "matrix": _matrix,
    "mesh": _mesh,
    "unfair-join": _unfair,
    "scale": _scale,
}
