"""One node for this folder. The last test of its last file, `test_output`, ends it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.otlp import OtlpCollector, otlp_collector
from tests.integration import exporting
from tests.integration.node.process import Node, start


@pytest.fixture(scope="session")
def collector() -> Iterator[OtlpCollector]:
    """To which the node exports."""
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def node(collector: OtlpCollector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Serves what the operator gives it."""
    telemetry = exporting.environment(collector.http_endpoint, "http/protobuf")
    # A socket's path has at most 107 bytes, and Ray's are long.
    with tempfile.TemporaryDirectory(prefix="tw-node-") as home:
        node = start(Path(home), tmp_path_factory.mktemp("node") / "output", telemetry)
        try:
            node.wait_until_ready()
            yield node
        finally:
            node.end()
