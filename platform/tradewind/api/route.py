"""ModelRoute: a public model name and how its traffic reaches deployments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tradewind.api.headers import RESERVED_PREFIX
from tradewind.api.model import ApiModel, Fault, ResourceModel, repeated
from tradewind.api.values import Between, Duration, HeaderName, Line, ModelName, Name
from tradewind.api.wire import HEADER_SOURCE, UNIT_SOURCES

UNIT_PATTERN = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def _reserved(header: str) -> bool:
    return header.lower().startswith(RESERVED_PREFIX) or header.lower() in ("authorization", "x-api-key")


class OverridesSpec(ApiModel):
    """Request fields that a variant sets, whatever the client sent. Absent: the client's value stays."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling mass."""
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    """Candidates per token; -1 is all."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens of the answer at most."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Seed of the sampler."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Penalty for tokens that were there before."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Penalty by how often a token was there."""
    system_prompt: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    """Replaces the client's system message."""


class Variant(ApiModel):
    """A deployment plus overrides, with its share of the traffic."""

    name: Name
    """Unique in the route; shown to clients in `x-tradewind-variant`."""
    deployment: Name
    """ModelDeployment that answers."""
    adapter: Name | None = None
    """LoRA adapter of that deployment."""
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """Share of the traffic, relative to the other variants. 0 is reached by rules only."""
    overrides: OverridesSpec = Field(default_factory=OverridesSpec)
    """Request fields that this variant sets."""


class Assignment(ApiModel):
    """How a caller is given a variant, the same one each time."""

    by: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(min_length=1, max_length=8)
    ] = ("header:x-user-id", "user", "session", "tenant")
    """The first that a request has is its unit: `header:<name>`, `user` (the body's field), `session`
    (the `x-session-id` header), `tenant`, or `request` (each request on its own)."""
    salt: Line | None = None
    """Another salt gives everyone a new draw. Absent: the route's model name."""

    def faults(self) -> Iterable[Fault]:
        yield from repeated(self.by, ("by",), "unit")
        if "request" in self.by[:-1]:
            position = self.by.index("request")
            yield Fault(
                ("by", position), "found 'request' before others; allowed: last, because every request has it"
            )
        for position, unit in enumerate(self.by):
            if unit not in UNIT_SOURCES and not UNIT_PATTERN.fullmatch(unit):
                allowed = ", ".join(("header:<name>", *UNIT_SOURCES))
                yield Fault(("by", position), f"found {unit!r}; allowed: {allowed}")
            elif unit.startswith(HEADER_SOURCE) and _reserved(unit.removeprefix(HEADER_SOURCE)):
                yield Fault(
                    ("by", position), f"found {unit!r}; allowed: a header that is not the platform's own"
                )


class Match(ApiModel):
    """All headers and any of the tenants must fit."""

    headers: Annotated[
        dict[HeaderName, Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=16)
    ] = Field(default_factory=dict)
    """Header names (any case) and the exact values they must have."""
    tenants: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    """Names of Tenants, any of which fits."""

    def faults(self) -> Iterable[Fault]:
        if not self.headers and not self.tenants:
            yield Fault((), "found an empty match; allowed: at least one of headers, tenants")
        names = list(self.headers)
        for fault in repeated((name.lower() for name in names), ("headers",), "header"):
            position = fault.path[-1]
            assert isinstance(position, int)
            yield Fault(("headers", names[position]), fault.message)
        yield from repeated(self.tenants, ("tenants",), "tenant")
        for name in self.headers:
            if _reserved(name):
                yield Fault(
                    ("headers", name), f"found {name!r}; allowed: a header that is not the platform's own"
                )


class Rule(ApiModel):
    """Sends what matches to one variant, before any assignment."""

    match: Match
    """What the request must look like."""
    variant: Name
    """Variant of this route that answers."""


class Fallback(ApiModel):
    """Where a request goes when the variant's own deployment cannot begin an answer."""

    planned: ClassVar[Mapping[str, str]] = {
        "external": "this version falls back to deployments of the same platform only"
    }

    deployment: Name
    """ModelDeployment that answers instead."""


class Retry(ApiModel):
    """Another try on another replica, only before the first byte of an answer."""

    attempts: Annotated[int, Field(ge=1, le=5)] = 2
    """Tries in all, the first included."""
    budget_percent: Annotated[float, Field(ge=0, le=100)] = 10.0
    """Retries allowed as a share of recent requests."""


class Timeouts(ApiModel):
    """How long a client is made to wait."""

    first_token: Annotated[Duration, Between("100ms", "1h")] = Duration(120)
    """From the arrival of the request to the first byte of the answer; when absent, never more than total."""
    total: Annotated[Duration, Between("1s", "24h")] = Duration(600)
    """From the arrival of the request to the last byte of the answer."""

    def faults(self) -> Iterable[Fault]:
        if "first_token" in self.model_fields_set and self.first_token > self.total:
            yield Fault(
                ("firstToken",), f"found {self.first_token}; allowed: at most total, which is {self.total}"
            )


class ModelRouteSpec(ApiModel):
    """One public model name."""

    planned: ClassVar[Mapping[str, str]] = {
        "mirror": "this version does not mirror traffic",
        "rollout": "this version does not roll out by itself: change the weights and apply again",
        "guardrails": "this version does not roll out by itself: change the weights and apply again",
    }

    model: ModelName
    """What clients put in `model`. A route shadows a deployment of the same name."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=32)]
    """Among whom the traffic is split."""
    assignment: Assignment = Field(default_factory=Assignment)
    """Sticky assignment of callers to variants."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=64)] = ()
    """Tried in order before assignment; the first match wins."""
    fallback: Annotated[tuple[Fallback, ...], Field(max_length=8)] = ()
    """Tried in order."""
    retry: Retry = Field(default_factory=Retry)
    """Retries on another replica."""
    timeouts: Timeouts = Field(default_factory=Timeouts)
    """Deadlines of one request."""

    def faults(self) -> Iterable[Fault]:
        names = [variant.name for variant in self.variants]
        yield from repeated(names, ("variants",), "variant", "name")
        yield from repeated(
            (item.deployment for item in self.fallback), ("fallback",), "deployment", "deployment"
        )
        if not any(variant.weight for variant in self.variants):
            yield Fault(
                ("variants",), "found weight 0 in every variant; allowed: at least one weight above 0"
            )
        for position, rule in enumerate(self.rules):
            if rule.variant not in names:
                yield Fault(
                    ("rules", position, "variant"),
                    f"found variant {rule.variant!r}; allowed: {', '.join(dict.fromkeys(names))}",
                )


class ModelRoute(ResourceModel):
    """A public model name: split, rules, sticky assignment, fallback."""

    kind: Literal["ModelRoute"]
    """Always `ModelRoute`."""
    spec: ModelRouteSpec
