"""The picture of a run as inline SVG: faults, calls by their end, the control, states of processes over time.

Colours are variables of the page, so that one picture serves light and dark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Final

from chaos.reporting.layout import pack, seconds_text, spans_of, ticks, words_of
from chaos.reporting.value import CallLine, FaultLine, RunReport

__all__ = ["draw"]

_WIDTH: Final = 1120
_LEFT: Final = 118
_RIGHT: Final = 16
_CHAR: Final = 6.4
"""Width of a character of the small font, generously."""
_FAULT_ROW: Final = 20
_STATE_ROW: Final = 16
_CALLS_HEIGHT_MAX: Final = 190
_CALL_ROW_MAX: Final = 5.0
_CALLS_DRAWN_MAX: Final = 4_000
_QUEUE_HEIGHT: Final = 44
_GAP: Final = 16
_ENDS: Final = ("ok", "failed", "unknown", "accepted", "hung")


class _Picture:
    """Grows downwards."""

    def __init__(self, run: RunReport) -> None:
        self._run = run
        last = [run.duration_s, 0.1]
        last += [call.ended_s for call in run.calls if call.ended_s is not None]
        self.until_s = max(last)
        self.y = 20.0
        self.parts: list[str] = []

    def x(self, at_s: float) -> float:
        share = min(max(at_s, 0.0), self.until_s) / self.until_s
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def rect(self, from_s: float, to_s: float, y: float, height: float, kind: str, title: str = "") -> None:
        left, width = self.x(from_s), max(1.2, self.x(to_s) - self.x(from_s))
        note = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{note}</rect>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def label(self, y: float, text: str) -> None:
        self.text(_LEFT - 8, y, text, anchor="end")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def draw(run: RunReport) -> str:
    """The whole ``<svg>`` element; empty if there is nothing to show."""
    if not run.calls and not run.states:
        return ""
    picture = _Picture(run)
    _phases(picture, run)
    _faults(picture, run.faults)
    for client in sorted({call.client for call in run.calls}):
        _calls(picture, client, [call for call in run.calls if call.client == client])
    _control(picture, run)
    _queue(picture, run)
    _processes(picture, run)
    height = picture.y + 22
    behind = _behind(picture, run, picture.y)
    name = escape(_in_words(run), quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{name}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(behind)}{"".join(picture.parts)}</svg>'
    )


def _in_words(run: RunReport) -> str:
    """For who cannot see it."""
    ends = Counter(call.end for call in run.calls)
    counts = ", ".join(f"{ends[end]} {end}" for end in _ENDS if ends[end])
    faults = "; ".join(
        f"{fault.text} from {fault.began_s:.1f} s" + (f" to {fault.ended_s:.1f} s" if fault.ended_s is not None else "")
        for fault in run.faults
    )
    return (
        f"Timeline of {run.scenario} over {run.duration_s:.1f} s: faults, calls by their end, and states of processes. "
        f"Calls: {counts or 'none'}. Faults: {faults or 'none'}."
    )


def _phases(picture: _Picture, run: RunReport) -> None:
    """What may be demanded when: calls may fail only while something is broken or just was."""
    if run.healed_s is None or not run.faults:
        return
    broken_s = min(fault.began_s for fault in run.faults)
    recovered_s = run.duration_s if run.recovered_s is None else run.recovered_s
    spans = (
        (0.0, broken_s, "before"),
        (broken_s, run.healed_s, "faults"),
        (run.healed_s, recovered_s, "settling"),
        (recovered_s, run.duration_s, "healed: no call may fail"),
    )
    picture.label(picture.y + 11, "phase")
    for begin_s, end_s, text in spans:
        if end_s <= begin_s:
            continue
        picture.rect(begin_s, end_s, picture.y, 15, "phase", f"{text}, from {begin_s:.2f} s to {end_s:.2f} s")
        room = picture.x(end_s) - picture.x(begin_s)
        short = next((word for word in (text, text.partition(":")[0]) if len(word) * _CHAR + 8 <= room), "")
        if short:
            picture.text(picture.x(begin_s) + 4, picture.y + 11, short, "axis")
    picture.y += 15 + 7


def _behind(picture: _Picture, run: RunReport, bottom: float) -> list[str]:
    """Bands of the faults and the time axis, which lie under everything else."""
    back = _Picture(run)
    for fault in run.faults:
        back.rect(fault.began_s, fault.ended_s or picture.until_s, 18, bottom - 18, "band")
    for at_s in ticks(picture.until_s):
        x = picture.x(at_s)
        back.line(x, 18, x, bottom, "grid")
        back.text(x, bottom + 15, seconds_text(round(at_s, 3)), "axis", "middle")
    return back.parts


def _faults(picture: _Picture, faults: Sequence[FaultLine]) -> None:
    if not faults:
        return
    places = []
    for fault in faults:
        begin, end = picture.x(fault.began_s), picture.x(fault.ended_s or picture.until_s)
        width = len(fault.text) * _CHAR + 10
        # The text stands in the bar if it fits, else behind it, else, at the right edge, before it.
        if width <= end - begin:
            places.append((begin, end, begin + 5, "start"))
        elif end + width <= _WIDTH - _RIGHT:
            places.append((begin, end + width, end + 5, "start"))
        else:
            places.append((max(0.0, begin - width), end, begin - 5, "end"))
    rows, count = pack([(left, right) for left, right, _, _ in places])
    picture.label(picture.y + 14, "faults")
    for fault, row, (_, _, x, anchor) in zip(faults, rows, places, strict=True):
        y = picture.y + row * _FAULT_ROW
        kind = "fault" if fault.proven else "fault unproven"
        title = f"{fault.text}: {fault.proof}"
        picture.rect(fault.began_s, fault.ended_s or picture.until_s, y, _FAULT_ROW - 4, kind, title)
        inside = x < picture.x(fault.ended_s or picture.until_s) and anchor == "start"
        picture.text(x, y + 12, fault.text, "on-fault" if inside else "label", anchor)
    picture.y += count * _FAULT_ROW + _GAP


def _drawn(calls: Sequence[CallLine]) -> list[CallLine]:
    """All that went wrong, and of the good ones as many as a page can bear."""
    if len(calls) <= _CALLS_DRAWN_MAX:
        return list(calls)
    every = -(-len(calls) // _CALLS_DRAWN_MAX)
    return [call for number, call in enumerate(calls) if call.end != "ok" or number % every == 0]


def _calls(picture: _Picture, client: str, calls: Sequence[CallLine]) -> None:
    shown = _drawn(calls)
    spans = [(call.invoked_s, picture.until_s if call.ended_s is None else call.ended_s) for call in shown]
    # A call that takes no time still takes room: two of them at the same place would be one to the eye.
    least_s = picture.until_s / (_WIDTH - _LEFT) * 2.5
    rows, count = pack([(begin, max(end, begin + least_s)) for begin, end in spans])
    height = min(_CALL_ROW_MAX, _CALLS_HEIGHT_MAX / max(count, 1))
    whole = max(count * height, 26.0)
    picture.label(picture.y + 11, client)
    picture.text(_LEFT - 8, picture.y + 23, _count_text(len(shown), len(calls)), "axis", "end")
    for call, row, (begin, end) in zip(shown, rows, spans, strict=True):
        y = picture.y + row * height
        picture.rect(begin, end, y, max(height - 0.8, 0.8), f"call {call.end}", _call_title(call))
    picture.y += whole + _GAP


def _count_text(shown: int, whole: int) -> str:
    return f"{whole} calls" if shown == whole else f"{shown} of {whole}"


def _call_title(call: CallLine) -> str:
    took = "never ended" if call.ended_s is None else f"{call.end} after {call.ended_s - call.invoked_s:.3f} s"
    error = f", {call.error}, {call.outcome}" if call.error else ""
    return f"{call.key} ({call.kind}) at {call.invoked_s:.2f} s: {took}{error}; ran {call.runs} times"


def _control(picture: _Picture, run: RunReport) -> None:
    if run.control is None:
        return
    picture.label(picture.y + 12, "raw REQ/REP")
    for begin_s, end_s in run.control.calls:
        if end_s is not None:
            title = f"answered after {end_s - begin_s:.3f} s"
            picture.rect(begin_s, end_s, picture.y, 18, "call ok control", title)
            continue
        if run.control.hung_since_s is None:
            continue
        text = f"no reply for {run.control.hung_for_s:.1f} s, and no error"
        picture.rect(begin_s, picture.until_s, picture.y, 18, "call hung", text)
        width = len(text) * _CHAR
        if picture.x(picture.until_s) - picture.x(begin_s) > width + 10:
            picture.text(picture.x(begin_s) + 6, picture.y + 13, text, "on-fault")
        else:
            picture.text(picture.x(begin_s) - 6, picture.y + 13, text, "label", "end")
    picture.y += 18 + _GAP


def _queue(picture: _Picture, run: RunReport) -> None:
    samples = [sample for sample in run.samples if 0 <= sample.at_s <= picture.until_s]
    highest = max((sample.queued for sample in samples), default=0)
    if not highest:
        return
    floor = picture.y + _QUEUE_HEIGHT
    picture.label(picture.y + 11, "queued")
    picture.text(_LEFT - 8, picture.y + 23, f"up to {highest}", "axis", "end")
    for broker in dict.fromkeys(sample.broker for sample in samples):
        points = [(picture.x(one.at_s), one.queued) for one in samples if one.broker == broker]
        path = " ".join(f"L{x:.1f},{floor - depth / highest * _QUEUE_HEIGHT:.1f}" for x, depth in points)
        picture.parts.append(
            f'<path class="queue" d="M{points[0][0]:.1f},{floor:.1f} {path} L{points[-1][0]:.1f},{floor:.1f} Z">'
            f"<title>{escape(broker)}: requests in the queue</title></path>"
        )
    picture.line(_LEFT, floor, _WIDTH - _RIGHT, floor, "grid")
    picture.y = floor + _GAP


def _processes(picture: _Picture, run: RunReport) -> None:
    # Workers that are not ours have no names by which brokers could tell them apart.
    named = any(name.startswith("worker-") for sample in run.samples for name in sample.workers)
    for who, spans in spans_of(run.states, picture.until_s).items():
        picture.label(picture.y + 11, "REQ/REP server" if who == "control" else who)
        for span in spans:
            title = f"{who}: {span.state} from {span.from_s:.2f} s to {span.to_s:.2f} s"
            picture.rect(span.from_s, span.to_s, picture.y, _STATE_ROW - 4, f"state {span.state}", title)
        if who.startswith("worker ") and named:
            up = [span for span in spans if span.state == "up"]
            for word in words_of(run.samples, who, picture.until_s):
                # Whether a worker is known to a broker is news only while its process is up.
                inside = any(span.from_s <= word.from_s + 0.2 and word.to_s <= span.to_s + 0.2 for span in up)
                if word.state != "absent" or inside:
                    title = f"{who}: {word.state} in the brokers' eyes from {word.from_s:.2f} s to {word.to_s:.2f} s"
                    picture.rect(word.from_s, word.to_s, picture.y + 3.5, _STATE_ROW - 11, f"word {word.state}", title)
        picture.y += _STATE_ROW
    picture.y += 4
