"""Readers and writers of different releases: what is not known is ignored, or only its entry falls out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from tradewind.api import wire
from tradewind.api.reading import MOST_WHY, LeftOut, Unreadable, read, read_live, reading
from tradewind.api.steps import at_once
from tradewind.api.wire import EngineLive, EngineSettings, GatewayConfig, RouteEntry, WireModel
from tradewind.routing.table import InvalidTableError, RouteTable

WIRE = Path(__file__).resolve().parents[2] / "golden" / "wire"
SECRET = "sk-canary-0123456789abcdef"
NEWS: dict[str, Any] = {
    "from_a_later_release": {"nested": [1, {"deep": None}]},
    "another": "text",
}


def stored(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WIRE / f"{kind}-1.json").read_text(encoding="utf-8"))
    return found


def taken(data: object, before: GatewayConfig | None = None) -> tuple[GatewayConfig, tuple[LeftOut, ...]]:
    return at_once(reading(data, before))


def edited(data: dict[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    """A copy in which one value is another."""
    copy = json.loads(json.dumps(data))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return dict(copy)


def models_in(annotation: Any) -> Iterator[type[WireModel]]:
    """Wire models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        assert issubclass(annotation, WireModel)
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def reachable(model: type[WireModel]) -> set[type[WireModel]]:
    """`model` and all that it is made of."""
    found: set[type[WireModel]] = set()
    left = [model]
    while left:
        found.add(one := left.pop())
        for field in one.model_fields.values():
            left += [inner for inner in models_in(field.annotation) if inner not in found]
    return found


def with_news(annotation: Any, value: Any, met: set[type[WireModel]]) -> Any:
    """`value` with unknown fields in every object of it that is a wire model."""
    if value is None:
        return None
    if isinstance(annotation, type) and issubclass(annotation, WireModel):
        met.add(annotation)
        fields = annotation.model_fields
        inner = {name: with_news(fields[name].annotation, part, met) for name, part in value.items()}
        return inner | NEWS
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not NoneType]
        return with_news(annotation, value, met)
    if get_origin(annotation) is tuple:
        return [with_news(get_args(annotation)[0], item, met) for item in value]
    return value


@pytest.mark.parametrize(
    ("kind", "model"), [("gateway", GatewayConfig), ("engine", EngineSettings), ("live", EngineLive)]
)
def test_fields_of_a_later_release_are_ignored_at_every_level(kind: str, model: type[WireModel]) -> None:
    met: set[type[WireModel]] = set()
    newer = with_news(model, stored(kind), met)
    assert met >= reachable(model) - ({wire.S3Key, wire.SecretRef} if kind == "live" else set())
    assert read(model, newer) == read(model, stored(kind))
    if kind == "gateway":
        assert taken(newer) == taken(stored(kind))
    if kind == "live":
        assert read_live(newer) == read_live(stored(kind))


def test_every_wire_model_is_part_of_something_that_travels() -> None:
    known = {each for each in vars(wire).values() if isinstance(each, type) and issubclass(each, WireModel)}
    travels = reachable(GatewayConfig) | reachable(EngineSettings) | reachable(EngineLive)
    assert known - {WireModel} == travels


UNKNOWN: dict[str, tuple[tuple[str | int, ...], Any, LeftOut]] = {
    "a task": (
        ("deployments", 1, "task"),
        "transcribe",
        LeftOut("deployment", "bge", "task: Input should be 'generate', 'embed' or 'score'", kept=False),
    ),
    "a way to assign": (
        ("routes", 0, "assign_by"),
        ["cookie:x", "user"],
        LeftOut(
            "route", "chat", "assign_by: 'cookie:x' is nothing that this release can assign by", kept=False
        ),
    ),
    "a word that a route requires": (
        ("routes", 1, "requires"),
        ["schedules"],
        LeftOut(
            "route",
            "plain",
            "requires: Value error, it needs schedules, which this release does not have",
            kept=False,
        ),
    ),
    "a key that is none": (
        ("tenants", 0, "keys", 0),
        3,
        LeftOut(
            "tenant",
            "acme",
            "keys.0: Input should be a valid dictionary or instance of SecretRef",
            kept=False,
        ),
    ),
    "an entry without a name": (
        ("deployments", 2),
        {"app": "x"},
        LeftOut(
            "deployment",
            "number 3",
            "name: Field required; prefix: Field required; family: Field required",
            kept=False,
        ),
    ),
    "no entry at all": (
        ("routes", 1),
        None,
        LeftOut(
            "route",
            "number 2",
            "it: Input should be a valid dictionary or instance of RouteEntry",
            kept=False,
        ),
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_entry_that_cannot_be_read_falls_out_alone(case: str) -> None:
    path, value, expected = UNKNOWN[case]
    config, left_out = taken(edited(stored("gateway"), *path, value=value))
    assert left_out == (expected,)
    whole, _ = taken(stored("gateway"))
    fields = ("deployments", "routes", "tenants")
    lost = {name: len(getattr(whole, name)) - len(getattr(config, name)) for name in fields}
    assert lost == {name: int(name == f"{expected.kind}s") for name in fields}
    RouteTable.build(config)


def test_it_goes_on_as_it_was_where_it_was_known() -> None:
    before, _ = taken(stored("gateway"))
    newer = edited(stored("gateway"), "routes", 0, "assign_by", value=["cookie:x"])
    newer["deployments"][0]["task"] = "transcribe"
    newer["revision"] = "newer"
    config, left_out = taken(newer, before)
    assert [(each.kind, each.name, each.kept) for each in left_out] == [
        ("deployment", "llama", True),
        ("route", "chat", True),
    ]
    assert (config.revision, config.deployments, config.routes) == (
        "newer",
        before.deployments,
        before.routes,
    )


def test_of_a_tenant_nothing_goes_on() -> None:
    before, _ = taken(stored("gateway"))
    config, left_out = taken(edited(stored("gateway"), "tenants", 0, "requires", value=["ends"]), before)
    assert ([each.kept for each in left_out], [each.name for each in config.tenants]) == ([False], ["open"])


def test_a_route_to_a_deployment_that_fell_out_falls_out_with_it() -> None:
    data = edited(stored("gateway"), "deployments", 0, "task", value="transcribe")
    config, left_out = taken(data)
    assert [(each.kind, each.name) for each in left_out] == [
        ("deployment", "llama"),
        ("route", "chat"),
        ("route", "plain"),
    ]
    assert left_out[1].why == "deployment llama of variant control was left out"
    RouteTable.build(config)


def test_a_new_adapter_of_a_deployment_that_goes_on_as_it_was_is_not_there_yet() -> None:
    before, _ = taken(stored("gateway"))
    data = edited(stored("gateway"), "deployments", 0, "task", value="transcribe")
    data["deployments"][0]["adapters"].append("new")
    data["routes"][0]["variants"][1]["adapter"] = "new"
    config, left_out = taken(data, before)
    assert left_out[1] == LeftOut(
        "route", "chat", "adapter new of deployment llama is not known yet", kept=True
    )
    RouteTable.build(config)


def test_a_route_of_before_whose_deployment_is_gone_does_not_go_on() -> None:
    before, _ = taken(stored("gateway"))
    data = edited(stored("gateway"), "routes", 0, "requires", value=["schedules"])
    data["deployments"], data["routes"] = data["deployments"][1:], data["routes"][:1]
    config, left_out = taken(data, before)
    assert (config.routes, [each.kept for each in left_out]) == ((), [False])


def test_what_contradicts_itself_is_not_forgiven_here() -> None:
    data = edited(stored("gateway"), "routes", 0, "fallback", value=["gone"])
    config, left_out = taken(data)
    assert left_out == ()
    with pytest.raises(InvalidTableError, match="gone"):
        RouteTable.build(config)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "a NoneType"),
        ([1], "a list"),
        ("text", "a str"),
        ({}, "revision: Field required"),
        ({"revision": 3}, "revision: Input should be a valid string"),
        ({"revision": "r", "routes": {"chat": {}}}, "routes: it must be a list, and is a dict"),
        ({"revision": "r", "tenants": None}, "tenants: it must be a list, and is a NoneType"),
        (
            {"revision": "r", "limits": {"body_bytes": "many"}},
            "limits.body_bytes: Input should be a valid integer",
        ),
        (
            {"revision": "r", "requires": ["two halves"]},
            "it needs two halves, which this release does not have",
        ),
    ],
)
def test_what_is_no_configuration_is_unreadable_as_a_whole(data: object, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        taken(data)


def test_a_reason_quotes_no_value_and_is_short() -> None:
    tenant = {"name": "acme", "keys": [{"env": [SECRET]}] * 50, "models": [{SECRET: 1}]}
    (told,) = taken({"revision": "r", "tenants": [tenant]})[1]
    assert SECRET not in told.why
    assert "and 48 more" in told.why
    assert len(told.why) <= MOST_WHY
    (named,) = taken({"revision": "r", "tenants": [{"name": "n" * 9_999, "keys": 1}]})[1]
    assert len(named.name) == 128
    with pytest.raises(Unreadable) as caught:
        taken({"revision": "r", "limits": {"body_bytes": SECRET}})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_adapters_that_cannot_be_read_stay_as_they_are() -> None:
    before, _ = read_live(stored("live"))
    data = edited(stored("live"), "adapters", 0, "source", "dtype", value="int3")
    data["adapters"].append({"name": "new", "source": {"uri": "s3://a/b"}, "requires": ["heat"]})
    live, left_out = read_live(data, before.adapters)
    assert live == before
    assert [(each.name, each.kept) for each in left_out] == [("tone", True), ("new", False)]
    assert [each.name for each in read_live(data)[0].adapters] == ["legal"]
    for wrong in (None, [], {"adapters": 3}):
        with pytest.raises(Unreadable):
            read_live(wrong)


@pytest.mark.parametrize(
    "source", [*sorted(wire.UNIT_SOURCES), "header:x-user", "header:", "cookie", "Header:x"]
)
def test_reader_and_table_know_the_same_ways_to_assign(source: str) -> None:
    data = edited(stored("gateway"), "routes", 0, "assign_by", value=[source])
    config, left_out = taken(data)
    route = RouteEntry.model_validate(data["routes"][0])
    try:
        RouteTable.build(config.model_copy(update={"routes": (route,)}))
        known = True
    except InvalidTableError:
        known = False
    assert known == (left_out == ())


def test_the_overrides_of_a_resource_all_travel() -> None:
    from tradewind.api.route import OverridesSpec

    assert OverridesSpec.model_fields.keys() <= wire.Overrides.model_fields.keys()
