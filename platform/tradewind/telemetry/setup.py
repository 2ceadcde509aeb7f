"""Puts telemetry together from the environment: what is exported, where to, and as whom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tradewind.home import home_dir
from tradewind.telemetry import names
from tradewind.telemetry.localfile import LocalFile
from tradewind.telemetry.metrics import GatewayMetrics
from tradewind.telemetry.otlp import OtlpSpans, metric_exporter, protocol_of, span_exporter, target_of
from tradewind.telemetry.prometheus import CellCollector
from tradewind.telemetry.push import MetricsPush
from tradewind.telemetry.requests import RequestTelemetry
from tradewind.telemetry.sampling import HeadSampler
from tradewind.telemetry.scrub import scrub
from tradewind.telemetry.sink import NullSink, QueueSettings, QueueSink, SpanSink
from tradewind.version import version

TRACES_DIR: Final = "traces"
_SPANS_PER_REQUEST: Final = 8


@dataclass(frozen=True, slots=True)
class Tracing:
    """Tracing of one process: `provider` for code that makes spans itself, `sink` for all that finished."""

    provider: TracerProvider
    sink: SpanSink
    resource: Resource

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Write what has finished. Blocks. False when the time was not enough."""
        return self.sink.flush(timeout_s)

    def shutdown(self) -> None:
        """Flush, then export no more. Blocks. Also done when the interpreter exits."""
        self.provider.shutdown()


class _ToSink(SpanProcessor):
    """Hands finished spans of the SDK to the sink, without content."""

    def __init__(self, sink: SpanSink) -> None:
        self._sink = sink

    def on_start(self, span: Span, parent_context: object = None) -> None:
        """Nothing: spans count when they end."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._sink.put(scrub(span))

    def shutdown(self) -> None:
        self._sink.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._sink.flush(timeout_millis / 1000)


def make_resource(service_name: str, instance: str) -> Resource:
    """Who speaks. `OTEL_RESOURCE_ATTRIBUTES` adds to it; the service's name stays, for two services
    share one environment."""
    attributes = {"service.name": service_name, "service.version": version()}
    if instance:
        attributes["service.instance.id"] = instance
    return Resource.create(attributes)


def setup_tracing(
    service_name: str, instance: str = "", *, home: Path | None = None, make_global: bool = False
) -> Tracing:
    """Tracing by the standard `OTEL_*` variables; with none set, into files under `home`.

    Args:
        instance: `service.instance.id`, e.g. the Serve replica.
        home: state directory, `$TRADEWIND_HOME` by default.
        make_global: let libraries (vLLM) find the provider by OpenTelemetry's global one.

    Raises:
        ValueError: the environment asks for a protocol that does not exist here.
    """
    resource = make_resource(service_name, instance)
    sink = _make_sink(service_name, resource, home or home_dir(), os.environ)
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(_ToSink(sink))
    if make_global:
        trace.set_tracer_provider(provider)
    return Tracing(provider, sink, resource)


def _make_sink(service_name: str, resource: Resource, home: Path, environ: Mapping[str, str]) -> SpanSink:
    target = target_of("traces", environ)
    if target == "none":
        return NullSink()
    if target == "default":
        max_queue = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 8192)
        return QueueSink(LocalFile(home / TRACES_DIR, service_name), QueueSettings(max_queue))
    protocol = protocol_of("traces", environ)
    batch = _positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512) // _SPANS_PER_REQUEST
    delay_s = _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
    max_queue = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)
    writer = OtlpSpans(lambda: span_exporter(protocol), resource)
    return QueueSink(writer, QueueSettings(max_queue, max(1, batch), delay_s))


def _positive(environ: Mapping[str, str], variable: str, default: int) -> int:
    """A positive number from the environment; the specification says to ignore what is not one."""
    text = environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) > 0 else default


def gateway_telemetry(instance: str = "", *, home: Path | None = None) -> RequestTelemetry:
    """Traces and metrics of a gateway replica, by the environment. `shutdown()` it at the end.

    Raises:
        ValueError: the environment asks for a protocol that does not exist here.
    """
    tracing = setup_tracing(names.GATEWAY_SERVICE, instance, home=home)
    metrics = GatewayMetrics(dropped=lambda: tracing.sink.dropped)
    push = _start_push(metrics, tracing.resource, os.environ)

    def shutdown() -> None:
        if push is not None:
            push.shutdown()
        tracing.shutdown()

    # Spans that go nowhere are not made, and the engine is not told to make any.
    off = isinstance(tracing.sink, NullSink)
    sampler = HeadSampler(ALWAYS_OFF if off else tracing.provider.sampler)
    return RequestTelemetry(tracing.sink, metrics, sampler, on_shutdown=shutdown)


def gateway_collector(telemetry: RequestTelemetry, instance: str = "") -> CellCollector:
    """What `start_scrape` serves for a gateway replica."""
    about = {"service_name": names.GATEWAY_SERVICE, "service_version": version()}
    return CellCollector(
        telemetry.metrics.snapshot, about | ({"service_instance_id": instance} if instance else {})
    )


def _start_push(
    metrics: GatewayMetrics, resource: Resource, environ: Mapping[str, str]
) -> MetricsPush | None:
    if target_of("metrics", environ) != "otlp":
        return None
    protocol = protocol_of("metrics", environ)
    interval_s = _positive(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000
    push = MetricsPush(metrics.snapshot, lambda: metric_exporter(protocol), resource, interval_s)
    push.start()
    return push
