"""Scenarios as values: their plan over time, their short form, how they are found, what is written of their runs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import attrs
import pytest

from chaos.running.catalogue import UnknownScenario, all_scenarios, find, named
from chaos.running.faults import CLIENTS, WORKERS, Freeze, Kill, LinkDown, Loss, Partition, Toxics
from chaos.running.model import Clients, Kind, Scenario, shortened
from chaos.running.recorder import Recorder
from chaos.running.records import read_executions, runs_by_key
from chaos.running.schedule import What, calls_of, steps_of
from chaos.running.watch import read_status
from chaos.toxi.toxics import Blackhole, Direction, Latency, LimitData

WANTED = {
    "server-dies",
    "reply-lost",
    "request-lost",
    "slow-network",
    "flapping-link",
    "half-open",
    "silent-partition",
    "one-way-partition",
    "broker-failover",
    "broker-restart",
    "worker-crash",
    "worker-freeze",
    "gil-holder",
    "poison-request",
    "overload",
    "mute-broker",
    "registration-storm",
    "heartbeat-soak",
    "packet-loss-10",
    "packet-loss-30",
    "packet-loss-50",
    "everything-at-once",
    "fd-exhaustion",
    "freelance",
    "hedged-tail",
    "hostile-peers",
    "one-way-sends",
    "pirate-queue",
    "rude-closes",
    "stream-cut",
}


def test_steps_come_in_order_and_each_fault_has_two() -> None:
    """A fault that is never mended would be blamed on recovery."""
    first, second = Kill(at_s=2.0, for_s=2.0, target="worker 1"), Freeze(at_s=1.0, for_s=1.0, target="worker 2")
    steps = steps_of((first, second))
    assert [(step.at_s, step.what, step.number) for step in steps] == [
        (1.0, What.BEGIN, 1),
        (2.0, What.END, 1),
        (2.0, What.BEGIN, 0),
        (4.0, What.END, 0),
    ]


def test_same_seed_plans_the_same_calls() -> None:
    """A run that failed is run again with its seed."""
    clients = Clients(rate=10)
    one, again, other = (list(itertools.islice(calls_of(clients, seed), 200)) for seed in ("1 a", "1 a", "2 a"))
    assert one == again != other
    assert 15 < sum(call.after_s for call in one) < 25
    assert {call.kind for call in one} == {kind for kind, _ in clients.mix}


def test_calls_of_one_kind_only_can_be_wanted() -> None:
    """Servers without a broker have no streams."""
    clients = Clients(mix=((Kind.ONCE, 1),))
    assert {call.kind for call in itertools.islice(calls_of(clients, "1"), 20)} == {Kind.ONCE}


def test_all_scenarios_that_are_promised_exist_and_say_what_they_are() -> None:
    """The list in the documentation is the list of what is tested."""
    found = all_scenarios()
    assert set(found) >= WANTED
    for scenario in found.values():
        assert scenario.title
        assert scenario.promise
        assert len(scenario.title) < 110
        # Every fault begins after the load, and all of them end well before a test gives up.
        assert all(fault.at_s > 0 for fault in scenario.faults)
        assert max((fault.at_s + fault.for_s for fault in shortened(scenario).faults), default=0.0) < 6.0


@pytest.mark.parametrize("name", sorted(WANTED))
def test_no_link_is_both_proxied_and_partitioned(name: str) -> None:
    """Packets of a proxied link come from the proxy's address: rules for the clients' address would never fire."""
    scenario = find(name)
    cut = {fault.link for fault in scenario.faults if isinstance(fault, Loss | Partition)}
    proxied = {fault.link for fault in scenario.faults if isinstance(fault, Toxics | LinkDown)}
    assert cut.isdisjoint(proxied)


def test_short_form_is_the_same_in_less_time() -> None:
    """What passes short and fails long should differ in patience alone."""
    whole = Scenario(name="s", title="t", promise="p", faults=(Kill(at_s=4.0, for_s=2.0, target="worker 1"),))
    short = shortened(attrs.evolve(whole, short_factor=0.5))
    assert [(fault.at_s, fault.for_s) for fault in short.faults] == [(2.0, 1.0)]
    assert short.topology.clients[0].timeout_s == 2.0
    assert short.topology.heartbeat_s == 0.25
    assert short.demands.recovery_s == whole.demands.recovery_s
    assert shortened(attrs.evolve(whole, short_factor=0.01)).topology.heartbeat_s == 0.25


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("server-dead", "server-dies"), ("packet-loss", "packet-loss-10"), ("freeze", "worker-freeze")],
)
def test_misspelled_scenario_names_the_near_ones(wrong: str, near: str) -> None:
    """The list has more than twenty names."""
    with pytest.raises(UnknownScenario, match=f"no scenario '{wrong}'.*did you mean.*{near}"):
        find(wrong)


def test_family_name_stands_for_all_of_its_scenarios() -> None:
    """Who wants packet loss does not want to choose a share first; a name that is one scenario's means that one."""
    assert [one.name for one in named("packet-loss")] == ["packet-loss-10", "packet-loss-30", "packet-loss-50"]
    assert [one.name for one in named("overload")] == ["overload"]
    with pytest.raises(UnknownScenario):
        named("packet-lost")


def test_nothing_near_points_to_the_list() -> None:
    """A wild guess would mislead."""
    with pytest.raises(UnknownScenario, match="see `reliable chaos list`"):
        find("zzzzzz")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Kill(at_s=0, for_s=1, target="broker 1"), "SIGKILL broker 1"),
        (Toxics(at_s=0, for_s=1, toxics=(Blackhole(),)), "data vanishes to clients"),
        (Toxics(at_s=0, for_s=1, toxics=(Latency(latency_s=0.2),), link=WORKERS), "latency 200±0 ms to workers"),
        (
            Toxics(at_s=0, for_s=1, toxics=(LimitData(limit_bytes=9),), directions=tuple(Direction)),
            "cut after 9 B to and from clients",
        ),
        (Loss(at_s=0, for_s=1, share=0.3), "30% of packets lost between clients and broker"),
        (
            Partition(at_s=0, for_s=1, link=CLIENTS, to="broker"),
            "silent partition of clients and broker (only to broker)",
        ),
    ],
)
def test_faults_are_named_for_people(fault: Kill | Toxics | Loss | Partition, text: str) -> None:
    """The picture goes into a post-mortem."""
    assert fault.text() == text


@pytest.mark.parametrize("bad", [{"at_s": -1.0, "for_s": 1.0}, {"at_s": 0.0, "for_s": 0.0}])
def test_impossible_times_are_refused(bad: dict[str, float]) -> None:
    """A fault that lasts no time proves nothing."""
    with pytest.raises(ValueError, match="must be"):
        Kill(target="worker 1", **bad)


def test_runs_are_read_back_also_those_that_were_cut_off(tmp_path: Path) -> None:
    """A worker that is killed writes no end, and its run took place all the same."""
    one = Recorder(tmp_path, "worker-1.1")
    done, closed, _ = one.begin("c.1"), one.begin("c.2"), one.begin("c.3")
    one.end(done)
    one.end(closed, finished=False)
    Recorder(tmp_path, "worker-2.1").begin("c.1")
    found = read_executions(tmp_path, 0.0)
    seen = {(run.key, run.worker): (run.finished_s is None, run.ended_s is None) for run in found}
    assert seen == {
        (b"c.1", "worker-1.1"): (False, False),
        (b"c.2", "worker-1.1"): (True, False),
        (b"c.3", "worker-1.1"): (True, True),
        (b"c.1", "worker-2.1"): (True, True),
    }
    assert [run.worker for run in runs_by_key(found)[b"c.1"]] == ["worker-1.1", "worker-2.1"]


def test_half_a_line_is_not_written(tmp_path: Path) -> None:
    """Each line is one write: what a kill interrupts is there whole or not at all."""
    recorder = Recorder(tmp_path, "worker-1.1")
    recorder.end(recorder.begin("c.1"))
    lines = (tmp_path / "worker-1.1.runs").read_text().splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["key", "run", "started"], ["ended", "finished", "run"]]
    assert ((tmp_path / "worker-1.1.runs").stat().st_mode & 0o077) == 0


def test_status_tells_who_is_who_and_what_is_too_full() -> None:
    """Workers are told apart by a service of their own name."""
    answer = {
        "life": "ab",
        "usage": {"queued": 7, "calls": 3},
        "limits": {"queued_max": 5},
        "counters": {"worker_lost": 0},
        "workers": [
            {"services": ["safe", "once", "worker-1.2"], "state": "stuck"},
            {"services": ["safe"], "state": "idle"},
        ],
    }
    sample = read_status("broker 1", 4.0, answer, frozenset({"safe", "once"}))
    assert (sample.queued, sample.over, dict(sample.workers)) == (7, ("queued 7 of 5",), {"worker-1.2": "stuck"})
