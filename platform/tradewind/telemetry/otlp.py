"""OTLP export by OpenTelemetry's own exporters, made when they are first needed.

Made late, in the thread that uses them, because importing them and opening a gRPC channel is slow,
and because a channel does not survive a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tradewind.telemetry.names import SCOPE
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.sink import Item
from tradewind.telemetry.spans import readable_spans

Signal = Literal["traces", "metrics"]
Target = Literal["none", "otlp", "default"]
PROTOCOLS: Final = ("grpc", "http/protobuf")


def random_span_id() -> int:
    """64 random bits, never 0."""
    return int.from_bytes(os.urandom(8), "big") or 1


def target_of(signal: Signal, environ: Mapping[str, str]) -> Target:
    """Where a signal goes by the standard variables: nowhere, to OTLP, or where it goes by default."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    exporters = {
        part.strip().lower() for part in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    }
    if "otlp" in exporters:
        return "otlp"
    if "none" in exporters:
        return "none"
    named = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    return "otlp" if named else "default"


def protocol_of(signal: Signal, environ: Mapping[str, str]) -> str:
    """`grpc` (also when nothing is set, as for OpenTelemetry's Python SDK and vLLM) or `http/protobuf`.

    Raises:
        ValueError: another protocol is asked for.
    """
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    if not environ.get(variable):
        variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = environ.get(variable) or "grpc"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{variable}={protocol} is not supported; use one of {', '.join(PROTOCOLS)}")
    return protocol


def span_exporter(protocol: str) -> SpanExporter:
    """The official exporter; it reads endpoint, headers, TLS and compression from the environment."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def metric_exporter(protocol: str) -> MetricExporter:
    """The official exporter for metrics, as `span_exporter`."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http()


class OtlpSpans:
    """A Writer that exports spans."""

    def __init__(self, make: Callable[[], SpanExporter], resource: Resource) -> None:
        self._make = make
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE)
        self._exporter: SpanExporter | None = None

    def write(self, batch: Sequence[Item]) -> int:
        if self._exporter is None:
            self._exporter = self._make()
        spans: list[ReadableSpan] = []
        for item in batch:
            if isinstance(item, RequestRecord):
                spans.extend(readable_spans(item, self._resource, self._scope, random_span_id))
            else:
                spans.append(item)
        return 0 if self._exporter.export(spans) is SpanExportResult.SUCCESS else len(batch)

    def close(self) -> None:
        if self._exporter is not None:
            self._exporter.shutdown()

    def after_fork(self) -> None:
        self._exporter = None
