from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.telemetry.prometheus import CellCollector, ScrapeServer, start_scrape
from tradewind.telemetry.requests import RequestTelemetry


@pytest.fixture
def served() -> Iterator[tuple[RequestTelemetry, ScrapeServer]]:
    clock = Clock()
    made = telemetry(clock)
    request(made, clock)
    made.metrics.set_engine_load("llama", 3, 4, 0.25)
    server = start_scrape(0, [CellCollector(made.metrics.snapshot, {"service.name": "tradewind-gateway"})])
    yield made, server
    server.stop()


def ask(
    server: ScrapeServer, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers.get("Content-Type", ""), body


def test_scrape_parses_and_holds_the_numbers(served: tuple[RequestTelemetry, ScrapeServer]) -> None:
    status, content_type, body = ask(served[1], "GET", "/metrics")
    assert (status, content_type.startswith("text/plain")) == (200, True)
    families = {family.name: family for family in text_string_to_metric_families(body)}
    path = {
        "gen_ai_operation_name": "chat",
        "tradewind_route": "chat",
        "tradewind_variant": "control",
    }
    ttft = families["gen_ai_server_time_to_first_token_seconds"]
    assert ttft.type == "histogram"
    buckets = {
        sample.labels["le"]: sample.value for sample in ttft.samples if sample.name.endswith("_bucket")
    }
    assert (buckets["0.005"], buckets["0.01"], buckets["+Inf"]) == (0, 1, 1)
    (requests,) = [
        sample for sample in families["tradewind_requests"].samples if sample.name.endswith("_total")
    ]
    assert requests.labels == {**path, "tradewind_outcome": "ok", "tradewind_code": ""}
    assert requests.value == 1
    assert families["tradewind_engine_kv_cache_use"].samples[0].value == 0.25
    assert families["target_info"].samples[0].labels == {"service_name": "tradewind-gateway"}


def test_openmetrics_is_served_to_those_who_ask(served: tuple[RequestTelemetry, ScrapeServer]) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, content_type, body = ask(served[1], "GET", "/metrics", accept)
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../x", 404),
        ("POST", "/metrics", 501),
        ("DELETE", "/metrics", 501),
    ],
)
def test_nothing_else_is_served(
    served: tuple[RequestTelemetry, ScrapeServer], method: str, path: str, status: int
) -> None:
    assert ask(served[1], method, path)[0] == status


def test_idle_connections_cannot_hold_the_server_up(served: tuple[RequestTelemetry, ScrapeServer]) -> None:
    server = served[1]
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(8)]
    extra = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    assert extra.recv(1) == b"", "the ninth is turned away at once"
    for connection in [*idle, extra]:
        connection.close()


def test_only_loopback_is_listened_on_by_default(served: tuple[RequestTelemetry, ScrapeServer]) -> None:
    assert served[1].server_address[0] == "127.0.0.1"


def test_taken_port_is_an_error(served: tuple[RequestTelemetry, ScrapeServer]) -> None:
    with pytest.raises(OSError, match="in use"):
        start_scrape(served[1].port, [])
