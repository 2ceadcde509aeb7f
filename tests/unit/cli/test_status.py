from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from rich.table import Table

from tests.fakes.serve_api import FakeServeApi, State
from tests.unit.cli.running import alive, platform, run
from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.cli import manifests
from tradewind.cli.status import adapters_table, failed_adapters, not_taken, routes_table
from tradewind.cli.traffic import Traffic, read_traffic, scrape
from tradewind.compiler.compile import Compiled
from tradewind.serve.local import free_port
from tradewind.telemetry.metrics import GatewayMetrics
from tradewind.telemetry.prometheus import CellCollector, start_scrape

INF = float("inf")


@pytest.fixture
def compiled(tmp_path: Path, home: Path, serve_api: FakeServeApi) -> Compiled:
    """A platform that `tradewind status` finds, with no traffic and no metrics page."""
    made = manifests.load([platform(tmp_path)])
    serve_api.config = made.serve_config
    alive(home, serve_api.url, made)
    return made


def collector(requests: int) -> CellCollector:
    """A gateway's own, after some streamed requests to `chat`/`control`, 10 ms to the first chunk."""
    clock = Clock()
    metrics = GatewayMetrics(clock)
    made = telemetry(clock, metrics=metrics)
    for _ in range(requests):
        request(made, clock)
    return CellCollector(metrics.snapshot)


def page(requests: int) -> str:
    registry = CollectorRegistry()
    registry.register(collector(requests))
    return generate_latest(registry).decode()


def lines(table: Table, width: int = 80) -> list[list[str]]:
    screen = io.StringIO()
    Console(file=screen, width=width, _environ={}).print(table)
    return [line.split() for line in screen.getvalue().splitlines() if line.strip()]


TOLD = {
    "deployments": {
        "llama": {
            "ready": 2,
            "adapters": {
                "tone": {"ready": 2, "loading": 0, "failed": 0, "message": ""},
                "slow": {"ready": 1, "loading": 1, "failed": 0, "message": "fetching hf://a/b"},
                "large": {"ready": 0, "loading": 0, "failed": 2, "message": "its rank is 64"},
            },
        },
        "mistral": {"ready": 1},
    }
}


def test_each_adapter_has_its_line_and_says_what_it_waits_for_or_why_it_failed() -> None:
    table = adapters_table(TOLD)
    assert table is not None
    assert lines(table, 100)[2:] == [
        ["llama:tone", "2/2", "ready"],
        ["llama:slow", "1/2", "loading", "fetching", "hf://a/b"],
        ["llama:large", "0/2", "failed", "its", "rank", "is", "64"],
    ]
    assert failed_adapters(TOLD) == ["llama:large (its rank is 64)"]


@pytest.mark.parametrize("told", [{}, {"deployments": {"mistral": {"ready": 1}}}])
def test_without_adapters_there_is_no_table_of_them(told: dict[str, object]) -> None:
    assert adapters_table(told) is None
    assert failed_adapters(told) == []


def test_what_the_gateway_does_not_take_is_named_with_its_reason() -> None:
    left = {"kind": "route", "name": "chat", "why": "assign_by: 'x'", "kept": True}
    told = {"configuration": {"refused": {"revision": "r2", "why": "no key"}, "left_out": [left]}}
    assert not_taken(told) == ["configuration r2 (no key)", "route chat (assign_by: 'x')"]
    for silent in ({}, {"configuration": {"refused": None, "left_out": []}}):
        assert not_taken(silent) == []


def test_without_a_platform_it_fails_and_says_where_it_looked(home: Path) -> None:
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no platform is running (state directory {home})")
    other = home.parent / "other"
    assert f"(state directory {other})" in run("--home", str(other), "status").stderr


def test_a_platform_whose_ray_is_gone_is_said_in_a_line(compiled: Compiled, home: Path) -> None:
    alive(home, "http://127.0.0.1:1", compiled)
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Ray's API cannot be reached")


def test_a_platform_that_begins_shows_no_gateway_yet(compiled: Compiled, serve_api: FakeServeApi) -> None:
    serve_api.config = None
    result = run("status")
    assert result.exit_code == 1
    assert "Ray's API shows no gateway" in result.stderr


def test_a_state_directory_with_a_broken_token_is_a_line(compiled: Compiled, home: Path) -> None:
    (home / "ray-token").write_bytes(b"\xff\xff")
    result = run("status")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        1, f"error: {home}/ray-token cannot be read",
    )  # fmt: skip


def test_zero_traffic_is_shown_as_such(compiled: Compiled) -> None:
    result = run("status")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["llama", "llama", "1/1", "ready"] in rows
    assert ["chat", "control", "80%", "–", "0", "0", "–", "–", "0.0"] in rows
    assert ["chat", "candidate", "20%", "–", "0", "0", "–", "–", "0.0"] in rows
    assert "The numbers of 1 of 1 gateways are missing." in result.stderr


def test_the_numbers_of_several_gateways_are_added_up(
    compiled: Compiled, home: Path, serve_api: FakeServeApi
) -> None:
    serve_api.states["gateway"] = State(wanted=2, running=2)
    with contextlib.ExitStack() as stack:
        first = 42000
        for _ in range(50):
            first = free_port(first)
            if free_port(first + 1) == first + 1:
                break
            first += 1
        for number, requests in enumerate((3, 5)):
            stack.callback(start_scrape(first + number, [collector(requests)]).stop)
        alive(home, serve_api.url, compiled, metrics_url=f"http://127.0.0.1:{first}")
        assert len(scrape(f"http://127.0.0.1:{first}", 3)) == 2
        result = run("status")
    assert (result.exit_code, result.stderr) == (0, "")
    (row,) = [line.split() for line in result.stdout.splitlines() if "control" in line]
    assert row[:6] == ["chat", "control", "80%", "100%", "8", "0"]
    assert row[7] == "ms"


def test_what_is_not_ready_is_named_with_its_reason(compiled: Compiled, serve_api: FakeServeApi) -> None:
    serve_api.states["llama"] = State("DEPLOY_FAILED", "tradewind-reason: bad [/] argument [Errno 2]", 1, 0)
    serve_api.extra["old"] = State("DELETING")
    result = run("status")
    assert result.exit_code == 1
    assert "error: not ready: llama (bad [/] argument [Errno 2])" in result.stderr.splitlines()
    assert "cannot start" in result.stdout


def test_a_model_that_serve_does_not_hold_is_not_ready(compiled: Compiled, serve_api: FakeServeApi) -> None:
    assert serve_api.config is not None
    serve_api.config["applications"] = serve_api.config["applications"][:2]
    result = run("status")
    assert result.exit_code == 1
    assert "mistral (not deployed)" in result.stderr


def test_in_a_narrow_terminal_what_does_not_fit_is_folded_and_nothing_cut(compiled: Compiled) -> None:
    table = routes_table(compiled.gateway, read_traffic([page(4)]))
    assert all(len(line) <= 80 for line in map(" ".join, lines(table)))
    assert "control" in [word for line in lines(table) for word in line]
    narrow = [word for line in lines(table, 50) for word in line]
    assert "…" not in "".join(narrow)
    assert "chat" in narrow


def test_direct_calls_and_fallbacks_have_rows_of_their_own(compiled: Compiled) -> None:
    traffic = {
        ("chat", "control"): Traffic(requests=1),
        ("chat", "mistral"): Traffic(requests=3),
        ("llama", "llama"): Traffic(requests=2),
        ("other", "other"): Traffic(requests=9),
        ("mistral", "mistral"): Traffic(),
    }
    rows = lines(routes_table(compiled.gateway, traffic))
    assert ["chat", "mistral", "fallback", "–", "3", "0", "–", "–", "0.0"] in rows
    assert ["llama", "llama", "direct", "–", "2", "0", "–", "–", "0.0"] in rows
    assert not any("other" in row or row[:2] == ["mistral", "mistral"] for row in rows)
    assert ["chat", "control", "80%", "25%", "1", "0", "–", "–", "0.0"] in rows


def test_a_page_that_is_no_metrics_is_left_out() -> None:
    assert read_traffic(["<html>", "a{b 1\n"]) == {}
    assert read_traffic(["<html>{", page(2)])[("chat", "control")].requests == 2


def test_errors_are_the_platforms_own() -> None:
    head = "# TYPE tradewind_requests counter\n"
    outcomes = {"ok": 10, "client_error": 5, "cancelled": 4, "timeout": 2, "upstream_error": 1, "rejected": 3}
    labels = 'tradewind_route="r",tradewind_variant="v"'
    body = "".join(
        f'tradewind_requests_total{{{labels},tradewind_outcome="{name}"}} {n}\n'
        for name, n in outcomes.items()
    )
    traffic = read_traffic([head + body])[("r", "v")]
    assert (traffic.requests, traffic.errors) == (25, 6)


@pytest.mark.parametrize(
    ("buckets", "quantile", "seconds"),
    [
        ({}, 0.5, None),
        ({0.1: 0, INF: 0}, 0.5, None),
        ({0.1: 0, 0.2: 10, INF: 10}, 0.5, 0.15),
        ({0.1: 0, 0.2: 10, INF: 10}, 1.0, 0.2),
        ({0.1: 0, 0.2: 10, INF: 10}, 0.0, 0.1),
        ({0.1: 4, 0.2: 8, INF: 8}, 0.25, 0.05),
        ({0.1: 1, 0.2: 1, INF: 10}, 0.95, 0.2),
        ({0.1: 1, 0.2: 1, 0.4: 2, INF: 2}, 0.75, 0.3),
    ],
)
def test_quantiles_are_interpolated(
    buckets: dict[float, float], quantile: float, seconds: float | None
) -> None:
    found = Traffic(buckets=buckets).ttft_s(quantile)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_the_quantile_of_a_real_page_lies_in_the_real_bucket() -> None:
    seen = read_traffic([page(3), page(4)])[("chat", "control")]
    assert seen.requests == 7
    assert seen.ttft_s(0.5) == pytest.approx(0.010, abs=0.01)
    assert seen.tokens_per_s > 0
