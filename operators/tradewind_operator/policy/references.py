"""What routes and tenants refer to, and what is left of them when some of it is gone.

A resource as it is written must be right in whole. What was accepted before goes on without what has
vanished since: a route without a variant whose deployment was deleted, a tenant without a key whose
Secret is gone. So nobody's deletion is somebody else's outage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tradewind.api.deployment import ModelDeployment
from tradewind.api.model import Path
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant
from tradewind.compiler.documents import Located
from tradewind.compiler.world import unknown
from tradewind_operator.kinds import MODEL_DEPLOYMENT, TENANT
from tradewind_operator.policy.namespace import Entry, Namespace
from tradewind_operator.policy.secrets import SecretValues, State, found
from tradewind_operator.policy.verdict import Finding, Reason

_ALL = "*"
_FEW = 200
"""Beyond this many names, looking for similar ones takes too long to do for each of many mistakes."""


@dataclass(slots=True)
class References:
    """What can be referred to in one ServingCluster."""

    namespace: Namespace
    cluster: str
    deployments: Mapping[str, ModelDeployment] = field(default_factory=dict)
    """In force in this cluster."""

    def route_findings(self, route: ModelRoute) -> list[Finding]:
        """Everything that the route names and cannot have."""
        located = Located.bare(route)
        findings = [
            finding
            for path, name in _named(route)
            if (finding := self._deployment_finding(located, path, name)) is not None
        ]
        for position, rule in enumerate(route.spec.rules):
            for index, name in enumerate(rule.match.tenants):
                entry = self.namespace.tenants.get(name)
                if entry is None or entry.deleting:
                    path = ("spec", "rules", position, "match", "tenants", index)
                    known = self.namespace.tenants
                    findings.append(
                        _unknown(located, path, TENANT.kind, name, known, Reason.TENANT_NOT_FOUND)
                    )
        return findings

    def _deployment_finding(self, located: Located, path: Path, name: str) -> Finding | None:
        if name in self.deployments:
            return None
        entry = self.namespace.deployments.get(name)
        if entry is None:
            known = self.namespace.deployments
            return _unknown(located, path, MODEL_DEPLOYMENT.kind, name, known, Reason.DEPLOYMENT_NOT_FOUND)
        home = self.namespace.deployment_homes[name]
        if entry.deleting:
            reason, what = Reason.DEPLOYMENT_DELETING, "which is being deleted"
        elif home != self.cluster:
            reason = Reason.MIXED_CLUSTERS
            allowed = f"deployments of one ServingCluster, here {self.cluster!r}"
            what = f"which is in ServingCluster {home!r}; allowed: {allowed}"
        else:
            reason, what = Reason.DEPLOYMENT_NOT_ACCEPTED, "which is not accepted; its own conditions say why"
        return Finding.of(located.at(path, f"found ModelDeployment {name!r}, {what}"), reason)

    def reduced_route(self, route: ModelRoute) -> ModelRoute | None:
        """The route without variants and fallbacks that cannot be had; None when no traffic is left.

        The shares of the variants that are left stay in proportion.
        """
        spec = route.spec
        variants = tuple(
            variant
            for variant in spec.variants
            if (deployment := self.deployments.get(variant.deployment)) is not None
            and (variant.adapter is None or variant.adapter in _adapters(deployment))
        )
        if not any(variant.weight for variant in variants):
            return None
        names = {variant.name for variant in variants}
        changes = {
            "variants": variants,
            "fallback": tuple(item for item in spec.fallback if item.deployment in self.deployments),
            "rules": tuple(rule for rule in spec.rules if rule.variant in names),
        }
        return route.model_copy(update={"spec": spec.model_copy(update=changes)})

    def tenant_findings(self, tenant: Tenant, models: frozenset[str]) -> list[Finding]:
        """Models that nothing in the namespace answers to. `models`: of `namespace_models`."""
        located = Located.bare(tenant)
        return [
            _unknown(
                located,
                ("spec", "models", index),
                "route or deployment",
                name,
                models,
                Reason.MODEL_NOT_FOUND,
            )
            for index, name in enumerate(tenant.spec.models)
            if name != _ALL and name not in models
        ]


def namespace_models(namespace: Namespace) -> frozenset[str]:
    """Every name that is a model's in some cluster of the namespace, in force or not."""
    return model_names(namespace.models())


def model_names(entries: Iterable[Entry]) -> frozenset[str]:
    """What these ModelDeployments and ModelRoutes may be called by."""
    names: set[str] = set()
    for entry in entries:
        if entry.kind == MODEL_DEPLOYMENT.kind:
            names.add(entry.name)
        for form in entry.forms():
            if isinstance(form.resource, ModelRoute):
                names.add(form.resource.spec.model)
            elif isinstance(form.resource, ModelDeployment):
                names |= {f"{entry.name}:{adapter}" for adapter in _adapters(form.resource)}
    return frozenset(names)


def callable_models(deployments: Iterable[ModelDeployment], routes: Iterable[ModelRoute]) -> frozenset[str]:
    """What a client may put in `model`."""
    names = {route.spec.model for route in routes}
    for deployment in deployments:
        name = deployment.metadata.name
        names |= {name, *(f"{name}:{adapter}" for adapter in _adapters(deployment))}
    return frozenset(names)


def reduced_tenant(tenant: Tenant, secrets: SecretValues, models: frozenset[str]) -> Tenant | None:
    """The tenant with the keys that could be read and the models that are served; None when one is empty."""
    keys = tuple(
        key
        for key in tenant.spec.keys
        if key.secret is not None and found(key.secret, secrets).state is State.PRESENT
    )
    served = tuple(name for name in tenant.spec.models if name == _ALL or name in models)
    if not keys or not served:
        return None
    if (keys, served) == (tenant.spec.keys, tenant.spec.models):
        return tenant
    return tenant.model_copy(update={"spec": tenant.spec.model_copy(update={"keys": keys, "models": served})})


def without_revoked(tenant: Tenant, document: Mapping[str, Any]) -> Tenant:
    """What was accepted before, without the keys and models that the resource as it is written takes away.

    The document is refused, and may be wrong in any way; but whoever takes a key out of it means that, and a
    mistake beside it must not keep the key open. What cannot be read as one counts as taken away.
    """
    spec = document.get("spec")
    written = spec if isinstance(spec, Mapping) else {}
    keys = {_place(key) for key in _items(written.get("keys"))} - {None}
    models = {name for name in _items(written.get("models", [_ALL])) if isinstance(name, str)}
    kept = tuple(
        key
        for key in tenant.spec.keys
        if key.secret is not None and (key.secret.name, key.secret.key) in keys
    )
    served = tenant.spec.models
    if _ALL not in models:
        served = tuple(sorted(models)) if _ALL in served else tuple(name for name in served if name in models)
    return tenant.model_copy(update={"spec": tenant.spec.model_copy(update={"keys": kept, "models": served})})


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _place(key: object) -> tuple[str, str] | None:
    """Name and key of the Secret that an entry of `spec.keys` names; None where it names none."""
    secret = key.get("secret") if isinstance(key, Mapping) else None
    if not isinstance(secret, Mapping):
        return None
    name, place = secret.get("name"), secret.get("key")
    return (name, place) if isinstance(name, str) and isinstance(place, str) else None


def with_tenants(route: ModelRoute, tenants: Mapping[str, Tenant]) -> ModelRoute:
    """The route without rules that only absent tenants would match.

    A rule loses the names of absent tenants; without any name left the rule itself goes, because an
    empty list would match everybody.
    """
    if all(name in tenants for rule in route.spec.rules for name in rule.match.tenants):
        return route
    rules = []
    for rule in route.spec.rules:
        present = tuple(name for name in rule.match.tenants if name in tenants)
        if present or not rule.match.tenants:
            match = rule.match.model_copy(update={"tenants": present})
            rules.append(rule.model_copy(update={"match": match}))
    return route.model_copy(update={"spec": route.spec.model_copy(update={"rules": tuple(rules)})})


def _named(route: ModelRoute) -> Iterable[tuple[Path, str]]:
    for position, variant in enumerate(route.spec.variants):
        yield ("spec", "variants", position, "deployment"), variant.deployment
    for position, item in enumerate(route.spec.fallback):
        yield ("spec", "fallback", position, "deployment"), item.deployment


def _adapters(deployment: ModelDeployment) -> frozenset[str]:
    return frozenset(adapter.name for adapter in deployment.spec.adapters)


def _unknown(
    located: Located, path: Path, what: str, name: str, known: Iterable[str], reason: Reason
) -> Finding:
    names = sorted(known)
    if len(names) > _FEW:
        return Finding.of(located.at(path, f"found {name!r}, but there is no such {what}"), reason)
    return Finding.of(unknown(located, path, what, name, names), reason)
