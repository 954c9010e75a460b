"""A report as one HTML file that needs nothing else: light and dark, a timeline and the checks of each run."""

from __future__ import annotations

from html import escape
from typing import Final

from chaos.reporting.table import answered_of, control_text, ends_of, not_injected_of
from chaos.reporting.timeline import draw
from chaos.reporting.value import CheckLine, ControlLine, Report, RunReport

__all__ = ["render"]

_STYLE: Final = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1c2128; --soft: #5b6572; --rule: #d8dee6; --panel: #f5f7fa;
  --good: #1a7f4b; --bad: #c62828; --warn: #9a6700;
  --ok: #2f9e6e; --failed: #c9741a; --unknown: #7b61c9; --hung: #d32f2f;
  --fault: #b3261e; --band: rgba(211, 47, 47, 0.07);
  --up: #cfe8dc; --starting: #c3ccd8; --frozen: #9ec5f5; --dead: #4a5260;
  --working: #2f9e6e; --stuck: #c9741a; --absent: #b9a5e8; --queue: #5b8def; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181d; --ink: #e6eaef; --soft: #9aa5b1; --rule: #323a44; --panel: #1b2127;
  --good: #57c78f; --bad: #ff7b72; --warn: #e3b341;
  --ok: #43b581; --failed: #f0a848; --unknown: #a78bfa; --hung: #d1362c;
  --fault: #b83a32; --band: rgba(255, 92, 82, 0.10);
  --up: #24483a; --starting: #46515f; --frozen: #2f5f9e; --dead: #8b95a1;
  --working: #43b581; --stuck: #f0a848; --absent: #6d5aa8; --queue: #6f9bf5; } }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 44px 0 2px; }
p { margin: 4px 0; } .soft { color: var(--soft); } a { color: inherit; }
table { border-collapse: collapse; width: 100%; margin: 12px 0; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } .wide { overflow-x: auto; }
.runs td { white-space: nowrap; } caption { text-align: left; padding: 4px 0; font-weight: 600; }
.broken { border-left: 4px solid var(--bad); padding: 4px 0 4px 12px; margin: 10px 0; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: 6px 10px; margin: 8px 0;
  overflow-x: auto; font-size: 13px; }
.passed { color: var(--good); font-weight: 600; } .failed-word { color: var(--bad); font-weight: 600; }
.absent-word { color: var(--warn); font-weight: 600; }
.picture { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: 8px 8px 4px;
  margin: 12px 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 900px; height: auto; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
svg .axis { fill: var(--soft); font-size: 10.5px; } svg .on-fault { fill: #ffffff; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .band { fill: var(--band); }
svg .phase { fill: none; stroke: var(--rule); } svg .stripe { stroke: var(--paper); stroke-width: 1.6; }
svg .fault { fill: var(--fault); } svg .unproven { fill: none; stroke: var(--fault); stroke-dasharray: 3 2; }
.ok { fill: var(--ok); background: var(--ok); } .failed { fill: var(--failed); background: var(--failed); }
.accepted { fill: var(--queue); background: var(--queue); }
.unknown { fill: var(--unknown); background: var(--unknown); } svg .call.unknown { fill: url(#unknown-stripes); }
i.unknown { background: repeating-linear-gradient(135deg, var(--unknown) 0 3px, var(--paper) 3px 4.5px); }
.hung { fill: var(--hung); background: var(--hung); }
.up { fill: var(--up); background: var(--up); } .starting { fill: var(--starting); background: var(--starting); }
.frozen { fill: var(--frozen); background: var(--frozen); } .dead { fill: var(--dead); background: var(--dead); }
.working, .unverified { fill: var(--working); background: var(--working); }
.stuck { fill: var(--stuck); background: var(--stuck); } .absent { fill: var(--absent); background: var(--absent); }
svg .queue { fill: var(--queue); fill-opacity: 0.45; stroke: var(--queue); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 12.5px; color: var(--soft); padding: 3px 4px; }
.legend b { min-width: 118px; font-weight: 600; }
.legend i { display: inline-block; width: 14px; height: 9px; border-radius: 2px; margin-right: 5px; }
details { margin: 2px 0; } summary { cursor: pointer; color: var(--soft); } code { font-size: 13px; }
@media print { .picture { break-inside: avoid; } }
"""
_LEGEND: Final = (
    (
        "calls",
        (
            ("ok", "answered"),
            ("accepted", "accepted (one-way)"),
            ("failed", "error: surely not run, or run and failed"),
            ("unknown", "error: may have run"),
            ("hung", "no end"),
        ),
    ),
    ("processes", (("up", "up"), ("starting", "starting"), ("frozen", "stopped"), ("dead", "gone"))),
    (
        "workers, as the broker sees them",
        (("up", "idle"), ("working", "working"), ("stuck", "stuck"), ("absent", "unknown to it, or said to be gone")),
    ),
)
_STRIPES: Final = (
    '<svg aria-hidden="true" style="position:absolute;width:0;height:0;min-width:0"><defs>'
    '<pattern id="unknown-stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="unknown" width="6" height="6"/><line class="stripe" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    "</defs></svg>"
)
"""What may have run is told by more than its colour."""


def render(report: Report) -> bytes:
    """The whole page, in UTF-8."""
    missing = not_injected_of(report)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Chaos report {escape(report.created)}</title><style>{_STYLE}</style></head><body>",
        "<h1>Chaos report</h1>",
        _STRIPES,
        f'<p class="soft">{escape(" · ".join(filter(None, _facts(report))))}</p>',
        f"<pre>{escape(report.command)}</pre>" if report.command else "",
        f'<p class="absent-word">not injected: {escape("; ".join(missing))}</p>' if missing else "",
        _overview(report),
        *(_run(run) for run in report.runs),
        "</body></html>",
    ]
    return ("\n".join(part for part in parts if part) + "\n").encode()


def _facts(report: Report) -> tuple[str, ...]:
    version = f"reliable {report.version}" if report.version else ""
    return (report.created, report.machine, version)


def _verdict(run: RunReport) -> str:
    kind = {"passed": "passed", "failed": "failed-word"}.get(run.verdict, "absent-word")
    return f'<span class="{kind}">{escape(run.verdict)}</span>'


def _overview(report: Report) -> str:
    head = _head(
        ("scenario", ""),
        ("result", ""),
        ("calls", "n"),
        ("answered", "n"),
        ("failed", "n"),
        ("unknown", "n"),
        ("hung", "n"),
        ("recovery", "n"),
        ("raw REQ/REP", ""),
    )
    return _table("All runs", head, "".join(map(_overview_row, report.runs)), "runs")


def _table(name: str, head: str, rows: str, kind: str = "") -> str:
    """It can be scrolled with the keyboard where it is too wide."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name, quote=True)}">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _head(*names: tuple[str, str]) -> str:
    return "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in names)


def _overview_row(run: RunReport) -> str:
    ends = ends_of(run)
    numbers = (len(run.calls), answered_of(ends), ends["failed"], ends["unknown"], ends["hung"])
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    name = escape(run.scenario)
    return (
        f'<tr><td><a href="#{name}">{name}</a></td><td>{_verdict(run)}</td>{cells}'
        f'<td class="n">{escape(_recovery(run))}</td><td>{escape(control_text(run.control))}</td></tr>'
    )


def _recovery(run: RunReport) -> str:
    figure = next((check.figure for check in run.checks if check.name == "recovery"), "-")
    return figure if figure.endswith(" s") else "-"


def _run(run: RunReport) -> str:
    form = ", short form" if run.short else ""
    parts = [
        f'<section id="{escape(run.scenario)}"><h2>{escape(run.scenario)} {_verdict(run)}</h2>',
        f"<p>{escape(run.title)}</p>",
        f'<p class="soft">Demanded: {escape(run.promise)}.',
        f"Seed {run.seed}{form}, {run.duration_s:.1f} s of load{_lag(run)}.</p>",
        f'<p class="failed-word">{escape(run.reason)}</p>' if run.reason else "",
        _broken(run),
        _picture(run),
        _beside(run, run.control) if run.control is not None else "",
        _checks(run) if run.checks else "",
        _faults(run) if run.faults else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _broken(run: RunReport) -> str:
    """What a reader looks for first."""
    lines = [
        f'<div><span class="failed-word">{escape(check.name)}</span>: {escape(offence)}</div>'
        for check in run.checks
        if not check.ok
        for offence in (check.offences or [check.figure])[:1]
    ]
    return f'<div class="broken">{"".join(lines)}</div>' if lines else ""


def _lag(run: RunReport) -> str:
    """What a reader must know before blaming a late call on anybody."""
    lag_s = run.figures.get("own_lag_s", 0.0)
    return f"; the suite's own process was late by up to {lag_s:.2f} s" if lag_s else ""


def _picture(run: RunReport) -> str:
    drawn = draw(run)
    if not drawn:
        return ""
    legend = "".join(
        f'<div class="legend"><b>{title}</b>'
        f"{''.join(f'<span><i class={kind}></i>{text}</span>' for kind, text in entries)}</div>"
        for title, entries in _LEGEND
    )
    return f'<div class="picture" tabindex="0" role="region" aria-label="Timeline">{drawn}</div>{legend}'


def _beside(run: RunReport, control: ControlLine) -> str:
    ends = ends_of(run)
    longest_s = max((call.ended_s - call.invoked_s for call in run.calls if call.ended_s is not None), default=0.0)
    still = "none" if control.hung_since_s is None else f"one, for {control.hung_for_s:.1f} s, until the run was over"
    rows = (
        ("answered", f"{answered_of(ends)} of {len(run.calls)}", f"{control.answered} of {len(control.calls)}"),
        ("ended with an error that says what may have run", str(ends["failed"] + ends["unknown"]), "0: it knows none"),
        ("longest wait that ended", f"{longest_s:.2f} s", f"{control.longest_s:.2f} s"),
        ("still waiting at the end", str(ends["hung"]) if ends["hung"] else "none", still),
    )
    body = "".join(f"<tr><td>{escape(what)}</td><td>{ours}</td><td>{theirs}</td></tr>" for what, ours, theirs in rows)
    head = _head(("under the same faults", ""), ("this library", ""), ("raw REQ/REP", ""))
    return _table("Beside raw REQ/REP", head, body)


def _checks(run: RunReport) -> str:
    rows = "".join(map(_check_row, run.checks))
    return _table("Checks", _head(("check", ""), ("result", ""), ("measured", "")), rows)


def _check_row(check: CheckLine) -> str:
    word = '<span class="passed">holds</span>' if check.ok else '<span class="failed-word">broken</span>'
    wrong = ""
    if check.offences:
        lines = "".join(f"<div><code>{escape(offence)}</code></div>" for offence in check.offences)
        wrong = f"<details open><summary>{check.offences_count} wrong</summary>{lines}</details>"
    return f"<tr><td>{escape(check.name)}</td><td>{word}</td><td>{escape(check.figure)}{wrong}</td></tr>"


def _faults(run: RunReport) -> str:
    rows = "".join(
        f'<tr><td>{escape(fault.text)}</td><td class="n">{fault.began_s:.1f} s</td>'
        f'<td class="n">{"-" if fault.ended_s is None else f"{fault.ended_s:.1f} s"}</td>'
        f"<td>{escape(fault.proof)}{'' if fault.proven else ' <span class=failed-word>unproven</span>'}</td></tr>"
        for fault in run.faults
    )
    return _table("Faults", _head(("fault", ""), ("from", "n"), ("to", "n"), ("proof", "")), rows)
