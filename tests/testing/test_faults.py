"""Kills, proxies and partitions for tests of users: each shows that it happened, or says why it cannot."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from chaos.injection import FaultUnproven, NotInjected
from chaos.netns import Network, probe
from chaos.process import StartFailed
from chaos.toxi import Latency, toxiproxy_binary
from reliable import Client, RequestError, WorkerLost
from reliable.testing import (
    QUICK_CLIENT,
    Hosts,
    Partition,
    WorkerProcess,
    partitions,
    running_broker,
    running_proxy,
    running_toxiproxy,
    running_worker,
)
from tests.support.injection_report import injected, require


def add(a: int, b: int) -> int:
    """What is served."""
    return a + b


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
def test_worker_process_is_killed_started_again_paused_and_stopped() -> None:
    """Another process each time, and each time registered when the call returns."""
    with (
        running_broker() as broker,
        WorkerProcess("tests.support.handlers:pid", broker, idempotent=False, concurrency=2) as worker,
        Client(broker.endpoint, config=QUICK_CLIENT) as client,
    ):
        first = worker.pid
        assert client.call("pid") == first
        worker.kill()
        assert (worker.alive, worker.exit_code) == (False, -9)
        with pytest.raises(FaultUnproven):
            worker.kill()
        worker.start()
        assert client.call("pid") == worker.pid != first
        with worker.paused(), pytest.raises(RequestError):
            client.options(timeout=0.3).call("pid")
        assert client.call("pid") == worker.pid
        assert worker.stop() == 0
        assert "ready at" in worker.output()


@pytest.mark.slow
@pytest.mark.usefixtures("no_leaks")
def test_call_of_a_killed_worker_ends_as_in_production() -> None:
    """The whole point of having a process to kill."""
    with (
        running_broker() as broker,
        WorkerProcess("tests.support.handlers:hang", broker, idempotent=False) as worker,
        Client(broker.endpoint, config=QUICK_CLIENT) as client,
    ):
        pending = client.submit("hang", 30.0)
        # Running, by the word of the broker: killed before, it would only be given to the next worker.
        deadline = time.monotonic() + 10
        while not any(worker_view.in_hand for worker_view in broker.snapshot().workers):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.3)
        worker.kill()
        with pytest.raises(WorkerLost):
            pending.result()


@pytest.mark.usefixtures("no_leaks")
def test_worker_that_cannot_be_imported_fails_with_its_own_words(tmp_path: Path) -> None:
    """A misspelt module is the first thing that goes wrong."""
    with running_broker() as broker, pytest.raises(StartFailed, match="there is no module 'shoop'"):
        WorkerProcess("shoop:worker", broker, cwd=tmp_path)


@pytest.mark.toxiproxy
@pytest.mark.usefixtures("no_leaks")
def test_proxy_stands_between_worker_and_broker() -> None:
    """Replies are late while the client's own link is not."""
    injected(toxiproxy_binary)
    with (
        running_broker() as broker,
        running_proxy(broker) as link,
        running_worker(add, link),
        Client(broker.endpoint, config=QUICK_CLIENT) as client,
    ):
        assert client.call("add", 2, 3) == 5
        with link.suffering(Latency(latency_s=0.4)):
            began = time.monotonic()
            assert client.call("add", 2, 3) == 5
            assert time.monotonic() - began >= 0.4


def test_proxy_needs_an_address_of_tcp(tmp_path: Path) -> None:
    """Toxiproxy has nothing else."""
    wanted = pytest.raises(ValueError, match="needs a broker at a TCP address, not at ipc://")
    with wanted, running_proxy(f"ipc://{tmp_path}/broker"):
        pass


def test_missing_toxiproxy_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And builds nothing: a test must not take minutes or need a network because of it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotInjected) as caught, running_toxiproxy():
        pass
    assert "put toxiproxy-server on PATH, or run `python -m chaos.toxi` once" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, which most installations lack."""
    monkeypatch.setitem(sys.modules, "chaos.toxi.proxy", None)
    with pytest.raises(NotInjected, match=r"pip install 'reliable\[chaos\]'"), running_toxiproxy():
        pass


def scenario_cut(hosts: Hosts) -> dict[str, object]:
    """A worker that cannot be heard, and a client that cannot be answered."""
    found: dict[str, object] = {}
    with (
        running_broker(hosts.bind),
        running_worker(add, hosts.worker),
        Client(hosts.client, config=QUICK_CLIENT) as client,
    ):
        found["before"] = client.call("add", 2, 3)
        cuts = {"cut": hosts.cut("worker"), "mute": hosts.mute("worker"), "deaf": hosts.deafen("client")}
        for name, cut in cuts.items():
            with cut:
                try:
                    client.options(timeout=0.7).call("add", 2, 3)
                except RequestError as error:
                    found[name] = error.outcome.name
        found["after"] = client.call("add", 2, 3)
        with hosts.loss("client", 0.2):
            found["lossy"] = client.call("add", 2, 3)
            for _ in range(100):
                if hosts.dropped() > 30:
                    break
                client.call("add", 2, 3)
    return found


def scenario_that_fails(hosts: Hosts) -> None:
    """As a scenario does whose service is broken."""
    assert hosts.dropped() == 1, "nothing was dropped"


def scenario_without_end(_hosts: Hosts) -> None:
    """As one does that waits for ever."""
    time.sleep(60)


@pytest.mark.netns
@pytest.mark.slow
def test_scenario_runs_behind_a_cut_and_gives_back_what_it_found() -> None:
    """Sockets, routes and losses are those of the kernel."""
    require(probe())
    found = Partition().run(scenario_cut, timeout=50)
    assert found == {"before": 5, "cut": "UNKNOWN", "mute": "UNKNOWN", "deaf": "UNKNOWN", "after": 5, "lossy": 5}


@pytest.mark.netns
@pytest.mark.slow
def test_scenario_that_fails_fails_its_test_with_its_traceback() -> None:
    """Or one would have to guess what happened in there."""
    require(probe())
    with pytest.raises(AssertionError) as caught:
        Partition().run(scenario_that_fails)
    assert "scenario scenario_that_fails ended with exit code 1" in str(caught.value)
    assert "AssertionError: nothing was dropped" in str(caught.value)


@pytest.mark.netns
@pytest.mark.slow
def test_scenario_that_does_not_end_is_killed() -> None:
    """A hang in there must not become one out here."""
    require(probe())
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="still runs after 1 s"):
        Partition().run(scenario_without_end, timeout=1)
    assert time.monotonic() - began < 30


def test_scenario_that_no_other_process_could_find_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closure would have to be sent there, with all that it holds."""
    monkeypatch.setattr(partitions, "probe", lambda: None)

    def local(_hosts: Hosts) -> None: ...

    for scenario in (local, lambda _hosts: None, Hosts.dropped):
        with pytest.raises(ValueError, match="not a function at the top of a module"):
            Partition().run(scenario)


def test_host_that_is_not_there_is_refused_by_name() -> None:
    """A misspelt host must not pass for one that was cut off."""
    with pytest.raises(ValueError, match="there is no host 'broker'"):
        Hosts(Network.__new__(Network)).cut("broker")


def test_machine_without_namespaces_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the names of the packages."""
    monkeypatch.setattr(partitions, "probe", lambda: NotInjected("packet loss", "no program 'nft'"))
    with pytest.raises(NotInjected) as caught:
        Partition()
    needs = "needs nft and ip (packages nftables and iproute2) and user namespaces"
    assert str(caught.value) == f"partition (no program 'nft'; {needs})"
