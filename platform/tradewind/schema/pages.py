"""Reference pages that are written from the code: resources, error codes, engine arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tradewind.api.problems import Code
from tradewind.api.resources import KINDS
from tradewind.api.status import STATUSES
from tradewind.api.values import PATTERN_MEANING, camel
from tradewind.compiler.arguments import argument_table, supported_vllm
from tradewind.compiler.owned_arguments import ONLY_KEYS, OWNED
from tradewind.schema.crds import kubectl_line
from tradewind.schema.json_schemas import json_schema

NOTE: Final = "<!-- Written by `python -m tradewind.schema write`; do not edit. -->"
_BOUNDS: Final = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("maxProperties", "at most {} entries"),
    ("x-tradewind-bounds", "{}"),
)


def resources_page() -> str:
    """Every field of every kind: type, default, bounds, meaning."""
    lines = [
        "# Resources",
        "",
        NOTE,
        "",
        "All kinds have `apiVersion: tradewind.dev/v1alpha1`. Several resources go into one file, separated",
        "by `---`. Unknown fields are refused. A duration is written like `30s`, `800ms`, `10m` or `1h30m`,",
        "a quantity of bytes like `512Ki`, `10Mi` or `16Gi`. Machine-readable schemas are in `schema/`.",
        "",
        "In a Kubernetes cluster the API server writes the defaults into a resource and refuses what is not",
        "allowed here. `status` is written by the operator and never by people.",
    ]
    for kind, model in KINDS.items():
        schema = json_schema(kind)
        meaning = (model.__doc__ or "").strip().split("\n")[0]
        lines += ["", f"## {kind}", "", meaning, ""]
        lines += markdown_table(
            ("Field", "Type", "Default", "Allowed", "Meaning"), field_rows(schema, schema, "")
        )
        lines += ["", f"### Status of a {kind}", "", kubectl_line(kind), ""]
        status = STATUSES[kind].model_json_schema(by_alias=True)
        rows = (
            (path, type_, meaning) for path, type_, _, _, meaning in field_rows(status, status, "status.")
        )
        lines += markdown_table(("Field", "Type", "Meaning"), rows)
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """Every error code with its status, type and meaning."""
    lines = [
        "# Error codes",
        "",
        NOTE,
        "",
        'Every error is OpenAI\'s error object, `{"error": {"message", "type", "param", "code"}}`. Codes are',
        "stable; messages may change. `Retry-After` is in seconds.",
        "",
    ]
    rows = (
        (
            f"`{code.wire}`",
            str(code.value.status),
            f"`{code.value.type}`",
            _or_dash(code.value.retry_after_s),
            code.value.meaning,
        )
        for code in Code
    )
    lines += markdown_table(("Code", "Status", "Type", "Retry-After", "Meaning"), rows)
    return "\n".join(lines) + "\n"


def arguments_page() -> str:
    """Every vLLM argument: what it takes, or why a resource may not set it."""
    table = argument_table()
    lines = [
        "# Engine arguments",
        "",
        NOTE,
        "",
        f"The arguments of vLLM {supported_vllm()} that `spec.engine.args` of a ModelDeployment takes. Names",
        "are camelCase; vLLM's own snake_case is taken too. What each does is in vLLM's documentation.",
        "",
    ]
    offered = [argument for name, argument in table.items() if name not in OWNED]
    rows = []
    for argument in offered:
        keys = ONLY_KEYS.get(argument.name)
        allowed = f"{argument.allowed} of {', '.join(keys)}" if keys else argument.allowed
        rows.append((f"`{camel(argument.name)}`", allowed))
    lines += markdown_table(("Argument", "Allowed"), rows)
    lines += ["", "## Arguments that a resource may not set", ""]
    lines += markdown_table(
        ("Argument", "Why, or what instead"),
        ((f"`{camel(name)}`", reason) for name, reason in sorted(OWNED.items()) if name in table),
    )
    return "\n".join(lines) + "\n"


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {row} |" for row in body)]


def field_rows(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, ...]]:
    """One row for each property, then its own properties below it."""
    required = schema.get("required", ())
    for name, raw in schema["properties"].items():
        path = f"{prefix}{name}"
        field = _resolve(raw, root)
        default = "required" if name in required else _default(raw, field)
        description = raw.get("description") or field.get("description", "")
        meaning = re.sub(r"\s+", " ", description)
        yield f"`{path}`", _type(field, root), default, _allowed(field, root), meaning
        inner = _resolve(field.get("items", {}), root)
        if "properties" in field:
            yield from field_rows(field, root, f"{path}.")
        elif "properties" in inner:
            yield from field_rows(inner, root, f"{path}[].")
        elif "properties" in (value := _resolve(_map_value(field), root)):
            yield from field_rows(value, root, f"{path}.<name>.")


def _map_value(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a map's values; empty for everything else."""
    options = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
    return next((option for option in options if isinstance(option, Mapping)), {})


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind a reference, or the one that is not null of an optional field."""
    if "$ref" in schema:
        return _resolve(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolve(option, root)
    return schema


def _type(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "const" in field or "enum" in field:
        return "text"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(_resolve(field['items'], root), root)}"
    if kind == "object" and "properties" not in field:
        return "map"
    if kind == "string" and "x-tradewind-bounds" in field:
        return "duration" if "ms" in field["pattern"] else "quantity"
    return {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}.get(
        kind, "object"
    )


def _default(raw: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    if raw.get("default") is not None:
        return f"`{json.dumps(raw['default'])}`"
    return "" if "properties" in field else "none"


def _allowed(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    pattern = field.get("pattern")
    if pattern in PATTERN_MEANING and "characters" not in PATTERN_MEANING[pattern]:
        return PATTERN_MEANING[pattern]
    parts = [
        phrase.format(field[key])
        for key, phrase in _BOUNDS
        if key in field and not (key == "maxLength" and "x-tradewind-bounds" in field)
    ]
    if "items" in field:
        inner = _allowed(_resolve(field["items"], root), root)
        parts += [f"each {inner}"] if inner else []
    return ", ".join(parts)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
