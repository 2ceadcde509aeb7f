"""The chart's values file, its schema and its page say the same as the model."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.golden.chart.rendering import CASES, CHART, ROOT, values_of
from tradewind.api.cluster import ServingClusterSpec
from tradewind.schema.chart_values import ChartValues
from tradewind.schema.values import values_page, values_schema, values_schema_text

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def test_the_defaults_of_the_file_are_those_of_the_model() -> None:
    assert ChartValues.model_validate_json(json.dumps(DEFAULTS)) == ChartValues()


def test_the_file_shows_every_value() -> None:
    shown = json.loads(ChartValues().model_dump_json(by_alias=True))
    shown["cluster"]["spec"] = DEFAULTS["cluster"]["spec"]
    assert shown == DEFAULTS


@pytest.mark.parametrize("case", CASES)
def test_the_model_takes_what_the_schema_takes(case: str) -> None:
    merged = merge(DEFAULTS, values_of(case))
    jsonschema.validate(merged, values_schema())
    ChartValues.model_validate_json(json.dumps(merged))


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As Helm lays values over each other: maps by key, everything else whole; null takes a key away."""
    both = {
        key: merge(below[key], above[key])
        if isinstance(below[key], dict) and isinstance(above[key], dict)
        else above[key]
        for key in below.keys() & above.keys()
    }
    return {key: value for key, value in (below | above | both).items() if value is not None}


def test_the_schema_refuses_unknown_keys_everywhere() -> None:
    schema = values_schema()
    closed = [schema, *schema["$defs"].values()]
    open_ones = {
        node["title"]
        for node in closed
        if node.get("type") == "object" and node.get("additionalProperties") is not False
    }
    assert open_ones == {"Global"}


def test_the_spec_of_the_cluster_is_that_of_the_resource() -> None:
    fields = {field.alias for field in ServingClusterSpec.model_fields.values()}
    assert values_schema()["$defs"]["ServingClusterSpec"]["properties"].keys() == fields


def test_generated_files_are_what_the_code_says() -> None:
    assert (CHART / "values.schema.json").read_text(encoding="utf-8") == values_schema_text()
    assert (ROOT / "docs/reference/values.md").read_text(encoding="utf-8") == values_page()


def test_the_page_shows_every_value_with_its_default() -> None:
    page = values_page()
    assert "| `operator.replicas` | integer | `2` | at least 1, at most 5 |" in page
    assert '| `gateway.image.repository` | text | `"tradewind-ai/tradewind-gateway"` |' in page
    assert "`cluster.spec.pools" not in page
    assert [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
