"""Metrics by OTLP: a thread that sends a snapshot of the cells every so often, cumulative."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tradewind.telemetry.metrics import Family, Series
from tradewind.telemetry.names import SCOPE, MetricSpec

_log = logging.getLogger(__name__)
_CUMULATIVE = AggregationTemporality.CUMULATIVE


def metrics_data(families: list[Family], resource: Resource, now_ns: int) -> MetricsData:
    """A snapshot as OpenTelemetry's exporters take it."""
    metrics = [
        Metric(family.spec.name, family.spec.description, family.spec.unit, _points(family, now_ns))
        for family in families
        if family.series
    ]
    scope = ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def attributes_of(spec: MetricSpec, labels: tuple[str, ...]) -> dict[str, str]:
    """Label values by name, those that are absent left out."""
    return {name: value for name, value in zip(spec.labels, labels, strict=True) if value}


def _points(family: Family, now_ns: int) -> Sum | Gauge | Histogram:
    spec = family.spec
    if spec.kind == "histogram":
        points = [_histogram_point(spec, series, now_ns) for series in family.series]
        return Histogram(points, _CUMULATIVE)
    numbers = [
        NumberDataPoint(attributes_of(spec, series.labels), series.start_ns, now_ns, series.value)
        for series in family.series
    ]
    if spec.kind == "gauge":
        return Gauge(numbers)
    return Sum(numbers, _CUMULATIVE, is_monotonic=spec.kind == "counter")


def _histogram_point(spec: MetricSpec, series: Series, now_ns: int) -> HistogramDataPoint:
    # Min and max are unknown: the protocol lets a cumulative histogram leave them out, the SDK's type
    # does not, so the bounds of the outermost buckets in use stand in.
    used = [index for index, count in enumerate(series.counts) if count]
    low = spec.bounds[used[0] - 1] if used and used[0] > 0 else 0.0
    high = spec.bounds[min(used[-1], len(spec.bounds) - 1)] if used else 0.0
    return HistogramDataPoint(
        attributes_of(spec, series.labels), series.start_ns, now_ns, sum(series.counts), series.total,
        series.counts, spec.bounds, low, high,
    )  # fmt: skip


class MetricsPush:
    """Exports `read()` every `interval_s` seconds from a thread of its own, and once more at the end."""

    def __init__(
        self,
        read: Callable[[], list[Family]],
        make: Callable[[], MetricExporter],
        resource: Resource,
        interval_s: float,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._read = read
        self._make = make
        self._resource = resource
        self._interval_s = interval_s
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._exporter: MetricExporter | None = None
        self._exporting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tradewind-metrics", daemon=True)

    def start(self) -> None:
        """Begin. Once per object."""
        self._thread.start()

    def push(self) -> bool:
        """Export now. False when the collector did not take it; the next export carries everything again."""
        with self._exporting:
            if self._exporter is None:
                self._exporter = self._make()
            data = metrics_data(self._read(), self._resource, self._clock_ns())
            return self._exporter.export(data) is MetricExportResult.SUCCESS

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Stop after a last export, which may take `timeout_s`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.wait(self._interval_s)
            try:
                self.push()
            except Exception:
                _log.exception("cannot export metrics")
