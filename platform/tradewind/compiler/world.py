"""The resources of one platform, by kind and name, with everything that is wrong among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tradewind.api.cluster import ServingCluster, ServingClusterSpec
from tradewind.api.deployment import ModelDeployment
from tradewind.api.model import Path
from tradewind.api.resources import Resource
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant
from tradewind.compiler.diagnostics import Diagnostic
from tradewind.compiler.documents import Located

DEFAULT_CLUSTER = "default"


@dataclass(frozen=True, slots=True)
class Platform:
    """The place where the resources run."""

    kubernetes: bool
    """There are Secrets and pools of nodes, and the endpoint is a Service that nobody calls without a key."""


LOCAL = Platform(kubernetes=False)
"""One machine: `tradewind up`."""
CLUSTER = Platform(kubernetes=True)
"""Kubernetes."""


@dataclass(slots=True)
class World:
    """Resources by name. The first of a name wins; later ones are in `duplicates`."""

    clusters: dict[str, Located] = field(default_factory=dict)
    deployments: dict[str, Located] = field(default_factory=dict)
    routes: dict[str, Located] = field(default_factory=dict)
    tenants: dict[str, Located] = field(default_factory=dict)
    duplicates: list[tuple[Located, Located]] = field(default_factory=list)

    @classmethod
    def of(cls, resources: Iterable[Located]) -> World:
        world = cls()
        for located in resources:
            table = world._table(located.resource)
            if (first := table.setdefault(located.name, located)) is not located:
                world.duplicates.append((first, located))
        return world

    def _table(self, resource: Resource) -> dict[str, Located]:
        if isinstance(resource, ServingCluster):
            return self.clusters
        if isinstance(resource, ModelDeployment):
            return self.deployments
        return self.routes if isinstance(resource, ModelRoute) else self.tenants

    def all(self) -> Iterator[Located]:
        """Every resource but the duplicates."""
        for table in (self.clusters, self.deployments, self.routes, self.tenants):
            yield from table.values()

    @property
    def cluster_name(self) -> str:
        return next(iter(self.clusters), DEFAULT_CLUSTER)

    @property
    def cluster_spec(self) -> ServingClusterSpec:
        """Of the one ServingCluster, or all defaults."""
        for located in self.clusters.values():
            if isinstance(located.resource, ServingCluster):
                return located.resource.spec
        return ServingClusterSpec()

    def model_deployments(self) -> Iterator[tuple[Located, ModelDeployment]]:
        """By name."""
        for _, located in sorted(self.deployments.items()):
            if isinstance(located.resource, ModelDeployment):
                yield located, located.resource

    def model_routes(self) -> Iterator[tuple[Located, ModelRoute]]:
        """By name."""
        for _, located in sorted(self.routes.items()):
            if isinstance(located.resource, ModelRoute):
                yield located, located.resource

    def all_tenants(self) -> Iterator[tuple[Located, Tenant]]:
        """By name."""
        for _, located in sorted(self.tenants.items()):
            if isinstance(located.resource, Tenant):
                yield located, located.resource

    def deployment(self, name: str) -> ModelDeployment | None:
        located = self.deployments.get(name)
        return located.resource if located and isinstance(located.resource, ModelDeployment) else None


def unknown(located: Located, path: Path, what: str, name: str, known: Sequence[str]) -> Diagnostic:
    """A name that refers to nothing, with the names that there are."""
    some = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "")
    some = some or f"none, because there is no {what}"
    near = difflib.get_close_matches(name, known, n=1)
    return located.at(
        path,
        f"found {name!r}, but there is no such {what}; allowed: {some}",
        f"did you mean {near[0]}?" if near else "",
    )
