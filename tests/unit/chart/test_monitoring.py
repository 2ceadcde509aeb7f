"""Dashboards and alerts name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.golden.chart.rendering import CHART, manifests, values_of
from tradewind.telemetry.names import METRICS, prometheus_label

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:tradewind|gen_ai)_[a-z_]+\b")
SUFFIXES = {
    "histogram": ("_bucket", "_sum", "_count"),
    "counter": ("_total",),
    "gauge": ("",),
    "updown": ("",),
}


def gateway_names() -> set[str]:
    return {spec.prometheus_name + suffix for spec in METRICS for suffix in SUFFIXES[spec.kind]}


def operator_names() -> set[str]:
    measures = pytest.importorskip("tradewind_operator.measures").MEASURES
    return {each.name + suffix for each in measures for suffix in SUFFIXES[each.kind]}


def labels() -> set[str]:
    return {prometheus_label(label) for spec in METRICS for label in spec.labels}


def expressions(dashboard: Path) -> list[str]:
    content = json.loads(dashboard.read_text(encoding="utf-8"))
    queries = [v["query"]["query"] for v in content["templating"]["list"] if isinstance(v["query"], dict)]
    return queries + [target["expr"] for panel in content["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_that_exist(dashboard: Path) -> None:
    known = gateway_names() | operator_names() | labels()
    for expression in expressions(dashboard):
        assert set(NAME.findall(expression)) <= known
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_names_of_their_own_and_do_not_overlap(dashboard: Path) -> None:
    panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        box = panel["gridPos"]
        cells = {
            (x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])
        }
        assert box["x"] + box["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_what_the_product_promises_is_on_the_dashboard() -> None:
    asked = " ".join(expressions(CHART / "dashboards" / "serving.json"))
    for name in (
        "tradewind_requests_total",
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "tradewind_inter_token_latency_seconds_bucket",
        "tradewind_output_tokens_rate_per_second",
        "tradewind_replicas",
    ):
        assert name in asked
    assert "by (tradewind_route, tradewind_variant" in asked


def test_every_condition_that_is_not_well_is_on_the_operators_dashboard() -> None:
    (asked,) = [
        each for each in expressions(CHART / "dashboards" / "operator.json") if "operator_condition" in each
    ]
    # ClusterUpgrade is the only one that is well while it is False.
    assert 'condition!="ClusterUpgrade", status!="True"' in asked
    assert 'condition="ClusterUpgrade", status="True"' in asked
    assert "count by (kind, condition, reason)" in asked


def test_alerts_ask_for_metrics_that_exist_and_say_what_to_do() -> None:
    (rules,) = [manifest for manifest in manifests(values_of("all")) if manifest["kind"] == "PrometheusRule"]
    known = gateway_names() | operator_names() | labels()
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) == 22
    for rule in alerts:
        assert set(NAME.findall(rule["expr"])) <= known
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_one_serving_cluster_can_be_looked_at_alone() -> None:
    content = json.loads((CHART / "dashboards" / "serving.json").read_text(encoding="utf-8"))
    assert [v["name"] for v in content["templating"]["list"]][:3] == ["datasource", "namespace", "cluster"]
    for expression in (t["expr"] for panel in content["panels"] for t in panel.get("targets", ())):
        # As often as a metric is named: a selector that was forgotten would add up all of them.
        assert (
            expression.count('serving_cluster=~"$cluster"') == expression.count('namespace=~"$namespace"') > 0
        )
    for pods in pod_monitors().values():
        (relabeling,) = pods["podMetricsEndpoints"][0]["relabelings"]
        assert relabeling["targetLabel"] == "serving_cluster"


def pod_monitors() -> dict[str, Any]:
    """Their specifications, by the role of the pods."""
    found = [m["spec"] for m in manifests(values_of("all")) if m["kind"] == "PodMonitor"]
    return {spec["selector"]["matchLabels"]["tradewind.dev/role"]: spec for spec in found}


def test_pod_monitors_select_pods_that_the_operator_makes_by_ports_that_these_have() -> None:
    groups = pytest.importorskip("tradewind_operator.desired.groups")
    worlds = pytest.importorskip("tests.unit.operator.desired.worlds")
    monitors = pod_monitors()
    assert set(monitors) == {"gateway", "engine"}
    world = worlds.world()
    for group in (groups.gateway_group(world), *groups.pool_groups(world)):
        template = group["template"]
        found = template["metadata"]["labels"]
        monitor = monitors[found["tradewind.dev/role"]]
        assert found.items() >= monitor["selector"]["matchLabels"].items()
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports


def test_dashboards_carry_the_labels_of_the_values() -> None:
    found = [
        manifest
        for manifest in manifests(values_of("all"))
        if manifest["kind"] == "ConfigMap" and "dashboard" in manifest["metadata"]["name"]
    ]
    assert len(found) == len(DASHBOARDS)
    for manifest in found:
        assert manifest["metadata"]["labels"]["dashboards"] == "yes"
        assert manifest["metadata"]["annotations"] == {"grafana_folder": "Models"}
        assert all(json.loads(text)["panels"] for text in manifest["data"].values())
