"""Calls across a network that loses packets: each ends by its deadline, and says what may have run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import pytest

from chaos.netns import probe, run_in_namespace
from tests.support.ends import End
from tests.support.injection_report import require

pytestmark = [pytest.mark.netns, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
# What a call may take beyond its deadline on a machine that does other things, too.
SLACK_S = 1.0


@attrs.frozen
class Run:
    """A scenario, over."""

    ends: dict[str, list[End]]
    executions: dict[str, int]


def _scenario(name: str, timeout_s: float) -> Run:
    require(probe())
    done = run_in_namespace([sys.executable, "-m", "tests.netns.scenarios", name], timeout_s=timeout_s, cwd=ROOT)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    assert found["dropped"] > 0
    return Run({key: [End(**end) for end in ends] for key, ends in found["ends"].items()}, found["executions"])


def _ended_in_time(ends: list[End], timeout_s: float) -> bool:
    return all(end.elapsed_s <= timeout_s + SLACK_S for end in ends)


def test_calls_end_by_their_deadline_under_a_full_partition_and_succeed_after_it() -> None:
    """The silent cut is what makes naive clients hang for ever."""
    run = _scenario("partition", 50)
    assert run.ends["before"][0].ok
    for service in ("echo", "once"):
        (end,) = run.ends[service]
        assert not end.ok
        assert _ended_in_time([end], 2), end
        assert end.error in ("DeadlineExceeded", "BrokerUnreachable"), end
    # The requests vanished, which the client cannot know; "not executed" would be right only where it can prove it.
    assert run.ends["echo"][0].outcome == "UNKNOWN"
    assert [end.error for end in run.ends["after"]] == [""] * 5
    # TCP delivers after healing what the deadline had already ended, or not; but never twice what must not be repeated.
    assert run.executions["cut once"] <= 1
    assert run.executions["after 0"] == run.executions["after 4"] == 1


def test_client_that_never_reached_a_broker_knows_that_nothing_ran() -> None:
    """The one case in which a caller may repeat anything."""
    run = _scenario("unreachable", 40)
    (end,) = run.ends["cut"]
    assert (end.error, end.outcome) == ("BrokerUnreachable", "NOT_EXECUTED"), end
    assert _ended_in_time([end], 2)
    assert run.ends["after"][0].ok, run.ends
    assert run.executions == {"cut": 0, "after": 1}


def test_lost_reply_means_that_the_outcome_is_unknown() -> None:
    """The work was done once; an error that said otherwise would make callers do it twice."""
    run = _scenario("replies_lost", 40)
    (end,) = run.ends["once"]
    assert (end.ok, end.outcome) == (False, "UNKNOWN"), end
    assert _ended_in_time([end], 2)
    assert run.executions["once"] == 1
    assert run.ends["after"][0].ok, run.ends


def test_calls_succeed_soon_after_healing() -> None:
    """A link that was cut for a second must not be avoided for a minute."""
    run = _scenario("healed_in_time", 40)
    assert _ended_in_time(run.ends["cut"], 1)
    (again,) = run.ends["again"]
    assert again.ok, again
    assert again.elapsed_s < 8
    assert run.executions["again"] >= 1


@pytest.mark.timeout(240)
def test_calls_succeed_within_fifteen_seconds_under_thirty_percent_loss() -> None:
    """The most at which TCP itself still gets through in that time."""
    run = _scenario("loss", 220)
    assert [end.error for end in run.ends["lossy"]] == [""] * 8, run.ends
    assert _ended_in_time(run.ends["lossy"] + run.ends["lossy once"], 15)
    assert all(count <= 1 for count in run.executions.values()), run.executions
    for number, end in enumerate(run.ends["lossy once"]):
        assert end.ok or end.outcome == "UNKNOWN", end
        assert not end.ok or run.executions[f"once {number}"] == 1
