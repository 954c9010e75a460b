"""The report: as JSON and back, as a table, as JUnit, as a page whose picture shows what happened."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import attrs
import pytest

from chaos.reporting import junit, origin, page, table
from chaos.reporting.layout import Span, pack, spans_of, ticks, words_of
from chaos.reporting.timeline import draw
from chaos.reporting.value import (
    CallLine,
    CheckLine,
    ControlLine,
    FaultLine,
    Report,
    ReportUnreadable,
    RunReport,
    SampleLine,
    StateLine,
    decode,
    encode,
)


def call(number: int, invoked_s: float, ended_s: float | None, end: str = "ok") -> CallLine:
    """One call of one client."""
    return CallLine(
        key=f"c.{number}",
        client="client 1",
        service="safe",
        kind="once",
        phase="faults",
        invoked_s=invoked_s,
        deadline_s=invoked_s + 4,
        ended_s=ended_s,
        end=end,
        error="" if end == "ok" else "Boom<&>",
        outcome="EXECUTED",
    )


RUN = RunReport(
    scenario="worker-crash",
    title="workers are <killed>",
    promise="all the same & more",
    seed=7,
    short=False,
    verdict="failed",
    duration_s=10.0,
    whole_s=12.0,
    checks=[
        CheckLine(
            name="every call ends by its deadline",
            ok=False,
            figure="4 calls",
            offences=["c.4 <hung>"],
            offences_count=1,
        ),
        CheckLine(name="recovery", ok=True, figure="0.50 s"),
    ],
    calls=[call(1, 1.0, 1.1), call(2, 2.0, 3.0, "failed"), call(3, 2.5, 4.0, "unknown"), call(4, 3.0, None, "hung")],
    faults=[
        FaultLine(text="SIGKILL worker 1", lane="worker 1", began_s=2.0, ended_s=4.0, proof="signal 9", proven=True),
        FaultLine(text="30% of packets lost", lane="", began_s=3.0, ended_s=9.5, proof="none", proven=False),
    ],
    states=[
        StateLine(who="worker 1", at_s=0.0, state="up"),
        StateLine(who="worker 1", at_s=2.0, state="dead"),
        StateLine(who="worker 1", at_s=4.0, state="starting"),
        StateLine(who="worker 1", at_s=5.0, state="up"),
    ],
    samples=[
        SampleLine(at_s=1.0, broker="broker 1", queued=0, workers={"worker-1.1": "working"}),
        SampleLine(at_s=6.0, broker="broker 1", queued=5, workers={"worker-1.2": "stuck"}),
    ],
    control=ControlLine(answered=2, longest_s=0.1, hung_since_s=2.0, hung_for_s=8.0, calls=[(1.0, 1.1), (2.0, None)]),
)
REPORT = Report(created="2024-01-02", machine="m", version="1", runs=[RUN])
ABSENT = RunReport(
    scenario="packet-loss-10",
    title="t",
    promise="p",
    seed=1,
    short=True,
    verdict="not injected",
    reason="packet loss (no program 'nft')",
)


def test_report_survives_json() -> None:
    """What was measured at night is looked at in the morning."""
    assert decode(encode(REPORT)) == REPORT


@pytest.mark.parametrize("text", [b"", b"[]", b'{"runs": 1}', b"\xff", b'{"format": 99}'])
def test_what_is_no_report_is_refused(text: bytes) -> None:
    """One clear error, not a page full of nothing."""
    with pytest.raises(ReportUnreadable):
        decode(text)


def test_table_names_results_offences_and_what_was_not_injected() -> None:
    """The last screen of a run in CI must be enough to know what to do."""
    text = table.render(attrs.evolve(REPORT, runs=[RUN, ABSENT]))
    row = next(line for line in text.splitlines() if line.startswith("worker-crash "))
    assert " ".join(row.split()) == "worker-crash failed 4 1 1 1 1 0.50 s still waits after 8.0 s 12.0 s"
    assert "worker-crash (seed 7): failed\n  every call ends by its deadline: 1 wrong\n    c.4 <hung>" in text
    assert "\nnot injected: packet loss (no program 'nft')\n" in text
    assert text.endswith("0 passed, 1 failed, 1 not injected")


def test_junit_has_a_case_per_check() -> None:
    """CI shows which promise broke, not only that something did."""
    root = ElementTree.fromstring(junit.render(attrs.evolve(REPORT, runs=[RUN, ABSENT])))
    suites = {suite.get("name"): suite for suite in root}
    crash, loss = suites["worker-crash"], suites["packet-loss-10"]
    assert (crash.get("tests"), crash.get("failures"), loss.get("skipped")) == ("2", "1", "1")
    (failure,) = crash.iter("failure")
    assert failure.text == "seed 7\nc.4 <hung>"
    (skipped,) = loss.iter("skipped")
    assert skipped.get("message") == "not injected: packet loss (no program 'nft')"


def test_page_is_one_file_and_shows_everything() -> None:
    """It is attached to a ticket: nothing may be fetched, nothing may be missing."""
    text = page.render(attrs.evolve(REPORT, runs=[RUN, ABSENT])).decode()
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    for wanted in (
        "workers are &lt;killed&gt;",
        "all the same &amp; more",
        "c.4 &lt;hung&gt;",
        "still waits after 8.0 s",
    ):
        assert wanted in text
    for wanted in ("raw REQ/REP", "unproven", "no reply for 8.0 s, and no error", "not injected", "Seed 7"):
        assert wanted in text
    assert text.count("<svg viewBox") == 1
    assert text.count('<tr><th scope="col"') == text.count("<table")


def test_page_says_how_to_have_the_same_again_and_what_broke_first() -> None:
    """A post-mortem is read by people who were not there."""
    report = attrs.evolve(REPORT, command="reliable chaos run worker-crash --seed 7 'a b'")
    text = page.render(report).decode()
    assert "<pre>reliable chaos run worker-crash --seed 7 &#x27;a b&#x27;</pre>" in text
    broken = text.partition('<div class="broken">')[2]
    assert broken.index("every call ends by its deadline") < broken.index("<svg viewBox")
    assert "c.4 &lt;hung&gt;" in broken.partition("<svg")[0]


def test_origin_is_a_command_that_can_be_typed_again() -> None:
    """Quotes that are lost on the way make it another command."""
    assert (
        origin.command_of(["/x/reliable", "chaos", "run", "a", "--call", "b [1]"])
        == "reliable chaos run a --call 'b [1]'"
    )
    assert origin.command_of(["/x/chaos/__main__.py", "list"]) == "python -m chaos list"
    assert "libzmq" in origin.machine()
    assert origin.version()


def test_picture_shows_when_what_may_be_demanded() -> None:
    """A call that failed while the link was down is no news; one that failed afterwards is."""
    drawn = draw(attrs.evolve(RUN, healed_s=6.0, recovered_s=7.5))
    for phase in ("before, from 0.00 s to 2.00 s", "faults, from 2.00 s to 6.00 s", "settling, from 6.00 s to 7.50 s"):
        assert phase in drawn
    assert "healed: no call may fail, from 7.50 s to 10.00 s" in drawn
    never = draw(attrs.evolve(RUN, healed_s=6.0, recovered_s=None))
    assert "settling, from 6.00 s to 10.00 s" in never
    assert "healed:" not in never


def test_picture_is_told_in_words_to_who_cannot_see_it() -> None:
    """Colours and places are nothing to a screen reader."""
    (label,) = re.findall(r'aria-label="([^"]*)"', draw(RUN))
    assert "1 ok, 1 failed, 1 unknown, 1 hung" in label
    assert "SIGKILL worker 1 from 2.0 s to 4.0 s" in label


def test_one_way_calls_that_were_accepted_count_as_answered() -> None:
    """They got the only word that they asked for."""
    sent = attrs.evolve(RUN, calls=[call(1, 1.0, 1.1), attrs.evolve(call(2, 2.0, 2.1), end="accepted")])
    row = next(line for line in table.render(Report(runs=[sent])).splitlines() if line.startswith("worker-crash "))
    assert row.split()[2:4] == ["2", "2"]
    assert "accepted" in page.render(Report(runs=[sent])).decode()


def test_every_colour_of_the_page_is_defined_for_light_and_dark() -> None:
    """A variable that is missing in one of them is black on black."""
    style = page.render(REPORT).decode().partition("<style>")[2].partition("</style>")[0]
    light, dark = (set(re.findall(r"--([a-z]+):", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL))
    used = set(re.findall(r"var\(--([a-z]+)\)", style))
    assert light == dark == used


def test_picture_is_well_formed_and_within_its_frame() -> None:
    """A bar that leaves the frame, or text beyond its edge, is cut off in print."""
    root = ElementTree.fromstring(draw(RUN))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    for element in root.iter():
        if element.tag.endswith("rect"):
            x, y, w, h = (float(element.get(name, "nan")) for name in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height
        if element.tag.endswith("text"):
            length = len(element.text or "") * 6.4
            x = float(element.get("x", "nan"))
            left = {"start": x, "middle": x - length / 2, "end": x - length}[element.get("text-anchor", "start")]
            assert left >= -12
            assert left + length <= width + 20, element.text


def test_picture_has_a_colour_per_end_and_a_class_for_each() -> None:
    """The colour is the message."""
    drawn, style = draw(RUN), page.render(REPORT).decode()
    for end in ("ok", "failed", "unknown", "hung"):
        assert f'class="call {end}"' in drawn
    for kind in ("state dead", "state starting", "word working", "word stuck", "fault unproven", "queue"):
        assert f'class="{kind}"' in drawn
    used = {word for group in re.findall(r'class="([^"]+)"', drawn) for word in group.split()}
    unstyled = {word for word in used if f".{word} " not in style and f".{word}," not in style}
    # These only group what other classes colour.
    assert unstyled <= {"call", "control", "label", "state", "word"}


def test_texts_of_faults_do_not_overlap() -> None:
    """Eleven faults at once are where a reader needs their names most."""
    faults = [
        FaultLine(text=f"fault number {n}", lane="", began_s=n / 3, ended_s=n / 3 + 0.1, proof="p", proven=True)
        for n in range(30)
    ]
    root = ElementTree.fromstring(draw(attrs.evolve(RUN, faults=faults)))
    places: dict[float, list[tuple[float, float]]] = {}
    for element in root.iter():
        if element.tag.endswith("text") and (element.text or "").startswith("fault number"):
            x, length = float(element.get("x", "nan")), len(element.text or "") * 6.4
            left = x - length if element.get("text-anchor") == "end" else x
            places.setdefault(float(element.get("y", "nan")), []).append((left, left + length))
    assert sum(map(len, places.values())) == 30
    for row in places.values():
        ordered = sorted(row)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(ordered))


def test_many_calls_are_thinned_out_but_not_those_that_failed() -> None:
    """A page of a hundred megabytes is shown by no browser; what went wrong must all be there."""
    calls = [call(n, n / 1000, n / 1000 + 0.001, "ok" if n % 100 else "failed") for n in range(20_000)]
    drawn = draw(attrs.evolve(RUN, calls=calls, duration_s=20.0))
    assert drawn.count('class="call failed"') == 200
    assert drawn.count('class="call ok"') < 4_500
    assert re.search(r">\d+ of 20000<", drawn)


def test_rows_never_overlap() -> None:
    """Two calls drawn over each other are one to the eye."""
    intervals = [(0.0, 5.0), (1.0, 2.0), (2.0, 3.0), (2.5, 6.0), (5.0, 6.0)]
    rows, count = pack(intervals)
    assert (rows, count) == ([0, 1, 1, 2, 0], 3)


@pytest.mark.parametrize(
    ("until_s", "last", "count"), [(3.3, 3.0, 7), (14.0, 14.0, 15), (0.9, 0.9, 10), (3600.0, 3600.0, 13)]
)
def test_ticks_are_round_and_few(until_s: float, last: float, count: int) -> None:
    """An axis is read at a glance."""
    found = ticks(until_s)
    assert (round(found[-1], 3), len(found)) == (last, count)


def test_states_follow_each_other_to_the_end() -> None:
    """A gap would read as "no process"."""
    spans = spans_of(RUN.states, 10.0)
    assert spans == {
        "worker 1": [Span(0.0, 2.0, "up"), Span(2.0, 4.0, "dead"), Span(4.0, 5.0, "starting"), Span(5.0, 10.0, "up")]
    }


def test_words_of_several_brokers_become_one() -> None:
    """A worker that one broker calls stuck is stuck, even if another one has not noticed yet."""
    samples = [
        SampleLine(at_s=1.0, broker="a", queued=0, workers={"worker-1.1": "working"}),
        SampleLine(at_s=2.0, broker="b", queued=0, workers={"worker-1.1": "working"}),
        SampleLine(at_s=3.0, broker="a", queued=0, workers={}),
        SampleLine(at_s=4.0, broker="a", queued=0, workers={"worker-1.2": "idle"}),
    ]
    assert words_of(samples, "worker 1", 5.0) == [Span(1.0, 3.0, "working"), Span(3.0, 4.0, "absent")]
