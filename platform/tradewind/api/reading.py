"""Reads configurations that another release may have written: what can be read counts, the rest is told.

    ValueError
    └── Unreadable   it cannot be used at all, or not this entry

Unknown fields are no trouble (`WireModel`). An entry that cannot be read all the same, because a value is
unknown here or a word in its `requires`, goes on as it was; where there was none it is left out. So one model
that asks for news takes nothing else down, and a revoked key is revoked whatever the rest says. Of a tenant
nothing goes on: what of it was revoked could not be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from tradewind.api.steps import Steps
from tradewind.api.wire import (
    HEADER_SOURCE,
    UNIT_SOURCES,
    AdapterSettings,
    DeploymentEntry,
    EngineLive,
    GatewayConfig,
    RouteEntry,
    TenantEntry,
    WireModel,
)

MOST_WHY: Final = 300
"""Characters of a reason."""
_MOST_NAME: Final = 128
_MOST_FAULTS: Final = 3

Kind = Literal["deployment", "route", "tenant", "adapter"]
Model = TypeVar("Model", bound=WireModel)
Entry = TypeVar("Entry", DeploymentEntry, RouteEntry, TenantEntry, AdapterSettings)


class Unreadable(ValueError):
    """What was sent is of a form that this release does not know. The message quotes no value."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that cannot be read."""

    kind: Kind
    name: str
    why: str
    kept: bool
    """It goes on as it was before; else there is none."""


class Reading(NamedTuple):
    """What came of reading."""

    config: GatewayConfig
    left_out: tuple[LeftOut, ...]


def read(model: type[Model], data: object) -> Model:
    """`data` as a wire model. Raises Unreadable."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # Without the cause: its text quotes what was sent.
        raise Unreadable(_why(error)) from None


def reading(data: object, before: GatewayConfig | None) -> Steps[Reading]:
    """A gateway's configuration; `before` is the one in force.

    Raises:
        Unreadable: nothing of it can be used: it is no mapping, it needs what this release does not have, or
            its lists are none.
    """
    if not isinstance(data, Mapping):
        raise Unreadable(f"a configuration is a mapping, and this is a {type(data).__name__}")
    frame = read(GatewayConfig, {**data, "deployments": (), "routes": (), "tenants": ()})
    old = before or GatewayConfig(revision="")
    left: list[LeftOut] = []
    models = {entry.name: entry for entry in old.deployments}
    deployments = yield from _entries(
        DeploymentEntry, "deployment", _listed(data, "deployments"), models, left
    )
    unread = {entry.name for entry in left}
    there = {entry.name: entry for entry in deployments}
    paths = _Paths(there, unread, {entry.model: entry for entry in old.routes if not _misfit(entry, there)})
    routes = yield from paths.routes(_listed(data, "routes"), left)
    tenants = yield from _entries(TenantEntry, "tenant", _listed(data, "tenants"), {}, left)
    content = {"deployments": tuple(deployments), "routes": tuple(routes), "tenants": tuple(tenants)}
    return Reading(frame.model_copy(update=content), tuple(left))


def read_live(data: object, before: Iterable[AdapterSettings] = ()) -> tuple[EngineLive, tuple[LeftOut, ...]]:
    """What an engine takes over while it runs; `before` are the adapters that it has. Raises Unreadable."""
    if not isinstance(data, Mapping):
        raise Unreadable(f"what an engine takes over is a mapping, and this is a {type(data).__name__}")
    frame = read(EngineLive, {**data, "adapters": ()})
    left: list[LeftOut] = []
    known = {entry.name: entry for entry in before}
    found = [
        entry
        for number, item in enumerate(_listed(data, "adapters"))
        if (entry := _entry(AdapterSettings, "adapter", number, item, known, left)) is not None
    ]
    return frame.model_copy(update={"adapters": tuple(found)}), tuple(left)


@dataclass(frozen=True, slots=True)
class _Paths:
    """Reads routes against the deployments that they lead to."""

    deployments: Mapping[str, DeploymentEntry]
    unread: set[str]
    """Deployments that could not be read."""
    before: Mapping[str, RouteEntry]
    """Routes as they were, those that still lead somewhere."""

    def routes(self, items: Sequence[Any], left: list[LeftOut]) -> Steps[list[RouteEntry]]:
        found: list[RouteEntry] = []
        for number, item in enumerate(items):
            try:
                found.append(self._read(item))
            except Unreadable as error:
                kept = _note("route", number, item, str(error), self.before, left)
                found += [kept] if kept is not None else []
            yield
        return found

    def _read(self, item: Any) -> RouteEntry:
        entry = read(RouteEntry, item)
        for source in entry.assign_by:
            if source not in UNIT_SOURCES and not _is_header(source):
                raise Unreadable(
                    f"assign_by: {source[:_MOST_NAME]!r} is nothing that this release can assign by"
                )
        named = {variant.deployment for variant in entry.variants} | set(entry.fallback)
        # What leads nowhere for another reason contradicts itself: that is not for this module to forgive.
        if named & self.unread and (fault := _misfit(entry, self.deployments)):
            raise Unreadable(fault)
        return entry


def _is_header(source: str) -> bool:
    return source.startswith(HEADER_SOURCE) and len(source) > len(HEADER_SOURCE)


def _misfit(route: RouteEntry, deployments: Mapping[str, DeploymentEntry]) -> str:
    """What a route leads to that is not there; empty when all is."""
    for variant in route.variants:
        entry = deployments.get(variant.deployment)
        if entry is None:
            return f"deployment {variant.deployment} of variant {variant.name} was left out"
        if variant.adapter is not None and variant.adapter not in entry.adapters:
            return f"adapter {variant.adapter} of deployment {variant.deployment} is not known yet"
    gone = [name for name in route.fallback if name not in deployments]
    return f"fallback {gone[0]} was left out" if gone else ""


def _entries(
    model: type[Entry], kind: Kind, items: Sequence[Any], before: Mapping[str, Entry], left: list[LeftOut]
) -> Steps[list[Entry]]:
    found: list[Entry] = []
    for number, item in enumerate(items):
        if (entry := _entry(model, kind, number, item, before, left)) is not None:
            found.append(entry)
        yield
    return found


def _entry(
    model: type[Entry],
    kind: Kind,
    number: int,
    item: Any,
    before: Mapping[str, Entry],
    left: list[LeftOut],
) -> Entry | None:
    try:
        return read(model, item)
    except Unreadable as error:
        return _note(kind, number, item, str(error), before, left)


def _note(
    kind: Kind, number: int, item: Any, why: str, before: Mapping[str, Entry], left: list[LeftOut]
) -> Entry | None:
    """What goes on in the place of an entry that cannot be read."""
    name = item.get("model" if kind == "route" else "name") if isinstance(item, Mapping) else None
    known = name[:_MOST_NAME] if isinstance(name, str) else f"number {number + 1}"
    kept = before.get(name) if isinstance(name, str) else None
    left.append(LeftOut(kind, known, why, kept is not None))
    return kept


def _listed(data: Mapping[Any, Any], field: str) -> Sequence[Any]:
    found = data.get(field, ())
    if not isinstance(found, list | tuple):
        raise Unreadable(f"{field}: it must be a list, and is a {type(found).__name__}")
    return found


def _why(error: ValidationError) -> str:
    """The first faults of an entry, each with its place, in one line and without a value."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in faults[:_MOST_FAULTS]]
    more = [f"and {len(faults) - len(told)} more"] if len(faults) > len(told) else []
    return " ".join("; ".join([*told, *more]).split())[:MOST_WHY]
