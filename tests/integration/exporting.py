"""What must arrive at an OTLP collector of a whole platform, over whichever protocol."""

from __future__ import annotations

import secrets

import httpx

from tests.fakes.otlp import OtlpCollector, ReceivedSpan, metrics_of
from tests.integration.platform import wait_for

CANARY = "xyzzy-canary-9c1e"
METRICS = {"gen_ai.server.request.duration", "tradewind.requests"}
CHAIN = ["POST /v1/chat/completions", "upstream", "engine", "llm_request"]
STEPS = ["auth", "route", "admission", "pick"]
"""Below the first of the chain."""


def environment(endpoint: str, protocol: str) -> dict[str, str]:
    """With which every process exports there, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


def one_trace_from_the_caller_to_vllm_and_no_content(
    collector: OtlpCollector, client: httpx.Client, model: str
) -> None:
    """Asserts it of a request of its own to `model`, a ModelDeployment."""
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    answer = client.post(
        "/v1/chat/completions",
        headers={"traceparent": f"00-{trace_id}-{caller}-01"},
        json={
            "model": model,
            "messages": [{"role": "user", "content": CANARY}],
            "max_tokens": 3,
            "ignore_eos": True,
        },
    )
    assert answer.status_code == 200, answer.text

    def mine() -> dict[str, ReceivedSpan]:
        return {span.name: span for span in collector.spans() if span.trace_id == trace_id}

    wait_for(lambda: {*CHAIN, *STEPS} <= mine().keys(), "every span", 15)
    spans = mine()
    parent = caller
    for name in CHAIN:
        assert spans[name].parent_id == parent, name
        parent = spans[name].span_id
    for name in STEPS:
        assert spans[name].parent_id == spans[CHAIN[0]].span_id, name
    attributes = spans[CHAIN[0]].attributes
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == model
    assert attributes["gen_ai.response.model"] == model
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["tradewind.route"] == model
    assert CANARY.encode() not in collector.raw()


def metrics_arrive(collector: OtlpCollector) -> None:
    """Asserts it, once a request was answered: one gateway of several sends all of them."""
    collector.wait_for(lambda it: any(metrics_of(each).keys() >= METRICS for each in it.metrics), 10)
