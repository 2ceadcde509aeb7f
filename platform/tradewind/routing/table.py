"""From a model name and a caller to the variant that answers: the gateway's routing table.

    LookupError
    └── UnknownModel          no route and no deployment has the name
    ValueError
    └── InvalidTableError     a GatewayConfig that contradicts itself; the old table stays in use

A table is built once per configuration and never changes; a new configuration is a new table. All
that can be known beforehand is computed in `build`, down to the `Decision` objects, so that
`resolve` is two dictionary look-ups, the rules, and one hash per variant.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Literal, NamedTuple

from tradewind.api import headers
from tradewind.api.steps import Steps, at_once
from tradewind.api.wire import (
    HEADER_SOURCE,
    DeploymentEntry,
    GatewayConfig,
    Overrides,
    RetryEntry,
    RouteEntry,
    VariantEntry,
)
from tradewind.routing.assignment import Assignment

Reason = Literal["rule", "sticky", "request", "direct"]
Kind = Literal["route", "deployment"]

# Closeness is quadratic in the length of the names, and the client chooses one of them.
_SUGGEST_UP_TO_CHARS = 64
_SUGGEST_FROM_NAMES = 256
_SHOWN_CHARS = 64


class UnknownModel(LookupError):
    """No route and no deployment is called `model`."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(f"no route or deployment is named {model[:_SHOWN_CHARS]!r}")
        self.model = model
        self.known = known

    def close_matches(self, visible: Callable[[str], bool] | None = None) -> list[str]:
        """At most three names that look like the one asked for, best first.

        `visible` says which names the caller may learn of; None shows all. Bounded work: nothing
        is compared for a name longer than any sensible one.
        """
        if len(self.model) > _SUGGEST_UP_TO_CHARS:
            return []
        names = [name for name in self.known if visible is None or visible(name)]
        return difflib.get_close_matches(self.model, names[:_SUGGEST_FROM_NAMES], n=3, cutoff=0.6)


class InvalidTableError(ValueError):
    """The configuration names something that it does not hold, or names something twice."""


@dataclass(slots=True)
class Subject:
    """Who asks, as far as assignment cares. Empty strings count as absent.

    Not frozen: one is made per request, and a frozen one takes three times as long to make.
    """

    headers: Mapping[str, str] | Callable[[str], str | None]
    """Lower-case name to value, or a look-up that returns None for an absent header."""
    user: str | None
    """The body's `user`."""
    session: str | None
    """None: header `x-session-id` is looked at."""
    tenant: str
    """Empty for a caller without a key: else all of them would be one unit, in one variant."""
    request_id: str
    """The unit of a request that has no other: unique, and not the client's to choose."""

    def header(self, name: str) -> str | None:
        """Value of a header by lower-case name."""
        source = self.headers
        return source(name) if callable(source) else source.get(name)


@dataclass(frozen=True, slots=True)
class CompiledVariant:
    """A deployment plus overrides, all names resolved."""

    name: str
    deployment: DeploymentEntry
    adapter: str | None = None
    overrides: Overrides | None = None
    """None when there is nothing to override."""
    weight: int = 1

    @property
    def upstream_model(self) -> str:
        """What the engine calls the model: `<deployment>` or `<deployment>:<adapter>`."""
        return self.deployment.name if self.adapter is None else f"{self.deployment.name}:{self.adapter}"


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """One public model name. A deployment's own name is a route with a single variant."""

    model: str
    kind: Kind
    variants: tuple[CompiledVariant, ...]
    fallback: tuple[DeploymentEntry, ...]
    """Deployments to try in order when the variant's own cannot begin an answer."""
    retry: RetryEntry
    first_token_timeout_s: float
    total_timeout_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one request goes, and why."""

    route: CompiledRoute
    variant: CompiledVariant
    reason: Reason
    """rule: a rule matched; sticky: by the caller's unit; request: on its own; direct: by deployment name."""


class ListedModel(NamedTuple):
    """A line of `/v1/models`."""

    name: str
    kind: Kind
    deployment: DeploymentEntry | None
    """None for a route whose variants are on several deployments."""


class RouteTable:
    """Immutable. `resolve` is O(rules + variants) of one route, whatever the number of routes."""

    __slots__ = ("_known", "_resolvers", "deployments", "revision", "routes")

    def __init__(
        self, revision: str, deployments: Mapping[str, DeploymentEntry], resolvers: Mapping[str, _Resolver]
    ) -> None:
        self.revision = revision
        self.deployments = MappingProxyType(dict(deployments))
        self.routes: Mapping[str, CompiledRoute] = MappingProxyType(
            {name: resolver.route for name, resolver in resolvers.items()}
        )
        """Every model name there is, deployments' own names included."""
        self._resolvers = dict(resolvers)
        self._known = tuple(self._resolvers)

    @classmethod
    def build(cls, config: GatewayConfig) -> RouteTable:
        """Compile a configuration. Raises InvalidTableError, with the path of what is wrong."""
        return at_once(cls.building(config))

    @classmethod
    def building(cls, config: GatewayConfig, withheld: Collection[str] = ()) -> Steps[RouteTable]:
        """`build` in steps. No deployment answers for a name in `withheld`, that of a route left out."""
        deployments = {entry.name: entry for entry in config.deployments}
        if len(deployments) != len(config.deployments):
            raise InvalidTableError("deployments: two have the same name")
        resolvers: dict[str, _Resolver] = {}
        for entry in config.routes:
            if entry.model in resolvers:
                raise InvalidTableError(f"routes: two are for the model {entry.model!r}")
            resolvers[entry.model] = _route_resolver(entry, deployments)
            yield
        for deployment in config.deployments:
            # A route shadows the deployment of its name: clients of that name get the split.
            for adapter in (None, *deployment.adapters):
                direct = _direct_resolver(deployment, adapter)
                if direct.route.model not in withheld:
                    resolvers.setdefault(direct.route.model, direct)
                yield
        return cls(config.revision, deployments, resolvers)

    def resolve(self, model: str, subject: Subject) -> Decision:
        """Route and variant for a request. Raises UnknownModel."""
        resolver = self._resolvers.get(model)
        if resolver is None:
            raise UnknownModel(model, self._known)
        return resolver.decide(subject)

    def models(self) -> list[ListedModel]:
        """All names a client may send: routes in the order of the configuration, then deployments."""
        return [ListedModel(name, route.kind, _sole_deployment(route)) for name, route in self.routes.items()]


class _Rule(NamedTuple):
    """Matches when all the headers and any of the tenants do; one that names neither matches everyone."""

    headers: tuple[tuple[str, str], ...]
    tenants: frozenset[str]
    decision: Decision

    def matches(self, subject: Subject) -> bool:
        if self.tenants and subject.tenant not in self.tenants:
            return False
        return all(subject.header(name) == value for name, value in self.headers)


UnitSource = Callable[[Subject], str | None]


class _Resolver:
    """One route with its decisions made beforehand."""

    __slots__ = ("_assignment", "_request", "_rules", "_sources", "_sticky", "route")

    def __init__(
        self,
        route: CompiledRoute,
        assignment: Assignment,
        rules: tuple[_Rule, ...] = (),
        sources: tuple[UnitSource, ...] = (),
        unkeyed: Reason = "request",
    ) -> None:
        """`sources` in order of preference; `unkeyed` is the reason given when none is present."""
        self.route = route
        self._assignment = assignment
        self._rules = rules
        self._sources = sources
        self._sticky = {v.name: Decision(route, v, "sticky") for v in route.variants}
        self._request = {v.name: Decision(route, v, unkeyed) for v in route.variants}

    def decide(self, subject: Subject) -> Decision:
        for rule in self._rules:
            if rule.matches(subject):
                return rule.decision
        for source in self._sources:
            unit = source(subject)
            if unit:
                return self._sticky[self._assignment.pick(unit)]
        return self._request[self._assignment.pick(subject.request_id)]


def _route_resolver(entry: RouteEntry, deployments: Mapping[str, DeploymentEntry]) -> _Resolver:
    where = f"routes[{entry.model}]"
    variants = {v.name: _variant(v, deployments, where) for v in entry.variants}
    if len(variants) != len(entry.variants):
        raise InvalidTableError(f"{where}.variants: two have the same name")
    route = CompiledRoute(
        model=entry.model,
        kind="route",
        variants=tuple(variants.values()),
        fallback=tuple(_deployment(name, deployments, f"{where}.fallback") for name in entry.fallback),
        retry=entry.retry,
        first_token_timeout_s=entry.first_token_timeout_s,
        total_timeout_s=entry.total_timeout_s,
    )
    try:
        # Without a salt of its own a route is salted by its name: two routes never line up by default.
        assignment = Assignment(entry.salt or entry.model, {v.name: v.weight for v in entry.variants})
    except ValueError as error:
        raise InvalidTableError(f"{where}.variants: {error}") from error
    rules = []
    for rule in entry.rules:
        if rule.variant not in variants:
            raise InvalidTableError(f"{where}.rules: there is no variant {rule.variant!r}")
        matched = tuple((name.lower(), value) for name, value in rule.headers.items())
        decision = Decision(route, variants[rule.variant], "rule")
        rules.append(_Rule(matched, frozenset(rule.tenants), decision))
    return _Resolver(route, assignment, tuple(rules), _sources(entry.assign_by, where))


def _direct_resolver(deployment: DeploymentEntry, adapter: str | None) -> _Resolver:
    """A deployment under its own name (`<deployment>:<adapter>` with an adapter): the defaults of a
    route, the deployment's own timeout."""
    variant = CompiledVariant(deployment.name, deployment, adapter)
    total = deployment.request_timeout_s
    first_token: float = RouteEntry.model_fields["first_token_timeout_s"].default
    route = CompiledRoute(
        model=variant.upstream_model,
        kind="deployment",
        variants=(variant,),
        fallback=(),
        retry=RetryEntry(),
        first_token_timeout_s=min(first_token, total),
        total_timeout_s=total,
    )
    return _Resolver(route, Assignment("", {deployment.name: 1}), unkeyed="direct")


def _variant(entry: VariantEntry, deployments: Mapping[str, DeploymentEntry], where: str) -> CompiledVariant:
    deployment = _deployment(entry.deployment, deployments, f"{where}.variants[{entry.name}]")
    if entry.adapter is not None and entry.adapter not in deployment.adapters:
        raise InvalidTableError(
            f"{where}.variants[{entry.name}]: {deployment.name} has no adapter {entry.adapter!r}"
        )
    overrides = None if entry.overrides == Overrides() else entry.overrides
    return CompiledVariant(entry.name, deployment, entry.adapter, overrides, entry.weight)


def _deployment(name: str, deployments: Mapping[str, DeploymentEntry], where: str) -> DeploymentEntry:
    try:
        return deployments[name]
    except KeyError:
        raise InvalidTableError(f"{where}: there is no deployment {name!r}") from None


def _sole_deployment(route: CompiledRoute) -> DeploymentEntry | None:
    first = route.variants[0].deployment
    return first if all(v.deployment.name == first.name for v in route.variants) else None


def _session(subject: Subject) -> str | None:
    return subject.session or subject.header(headers.SESSION)


_NAMED_SOURCES: Mapping[str, UnitSource] = MappingProxyType(
    {"user": attrgetter("user"), "session": _session, "tenant": attrgetter("tenant")}
)


def _sources(assign_by: Sequence[str], where: str) -> tuple[UnitSource, ...]:
    """What `assign_by` names, in order. The value alone is the unit, whichever source it came from:

    a user is in the same variant whether the application names them by header or in the body.
    `request` ends the list: every request has an id of its own.
    """
    sources: list[UnitSource] = []
    for name in assign_by:
        if name == "request":
            break
        if name in _NAMED_SOURCES:
            sources.append(_NAMED_SOURCES[name])
        elif name.startswith(HEADER_SOURCE) and len(name) > len(HEADER_SOURCE):
            sources.append(_header_source(name.removeprefix(HEADER_SOURCE).lower()))
        else:
            allowed = "header:<name>, user, session, tenant, request"
            raise InvalidTableError(f"{where}.assign_by: {name!r} is none of {allowed}")
    return tuple(sources)


def _header_source(name: str) -> UnitSource:
    def read(subject: Subject) -> str | None:
        return subject.header(name)

    return read
