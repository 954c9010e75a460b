"""Metrics of clients and workers for Prometheus; needs the extra ``metrics``.

``PrometheusObserver`` counts what engines tell while they work, by service and by broker. ``CountersCollector`` hands
on what clients and workers count anyway (``stats()``), at the moment of each scrape.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Final, Protocol

import attrs

from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BreakerChanged,
    BrokerFound,
    CallEnded,
    FailedOver,
    HedgeStarted,
    LinkLost,
    MessageDropped,
    RetryRefused,
)

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.metrics_core import CounterMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ImportError(f"reliable.prometheus needs the extra: pip install 'reliable[metrics]' ({missing})") from None

__all__ = ["SECONDS", "CountersCollector", "HasStats", "PrometheusObserver"]

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of call times; 30 s is the timeout of a call that names none."""
_BREAKER_STATES: Final = ("closed", "open", "half-open")
_OTHER: Final = "other"


class _Bounded:
    """Label values: the first so many as they are, all later ones as ``other``.

    Every label value is a time series for ever, and a service name may come from anywhere.
    """

    def __init__(self, values_max: int) -> None:
        self._values_max = values_max
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        # Threads that are here at once may each add one past the limit; a lock to forbid that is not worth its price.
        if value not in self._known:
            if len(self._known) >= self._values_max:
                return _OTHER
            self._known.add(value)
        return value


class _Metrics:
    """All metrics of one namespace in one registry, which takes each name only once."""

    def __init__(self, registry: CollectorRegistry, namespace: str, labels_max: int) -> None:
        self.service = _Bounded(labels_max)
        self.broker = _Bounded(labels_max)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=namespace, registry=registry)

        self.calls = counter("calls", "Calls that ended.", "service", "outcome", "error")
        self.seconds = Histogram(
            "call_seconds",
            "From the call to its end, over all attempts.",
            ["service"],
            namespace=namespace,
            registry=registry,
            buckets=SECONDS,
        )
        self.attempts = counter("attempts", "Requests sent, first ones included.", "broker", "kind")
        self.failed = counter("attempts_failed", "Attempts that ended without ending their call.", "broker", "status")
        self.retries = counter("retries", "Attempts after the first that ask for the work again.", "broker")
        self.refused = counter("retries_refused", "Further attempts that policy or budget did not allow.")
        self.failovers = counter("failovers", "Attempts that went to another broker than the one before.", "broker")
        self.hedges = counter("hedges", "Second attempts sent beside a first one that was still waited for.")
        self.lost = counter("links_lost", "Links to brokers that ended or never came up.", "broker")
        self.found = counter("brokers_found", "Hellos that a broker answered.", "broker")
        self.restarts = counter("broker_restarts", "Brokers that were found in another life.", "broker")
        self.dropped = counter("messages_dropped", "Messages of peers that were not acted on.", "broker")
        self.breaker = Gauge(
            "breaker_state",
            "1 for the state that the breaker of a broker is in, 0 for the others.",
            ["broker", "state"],
            namespace=namespace,
            registry=registry,
        )
        self._broken: set[str] = set()

    def breaker_is(self, broker: str, state: str) -> None:
        """Show it."""
        self._broken.add(broker)
        for each in _BREAKER_STATES:
            self.breaker.labels(broker, each).set(each == state)

    def used(self, broker: str) -> None:
        """A breaker nobody spoke of is closed; shown from the first attempt on, so that there is something to watch."""
        if broker not in self._broken:
            self.breaker_is(broker, _BREAKER_STATES[0])


_known: Final[weakref.WeakKeyDictionary[CollectorRegistry, dict[str, _Metrics]]] = weakref.WeakKeyDictionary()
_known_lock: Final = threading.Lock()


class PrometheusObserver:
    """An observer for ``Client(..., observer=...)`` and for workers; any number of them may share one.

    Observers with the same registry and namespace count into the same metrics.

    Args:
        registry: Where the metrics are registered; not given, the default one of prometheus-client.
        namespace: What their names begin with.
        labels_max: How many services, and how many brokers, get label values of their own; later ones are counted
            as ``other``. The first observer of a registry and namespace decides.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, namespace: str = "reliable", labels_max: int = 100
    ) -> None:
        registry = REGISTRY if registry is None else registry
        with _known_lock:
            namespaces = _known.setdefault(registry, {})
            if namespace not in namespaces:
                namespaces[namespace] = _Metrics(registry, namespace, labels_max)
            self._metrics = namespaces[namespace]

    def __call__(self, observation: object, /) -> None:
        """Count it; what is of no interest is left alone."""
        metrics = self._metrics
        match observation:
            case AttemptStarted():
                self._attempt(metrics, observation)
            case AttemptEnded():
                status = "silent" if observation.status is None else observation.status.name.lower().replace("_", "-")
                metrics.failed.labels(metrics.broker(observation.broker), status).inc()
            case CallEnded():
                self._ended(metrics, observation)
            case FailedOver():
                metrics.failovers.labels(metrics.broker(observation.new)).inc()
            case RetryRefused():
                metrics.refused.inc()
            case HedgeStarted():
                metrics.hedges.inc()
            case BreakerChanged():
                metrics.breaker_is(metrics.broker(observation.broker), observation.new)
            case LinkLost():
                metrics.lost.labels(metrics.broker(observation.broker)).inc()
            case BrokerFound():
                broker = metrics.broker(observation.broker)
                metrics.found.labels(broker).inc()
                if observation.restarted:
                    metrics.restarts.labels(broker).inc()
            case MessageDropped():
                metrics.dropped.labels(metrics.broker(observation.peer)).inc()
            case _:
                pass

    @staticmethod
    def _attempt(metrics: _Metrics, seen: AttemptStarted) -> None:
        broker = metrics.broker(seen.broker)
        metrics.used(broker)
        metrics.attempts.labels(broker, "attach" if seen.attach else "run").inc()
        if seen.attempt > 1 and not seen.attach:
            metrics.retries.labels(broker).inc()

    @staticmethod
    def _ended(metrics: _Metrics, seen: CallEnded) -> None:
        service = metrics.service(seen.service.decode("ascii", "backslashreplace"))
        outcome = seen.outcome.name.lower().replace("_", "-")
        metrics.calls.labels(service, outcome, seen.error).inc()
        metrics.seconds.labels(service).observe(seen.elapsed_s)


class HasStats(Protocol):
    """A client or a worker, of either shell."""

    def stats(self) -> attrs.AttrsInstance | None:
        """Its counters: fields that are integers and only grow. None while there are none."""


@attrs.frozen
class _Watched:
    name: str
    owner: weakref.ref[HasStats]


class CountersCollector(Collector):
    """Shows the counters of clients and workers at each scrape, as ``reliable_client_retries_total{name="orders"}``.

    What it watches may be closed and collected; then it is no longer shown.

    Args:
        registry: Where it is registered; not given, the default one of prometheus-client.
        namespace: What all names begin with.
    """

    def __init__(self, registry: CollectorRegistry | None = None, namespace: str = "reliable") -> None:
        self._namespace = namespace
        self._watched: tuple[_Watched, ...] = ()
        self._lock = threading.Lock()
        (REGISTRY if registry is None else registry).register(self)

    def watch(self, owner: HasStats, name: str) -> None:
        """Show the counters of a client or worker from now on.

        Args:
            owner: Has ``stats()``; held weakly.
            name: Value of the label ``name``.

        Raises:
            ValueError: The name is in use for another one that is alive.
        """
        with self._lock:
            alive = [watched for watched in self._watched if watched.owner() is not None]
            if any(watched.name == name and watched.owner() is not owner for watched in alive):
                raise ValueError(f"there is a {name!r} already; two under one name could not be told apart")
            others = [watched for watched in alive if watched.name != name]
            self._watched = (*others, _Watched(name, weakref.ref(owner)))

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Nothing in advance: which counters there are depends on who is watched."""
        return ()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """One family for each counter, one sample in it for each that is watched."""
        families: dict[str, CounterMetricFamily] = {}
        for watched in self._watched:
            owner = watched.owner()
            counters = None if owner is None else owner.stats()
            if counters is not None:
                self._add(families, watched.name, counters)
        return families.values()

    def _add(self, families: dict[str, CounterMetricFamily], name: str, counters: attrs.AttrsInstance) -> None:
        kind = type(counters).__name__.removesuffix("Counters").lower()
        for field in attrs.fields(type(counters)):
            full = f"{self._namespace}_{kind}_{field.name}"
            if full not in families:
                text = f"{field.name} of {type(counters).__name__}"
                families[full] = CounterMetricFamily(full, text, labels=["name"])
            families[full].add_metric([name], getattr(counters, field.name))
