"""What Prometheus gets to see of clients and workers."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from reliable import Client, ClientCounters, Outcome, WorkerCounters
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BreakerChanged,
    BrokerFound,
    CallEnded,
    CallStarted,
    FailedOver,
    HedgeStarted,
    LinkLost,
    MessageDropped,
    RetryRefused,
    RetryScheduled,
)
from reliable.prometheus import CountersCollector, PrometheusObserver
from reliable.status import Status
from tests.support.served import Executions, broker_at, worker_at

ID = b"i" * 16
A, B = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5557"


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of this test alone."""
    return CollectorRegistry(auto_describe=True)


def _samples(registry: CollectorRegistry, *, zeros: bool = False) -> dict[str, float]:
    """``name{label=value,…}`` → value, without the moments of creation."""
    return {
        _key(sample.name, sample.labels.items()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created") and (zeros or sample.value)
    }


def _key(name: str, labels: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f"{label}={value}" for label, value in sorted(labels))
    return f"{name}{{{inside}}}" if inside else name


def _ended(service: bytes, error: str = "", outcome: Outcome = Outcome.EXECUTED, elapsed_s: float = 0.02) -> CallEnded:
    return CallEnded(ID, service, outcome, error, 1, elapsed_s)


COUNTED = [
    (
        AttemptStarted(ID, 1, A, False),
        {"attempts_total{broker=%s,kind=run}": 1, "breaker_state{broker=%s,state=closed}": 1},
    ),
    (
        AttemptStarted(ID, 2, A, False),
        {
            "attempts_total{broker=%s,kind=run}": 1,
            "retries_total{broker=%s}": 1,
            "breaker_state{broker=%s,state=closed}": 1,
        },
    ),
    (
        AttemptStarted(ID, 2, A, True),
        {"attempts_total{broker=%s,kind=attach}": 1, "breaker_state{broker=%s,state=closed}": 1},
    ),
    (
        AttemptEnded(ID, 1, A, None, Outcome.UNKNOWN, "x"),
        {"attempts_failed_total{broker=%s,status=silent}": 1},
    ),
    (
        AttemptEnded(ID, 1, A, Status.NO_SERVICE, Outcome.NOT_EXECUTED, "x"),
        {"attempts_failed_total{broker=%s,status=no-service}": 1},
    ),
    (FailedOver(ID, B, A), {"failovers_total{broker=%s}": 1}),
    (LinkLost(A, "refused"), {"links_lost_total{broker=%s}": 1}),
    (BrokerFound(A, b"life", False), {"brokers_found_total{broker=%s}": 1}),
    (BrokerFound(A, b"life", True), {"brokers_found_total{broker=%s}": 1, "broker_restarts_total{broker=%s}": 1}),
    (MessageDropped(A, "no sense"), {"messages_dropped_total{broker=%s}": 1}),
    (BreakerChanged(A, "closed", "open"), {"breaker_state{broker=%s,state=open}": 1}),
    (RetryRefused(ID, "budget"), {"retries_refused_total": 1}),
    (HedgeStarted(ID, b"h" * 16, 0.1), {"hedges_total": 1}),
    (CallStarted(ID, b"add"), {}),
    (RetryScheduled(ID, 2, 0.1), {}),
    ("something new", {}),
]


@pytest.mark.parametrize(("observation", "expected"), COUNTED)
def test_each_observation_is_counted(
    observation: object, expected: dict[str, float], registry: CollectorRegistry
) -> None:
    """Dashboards and alarms are built on these names."""
    PrometheusObserver(registry)(observation)
    wanted = {"reliable_" + (key % A if "%" in key else key): value for key, value in expected.items()}
    assert _samples(registry) == wanted


def test_calls_are_counted_by_service_outcome_and_error(registry: CollectorRegistry) -> None:
    """The first question after an alarm: what fails, how, and may it have run?"""
    observer = PrometheusObserver(registry)
    for ended in (
        _ended(b"add"),
        _ended(b"add"),
        _ended(b"add", "DeadlineExceeded", Outcome.UNKNOWN),
        _ended(b"mul", "ServiceNotFound", Outcome.NOT_EXECUTED),
    ):
        observer(ended)
    calls = {key: value for key, value in _samples(registry).items() if key.startswith("reliable_calls_total")}
    assert calls == {
        "reliable_calls_total{error=,outcome=executed,service=add}": 2,
        "reliable_calls_total{error=DeadlineExceeded,outcome=unknown,service=add}": 1,
        "reliable_calls_total{error=ServiceNotFound,outcome=not-executed,service=mul}": 1,
    }


def test_call_times_fill_a_histogram(registry: CollectorRegistry) -> None:
    """Percentiles come from the buckets; a time in the wrong one is a wrong percentile."""
    observer = PrometheusObserver(registry)
    for elapsed_s in (0.002, 0.02, 0.03, 100.0):
        observer(_ended(b"add", elapsed_s=elapsed_s))
    samples = _samples(registry, zeros=True)
    bounds = {"0.001": 0, "0.0025": 1, "0.025": 2, "0.05": 3, "60.0": 3, "+Inf": 4}
    assert {le: samples[f"reliable_call_seconds_bucket{{le={le},service=add}}"] for le in bounds} == bounds
    assert samples["reliable_call_seconds_sum{service=add}"] == pytest.approx(100.052)


def test_breaker_shows_one_state_at_a_time(registry: CollectorRegistry) -> None:
    """An alarm on "open" must end when the breaker closes."""
    observer = PrometheusObserver(registry)
    observer(BreakerChanged(A, "closed", "open"))
    observer(BreakerChanged(A, "open", "half-open"))
    observer(AttemptStarted(ID, 1, A, False))
    states = {key: value for key, value in _samples(registry, zeros=True).items() if "breaker" in key}
    assert states == {
        f"reliable_breaker_state{{broker={A},state=closed}}": 0,
        f"reliable_breaker_state{{broker={A},state=open}}": 0,
        f"reliable_breaker_state{{broker={A},state=half-open}}": 1,
    }


def test_services_past_the_limit_are_counted_as_other(registry: CollectorRegistry) -> None:
    """Names made from user input would fill the memory of the process and of Prometheus."""
    observer = PrometheusObserver(registry, labels_max=2)
    for service in (b"a", b"b", b"c", b"d", b"a"):
        observer(_ended(service))
    counts = {key: value for key, value in _samples(registry).items() if "calls_total" in key}
    assert counts == {
        "reliable_calls_total{error=,outcome=executed,service=a}": 2,
        "reliable_calls_total{error=,outcome=executed,service=b}": 1,
        "reliable_calls_total{error=,outcome=executed,service=other}": 2,
    }


def test_observers_of_one_registry_share_their_metrics(registry: CollectorRegistry) -> None:
    """``Client(..., observer=PrometheusObserver())`` is written once per client; a registry takes a name once."""
    PrometheusObserver(registry)(_ended(b"add"))
    PrometheusObserver(registry)(_ended(b"add"))
    PrometheusObserver(registry, namespace="other")(_ended(b"add"))
    samples = _samples(registry)
    assert samples["reliable_calls_total{error=,outcome=executed,service=add}"] == 2
    assert samples["other_calls_total{error=,outcome=executed,service=add}"] == 1


class Owner:
    """Stands for a client or a worker."""

    def __init__(self, counters: ClientCounters | WorkerCounters | None) -> None:
        self.counters = counters

    def stats(self) -> ClientCounters | WorkerCounters | None:
        return self.counters


def test_counters_are_shown_by_kind_and_name(registry: CollectorRegistry) -> None:
    """Two clients in one process are told apart by their label."""
    collector = CountersCollector(registry)
    first, second = Owner(ClientCounters(calls=3, retries=1)), Owner(ClientCounters(calls=2))
    worker, idle = Owner(WorkerCounters(deliveries=5)), Owner(None)
    for name, owner in (("first", first), ("second", second), ("worker", worker), ("idle", idle)):
        collector.watch(owner, name)
    assert _samples(registry) == {
        "reliable_client_calls_total{name=first}": 3,
        "reliable_client_calls_total{name=second}": 2,
        "reliable_client_retries_total{name=first}": 1,
        "reliable_worker_deliveries_total{name=worker}": 5,
    }
    assert "reliable_client_late_replies_total{name=second}" in _samples(registry, zeros=True)
    idle.counters = WorkerCounters(deliveries=1)
    assert _samples(registry)["reliable_worker_deliveries_total{name=idle}"] == 1


def test_counters_of_what_is_gone_are_no_longer_shown(registry: CollectorRegistry) -> None:
    """The collector must not keep clients alive that nobody uses."""
    collector = CountersCollector(registry)
    owner = Owner(ClientCounters(calls=3))
    collector.watch(owner, "first")
    del owner
    gc.collect()
    assert _samples(registry) == {}
    follower = Owner(ClientCounters(calls=1))
    collector.watch(follower, "first")
    assert _samples(registry) == {"reliable_client_calls_total{name=first}": 1}


def test_a_name_in_use_is_refused(registry: CollectorRegistry) -> None:
    """Two series under one name are an error that Prometheus only shows at the scrape."""
    collector = CountersCollector(registry)
    first, second = Owner(ClientCounters()), Owner(ClientCounters())
    collector.watch(first, "first")
    collector.watch(first, "first")
    with pytest.raises(ValueError, match="'first'"):
        collector.watch(second, "first")


@pytest.mark.usefixtures("no_leaks")
def test_real_calls_are_counted(endpoint: str, registry: CollectorRegistry) -> None:
    """What is fed by hand above comes from a client, a worker and a broker here."""
    observer, collector = PrometheusObserver(registry), CountersCollector(registry)
    with (
        broker_at(endpoint),
        worker_at(endpoint, Executions()) as worker,
        Client(endpoint, observer=observer) as client,
    ):
        collector.watch(client, "shop")
        collector.watch(worker, "till")
        for word in ("a", "b", "c"):
            assert client.call("echo", word) == word
        text = generate_latest(registry).decode()
    for line in (
        'reliable_calls_total{error="",outcome="executed",service="echo"} 3.0',
        'reliable_call_seconds_count{service="echo"} 3.0',
        f'reliable_attempts_total{{broker="{endpoint}",kind="run"}} 3.0',
        f'reliable_breaker_state{{broker="{endpoint}",state="closed"}} 1.0',
        'reliable_client_ok_total{name="shop"} 3.0',
        'reliable_worker_jobs_ok_total{name="till"} 3.0',
    ):
        assert line in text.splitlines(), text


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("reliable.prometheus", "prometheus_client", "metrics"),
        ("reliable.opentelemetry", "opentelemetry", "tracing"),
    ],
)
def test_missing_extra_is_named(module: str, missing: str, extra: str) -> None:
    """Whoever forgot it must not have to find out from a traceback through somebody else's package."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "During handling" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {module} needs the extra: pip install 'reliable[{extra}]'")


@pytest.mark.parametrize("package", ["prometheus_client", "opentelemetry"])
def test_the_package_itself_needs_no_extra(package: str) -> None:
    """Metrics are for those who want them."""
    code = f"import sys; sys.modules[{package!r}] = None\nimport reliable, reliable.cli.main, reliable.observing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
