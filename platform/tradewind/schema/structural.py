"""What Kubernetes refuses in the schema of a custom resource definition, said before it does.

Structural schemas are JSON Schema with much taken away: every node has one type, nothing is shared or
recursive, and a schema either names its properties or describes a map. CEL adds that everything has a
bound, because the API server multiplies the worst cases when it estimates what a rule costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

Schema = dict[str, Any]

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
RULES: Final = "x-kubernetes-validations"
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"
MAP_TYPE: Final = "x-kubernetes-map-type"

_COMMON: Final = frozenset({"type", "description", "default", "enum", RULES})
_OF_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(
        {
            "properties",
            "required",
            "additionalProperties",
            "maxProperties",
            "minProperties",
            PRESERVE,
            MAP_TYPE,
        }
    ),
    "array": frozenset({"items", "minItems", "maxItems", LIST_TYPE, LIST_KEYS}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"}),
    "boolean": frozenset(),
}
_FORMATS: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({"date-time"}),
    "integer": frozenset({"int32", "int64"}),
    "number": frozenset({"double"}),
}
_PYTHON: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (Mapping,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_NOT_RE2: Final = re.compile(r"\(\?(=|!|<=|<!|>|P=)|\\[1-9]")
_EXACT: Final = 2**53
"""Up to here every whole number is a double too, which is what Kubernetes keeps bounds in."""


class SchemaError(ValueError):
    """A model that no custom resource definition can describe; the message begins with the field's path."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


def defaulted(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with every default below it, as the API server writes them: from the outside in."""
    if isinstance(value, Mapping):
        filled = dict(value)
        for name, inner in schema.get("properties", {}).items():
            if "default" in inner and filled.get(name) is None:
                filled[name] = inner["default"]
        rest = schema.get("additionalProperties", {})
        properties = schema.get("properties", {})
        return {name: defaulted(item, properties.get(name, rest)) for name, item in filled.items()}
    if isinstance(value, list | tuple):
        return [defaulted(item, schema.get("items", {})) for item in value]
    return value


def refuse_unsound(schema: Mapping[str, Any], path: str) -> None:
    """Do nothing, or say what Kubernetes would refuse in a schema or below it.

    Raises:
        SchemaError: with the path of the first thing found.
    """
    for at, node in _nodes(schema, path):
        if node.get(PRESERVE) is True and set(node) <= {PRESERVE, "description"}:
            continue
        for complaint in _complaints(node):
            raise SchemaError(at, complaint)


def refuse_unsound_root(schema: Mapping[str, Any], path: str) -> None:
    """The same for the schema of a whole resource, where Kubernetes owns `metadata`.

    Raises:
        SchemaError: with the path of the first thing found.
    """
    metadata = schema.get("properties", {}).get("metadata", {})
    if set(metadata) - {"type", "description", "properties"} or set(metadata.get("properties", {})) - {
        "name"
    }:
        raise SchemaError(f"{path}.metadata", "found a restriction; allowed: one on the name only")
    if metadata.get("properties", {}).get("name", {}).get("default") is not None:
        raise SchemaError(f"{path}.metadata.name", "found a default; allowed: none in metadata")
    if schema.get("type") != "object":
        raise SchemaError(path, f"found type {schema.get('type')!r}; allowed: object")
    refuse_unsound(schema, path)


def _nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, node) of every schema, the outermost first."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _nodes(inner, f"{path}.{name}")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _nodes(schema["additionalProperties"], f"{path}.*")
    if isinstance(schema.get("items"), Mapping):
        yield from _nodes(schema["items"], f"{path}[]")


def _complaints(node: Mapping[str, Any]) -> Iterator[str]:
    for word in ("$ref", "anyOf", "oneOf", "allOf", "not"):
        if word in node:
            yield f"found {word}; allowed: one plain schema"
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in _OF_TYPE:
        yield f"found type {kind!r}; allowed: one of {', '.join(_OF_TYPE)}"
        return
    unknown = sorted(set(node) - _COMMON - _OF_TYPE[kind])
    if unknown:
        yield f"found {', '.join(unknown)} on type {kind}; Kubernetes has no such thing there"
    yield from _shape(kind, node)
    yield from _bounds(kind, node)
    yield from _values(kind, node)
    yield from _rules(node)
    if "default" in node:
        yield from _default(node["default"], node)


def _default(value: Any, node: Mapping[str, Any]) -> Iterator[str]:
    whole = defaulted(value, node)
    if whole != value:
        # CEL rules are evaluated on it as it stands, and fail on a field that only a default would add.
        yield f"found default {value!r}, which is not whole; allowed: {whole!r}"
    wrong = misfit(whole, node)
    if wrong:
        yield f"default does not fit the schema: {wrong}"


def _shape(kind: str, node: Mapping[str, Any]) -> Iterator[str]:
    if kind == "object":
        if "properties" in node and "additionalProperties" in node:
            yield "found properties and additionalProperties; allowed: one of them"
        if isinstance(node.get("additionalProperties"), bool):
            yield "found additionalProperties true or false; allowed: a schema"
        if not {"properties", "additionalProperties", PRESERVE} & set(node):
            yield "found an object without fields; allowed: properties, additionalProperties or free form"
        missing = sorted(set(node.get("required", ())) - set(node.get("properties", ())))
        if missing:
            yield f"found required {', '.join(missing)} without a schema"
    elif kind == "array":
        if not isinstance(node.get("items"), Mapping):
            yield "found a list without a schema for its items"
        else:
            yield from _list_type(node, node["items"])


def _list_type(node: Mapping[str, Any], items: Mapping[str, Any]) -> Iterator[str]:
    list_type, keys = node.get(LIST_TYPE, "atomic"), node.get(LIST_KEYS, ())
    if list_type not in ("atomic", "set", "map"):
        yield f"found {LIST_TYPE} {list_type!r}; allowed: atomic, set, map"
    if list_type == "set" and items.get("type") in ("object", "array"):
        # The definition is taken, and every server-side apply of such a resource fails.
        yield f"found a set of {items['type']}s; allowed: a set of plain values, or a list with a CEL rule"
    if (list_type == "map") != bool(keys):
        yield f"found {LIST_TYPE} {list_type} with {len(keys)} keys; allowed: keys for a map only"
    for key in keys:
        field = items.get("properties", {}).get(key, {})
        if field.get("type") not in ("string", "integer", "boolean"):
            yield f"found list key {key!r}, which is no scalar field of the items"
        elif key not in items.get("required", ()) and "default" not in field:
            yield f"found list key {key!r}, which is neither required nor has a default"


def _bounds(kind: str, node: Mapping[str, Any]) -> Iterator[str]:
    bounded = {"maxLength", "enum"} & set(node) or node.get("format") == "date-time"
    if kind == "string" and not bounded:
        yield "found text without maxLength; CEL needs a bound"
    if kind == "array" and "maxItems" not in node:
        yield "found a list without maxItems; CEL needs a bound"
    if kind == "object" and "properties" not in node and "maxProperties" not in node:
        yield "found a map without maxProperties; CEL needs a bound"
    for word in ("minimum", "maximum"):
        if abs(node.get(word, 0)) > _EXACT:
            yield f"found {word} {node[word]}, which is no exact double; allowed: up to 2^53"
        exclusive = f"exclusive{word.capitalize()}"
        if exclusive in node and (node[exclusive] is not True or word not in node):
            yield f"found {exclusive} {node[exclusive]!r}; allowed: true, beside {word}"


def _values(kind: str, node: Mapping[str, Any]) -> Iterator[str]:
    if "format" in node and node["format"] not in _FORMATS.get(kind, ()):
        allowed = ", ".join(sorted(_FORMATS.get(kind, ())))
        yield f"found format {node['format']!r}; allowed for {kind}: {allowed}"
    if "pattern" in node and _NOT_RE2.search(node["pattern"]):
        yield f"found pattern {node['pattern']!r}, which RE2 does not know"
    for value in node.get("enum", ()):
        if not _has_type(value, kind):
            yield f"found {value!r} in enum; allowed: {kind}"


def _rules(node: Mapping[str, Any]) -> Iterator[str]:
    for rule in node.get(RULES, ()):
        if not str(rule.get("rule", "")).strip():
            yield "found a rule without an expression"
        message = str(rule.get("message", ""))
        if not message.strip() or "\n" in message:
            yield f"found rule {rule.get('rule')!r} with message {message!r}; allowed: one line of text"


def misfit(value: Any, schema: Mapping[str, Any], path: str = "") -> str:
    """What is wrong with a value that a schema should take, by path; empty when nothing is."""
    if schema.get(PRESERVE) is True and "properties" not in schema:
        return ""
    at = path or "it"
    if not _has_type(value, schema["type"]):
        return f"{at} is {value!r}, not {schema['type']}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is {value!r}, not one of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{at} is {value!r}, which does not match {schema['pattern']}"
    if not _within(value, schema):
        return f"{at} is out of bounds"
    if isinstance(value, Mapping):
        return _misfit_inside(value, schema, path)
    if isinstance(value, Sequence) and not isinstance(value, str):
        found = (misfit(item, schema["items"], f"{path}[{n}]") for n, item in enumerate(value))
        return next((wrong for wrong in found if wrong), "")
    return ""


def _misfit_inside(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> str:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{path}.{name} is missing"
    for name, item in value.items():
        inner = properties.get(name, schema.get("additionalProperties"))
        if inner is None:
            return f"{path}.{name} is no field"
        wrong = misfit(item, inner, f"{path}.{name}")
        if wrong:
            return wrong
    return ""


def _within(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value's number, length or size is within the schema's bounds."""
    if isinstance(value, str | list | tuple | Mapping):
        noun = "Length" if isinstance(value, str) else "Properties" if isinstance(value, Mapping) else "Items"
        return bool(schema.get(f"min{noun}", 0) <= len(value) <= schema.get(f"max{noun}", len(value)))
    if isinstance(value, bool):
        return True
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    ordered = pairwise((least, value, most))
    strict = (schema.get("exclusiveMinimum", False), schema.get("exclusiveMaximum", False))
    return all(a < b if exclusive else a <= b for (a, b), exclusive in zip(ordered, strict, strict=True))


def _has_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _PYTHON[kind])
