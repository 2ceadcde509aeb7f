"""Spans and metrics of a node at a real OTLP collector, over HTTP as in a cluster."""

from __future__ import annotations

import pytest

from tests.fakes.otlp import OtlpCollector
from tests.integration import exporting
from tests.integration.node.process import Node

pytestmark = pytest.mark.engine


def test_one_trace_from_the_caller_to_vllm_and_no_content(node: Node, collector: OtlpCollector) -> None:
    with node.http() as client:
        exporting.one_trace_from_the_caller_to_vllm_and_no_content(collector, client, "tiny")


def test_metrics_arrive_too(node: Node, collector: OtlpCollector) -> None:
    assert node.ask().status_code == 200
    exporting.metrics_arrive(collector)
