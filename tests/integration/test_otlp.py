"""Spans and metrics of a whole platform at a real OTLP collector, over both protocols."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.fakes.otlp import OtlpCollector, ReceivedSpan, otlp_collector
from tests.fixtures import models
from tests.integration.conftest import deployment
from tests.integration.platform import Platform, free_port, wait_for

pytestmark = pytest.mark.engine

CANARY = "xyzzy-canary-9c1e"
DURATION = "gen_ai.server.request.duration"
CHAIN = ["POST /v1/chat/completions", "upstream", "engine", "llm_request"]


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def exporting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Platform, OtlpCollector]]:
    """A platform of one tiny model that exports to a collector."""
    with otlp_collector() as collector:
        endpoint = collector.grpc_endpoint if request.param == "grpc" else collector.http_endpoint
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": request.param,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        platform = Platform(tmp_path_factory.mktemp("otlp"), free_port(), environment)
        manifest = platform.home / "one.yaml"
        manifest.write_text(deployment("tiny-llama", models.llama()))
        try:
            platform.start(manifest)
            yield platform, collector
        finally:
            left = platform.stop()
        assert left == []


def test_one_trace_from_the_caller_to_vllm_and_no_content(exporting: tuple[Platform, OtlpCollector]) -> None:
    platform, collector = exporting
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    with platform.http("") as client:
        del client.headers["authorization"]
        answer = client.post(
            "/v1/chat/completions",
            headers={"traceparent": f"00-{trace_id}-{caller}-01"},
            json={
                "model": "tiny-llama",
                "messages": [{"role": "user", "content": CANARY}],
                "max_tokens": 3,
                "ignore_eos": True,
            },
        )
    assert answer.status_code == 200, answer.text

    def mine() -> dict[str, ReceivedSpan]:
        return {span.name: span for span in collector.spans() if span.trace_id == trace_id}

    wait_for(lambda: {*CHAIN, "auth", "route", "admission", "pick"} <= mine().keys(), "every span", 15)
    spans = mine()
    parent = caller
    for name in CHAIN:
        assert spans[name].parent_id == parent, name
        parent = spans[name].span_id
    for name in ("auth", "route", "admission", "pick"):
        assert spans[name].parent_id == spans[CHAIN[0]].span_id, name
    attributes = spans[CHAIN[0]].attributes
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "tiny-llama"
    assert attributes["gen_ai.response.model"] == "tiny-llama"
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["tradewind.route"] == "tiny-llama"
    assert CANARY.encode() not in collector.raw()


def test_metrics_arrive_too(exporting: tuple[Platform, OtlpCollector]) -> None:
    _, collector = exporting
    collector.wait_for(lambda it: bool(it.metrics) and DURATION in it.last_metrics(), 10)
    assert "tradewind.requests" in collector.last_metrics()
