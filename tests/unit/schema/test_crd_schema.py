# ruff: noqa: E501 - one case, one line
"""Converting models to structural schemas, and refusing what Kubernetes would refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, JsonValue

from tradewind.api.model import ApiModel
from tradewind.api.values import Between, Duration, Labels, Quantity
from tradewind.schema.crd_schema import structural_schema
from tradewind.schema.structural import (
    LIST_KEYS,
    LIST_TYPE,
    PRESERVE,
    RULES,
    SchemaError,
    defaulted,
    misfit,
    refuse_unsound,
    refuse_unsound_root,
)

Short = Annotated[str, Field(max_length=9)]


class Inner(ApiModel):
    """An inner block."""

    size: Annotated[Quantity, Between("1Ki", "1Gi")] = Quantity(2**20)
    """How big."""


class Outer(ApiModel):
    """A block with one of everything."""

    kind: Literal["Outer"] = "Outer"
    name: Short
    alias: Short | None = None
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    wait: Annotated[Duration, Between("1s", "1h")] = Duration(90)
    labels: Labels = Field(default_factory=dict)
    free: Annotated[dict[str, JsonValue], Field(max_length=4)] = Field(default_factory=dict)
    inner: Inner = Field(default_factory=Inner)
    changed: Inner = Field(default_factory=lambda: Inner(size=Quantity(2**11)))
    items: Annotated[tuple[Inner, ...], Field(max_length=3)] = ()


def test_a_model_becomes_a_structural_schema() -> None:
    fields = structural_schema(Outer)["properties"]
    assert fields["kind"] == {"type": "string", "enum": ["Outer"], "default": "Outer"}
    assert fields["alias"] == {"type": "string", "maxLength": 9}
    assert fields["share"] == {
        "type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True, "default": 0.5,
    }  # fmt: skip
    assert fields["seed"] == {"type": "integer", "minimum": 0, "format": "int64"}
    assert fields["wait"]["default"] == "1m30s"
    assert fields["wait"][RULES][0]["message"] == "allowed: 1s to 1h"
    assert fields["free"] == {"type": "object", "maxProperties": 4, PRESERVE: True}
    assert "default" not in fields["labels"]
    assert "a Kubernetes label key" in fields["labels"][RULES][0]["message"]
    assert fields["items"]["items"]["properties"]["size"]["default"] == "1Mi"
    assert fields["inner"]["description"] == "An inner block."


def test_a_block_that_nobody_writes_has_its_defaults() -> None:
    schema = structural_schema(Outer)
    assert schema["properties"]["inner"]["default"] == {"size": "1Mi"}
    filled = defaulted({"name": "a"}, schema)
    assert filled["inner"] == {"size": "1Mi"}
    assert filled["changed"] == {"size": "2Ki"}
    assert Outer.model_validate_json('{"name": "a"}') == Outer.model_validate(
        {
            **filled,
            "wait": Duration.parse(filled["wait"]),
            "inner": Inner(),
            "changed": Outer(name="a").changed,
        }
    )


class Either(ApiModel):
    field: Short | Annotated[int, Field(ge=0, le=1)] = 0


class Endless(ApiModel):
    inner: Endless | None = None


class Unbounded(ApiModel):
    texts: Annotated[tuple[str, ...], Field(max_length=3)] = ()


class TwoMaps(ApiModel):
    field: Annotated[
        dict[Short, Short],
        Field(max_length=1, json_schema_extra={"patternProperties": {"a": {"type": "string"}}}),
    ]


class UniqueItems(ApiModel):
    field: Annotated[frozenset[Short], Field(max_length=3)]


class Moment(ApiModel):
    field: Annotated[str, Field(max_length=9, json_schema_extra={"format": "uri"})] = ""


@pytest.mark.parametrize(
    ("model", "path", "says"),
    [
        (Either, "Either.field", "union of 2"),
        (Endless, "Endless.inner", "no recursion"),
        (Unbounded, "Unbounded.texts[]", "without maxLength"),
        (TwoMaps, "TwoMaps.field", "2 kinds of values"),
        (UniqueItems, "UniqueItems.field", "uniqueItems"),
        (Moment, "Moment.field", "format 'uri'"),
    ],
)
def test_a_model_that_no_definition_describes_is_refused(model: type[ApiModel], path: str, says: str) -> None:
    with pytest.raises(SchemaError, match=says) as caught:
        structural_schema(model)
    assert caught.value.path == path


TEXT = {"type": "string", "maxLength": 9}
NUMBER = {"type": "integer", "minimum": 0}
NAMED = {"type": "object", "properties": {"name": TEXT, "size": NUMBER}}
Case = tuple[str, Mapping[str, Any], str]
UNSOUND: list[Case] = [
    ("a reference", {"$ref": "#/a"}, r"found \$ref"),
    ("one of several", {"anyOf": [TEXT]}, "found anyOf"),
    ("exactly one of several", {"oneOf": [TEXT]}, "found oneOf"),
    ("all of several", {"allOf": [TEXT], "type": "string"}, "found allOf"),
    ("a negation", {"not": TEXT}, "found not"),
    ("two types", {"type": ["string", "null"]}, "found type"),
    ("no type", {"maxLength": 3}, "found type None"),
    ("null", {"type": "null"}, "found type 'null'"),
    ("an unknown word", {**TEXT, "examples": ["a"]}, "found examples on type string"),
    ("a word of another type", {**TEXT, "minimum": 1}, "found minimum on type string"),
    ("fields and a map", {**NAMED, "additionalProperties": TEXT}, "properties and additionalProperties"),
    ("a closed object", {"type": "object", "additionalProperties": False, "maxProperties": 1}, "true or false"),
    ("an object of nothing", {"type": "object", "maxProperties": 1}, "without fields"),
    ("a field that is not there", {**NAMED, "required": ["age"]}, "required age"),
    ("a list of what", {"type": "array", "maxItems": 1}, "without a schema for its items"),
    ("endless text", {"type": "string"}, "without maxLength"),
    ("an endless list", {"type": "array", "items": TEXT}, "without maxItems"),
    ("an endless map", {"type": "object", "additionalProperties": TEXT}, "without maxProperties"),
    ("free form without end", {"type": "object", PRESERVE: True}, "without maxProperties"),
    ("a bound that is no double", {**NUMBER, "maximum": 2**60}, "no exact double"),
    ("an exclusive bound as a number", {"type": "number", "exclusiveMinimum": 0}, "exclusiveMinimum 0"),
    ("an exclusive bound of nothing", {"type": "number", "exclusiveMaximum": True}, "beside maximum"),
    ("an unknown format", {**TEXT, "format": "email"}, "format 'email'"),
    ("a format of another type", {"type": "number", "format": "int32"}, "allowed for number: double"),
    ("a pattern with a look-ahead", {**TEXT, "pattern": "a(?!b)"}, "RE2"),
    ("a pattern with a back reference", {**TEXT, "pattern": r"(a)\1"}, "RE2"),
    ("an enum of another type", {**TEXT, "enum": [1]}, "found 1 in enum"),
    ("a default of another type", {**TEXT, "default": 1}, "not string"),
    ("a long default", {**TEXT, "default": "a" * 10}, "out of bounds"),
    ("a default below its bound", {**NUMBER, "default": -1}, "out of bounds"),
    ("a default on its exclusive bound", {**NUMBER, "exclusiveMinimum": True, "default": 0}, "out of bounds"),
    ("a default that is no choice", {"type": "string", "enum": ["a"], "default": "b"}, "not one of"),
    ("a default that does not match", {**TEXT, "pattern": "^a$", "default": "b"}, "does not match"),
    ("a default of unknown fields", {**NAMED, "default": {"age": 1}}, "no field"),
    ("a default without a required field", {**NAMED, "required": ["name"], "default": {"size": 1}}, "name is missing"),
    ("a default with a wrong item", {"type": "array", "items": TEXT, "maxItems": 2, "default": [1]}, r"\[0\] is 1"),
    ("a default that is not whole", {"type": "object", "properties": {"a": {**TEXT, "default": "b"}}, "default": {}},
     r"default \{\}, which is not whole; allowed: \{'a': 'b'\}"),
    ("a rule without a message", {**TEXT, RULES: [{"rule": "true"}]}, "one line of text"),
    ("a message of two lines", {**TEXT, RULES: [{"rule": "true", "message": "a\nb"}]}, "one line of text"),
    ("a rule of nothing", {**TEXT, RULES: [{"rule": " ", "message": "a"}]}, "without an expression"),
    ("an unknown list type", {"type": "array", "maxItems": 1, "items": TEXT, LIST_TYPE: "bag"}, "'bag'"),
    ("a set of blocks", {"type": "array", "maxItems": 1, "items": NAMED, LIST_TYPE: "set"}, "a set of objects"),
    ("a map list without keys", {"type": "array", "maxItems": 1, "items": NAMED, LIST_TYPE: "map"}, "with 0 keys"),
    ("keys of no map list", {"type": "array", "maxItems": 1, "items": NAMED, LIST_KEYS: ["name"]}, "with 1 keys"),
    (
        "a key that may be absent",
        {"type": "array", "maxItems": 1, "items": NAMED, LIST_TYPE: "map", LIST_KEYS: ["name"]},
        "neither required nor has a default",
    ),
    (
        "a key that is not there",
        {"type": "array", "maxItems": 1, "items": NAMED, LIST_TYPE: "map", LIST_KEYS: ["age"]},
        "no scalar field",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "says"), [case[1:] for case in UNSOUND], ids=[case[0] for case in UNSOUND]
)
def test_what_kubernetes_would_refuse_is_refused_with_its_path(schema: Mapping[str, Any], says: str) -> None:
    whole = {"type": "object", "properties": {"spec": {"type": "array", "maxItems": 1, "items": schema}}}
    with pytest.raises(SchemaError, match=says) as caught:
        refuse_unsound(whole, "Kind")
    assert caught.value.path == "Kind.spec[]"


def test_the_path_goes_through_maps() -> None:
    with pytest.raises(SchemaError) as caught:
        refuse_unsound({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "x"}}, "Kind")
    assert caught.value.path == "Kind.*"


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"type": "object", "properties": {"labels": TEXT}}, "Kind.metadata"),
        ({"type": "object", "required": ["name"]}, "Kind.metadata"),
        ({"type": "object", "properties": {"name": {**TEXT, "default": "a"}}}, "Kind.metadata.name"),
    ],
)
def test_metadata_is_restricted_by_name_only(metadata: Mapping[str, Any], path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        refuse_unsound_root({"type": "object", "properties": {"metadata": metadata}}, "Kind")
    assert caught.value.path == path


def test_the_root_is_an_object() -> None:
    with pytest.raises(SchemaError, match="allowed: object"):
        refuse_unsound_root(TEXT, "Kind")


SOUND: list[Mapping[str, Any]] = [
    {"type": "array", "maxItems": 2, "items": {**NAMED, "required": ["name"]}, LIST_TYPE: "map", LIST_KEYS: ["name"]},
    {"type": "string", "format": "date-time"},
    {"type": "string", "enum": ["a"]},
    {PRESERVE: True},
    {**NUMBER, "exclusiveMinimum": True, "default": 1},
    {"type": "object", "maxProperties": 2, "additionalProperties": TEXT, "default": {"a": "b"}},
    {"type": "boolean", "default": False},
]  # fmt: skip


@pytest.mark.parametrize("schema", SOUND)
def test_what_kubernetes_takes_is_taken(schema: Mapping[str, Any]) -> None:
    refuse_unsound(schema, "Kind")


def test_true_is_no_number() -> None:
    assert misfit(True, NUMBER)
    assert misfit(1, {"type": "boolean"})
    assert not misfit(1, {"type": "number"})
