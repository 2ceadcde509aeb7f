"""What is written from the model of the Helm chart's values: its JSON Schema and its reference page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tradewind.schema.chart_values import ChartValues
from tradewind.schema.json_schemas import SchemaGenerator
from tradewind.schema.pages import NOTE, field_rows, markdown_table


def values_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the chart's values.

    A value may be left out everywhere, for Helm lays what is given over the chart's own values before it
    looks at the schema.
    """
    schema = ChartValues.model_json_schema(by_alias=True, mode="validation", schema_generator=SchemaGenerator)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def values_schema_text() -> str:
    """The same as indented JSON text."""
    return json.dumps(values_schema(), indent=2, ensure_ascii=False) + "\n"


def values_page() -> str:
    """Every value of the chart: type, default, bounds, meaning."""
    schema, shown = values_schema(), list[tuple[str, ...]]()
    lines = [
        "# Values of the Helm chart",
        "",
        NOTE,
        "",
        "Unknown keys are refused. Ray's token authentication is always on and its dashboard never exposed:",
        "there is no value for either. `cluster.spec` is the spec of a [ServingCluster](resources.md).",
        "",
    ]
    defaults = json.loads(ChartValues().model_dump_json(by_alias=True))
    for row in field_rows(schema, schema, ""):
        if not row[0].startswith("`cluster.spec."):
            shown.append((*row[:2], _default(row, defaults), *row[3:]))
    lines += markdown_table(("Value", "Type", "Default", "Allowed", "Meaning"), shown)
    return "\n".join(lines) + "\n"


def _default(row: tuple[str, ...], defaults: Mapping[str, Any]) -> str:
    """The chart's own default at the row's path: a field's schema does not know where it stands."""
    value: Any = defaults
    for part in row[0].strip("`").split("."):
        if not isinstance(value, dict) or part not in value:
            return row[2]
        value = value[part]
    return "" if row[1] == "object" else f"`{json.dumps(value)}`"
