"""The status of a ModelRoute: the weights that the gateway goes by, and who can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tradewind.api.route import ModelRoute
from tradewind.api.wire import RouteEntry, VariantEntry, digest
from tradewind.api.wire import written as written_wire
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.conditions import (
    ACCEPTED,
    FALSE,
    READY,
    TRUE,
    UNKNOWN,
    Check,
    Said,
    Status,
    accepted,
    first,
    written,
)
from tradewind_operator.status.live import Unread
from tradewind_operator.status.observation import Observation, common, present

_LONGEST_LINE: Final = 512


@dataclass(frozen=True)
class _Route:
    """One ModelRoute and everything known about it."""

    entry: Entry
    seen: Observation
    ready: frozenset[str]
    """See `answering`."""

    @property
    def old(self) -> Status:
        return self.entry.status

    @cached_property
    def wanted(self) -> RouteEntry | None:
        """The gateway's entry; None when nothing of the route is in force."""
        form = self.seen.decision.in_force.get(self.entry.key)
        if form is None or not isinstance(form.resource, ModelRoute):
            return None
        return self.seen.routes.get(form.resource.spec.model)

    @cached_property
    def unread(self) -> Unread | None:
        """What a gateway with the configuration that was decided says, where it cannot read this entry."""
        gateway = self.seen.live.gateway
        if self.wanted is None or gateway is None or not self.seen.routes_in_effect:
            return None
        return gateway.unread_entry("route", self.wanted.model)

    @cached_property
    def revision(self) -> str | None:
        """Of the entry that is in effect, as far as is known."""
        if self.wanted is not None and self.seen.routes_in_effect and self.unread is None:
            return self._own_revision
        return self.old.get("revision")

    @cached_property
    def in_effect(self) -> bool:
        return self.wanted is not None and self.revision == self._own_revision

    @property
    def _own_revision(self) -> str | None:
        return digest(written_wire(self.wanted)) if self.wanted is not None else None

    @cached_property
    def missing(self) -> list[str]:
        """Who is asked by variants with traffic and cannot answer."""
        variants = self.wanted.variants if self.wanted is not None else ()
        asked = [_asked(variant) for variant in variants if variant.weight]
        return [name for name in dict.fromkeys(asked) if name not in self.ready]


def route_status(entry: Entry, seen: Observation, ready: frozenset[str]) -> dict[str, Any]:
    """The whole new status of a ModelRoute.

    Args:
        ready: who can answer (`answering` of the ModelDeployments' new statuses).
    """
    route = _Route(entry, seen, ready)
    verdict = first(_CHECKS, route, Said(TRUE, "Ready", "All variants that get traffic can answer."))
    said = [(ACCEPTED, accepted(seen.decision.verdicts.get(entry.key))), (READY, verdict)]
    variants = _variants(route)
    fields: dict[str, Any] = {
        **common(entry, seen.decision),
        "conditions": written(route.old, said, entry.generation, seen.now),
        "variants": variants,
        "split": _split(variants),
        "revision": route.revision if route.wanted is not None else None,
    }
    return present(fields)


def answering(statuses: Mapping[str, Status]) -> frozenset[str]:
    """ModelDeployments that can answer, by their new statuses: some replica is in rotation.

    And `<deployment>:<adapter>` for their LoRA adapters.
    """
    found = {name for name, status in statuses.items() if status.get("readyReplicas")}
    for name in tuple(found):
        listed = statuses[name].get("adapters") or ()
        found |= {f"{name}:{adapter['name']}" for adapter in listed if adapter["readyReplicas"]}
    return frozenset(found)


def _asked(variant: VariantEntry) -> str:
    """Who answers for a variant, as `answering` calls it."""
    return f"{variant.deployment}:{variant.adapter}" if variant.adapter else variant.deployment


def percentages(weights: Sequence[int]) -> list[str]:
    """Shares of 100 with one decimal that add up to 100.0 (largest remainders first)."""
    total = sum(weights)
    if not total:
        return ["0.0" for _ in weights]
    parts = [divmod(weight * 1000, total) for weight in weights]
    left = 1000 - sum(whole for whole, _ in parts)
    order = sorted(range(len(parts)), key=lambda place: (-parts[place][1], place))
    bonus = set(order[:left])
    shares = [whole + (place in bonus) for place, (whole, _) in enumerate(parts)]
    return [f"{share // 10}.{share % 10}" for share in shares]


def _variants(route: _Route) -> list[dict[str, Any]]:
    if route.wanted is None:
        return []
    if not route.in_effect and route.old.get("variants"):
        rows = [dict(variant) for variant in route.old["variants"]]
    else:
        variants = route.wanted.variants
        shares = percentages([variant.weight for variant in variants])
        rows = [
            {
                "name": variant.name,
                "deployment": variant.deployment,
                "weight": variant.weight,
                "percent": share,
            }
            for variant, share in zip(variants, shares, strict=True)
        ]
    asked = {variant.name: _asked(variant) for variant in route.wanted.variants}
    return [row | {"ready": asked.get(row["name"], row["deployment"]) in route.ready} for row in rows]


def _split(variants: Sequence[Mapping[str, Any]]) -> str | None:
    """All shares in one line, as far as it reaches."""
    line = ", ".join(f"{variant['name']} {variant['percent']}%" for variant in variants)
    return (line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "...") or None


# The chain


def _not_in_force(route: _Route) -> Said | None:
    if route.wanted is not None:
        return None
    return Said(FALSE, "NotAccepted", "The gateway does not know it; the condition Accepted says why.")


def _not_in_effect(route: _Route) -> Said | None:
    if route.in_effect:
        return None
    if route.seen.live.gateway is None and route.seen.active is not None and route.seen.active.served:
        return Said(UNKNOWN, "Unreachable", "No gateway can be reached to say which weights it goes by.")
    gateway = route.seen.live.gateway
    if gateway is not None and gateway.refused:
        text = "The gateways refuse the configuration with its last change; the ServingCluster says why."
        return Said(FALSE, "ConfigurationRefused", text)
    return Said(FALSE, "Configuring", "The gateway has not taken the last change yet.")


def _not_read(route: _Route) -> Said | None:
    if (entry := route.unread) is None:
        return None
    became = "It goes on as it was" if entry.kept else "It is not there"
    text = f"The gateways, of an earlier release than the operator, cannot read it: {entry.why}. {became}."
    return Said(FALSE, "NotRead", text)


def _without_answer(route: _Route) -> Said | None:
    if not route.missing:
        return None
    names = ", ".join(route.missing)
    return Said(
        FALSE, "VariantNotReady", f"No replica of {names} can answer; that traffic falls back or fails."
    )


_CHECKS: Final[tuple[Check[_Route], ...]] = (
    _not_in_force,
    _not_read,
    _not_in_effect,
    _without_answer,
)
