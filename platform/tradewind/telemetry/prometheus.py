"""Metrics for Prometheus: the same cells in its text format, and a small server for scrapes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tradewind.telemetry.metrics import Family
from tradewind.telemetry.names import MetricSpec, prometheus_label

_MAX_SCRAPES: Final = 8
_READ_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
"""How soon `stop` is noticed."""


class CellCollector(Collector):
    """Shows a snapshot of the cells as Prometheus families, named as OpenTelemetry maps them."""

    def __init__(self, read: Callable[[], list[Family]], resource: Mapping[str, str] | None = None) -> None:
        """`resource` (service name, instance, version) becomes `target_info`."""
        self._read = read
        self._resource = {prometheus_label(name): value for name, value in (resource or {}).items()}

    def collect(self) -> Iterator[Metric]:
        """Families with at least one series."""
        if self._resource:
            yield InfoMetricFamily("target", "Target metadata", value=self._resource)
        for family in self._read():
            if family.series:
                yield _translate(family)


def _translate(family: Family) -> Metric:
    spec = family.spec
    labels = [prometheus_label(name) for name in spec.labels]
    if spec.kind == "histogram":
        return _histogram(family, labels)
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    numbers = kind(spec.prometheus_name, spec.description, labels=labels)
    for series in family.series:
        numbers.add_metric(series.labels, series.value)
    return numbers


def _histogram(family: Family, labels: Sequence[str]) -> Metric:
    spec = family.spec
    histogram = HistogramMetricFamily(spec.prometheus_name, spec.description, labels=labels)
    for series in family.series:
        histogram.add_metric(series.labels, _buckets(spec, series.counts), series.total)
    return histogram


def _buckets(spec: MetricSpec, counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative counts, as Prometheus has them."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip((*map(str, spec.bounds), "+Inf"), counts, strict=True):
        running += count
        buckets.append((bound, running))
    return buckets


class _Handler(BaseHTTPRequestHandler):
    """GET /metrics, nothing else."""

    server: ScrapeServer
    timeout = _READ_TIMEOUT_S
    server_version = "tradewind"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain", b"not found\n")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, content_type, encode(self.server.registry))

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are not logged."""


class ScrapeServer(ThreadingHTTPServer):
    """Serves a registry in a thread; more than eight scrapes at once are turned away."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 2 * _MAX_SCRAPES
    registry: CollectorRegistry

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.registry = registry
        self._free = threading.BoundedSemaphore(_MAX_SCRAPES)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="tradewind-scrape", daemon=True
        )

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and free the port."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no event."""


def start_scrape(port: int, collectors: Iterable[Collector], host: str = "127.0.0.1") -> ScrapeServer:
    """Serve `GET /metrics` of `collectors` on host:port (0: any free one) until `.stop()`.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    server = ScrapeServer((host, port), registry)
    server.start()
    return server
