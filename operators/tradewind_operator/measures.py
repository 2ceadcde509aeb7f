"""Every metric that the operator exports, in one place: names, labels and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tradewind_operator.status.conditions import (
    ACCEPTED,
    ADAPTERS_READY,
    CLUSTER_UPGRADE,
    HEAD_READY,
    PODS_CURRENT,
    READY,
)

SHOWN: Final = (ACCEPTED, READY, ADAPTERS_READY, HEAD_READY, PODS_CURRENT, CLUSTER_UPGRADE)
"""Conditions that are exported."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: its Prometheus family, its labels and, for a histogram, its upper bounds in seconds."""

    name: str
    """Of the family: without `_total`, `_bucket` and the like."""
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name of its sample in a scrape; of a histogram the part before `_bucket`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


CONDITION: Final = Measure(
    "tradewind_operator_condition",
    "gauge",
    "1 for what a resource's condition says now; what it no longer says has no sample.",
    ("kind", "namespace", "name", "condition", "status", "reason"),
)
RELEASE_CLUSTER: Final = Measure(
    "tradewind_operator_release_cluster_applied",
    "gauge",
    "1 while the release's ServingCluster is as the chart says, 0 while it cannot be made so.",
    ("namespace", "name"),
)
LEADER: Final = Measure("tradewind_operator_leader", "gauge", "1 while this replica works, 0 while it waits.")
RECONCILE_SECONDS: Final = Measure(
    "tradewind_operator_reconcile_duration_seconds",
    "histogram",
    "Time of one reconcile; result is ok or error.",
    ("result",),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
RECONCILE_ERRORS: Final = Measure(
    "tradewind_operator_reconcile_errors",
    "counter",
    "Reconciles that failed, by the error's class.",
    ("error",),
)
QUEUE_DEPTH: Final = Measure(
    "tradewind_operator_queue_depth", "gauge", "ServingClusters that wait for a worker."
)
API_REQUESTS: Final = Measure(
    "tradewind_operator_api_requests",
    "counter",
    "Requests to the Kubernetes API; code 0 is no answer.",
    ("verb", "resource", "code"),
)
WATCH_AGE: Final = Measure(
    "tradewind_operator_watch_age_seconds",
    "gauge",
    "Seconds since a watch was last answered; namespace * is all of them.",
    ("resource", "namespace"),
)

MEASURES: Final = (
    CONDITION,
    RELEASE_CLUSTER,
    LEADER,
    RECONCILE_SECONDS,
    RECONCILE_ERRORS,
    QUEUE_DEPTH,
    API_REQUESTS,
    WATCH_AGE,
)
