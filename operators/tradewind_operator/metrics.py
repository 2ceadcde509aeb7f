"""What the operator counts, for Prometheus. One registry per process, made by whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradewind_operator.policy.verdict import Key
from tradewind_operator.status.conditions import ACCEPTED, CLUSTER_UPGRADE, READY

PREFIX: Final = "tradewind_operator"
RECONCILE_SECONDS: Final = f"{PREFIX}_reconcile_duration_seconds"
RECONCILE_ERRORS: Final = f"{PREFIX}_reconcile_errors"
API_REQUESTS: Final = f"{PREFIX}_api_requests"
QUEUE_DEPTH: Final = f"{PREFIX}_queue_depth"
LEADER: Final = f"{PREFIX}_leader"
WATCH_AGE: Final = f"{PREFIX}_watch_age_seconds"
RELEASE_CLUSTER: Final = f"{PREFIX}_release_cluster_applied"
CONDITION: Final = f"{PREFIX}_condition"

_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


_SHOWN: Final = (ACCEPTED, READY, CLUSTER_UPGRADE)


class OperatorMetrics:
    """The operator's metrics; every label has few values, but for the names of resources."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Histogram(
            RECONCILE_SECONDS, "Time of one reconcile.", ["result"], buckets=_BUCKETS, registry=self.registry
        )
        self._errors = Counter(
            RECONCILE_ERRORS,
            "Reconciles that failed, by the error's class.",
            ["error"],
            registry=self.registry,
        )
        self._requests = Counter(
            API_REQUESTS,
            "Requests to the Kubernetes API; code 0 is no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._leader = Gauge(LEADER, "1 while this replica works, 0 while it waits.", registry=self.registry)
        self._queue = Gauge(QUEUE_DEPTH, "ServingClusters that wait for a worker.", registry=self.registry)
        self._release = Gauge(
            RELEASE_CLUSTER,
            "1 while the release's ServingCluster is as the chart says, 0 while it cannot be made so.",
            ["namespace", "name"],
            registry=self.registry,
        )
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
            if item.get("type") in _SHOWN
        )
        self._said[namespace, key] = (cluster, found)

    def keep(self, namespace: str, cluster: str, keys: Iterable[Key]) -> None:
        """Of what belonged to `cluster`, all but these are gone."""
        there = set(keys)
        for (place, key), (owner, _) in list(self._said.items()):
            if (place, owner) == (namespace, cluster) and key not in there:
                del self._said[place, key]

    def collect(self) -> Iterable[Metric]:
        labels = ["kind", "namespace", "name", "condition", "status", "reason"]
        family = GaugeMetricFamily(CONDITION, "1 for what a resource's condition says now.", labels=labels)
        for (namespace, (kind, name)), (_, found) in self._said.items():
            for condition, status, reason in found:
                family.add_metric([kind, namespace, name, condition, status, reason], 1)
        yield family


class _WatchAges(Collector):
    """Read when asked for: an age grows by itself."""

    def __init__(self, ages: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            WATCH_AGE, "Seconds since a watch was last answered.", labels=["resource", "namespace"]
        )
        for (resource, namespace), age in self._ages().items():
            family.add_metric([resource, namespace or "*"], age)
        yield family
