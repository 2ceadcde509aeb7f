"""JSON Schemas of the custom resources, for editors and for checks outside Tradewind."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tradewind.api.resources import KINDS
from tradewind.api.values import Duration, Quantity


class SchemaGenerator(GenerateJsonSchema):
    """Shows the default of a duration or quantity as it is written."""

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Duration | Quantity) else super().encode_default(dft)


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one kind, field names as in YAML.

    Raises:
        KeyError: there is no such kind.
    """
    schema = KINDS[kind].model_json_schema(by_alias=True, mode="validation", schema_generator=SchemaGenerator)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://tradewind.dev/schema/v1alpha1/{kind.lower()}.json",
        **schema,
    }


def json_schema_text(kind: str) -> str:
    """The same as indented JSON text."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
