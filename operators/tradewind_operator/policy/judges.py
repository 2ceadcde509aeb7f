"""How each kind of resource is judged, given what is in force of the kinds that it refers to. Pure.

A judge per kind, in the order in which they build on each other. Another kind is another judge here, and
nothing elsewhere in `policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tradewind.api.deployment import ModelDeployment
from tradewind.api.resources import Resource
from tradewind.api.route import ModelRoute
from tradewind.api.secrets import ApiKeyRef
from tradewind.api.tenant import Tenant
from tradewind.compiler.documents import Located
from tradewind.compiler.world import unknown
from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE, SERVING_CLUSTER, TENANT
from tradewind_operator.policy.namespace import Entry, Namespace
from tradewind_operator.policy.references import (
    References,
    callable_models,
    reduced_tenant,
    with_tenants,
    without_revoked,
)
from tradewind_operator.policy.secrets import SecretValues, secret_findings
from tradewind_operator.policy.verdict import Finding, Key, Reason


@dataclass(frozen=True, slots=True)
class Place:
    """The ServingCluster for which is judged, and what there is around it."""

    namespace: Namespace
    cluster: str
    secrets: SecretValues
    hashes: Mapping[tuple[str, str], str]
    """Of `policy.secrets.hashes`."""
    known_models: frozenset[str]
    """Of `namespace_models`."""
    elsewhere: frozenset[str]
    """Those of other clusters."""
    missing: Finding | None
    """Why nothing can run here; None where something can."""


class Judge(Protocol):
    """Judges the resources of one kind, one after the other."""

    @property
    def kind(self) -> str: ...

    def in_order(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Who has something first, before who wants it too."""
        ...

    def judge(self, entry: Entry, resource: Resource, *, as_written: bool) -> list[Finding] | None:
        """Take one form of a resource, or say why not.

        Args:
            as_written: everything must be right; else what was accepted before goes on with what is left.

        Returns what is wrong with it, nothing where it is taken; None: nothing of it is left.
        """
        ...


@dataclass(slots=True)
class Deployments:
    """ModelDeployments."""

    place: Place
    kind: str = MODEL_DEPLOYMENT.kind
    taken: dict[str, ModelDeployment] = field(default_factory=dict)

    def in_order(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        return entries

    def judge(self, entry: Entry, resource: Resource, *, as_written: bool) -> list[Finding]:
        assert isinstance(resource, ModelDeployment)
        if not (findings := list(self._findings(resource, as_written))):
            self.taken[entry.name] = resource
        return findings

    def _findings(self, deployment: ModelDeployment, as_written: bool) -> Iterable[Finding]:
        place, wanted = self.place, deployment.spec.cluster
        if wanted != place.cluster or place.cluster not in place.namespace.clusters:
            clusters = list(place.namespace.clusters)
            path = ("spec", "cluster")
            diagnostic = unknown(Located.bare(deployment), path, SERVING_CLUSTER.kind, wanted, clusters)
            yield Finding.of(diagnostic, Reason.CLUSTER_NOT_FOUND)
        elif place.missing is not None:
            yield place.missing
        elif as_written:
            # An engine that runs has its weights: a token that is gone since then is no reason to end it.
            yield from secret_findings(deployment, place.secrets, place.namespace.name)


@dataclass(slots=True)
class Routes:
    """ModelRoutes, on the deployments that are in force."""

    place: Place
    deployments: Mapping[str, ModelDeployment]
    kind: str = MODEL_ROUTE.kind
    taken: dict[str, ModelRoute] = field(default_factory=dict)
    _holders: dict[str, str] = field(default_factory=dict)
    """Model name → the route that serves it."""

    def in_order(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        return sorted(entries, key=_route_precedence)

    def judge(self, entry: Entry, resource: Resource, *, as_written: bool) -> list[Finding] | None:
        assert isinstance(resource, ModelRoute)
        references = References(self.place.namespace, self.place.cluster, self.deployments)
        findings = self._model_taken(resource)
        left: ModelRoute | None = resource
        if as_written:
            findings += references.route_findings(resource)
        else:
            left = references.reduced_route(resource)
        if findings or left is None:
            return findings or None
        self._holders[resource.spec.model] = entry.name
        self.taken[entry.name] = left
        return []

    def _model_taken(self, route: ModelRoute) -> list[Finding]:
        model = route.spec.model
        if (holder := self._holders.get(model)) is None:
            return []
        message = f"found {model!r}, which ModelRoute {holder!r} serves; allowed: one route per model"
        return [Finding.of(Located.bare(route).at(("spec", "model"), message), Reason.MODEL_TAKEN)]


@dataclass(slots=True)
class Tenants:
    """Tenants, on the models that can be called."""

    place: Place
    deployments: Mapping[str, ModelDeployment]
    routes: Mapping[str, ModelRoute]
    kind: str = TENANT.kind
    taken: dict[str, Tenant] = field(default_factory=dict)
    open: dict[str, Tenant] = field(default_factory=dict)
    """What they may call, here or in other clusters."""
    _owners: dict[str, str] = field(default_factory=dict)
    """Hash of a key → the tenant whose it is."""
    _models: frozenset[str] = frozenset()
    """That can be called here."""

    def in_order(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        self._models = callable_models(self.deployments.values(), self.routes.values())
        ordered = sorted(entries, key=lambda entry: entry.precedence)
        for entry in ordered:
            if entry.accepted is not None:
                # It keeps these before anybody is judged: another's edit takes no key from who has it.
                self._own(entry, without_revoked(_tenant(entry.accepted.resource), entry.document))
        return ordered

    def judge(self, entry: Entry, resource: Resource, *, as_written: bool) -> list[Finding] | None:
        place, tenant = self.place, _tenant(resource)
        if not as_written:
            tenant = self._without_taken(entry, without_revoked(tenant, entry.document))
        elif findings := self._findings(entry, tenant):
            return findings
        left = reduced_tenant(tenant, place.secrets, place.known_models)
        if left is None:
            return None
        self._own(entry, left)
        # Which of its models are served is this cluster's affair, and nothing wrong with the tenant.
        if (anywhere := reduced_tenant(left, place.secrets, self._models | place.elsewhere)) is not None:
            self.open[entry.name] = anywhere
        if (here := reduced_tenant(left, place.secrets, self._models)) is not None:
            self.taken[entry.name] = here
        return []

    def _findings(self, entry: Entry, tenant: Tenant) -> list[Finding]:
        place = self.place
        findings = [
            Finding(
                Reason.KEY_IN_USE,
                f"spec.keys: found a key that Tenant {owner!r} has; allowed: keys of its own",
            )
            for key in tenant.spec.keys
            if (owner := self._owner(key)) not in (None, entry.name)
        ]
        findings += secret_findings(tenant, place.secrets, place.namespace.name)
        references = References(place.namespace, place.cluster)
        return findings + references.tenant_findings(tenant, place.known_models)

    def _without_taken(self, entry: Entry, tenant: Tenant) -> Tenant:
        keys = tuple(key for key in tenant.spec.keys if self._owner(key) in (None, entry.name))
        return tenant.model_copy(update={"spec": tenant.spec.model_copy(update={"keys": keys})})

    def _own(self, entry: Entry, tenant: Tenant) -> None:
        for key in tenant.spec.keys:
            if (digest := self._digest(key)) is not None:
                self._owners.setdefault(digest, entry.name)

    def _owner(self, key: ApiKeyRef) -> str | None:
        """The tenant whose this key is; None: nobody's, or it is not there."""
        digest = self._digest(key)
        return self._owners.get(digest) if digest is not None else None

    def _digest(self, key: ApiKeyRef) -> str | None:
        place = (key.secret.name, key.secret.key) if key.secret is not None else None
        return self.place.hashes.get(place) if place is not None else None


class Bench:
    """All judges, for one round."""

    def __init__(self, place: Place) -> None:
        self._deployments = Deployments(place)
        self._routes = Routes(place, self._deployments.taken)
        self._tenants = Tenants(place, self._deployments.taken, self._routes.taken)
        self.judges: tuple[Judge, ...] = (self._deployments, self._routes, self._tenants)

    def open_tenants(self) -> Mapping[str, Tenant]:
        """What each tenant may call in some cluster of the namespace."""
        return self._tenants.open

    def taken(self) -> dict[Key, Resource]:
        """Everything that was taken, as it may be compiled."""
        tenants = self._tenants.taken
        found: dict[Key, Resource] = {}
        for name, deployment in self._deployments.taken.items():
            found[self._deployments.kind, name] = deployment
        for name, route in self._routes.taken.items():
            found[self._routes.kind, name] = with_tenants(route, tenants)
        for name, tenant in tenants.items():
            found[self._tenants.kind, name] = tenant
        return found


def _tenant(resource: Resource) -> Tenant:
    assert isinstance(resource, Tenant)
    return resource


def _route_precedence(entry: Entry) -> tuple[bool, tuple[bool, str, str]]:
    """First the routes that go on serving the model name that they were accepted with."""
    models = [form.resource.spec.model for form in entry.forms() if isinstance(form.resource, ModelRoute)]
    keeps = entry.accepted is not None and len(set(models)) == 1
    return not keeps, entry.precedence
