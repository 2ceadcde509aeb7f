"""Spans and metrics of a platform that `tradewind up` started at a real OTLP collector, over gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.otlp import OtlpCollector, otlp_collector
from tests.fixtures import models
from tests.integration import exporting
from tests.integration.conftest import deployment
from tests.integration.platform import Platform, free_port

pytestmark = pytest.mark.engine

MODEL = "tiny-llama"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, OtlpCollector]]:
    """A platform of one tiny model that exports to a collector."""
    with otlp_collector() as collector:
        telemetry = exporting.environment(collector.grpc_endpoint, "grpc")
        platform = Platform(tmp_path_factory.mktemp("otlp"), free_port(), telemetry)
        manifest = platform.home / "one.yaml"
        manifest.write_text(deployment(MODEL, models.llama()))
        try:
            platform.start(manifest)
            yield platform, collector
        finally:
            left = platform.stop()
        assert left == []


def test_one_trace_from_the_caller_to_vllm_and_no_content(exported: tuple[Platform, OtlpCollector]) -> None:
    platform, collector = exported
    # Without a tenant nobody needs a key.
    with httpx.Client(base_url=platform.base, timeout=120) as client:
        exporting.one_trace_from_the_caller_to_vllm_and_no_content(collector, client, MODEL)


def test_metrics_arrive_too(exported: tuple[Platform, OtlpCollector]) -> None:
    _, collector = exported
    exporting.metrics_arrive(collector)
