"""The resources of one namespace as they were read, and which ServingCluster each belongs to.

A resource has up to two forms: `current`, as it is written, and `accepted`, what the operator took last
and keeps in the status. Every resource has exactly one home, the ServingCluster whose reconcile speaks
about it, so that no two ever write the same status. Tenants open all of them, whichever speaks about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tradewind.api.deployment import ModelDeployment
from tradewind.api.explain import dotted
from tradewind.api.model import API_VERSION
from tradewind.api.resources import KINDS, InvalidResourceError, Resource, parse_resource
from tradewind.api.route import ModelRoute
from tradewind.compiler.documents import Located
from tradewind.compiler.world import DEFAULT_CLUSTER
from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE, SERVING_CLUSTER, TENANT
from tradewind_operator.policy.accepted import AcceptedBlock
from tradewind_operator.policy.verdict import Finding, Key, Reason

Document = Mapping[str, Any]
"""A resource as the API server gives it."""


@dataclass(frozen=True, slots=True)
class Documents:
    """All resources of one namespace."""

    namespace: str
    by_kind: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form:
    """A spec that can be read, and the generation it was written as."""

    resource: Resource
    generation: int

    def located(self) -> Located:
        """For the compiler, whose diagnostics then name `Kind/name`."""
        return Located.bare(self.resource)


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource."""

    kind: str
    name: str
    document: Document
    current: Form | None
    """None: what is written cannot be read; `findings` says why."""
    accepted: Form | None
    findings: tuple[Finding, ...] = ()
    unread: str = ""
    """Why what was accepted last cannot go on; empty where it can, or there is none."""

    @property
    def key(self) -> Key:
        return self.kind, self.name

    @property
    def generation(self) -> int:
        return generation_of(self.document)

    @property
    def status(self) -> Mapping[str, Any]:
        """As it was written last; empty before that."""
        return self.document.get("status") or {}

    @property
    def deleting(self) -> bool:
        return bool(self.document["metadata"].get("deletionTimestamp"))

    @property
    def precedence(self) -> tuple[bool, str, str]:
        """Sorts who had something first before who wants it too: accepted, then older, then by name."""
        created = self.document["metadata"].get("creationTimestamp") or ""
        return self.accepted is None, str(created), self.name

    def forms(self) -> Iterable[Form]:
        """The forms there are, the one to be preferred first."""
        return (form for form in (self.current, self.accepted) if form is not None)


def generation_of(document: Document) -> int:
    """`metadata.generation`, 1 where the API server did not say."""
    return int(document["metadata"].get("generation") or 1)


def read_entry(kind: str, document: Document) -> Entry:
    """Parse what is written and, where it differs, what was accepted last."""
    name = str(document["metadata"]["name"])
    generation = generation_of(document)
    current: Form | None = None
    findings: tuple[Finding, ...] = ()
    try:
        current = Form(_parse(kind, name, document.get("spec")), generation)
    except InvalidResourceError as error:
        findings = tuple(
            Finding(
                Reason.INVALID,
                f"{dotted(fault.path)}: {fault.message}" + (f" ({fault.hint})" if fault.hint else ""),
            )
            for fault in error.faults
        )
    accepted, unread = _accepted(kind, name, document, current)
    return Entry(kind, name, document, current, accepted, findings, unread)


def _parse(kind: str, name: str, spec: object) -> Resource:
    # Labels, annotations and what the server keeps beside them are none of ours, and may be of any length.
    data: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}
    return parse_resource(data if spec is None else data | {"spec": spec})


def _accepted(kind: str, name: str, document: Document, current: Form | None) -> tuple[Form | None, str]:
    """What was accepted last, or why that cannot be read."""
    block = AcceptedBlock.of((document.get("status") or {}).get("accepted"))
    if block is None:
        return None, ""
    if current is not None and block.generation == current.generation:
        return current, ""
    if why := block.foreign():
        return None, why
    try:
        return Form(_parse(kind, name, block.spec), block.generation), ""
    except InvalidResourceError:
        # Written by an operator that allowed more.
        return None, f"what was accepted as generation {block.generation} breaks the rules of this operator"


@dataclass(slots=True)
class Namespace:
    """All resources by name, each kind in the order of names, with their homes."""

    name: str
    tables: dict[str, dict[str, Entry]] = field(
        default_factory=lambda: {kind: dict[str, Entry]() for kind in KINDS}
    )
    """Kind → name → resource."""
    deployment_homes: dict[str, str] = field(default_factory=dict)
    """ModelDeployment → ServingCluster."""

    @classmethod
    def of(cls, documents: Documents) -> Namespace:
        found = cls(documents.namespace)
        entries = [
            read_entry(kind, document) for kind, several in documents.by_kind.items() for document in several
        ]
        for entry in sorted(entries, key=lambda entry: entry.key):
            found.tables[entry.kind][entry.name] = entry
        found.deployment_homes = {
            name: _deployment_home(entry, found.clusters) for name, entry in found.deployments.items()
        }
        return found

    @property
    def clusters(self) -> dict[str, Entry]:
        return self.tables[SERVING_CLUSTER.kind]

    @property
    def deployments(self) -> dict[str, Entry]:
        return self.tables[MODEL_DEPLOYMENT.kind]

    @property
    def routes(self) -> dict[str, Entry]:
        return self.tables[MODEL_ROUTE.kind]

    @property
    def tenants(self) -> dict[str, Entry]:
        return self.tables[TENANT.kind]

    @property
    def speaker(self) -> str:
        """The ServingCluster that speaks about what belongs to all of them, or to none."""
        return next(iter(self.clusters), DEFAULT_CLUSTER)

    def homes(self) -> frozenset[str]:
        """Every ServingCluster that must be reconciled, missing ones included."""
        return frozenset(self.clusters) | frozenset(self.deployment_homes.values()) | {self.speaker}

    def entries(self) -> Iterable[Entry]:
        """All resources, kind by kind."""
        return (entry for table in self.tables.values() for entry in table.values())

    def models(self) -> list[Entry]:
        """Every ModelDeployment and ModelRoute that stays."""
        return [entry for entry in (*self.deployments.values(), *self.routes.values()) if not entry.deleting]

    def elsewhere(self, cluster: str) -> list[Entry]:
        """Those of `models` that another ServingCluster has."""
        homes = self.clusters.keys() - {cluster}
        return [entry for entry in self.models() if self.home(entry) in homes] if homes else []

    def home(self, entry: Entry) -> str:
        """The ServingCluster whose reconcile speaks about a resource; that of a tenant, the speaker."""
        if entry.kind == SERVING_CLUSTER.kind:
            return entry.name
        if entry.kind == MODEL_DEPLOYMENT.kind:
            return self.deployment_homes[entry.name]
        return self._route_home(entry) if entry.kind == MODEL_ROUTE.kind else self.speaker

    def _route_home(self, entry: Entry) -> str:
        """The cluster of the route's deployments; where that is not one, of the first that there is."""
        found = [clusters for form in entry.forms() if (clusters := self._clusters_of(form))]
        single = [clusters[0] for clusters in found if len(set(clusters)) == 1]
        return single[0] if single else found[0][0] if found else self.speaker

    def _clusters_of(self, form: Form) -> list[str]:
        if not isinstance(form.resource, ModelRoute):
            return []
        homes = self.deployment_homes
        return [homes[name] for name in deployments_of(form.resource) if name in homes]


def _deployment_home(entry: Entry, clusters: Mapping[str, Entry]) -> str:
    """Where it is to run; while there is no such cluster, where it ran last."""
    wanted = [
        form.resource.spec.cluster for form in entry.forms() if isinstance(form.resource, ModelDeployment)
    ]
    existing = [name for name in wanted if name in clusters]
    if existing or wanted:
        return (existing or wanted)[0]
    spec = entry.document.get("spec")
    named = spec.get("cluster") if isinstance(spec, Mapping) else None
    return named if isinstance(named, str) and named in clusters else DEFAULT_CLUSTER


def deployments_of(route: ModelRoute) -> list[str]:
    """All deployments that a route names, variants first."""
    spec = route.spec
    return [variant.deployment for variant in spec.variants] + [item.deployment for item in spec.fallback]
