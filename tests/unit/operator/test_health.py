"""The probes, the metrics, and the command's endings."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tradewind_operator.health import HealthServer, Probes
from tradewind_operator.main import BAD_SETTINGS, app
from tradewind_operator.measures import MEASURES, SHOWN
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.reference import operator_metrics_reference


async def test_healthz_and_readyz_say_what_is_wrong() -> None:
    dead: list[str] = []
    unready = ["not everything was listed yet"]
    server = HealthServer(Probes(lambda: dead, lambda: unready), "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
        assert (await http.get("/healthz")).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "not everything was listed yet\n")
        unready.clear()
        dead.append("the watch of tenants in ns was not answered for 151 s")
        assert (await http.get("/healthz")).status_code == 503
        assert "the watch of tenants" in (await http.get("/readyz")).text
        assert (await http.get("/metrics")).status_code == 404
    await server.stop()


async def test_the_metrics() -> None:
    metrics = OperatorMetrics()
    metrics.reconciled(0.2, None)
    metrics.reconciled(0.3, RuntimeError("tw-canary-text"))
    metrics.requested("list", "tenants", 200)
    metrics.requested("list", "tenants", 503)
    metrics.leads(True)
    metrics.watch_queue(lambda: 3)
    metrics.watch_ages(lambda: {("tenants", ""): 4.0})
    probes = Probes(list, list, metrics.registry)
    server = HealthServer(probes, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{server.port}/metrics")).text
    await server.stop()
    for line in (
        'tradewind_operator_reconcile_duration_seconds_count{result="ok"} 1.0',
        'tradewind_operator_reconcile_errors_total{error="RuntimeError"} 1.0',
        'tradewind_operator_api_requests_total{code="503",resource="tenants",verb="list"} 1.0',
        "tradewind_operator_leader 1.0",
        "tradewind_operator_queue_depth 3.0",
        'tradewind_operator_watch_age_seconds{namespace="*",resource="tenants"} 4.0',
        "process_resident_memory_bytes",
    ):
        assert line in text
    assert "canary" not in text
    assert metrics.requests() == {("list", "tenants"): 2}


def test_what_is_exported_is_in_the_table_and_on_the_page() -> None:
    metrics = OperatorMetrics()
    metrics.reconciled(0.2, RuntimeError())
    metrics.requested("list", "tenants", 200)
    metrics.release_cluster("ns", "default", applied=True)
    metrics.watch_ages(lambda: {("tenants", ""): 4.0})
    said = {"type": "Ready", "status": "True", "reason": "Ready"}
    metrics.conditions.told("ns", "default", ("Tenant", "acme"), {"conditions": [said]})
    own = [family for family in metrics.registry.collect() if not family.name.startswith("process_")]
    labels = {family.name: set(family.samples[0].labels) - {"le"} for family in own}
    assert labels == {each.name: set(each.labels) for each in MEASURES}
    assert {family.name: family.type for family in own} == {each.name: each.kind for each in MEASURES}
    page = operator_metrics_reference()
    for name in [*(each.exposed for each in MEASURES), *SHOWN]:
        assert f"`{name}`" in page


def test_a_wrong_setting_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    config = tmp_path / "operator.yaml"
    config.write_text("wrokers: 3\n")
    result = CliRunner().invoke(app, ["run", "--config", str(config)])
    assert result.exit_code == BAD_SETTINGS
    assert "wrokers: unknown field; allowed: " in result.output
    assert "Traceback" not in result.output


def test_help_and_version() -> None:
    assert "--config" in CliRunner().invoke(app, ["run", "--help"]).output
    assert CliRunner().invoke(app, ["version"]).output.startswith("tradewind-operator ")


async def test_a_port_that_is_taken_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = HealthServer(Probes(list, list), "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await server.start()
        await server.stop()
