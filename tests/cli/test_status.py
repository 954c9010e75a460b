"""``reliable status``: shape and table."""

from __future__ import annotations

import json
import signal

import pytest

from reliable.cli.status import BrokerReport, parse_status
from reliable.cli.status_table import columns, render
from reliable.errors import BrokerUnreachable, RemoteProtocolError
from reliable.status import ExitCode
from tests.support.commands import only_line, run_command, running

_SNAPSHOT = {
    "life": "1a2b",
    "uptime_s": 3725.4,
    "version": "0.1.0",
    "services": [
        {"name": "echo", "workers": 2, "idle": 1, "working": 1, "stuck": 0, "queued": 17, "idempotent": True},
        {"name": "add", "workers": 1, "idle": 1, "working": 0, "stuck": 0, "queued": 0, "idempotent": None},
    ],
    "workers": [
        {
            "peer": "00ff",
            "instance": "0123456789abcdef",
            "services": ["echo", "add"],
            "state": "working",
            "in_hand": 1,
            "credit": 4,
            "ours": True,
            "version": "0.2",
            "last_heard_s": 0.25,
        }
    ],
    "counters": {"requests": 5, "redelivered": 0},
}


def test_json_has_services_workers_and_counters(served_url: str) -> None:
    """Dashboards read these names."""
    result = run_command("status", "--json", "--broker", served_url)
    assert result.returncode == ExitCode.OK
    (broker,) = json.loads(result.stdout)["brokers"]
    assert broker["broker"] == served_url
    assert set(broker) >= {"life", "uptime_s", "draining", "version", "services", "workers", "counters", "limits"}
    echo = next(service for service in broker["services"] if service["name"] == "echo")
    assert (echo["workers"], echo["queued"], echo["idempotent"]) == (1, 0, True)
    assert set(broker["workers"][0]) >= {"state", "in_hand", "credit", "services", "last_heard_s"}
    assert "redelivered" in broker["counters"]


def test_the_table_names_the_service(served_url: str) -> None:
    """People look for their service and its queue."""
    result = run_command("status", "--broker", served_url)
    assert result.returncode == ExitCode.OK
    assert any(line.startswith("echo ") for line in result.stdout.decode().splitlines())


def test_a_broker_that_does_not_answer_is_named_and_the_others_are_shown(served_url: str, free_url: str) -> None:
    """One dead broker of two is exactly when somebody looks."""
    options = ("--broker", free_url, "--broker", served_url, "--timeout", "1")
    table = run_command("status", *options)
    assert table.returncode == ExitCode.UNREACHABLE
    assert free_url in only_line(table.stderr)
    assert "echo" in table.stdout.decode()
    dead, alive = json.loads(run_command("status", "--json", *options).stdout)["brokers"]
    assert (dead["broker"], dead["error"], dead["outcome"]) == (free_url, "BrokerUnreachable", "NOT_EXECUTED")
    assert "services" in alive


def test_watch_asks_again_until_it_is_interrupted(served_url: str) -> None:
    """Each round is one JSON object on a line of its own."""
    with running("status", "--watch", "0.05", "--json", "--broker", served_url) as watching:
        first, second = json.loads(watching.line()), json.loads(watching.line())
        assert first["brokers"][0]["uptime_s"] < second["brokers"][0]["uptime_s"]
        assert watching.stop(signal.SIGINT) == ExitCode.INTERRUPTED
        assert only_line(watching.errors().encode()) == "reliable: interrupted"


@pytest.mark.parametrize("frames", [[], [b"501"], [b"501", b""], [b"200"], [b"200", b"{"], [b"200", b"[]"]])
def test_an_answer_that_is_not_a_status_is_refused(frames: list[bytes]) -> None:
    """A foreign broker may answer anything."""
    with pytest.raises(RemoteProtocolError):
        parse_status(frames)


def test_the_table_shows_queue_state_and_what_was_counted() -> None:
    """Each fact stands in its column; zero counters are left out."""
    text = render("tcp://a:1", _SNAPSHOT)
    lines = text.splitlines()
    assert lines[0] == "tcp://a:1  life 1a2b, up 1 h 02 min, version 0.1.0"
    assert lines[3].split() == ["echo", "2", "1", "1", "0", "17", "yes"]
    assert lines[4].split() == ["add", "1", "1", "0", "0", "0", "by", "call"]
    assert "0123456789ab  working" in text
    assert "MDP 0.2 + reliable" in text
    assert text.endswith("counters: requests 5")


def test_the_table_says_that_a_broker_drains() -> None:
    """Else whoever looks wonders why everything is refused."""
    assert render("tcp://a:1", {**_SNAPSHOT, "draining": True}).splitlines()[0].endswith(", draining")
    assert "draining" not in render("tcp://a:1", {**_SNAPSHOT, "draining": False})


def test_an_empty_or_older_status_is_no_failure() -> None:
    """A broker of another version may lack fields."""
    text = render("tcp://a:1", {})
    assert "no services" in text
    assert "no workers" in text
    assert "?" in render("x", {"services": [{"name": "a"}], "workers": [{}]})


def test_columns_are_aligned() -> None:
    """Numbers to the right, texts to the left."""
    assert columns([["a", "1"], ["bb", "22"]], frozenset({1})) == ["a    1", "bb  22"]


def test_a_report_of_a_dead_broker_has_no_other_fields() -> None:
    """Programs tell the two kinds of entry apart by ``error``."""
    report = BrokerReport("tcp://a:1", error=BrokerUnreachable("gone"))
    assert report.value() == {
        "broker": "tcp://a:1",
        "error": "BrokerUnreachable",
        "outcome": "NOT_EXECUTED",
        "message": "gone",
    }
