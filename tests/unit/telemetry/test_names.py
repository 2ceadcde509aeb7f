from __future__ import annotations

import re

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes

from tradewind.api.problems import Code
from tradewind.telemetry import names
from tradewind.telemetry.outcome import Outcome, code_label, outcome_of
from tradewind.telemetry.reference import exposed_name, metrics_reference


@pytest.mark.parametrize(
    ("ours", "conventions"),
    [
        (names.OPERATION, gen_ai.GEN_AI_OPERATION_NAME),
        (names.PROVIDER_NAME, gen_ai.GEN_AI_PROVIDER_NAME),
        (names.REQUEST_MODEL, gen_ai.GEN_AI_REQUEST_MODEL),
        (names.REQUEST_STREAM, gen_ai.GEN_AI_REQUEST_STREAM),
        (names.RESPONSE_MODEL, gen_ai.GEN_AI_RESPONSE_MODEL),
        (names.FINISH_REASONS, gen_ai.GEN_AI_RESPONSE_FINISH_REASONS),
        (names.TIME_TO_FIRST_CHUNK, gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
        (names.INPUT_TOKENS, gen_ai.GEN_AI_USAGE_INPUT_TOKENS),
        (names.OUTPUT_TOKENS, gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS),
        (names.TOKEN_TYPE, gen_ai.GEN_AI_TOKEN_TYPE),
        (names.ERROR_TYPE, error_attributes.ERROR_TYPE),
        (names.HTTP_METHOD, http_attributes.HTTP_REQUEST_METHOD),
        (names.HTTP_ROUTE, http_attributes.HTTP_ROUTE),
        (names.HTTP_STATUS, http_attributes.HTTP_RESPONSE_STATUS_CODE),
        (names.SERVER_ADDRESS, server_attributes.SERVER_ADDRESS),
        (names.SERVER_PORT, server_attributes.SERVER_PORT),
        (names.TIME_TO_FIRST_TOKEN.name, gen_ai_metrics.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN),
        (names.REQUEST_DURATION.name, gen_ai_metrics.GEN_AI_SERVER_REQUEST_DURATION),
        (names.TIME_PER_OUTPUT_TOKEN.name, gen_ai_metrics.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN),
        (names.TOKEN_USAGE.name, gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE),
    ],
)
def test_names_are_those_of_the_conventions(ours: str, conventions: str) -> None:
    assert ours == conventions


def test_every_metric_maps_to_a_prometheus_name() -> None:
    exposed = [exposed_name(spec) for spec in names.METRICS]
    assert len(set(exposed)) == len(exposed)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in exposed)
    assert exposed_name(names.TIME_TO_FIRST_TOKEN) == "gen_ai_server_time_to_first_token_seconds"
    assert exposed_name(names.REQUESTS) == "tradewind_requests_total"
    assert exposed_name(names.OUTPUT_TOKEN_RATE) == "tradewind_output_tokens_rate_per_second"
    assert exposed_name(names.KV_CACHE_USE) == "tradewind_engine_kv_cache_use"


def test_bounds_grow() -> None:
    for spec in names.METRICS:
        assert list(spec.bounds) == sorted(set(spec.bounds))
        assert bool(spec.bounds) == (spec.kind == "histogram")


def test_reference_names_every_metric_attribute_and_outcome() -> None:
    page = metrics_reference()
    for name in [*(spec.name for spec in names.METRICS), *names.ATTRIBUTES, *Outcome]:
        assert f"`{name}`" in page


def test_every_error_code_has_an_outcome_that_fits_its_status() -> None:
    for code in Code:
        outcome = outcome_of(code.value.status, code.wire)
        assert outcome is not Outcome.OK
        assert code_label(code.wire) == code.wire
        assert outcome_of(code.value.status, "") is outcome, code


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "", Outcome.OK),
        (200, "upstream_error", Outcome.UPSTREAM_ERROR),
        (200, "cancelled", Outcome.CANCELLED),
        (499, "", Outcome.CANCELLED),
        (200, "never_heard_of", Outcome.INTERNAL),
        (418, "", Outcome.CLIENT_ERROR),
        (0, "", Outcome.INTERNAL),
    ],
)
def test_outcome_of_odd_ends(status: int, code: str, outcome: Outcome) -> None:
    assert outcome_of(status, code) is outcome
