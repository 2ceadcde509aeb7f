"""What an API server does with a custom resource, without one: prune, default, check the schema, check CEL.

CEL runs on the official implementation (cel-cpp); `find`, which Kubernetes adds to the language, is added
here. OpenAPI's schema is draft 4 of JSON Schema as far as Kubernetes lets one use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from tradewind.schema.structural import LIST_KEYS, LIST_TYPE, PRESERVE, RULES, Schema, defaulted


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group(0) if found else ""


_FIND = cel.FunctionDecl(
    "find",
    [
        cel.Overload(
            "string_find_string",
            return_type=cel.Type.STRING,
            parameters=[cel.Type.STRING, cel.Type.STRING],
            is_member=True,
            impl=_find,
        )
    ],
)
_ENV = cel.NewEnv(variables={"self": cel.Type.DYN}, functions=[_FIND], extensions=[ext_strings.ExtStrings()])


@cache
def compiled(rule: str) -> cel.Expression:
    """Raises where the rule does not parse or does not type."""
    return _ENV.compile(rule)


def holds(rule: str, value: Any) -> bool:
    """Whether a rule holds; an error while it runs is a refusal, as in Kubernetes."""
    return compiled(rule).eval(data={"self": value}).value() is True


def admitted(data: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """A resource, or one block of it, as it would be stored: unknown fields gone, defaults there."""
    stored = defaulted(pruned(data, schema), schema)
    assert isinstance(stored, dict)
    return stored | {key: data[key] for key in ("metadata",) if key in data}


def pruned(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` without the fields that the schema does not have, and without null."""
    if schema.get(PRESERVE) is True:
        return value
    if isinstance(value, Mapping) and "properties" in schema:
        return {
            name: pruned(item, schema["properties"][name])
            for name, item in value.items()
            if name in schema["properties"] and item is not None
        }
    if isinstance(value, Mapping):
        return {name: pruned(item, schema.get("additionalProperties", {})) for name, item in value.items()}
    if isinstance(value, list):
        return [pruned(item, schema.get("items", {})) for item in value]
    return value


def schema_faults(value: Any, schema: Schema) -> list[str]:
    """What a server without CEL finds wrong with a resource that was defaulted."""
    found = [error.message for error in jsonschema.Draft4Validator(schema).iter_errors(value)]
    if found:
        return found
    for node, item in _pairs(schema, value):
        if node.get(LIST_TYPE) in ("set", "map"):
            keys = node.get(LIST_KEYS)
            entries = [[entry.get(key) for key in keys] if keys else entry for entry in item]
            found += [f"twice: {entry}" for n, entry in enumerate(entries) if entry in entries[:n]]
    return found


def cel_faults(value: Any, schema: Schema) -> list[str]:
    """Messages of the rules that do not hold for a resource that fits the schema."""
    return [
        rule["message"]
        for node, item in _pairs(schema, _typed(value, schema))
        for rule in node.get(RULES, ())
        if not holds(rule["rule"], item)
    ]


def _pairs(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """(schema, value) of every value that is there."""
    yield schema, value
    if isinstance(value, Mapping):
        rest = schema.get("additionalProperties")
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, rest)
            if inner is not None:
                yield from _pairs(inner, item)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            yield from _pairs(schema["items"], item)


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Numbers as CEL sees them: a `number` is a double, whatever it was written like."""
    if schema.get("type") == "number":
        return float(value)
    if isinstance(value, Mapping):
        rest = schema.get("additionalProperties", {})
        properties = schema.get("properties", {})
        return {name: _typed(item, properties.get(name, rest)) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    return value
