"""From a pydantic model to the structural schema that Kubernetes takes: convert, or refuse.

Nothing is dropped silently: a word of JSON Schema that is not known here is an error with its path.
What a model distinguishes by absence (`NO_DEFAULT`) gets no default, because the API server writes
defaults into the resource. Empty lists and maps are not written either; they mean the same as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from tradewind.api.model import ApiModel
from tradewind.api.route import Timeouts
from tradewind.api.values import DURATION_PATTERN, Quantity
from tradewind.schema.cel import Rule, Unique, duration_between, keys_like, quantity_between
from tradewind.schema.cel_rules import CONSTRAINTS
from tradewind.schema.json_schemas import SchemaGenerator
from tradewind.schema.structural import (
    LIST_KEYS,
    LIST_TYPE,
    PRESERVE,
    RULES,
    Schema,
    SchemaError,
    defaulted,
    refuse_unsound,
)

NO_DEFAULT: Final[Mapping[type[ApiModel], frozenset[str]]] = {Timeouts: frozenset({"firstToken"})}
"""Fields (as in YAML) for which absent is not the same as the default."""

_MODEL: Final = "x-tradewind-model"
_BOUNDS: Final = "x-tradewind-bounds"
_MOST_INT64: Final = 2**63 - 1
_PLAIN: Final = ("type", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength",
                 "minItems", "maxItems", "minProperties", "maxProperties", "required")  # fmt: skip
_READ: Final = frozenset(
    {*_PLAIN, "title", "description", "default", "const", "properties", "additionalProperties", "items",
     "patternProperties", "propertyNames", "exclusiveMinimum", "exclusiveMaximum", _MODEL, _BOUNDS}
)  # fmt: skip


def structural_schema(model: type[ApiModel]) -> Schema:
    """The structural schema of one model with everything below it, defaults and CEL rules included.

    Raises:
        SchemaError: the model has something that Kubernetes would refuse.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Marked)
    schema = _Converter(raw.get("$defs", {})).convert(raw, model.__name__, ())
    refuse_unsound(schema, model.__name__)
    return schema


class _Marked(SchemaGenerator):
    """Tells which model a schema is of, and the default that a factory makes."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return {**super().model_schema(schema), _MODEL: _name(schema["cls"])}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        factory = schema.get("default_factory")
        if factory is None or schema.get("default_factory_takes_data"):
            return made
        value = factory()  # type: ignore[call-arg] # it takes no data
        if isinstance(value, ApiModel):
            value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {**made, "default": to_jsonable_python(value)}


def _name(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"


_CONSTRAINTS: Final = {_name(model): constraints for model, constraints in CONSTRAINTS.items()}
_NO_DEFAULT: Final = {_name(model): fields for model, fields in NO_DEFAULT.items()}


class _Converter:
    """Converts within one document; `defs` are the models that it refers to."""

    def __init__(self, defs: Mapping[str, Any]) -> None:
        self._defs = defs

    def convert(self, raw: Mapping[str, Any], path: str, inside: tuple[str, ...]) -> Schema:
        """One node and all below it; `inside` are the references that led here."""
        node, inside = self._plain(raw, path, inside)
        if not set(node) - {"title", "description", "default"}:
            return {PRESERVE: True}
        unknown = sorted(set(node) - _READ - {"$defs"})
        if unknown:
            raise SchemaError(path, f"found {', '.join(unknown)}, which has no counterpart in Kubernetes")
        made: Schema = {}
        if "description" in node:
            made["description"] = re.sub(r"\s+", " ", node["description"]).strip()
        made |= {key: node[key] for key in _PLAIN if key in node}
        if "const" in node:
            made["enum"] = [node["const"]]
        _numbers(made, node)
        self._insides(made, node, path, inside)
        _default(made, node)
        _rules(made, node, path)
        return made

    def _plain(
        self, raw: Mapping[str, Any], path: str, inside: tuple[str, ...]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The node without references and without null."""
        node = {key: value for key, value in raw.items() if key != "$defs"}
        while True:
            if "$ref" in node:
                name = node.pop("$ref").rsplit("/", 1)[1]
                if name in inside:
                    raise SchemaError(path, f"found {name} inside {name}; Kubernetes has no recursion")
                inside = (*inside, name)
                node = {**self._defs[name], **node}
            elif "anyOf" in node or "oneOf" in node or "allOf" in node:
                node = {**_only_option(node, path), **_without_options(node)}
            else:
                return node, inside

    def _insides(self, made: Schema, node: Mapping[str, Any], path: str, inside: tuple[str, ...]) -> None:
        """Fields, the values of a map, the items of a list."""
        if "properties" in node:
            hidden = _NO_DEFAULT.get(node.get(_MODEL, ""), ())
            made["properties"] = {}
            for name, raw in node["properties"].items():
                inner = self.convert(raw, f"{path}.{name}", inside)
                if name in hidden:
                    inner.pop("default", None)
                made["properties"][name] = inner
            if node.get("additionalProperties", False) is not False:
                raise SchemaError(path, "found properties and additionalProperties; allowed: one of them")
        elif node.get("type") == "object":
            values = self._map_values(node, path, inside)
            made |= values if values == {PRESERVE: True} else {"additionalProperties": values}
        if "items" in node:
            made["items"] = self.convert(node["items"], f"{path}[]", inside)

    def _map_values(self, node: Mapping[str, Any], path: str, inside: tuple[str, ...]) -> Schema:
        options = list(node.get("patternProperties", {}).values())
        if isinstance(node.get("additionalProperties"), Mapping):
            options.append(node["additionalProperties"])
        elif node.get("additionalProperties") is True:
            options.append({})
        if len(options) != 1:
            raise SchemaError(path, f"found {len(options)} kinds of values in a map; allowed: one")
        return self.convert(options[0], f"{path}.*", inside)


def _only_option(node: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The one option that is not null."""
    options = [option for word in ("anyOf", "oneOf", "allOf") for option in node.get(word, ())]
    left: list[Mapping[str, Any]] = [option for option in options if option.get("type") != "null"]
    if len(left) != 1:
        raise SchemaError(path, f"found a union of {len(left)}; allowed: one type, or none at all")
    return left[0]


def _without_options(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("anyOf", "oneOf", "allOf")}


def _numbers(made: Schema, node: Mapping[str, Any]) -> None:
    """Kubernetes has exclusive bounds as a flag, and int64 as a format: as a double that bound is wrong."""
    for word in ("minimum", "maximum"):
        exclusive = f"exclusive{word.capitalize()}"
        if exclusive in node:
            made |= {word: node[exclusive], exclusive: True}
    if made.get("type") == "integer" and made.get("maximum") == _MOST_INT64:
        del made["maximum"]
        made["format"] = "int64"


def _default(made: Schema, node: Mapping[str, Any]) -> None:
    """Keep a default that says something: not null, and not a list, map or block that stays empty.

    It is written whole: the API server checks its CEL rules on the default as it stands in the definition.
    """
    value = node.get("default")
    whole = None if value is None else defaulted(value, made)
    if whole not in (None, {}, []):
        made["default"] = whole


def _rules(made: Schema, node: Mapping[str, Any], path: str) -> None:
    """The CEL rules of a model, of a bounded duration or quantity, and of a map's keys."""
    rules: list[Rule] = []
    for constraint in _CONSTRAINTS.get(node.get(_MODEL, ""), ()):
        if isinstance(constraint, Rule):
            rules.append(constraint)
        elif isinstance(constraint, Unique) and constraint.ordered:
            rules.append(constraint.rule())
        elif isinstance(constraint, Unique):
            _make_unique(made, constraint, path)
    if _BOUNDS in node:
        rules.append(_between(node))
    if "additionalProperties" in made:
        names, patterns = node.get("propertyNames", {}), [*node.get("patternProperties", {}), None]
        rule = keys_like(patterns[0], names.get("minLength", 0), names.get("maxLength"))
        rules += [rule] if rule else []
    if rules:
        made[RULES] = [{"rule": rule.cel, "message": rule.message} for rule in rules]


def _make_unique(made: Schema, unique: Unique, path: str) -> None:
    field = made["properties"].get(unique.field)
    if field is None or field.get("type") != "array":
        raise SchemaError(f"{path}.{unique.field}", "is to be unique, but is no list")
    if unique.by is not None:
        field |= {LIST_TYPE: "map", LIST_KEYS: [unique.by]}
        return
    field[LIST_TYPE] = "set"


def _between(node: Mapping[str, Any]) -> Rule:
    least, _, most = node[_BOUNDS].partition(" to ")
    if node["pattern"] == DURATION_PATTERN:
        return duration_between(least, most)
    return quantity_between(least, most, int(Quantity.parse(least)), int(Quantity.parse(most)))
