from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.otlp import OtlpCollector, otlp_collector, plain
from tests.unit.telemetry.builders import CANARY, START, Clock, answered, configure
from tests.unit.telemetry.test_tree import engine_spans
from tradewind.telemetry import names
from tradewind.telemetry.localfile import LocalFile
from tradewind.telemetry.otlp import metric_exporter, protocol_of, target_of
from tradewind.telemetry.push import MetricsPush
from tradewind.telemetry.reference import exposed_name
from tradewind.telemetry.scrub import scrub
from tradewind.telemetry.setup import (
    gateway_collector,
    gateway_telemetry,
    make_resource,
    setup_tracing,
)
from tradewind.telemetry.sink import NullSink

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "PROTOCOL", "COMPRESSION"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as running:
        yield running


@pytest.fixture(params=["grpc", "http/protobuf"])
def configured(
    request: pytest.FixtureRequest, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The environment names the collector, by one protocol and then the other."""
    grpc = request.param == "grpc"
    endpoint = collector.grpc_endpoint if grpc else collector.http_endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    return str(request.param)


def test_caller_gateway_engine_and_vllm_are_one_chain(
    configured: str, collector: OtlpCollector, tmp_path: Path
) -> None:
    gateway = gateway_telemetry("gw-1", home=tmp_path)
    configure(gateway, {"chat": {"control"}}, {"llama"}, {"acme"})
    clock = Clock()
    record = answered(gateway.start("/v1/chat/completions", "chat", CALLER, b"vendor=1"), clock)
    engine = setup_tracing(names.ENGINE_SERVICE, "en-1", home=tmp_path)
    engine_spans(engine.provider, gateway.traceparent(record).decode(), record.upstream_started_ns)
    gateway.finish(record)
    engine.shutdown()
    gateway.shutdown()

    assert len(collector.spans()) == 8
    assert {span.trace_id for span in collector.spans()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    server, upstream = collector.span("POST /v1/chat/completions"), collector.span("upstream")
    chain = [server, upstream, collector.span("engine"), collector.span("llm_request")]
    assert server.parent_id == "00f067aa0ba902b7"
    assert [span.parent_id for span in chain[1:]] == [span.span_id for span in chain[:-1]]
    for name in ("auth", "route", "admission", "pick"):
        assert collector.span(name).parent_id == server.span_id
    assert server.span.trace_state == "vendor=1"
    assert server.attributes[names.FINISH_REASONS] == ["stop"]
    assert server.attributes[names.REQUEST_ID] == record.request_id
    assert server.resource["service.name"] == names.GATEWAY_SERVICE
    assert server.resource["service.instance.id"] == "gw-1"
    assert chain[3].resource["service.name"] == names.ENGINE_SERVICE
    assert not (tmp_path / "traces").exists()
    if configured != "grpc":
        assert set(collector.http_encodings) == {"gzip"}


def test_metrics_are_the_same_by_otlp_and_by_scrape(
    configured: str, collector: OtlpCollector, tmp_path: Path
) -> None:
    gateway = gateway_telemetry(home=tmp_path)
    configure(gateway, {"chat": {"control"}}, {"llama"}, {"acme"})
    clock = Clock()
    for _ in range(3):
        gateway.finish(answered(gateway.start("/v1/chat/completions", "chat", None, None), clock))
    gateway.metrics.set_engine_load("llama", 3, 4, 0.25)
    gateway.metrics.set_replicas("llama", 1, 0)
    registry = CollectorRegistry()
    registry.register(gateway_collector(gateway, "gw-1"))
    gateway.shutdown()  # the last export
    text = generate_latest(registry).decode()
    scraped = {
        (sample.name, frozenset(item for item in sample.labels.items() if item[1])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    sent = collector.last_metrics()
    assert set(sent) == {spec.name for spec in names.METRICS} - {
        names.QUEUE_DURATION.name, names.COLD_START_DURATION.name, names.RETRIES.name, names.FALLBACKS.name,
        names.DISCONNECTS.name, names.CONFIG_AGE.name, names.CONFIG_REFUSED.name, names.CONFIG_LEFT_OUT.name,
        names.DISCOVERY_AGE.name, names.TASKS.name,
    }  # fmt: skip
    for spec in names.METRICS:
        metric = sent.get(spec.name)
        if metric is None or spec is names.OUTPUT_TOKEN_RATE:  # the rate depends on the moment
            continue
        assert metric.unit == spec.unit
        kind = metric.WhichOneof("data")
        assert (
            kind == {"counter": "sum", "updown": "sum", "gauge": "gauge", "histogram": "histogram"}[spec.kind]
        )
        if kind != "gauge":
            assert getattr(metric, kind).aggregation_temporality == (
                AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            )
        for point in getattr(metric, kind).data_points:
            labels = frozenset(
                (name.replace(".", "_"), value) for name, value in plain(point.attributes).items()
            )
            name = exposed_name(spec)
            if kind == "histogram":
                assert point.count == scraped[name + "_count", labels] > 0
                assert point.sum == pytest.approx(scraped[name + "_sum", labels])
                assert tuple(point.explicit_bounds) == spec.bounds
                running = 0
                for bound, count in zip(spec.bounds, point.bucket_counts, strict=False):
                    running += count
                    assert scraped[name + "_bucket", labels | {("le", str(bound))}] == running
            else:
                value = point.as_double if point.WhichOneof("value") == "as_double" else point.as_int
                assert value == scraped[name, labels]


def test_push_repeats_until_stopped(configured: str, collector: OtlpCollector) -> None:
    push = MetricsPush(
        list, lambda: metric_exporter(configured), make_resource("svc", ""), 0.01, lambda: START
    )
    push.start()
    collector.wait_for(lambda got: len(got.metrics) >= 2)
    push.shutdown()


def test_collector_that_is_away_costs_spans_that_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    gateway = gateway_telemetry(home=tmp_path)
    gateway.finish(answered(gateway.start("/v1/chat/completions", "chat", None, None), Clock()))
    gateway.flush()
    (dropped,) = [family for family in gateway.metrics.snapshot() if family.spec is names.DROPPED]
    assert dropped.series[0].value == 1
    gateway.shutdown()


def test_other_libraries_spans_lose_their_content(
    configured: str, collector: OtlpCollector, tmp_path: Path
) -> None:
    tracing = setup_tracing(names.ENGINE_SERVICE, home=tmp_path)
    tracer = tracing.provider.get_tracer("library")
    attributes = {"gen_ai.prompt.0.content": CANARY, "gen_ai.usage.prompt_tokens": 3}
    with pytest.raises(RuntimeError), tracer.start_as_current_span("engine", attributes=attributes):
        raise RuntimeError(CANARY)
    tracing.shutdown()
    assert CANARY.encode() not in collector.raw()
    received = collector.span("engine")
    assert received.attributes == {"gen_ai.usage.prompt_tokens": 3}
    assert received.span.status.code == StatusCode.ERROR.value
    assert [plain(event.attributes)["exception.type"] for event in received.span.events] == ["RuntimeError"]


def test_span_without_content_is_not_copied() -> None:
    span = ReadableSpan("engine", attributes={"gen_ai.usage.prompt_tokens": 3})
    assert scrub(span) is span


def test_local_file_is_the_default_and_holds_no_content(tmp_path: Path) -> None:
    tracing = setup_tracing("svc", home=tmp_path)
    with pytest.raises(RuntimeError), tracing.provider.get_tracer("t").start_as_current_span("work"):
        raise RuntimeError(CANARY)
    tracing.shutdown()
    content = LocalFile(tmp_path / "traces", "svc").path.read_bytes()
    assert b'"work"' in content
    assert CANARY.encode() not in content


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({}, "default"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, "default"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "none"),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "none"),
    ],
)
def test_target_of_traces(environ: dict[str, str], target: str) -> None:
    assert target_of("traces", environ) == target


def test_unknown_protocol_is_an_error_that_says_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL=http/json .* grpc, http/protobuf"):
        protocol_of("traces", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert protocol_of("traces", {}) == "grpc"
    named = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert protocol_of("traces", named) == "http/protobuf"


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_tracing_that_is_off_makes_no_spans_and_tells_the_engine(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(*variable)
    gateway = gateway_telemetry(home=tmp_path)
    record = gateway.start("/v1/chat/completions", "chat", CALLER, None)
    assert isinstance(gateway.spans, NullSink)
    assert gateway.traceparent(record).endswith(b"-00")
    gateway.finish(record)
    gateway.shutdown()
    assert not (tmp_path / "traces").exists()


def test_sampler_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    gateway = gateway_telemetry(home=tmp_path)
    assert not gateway.start("/v1/chat/completions", "chat", None, None).sampled
    assert gateway.start("/v1/chat/completions", "chat", CALLER, None).sampled
    gateway.shutdown()
