"""What the operator counts, for Prometheus. One registry per process, made by whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradewind_operator.measures import (
    API_REQUESTS,
    CONDITION,
    LEADER,
    QUEUE_DEPTH,
    RECONCILE_ERRORS,
    RECONCILE_SECONDS,
    RELEASE_CLUSTER,
    SHOWN,
    WATCH_AGE,
    Measure,
)
from tradewind_operator.policy.verdict import Key


class OperatorMetrics:
    """The operator's metrics; every label has few values, but for the names of resources."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Histogram(
            *_about(RECONCILE_SECONDS), buckets=RECONCILE_SECONDS.bounds, registry=self.registry
        )
        self._errors = Counter(*_about(RECONCILE_ERRORS), registry=self.registry)
        self._requests = Counter(*_about(API_REQUESTS), registry=self.registry)
        self._leader = Gauge(*_about(LEADER), registry=self.registry)
        self._queue = Gauge(*_about(QUEUE_DEPTH), registry=self.registry)
        self._release = Gauge(*_about(RELEASE_CLUSTER), registry=self.registry)
        self.conditions = Conditions()
        self.registry.register(self.conditions)
        ProcessCollector(registry=self.registry)

    def reconciled(self, seconds: float, error: BaseException | None) -> None:
        """One reconcile ended."""
        self._reconciles.labels("error" if error is not None else "ok").observe(seconds)
        if error is not None:
            self._errors.labels(type(error).__name__).inc()

    def requested(self, verb: str, resource: str, status: int) -> None:
        """The API server was asked."""
        self._requests.labels(verb, resource, str(status)).inc()

    def requests(self) -> dict[tuple[str, str], int]:
        """Requests so far by (verb, resource)."""
        found: dict[tuple[str, str], int] = {}
        for metric in self._requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    key = (sample.labels["verb"], sample.labels["resource"])
                    found[key] = found.get(key, 0) + int(sample.value)
        return found

    def leads(self, leading: bool) -> None:
        """Whether this replica works."""
        self._leader.set(leading)

    def release_cluster(self, namespace: str, name: str, applied: bool | None) -> None:
        """Whether what the chart says of its ServingCluster is in force; None: it says nothing."""
        self._release.clear()
        if applied is not None:
            self._release.labels(namespace, name).set(applied)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Where the queue's depth is read from."""
        self._queue.set_function(depth)

    def watch_ages(self, ages: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        """Where the age of each watch is read from, by plural and namespace."""
        self.registry.register(_WatchAges(ages))


class Conditions(Collector):
    """What the resources' statuses say now. One sample per condition, and none of what is gone.

    Not a Gauge, which keeps every reason that a condition has ever had, and is large for 1,000 models.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, Key], tuple[str, tuple[tuple[str, str, str], ...]]] = {}

    def told(self, namespace: str, cluster: str, key: Key, status: Mapping[str, Any]) -> None:
        """A resource that belongs to `cluster` has this status."""
        found = tuple(
            (item["type"], item["status"], item["reason"])
            for item in status.get("conditions") or ()
            if item.get("type") in SHOWN
        )
        self._said[namespace, key] = (cluster, found)

    def keep(self, namespace: str, cluster: str, keys: Iterable[Key]) -> None:
        """Of what belonged to `cluster`, all but these are gone."""
        there = set(keys)
        for (place, key), (owner, _) in list(self._said.items()):
            if (place, owner) == (namespace, cluster) and key not in there:
                del self._said[place, key]

    def collect(self) -> Iterable[Metric]:
        family = _gauge(CONDITION)
        for (namespace, (kind, name)), (_, found) in self._said.items():
            for condition, status, reason in found:
                family.add_metric([kind, namespace, name, condition, status, reason], 1)
        yield family


class _WatchAges(Collector):
    """Read when asked for: an age grows by itself."""

    def __init__(self, ages: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterable[Metric]:
        family = _gauge(WATCH_AGE)
        for (resource, namespace), age in self._ages().items():
            family.add_metric([resource, namespace or "*"], age)
        yield family


def _about(measure: Measure) -> tuple[str, str, tuple[str, ...]]:
    """The first arguments of a metric."""
    return measure.name, measure.meaning, measure.labels


def _gauge(measure: Measure) -> GaugeMetricFamily:
    return GaugeMetricFamily(measure.name, measure.meaning, labels=measure.labels)
