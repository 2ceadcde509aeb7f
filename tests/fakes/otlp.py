"""A real OTLP collector for tests: gRPC and HTTP (protobuf, gzip) on loopback, keeping what it gets."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TraceRequest = trace_service_pb2.ExportTraceServiceRequest
TraceResponse = trace_service_pb2.ExportTraceServiceResponse
MetricsRequest = metrics_service_pb2.ExportMetricsServiceRequest
MetricsResponse = metrics_service_pb2.ExportMetricsServiceResponse


@dataclass
class ReceivedSpan:
    """A span with the resource that sent it; ids in hex."""

    span: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return plain(self.span.attributes)


def plain(pairs: Any) -> dict[str, Any]:
    """OTLP attributes as a dict."""
    return {pair.key: _value(pair.value) for pair in _typed(pairs)}


def _typed(pairs: Any) -> list[KeyValue]:
    return list(pairs)


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    return getattr(value, kind) if kind else None


@dataclass
class OtlpCollector:
    """What was received so far. All methods may be called from any thread."""

    grpc_endpoint: str = ""
    http_endpoint: str = ""
    traces: list[TraceRequest] = field(default_factory=list)
    metrics: list[MetricsRequest] = field(default_factory=list)
    http_encodings: list[str] = field(default_factory=list)
    """Content-Encoding of each HTTP request."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: TraceRequest | MetricsRequest) -> None:
        """Keep a request and wake those who wait."""
        with self._changed:
            (self.traces if isinstance(request, TraceRequest) else self.metrics).append(request)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[OtlpCollector], bool], timeout_s: float = 10.0) -> None:
        """Return when `condition(self)` holds. Raises AssertionError after `timeout_s`."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(f"the collector did not get it; spans: {[s.name for s in self.spans()]}")

    def spans(self) -> list[ReceivedSpan]:
        """All spans, in order of arrival."""
        return [
            ReceivedSpan(span, plain(resource.resource.attributes))
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def span(self, name: str) -> ReceivedSpan:
        """The only span of that name."""
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def last_metrics(self) -> dict[str, Metric]:
        """Metrics of the latest export, by name."""
        return metrics_of(self.metrics[-1])

    def raw(self) -> bytes:
        """All that was received, to look for what must not be in it."""
        return b"".join(request.SerializeToString() for request in [*self.traces, *self.metrics])


def metrics_of(request: MetricsRequest) -> dict[str, Metric]:
    """Metrics of one export, by name."""
    return {
        metric.name: metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: TraceRequest, context: grpc.ServicerContext) -> TraceResponse:
        self._collector.take(request)
        return TraceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: MetricsRequest, context: grpc.ServicerContext) -> MetricsResponse:
        self._collector.take(request)
        return MetricsResponse()


_PATHS: dict[str, tuple[Callable[[bytes], Any], Callable[[], Any]]] = {
    "/v1/traces": (TraceRequest.FromString, TraceResponse),
    "/v1/metrics": (MetricsRequest.FromString, MetricsResponse),
}


def _handler(collector: OtlpCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "identity")
            if encoding == "gzip":
                body = gzip.decompress(body)
            entry = _PATHS.get(self.path)
            if entry is None or self.headers.get("Content-Type") != "application/x-protobuf":
                self._answer(404 if entry is None else 415, b"")
                return
            parse, response = entry
            collector.http_encodings.append(encoding)
            collector.take(parse(body))
            self._answer(200, response().SerializeToString())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler


@contextmanager
def otlp_collector(address: str = "127.0.0.1", http_port: int = 0) -> Iterator[OtlpCollector]:
    """A collector for the duration of the block; on two free ports, unless one is given."""
    collector = OtlpCollector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(collector), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(collector), server)
    collector.grpc_endpoint = f"http://{address}:{server.add_insecure_port(f'{address}:0')}"
    server.start()
    web = ThreadingHTTPServer((address, http_port), _handler(collector))
    web.daemon_threads = True
    collector.http_endpoint = f"http://{address}:{web.server_address[1]}"
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
        server.stop(grace=None).wait()
