"""Every kind of object that the operator reads or writes, and where the API server keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from tradewind.api.cluster import ServingCluster
from tradewind.api.deployment import ModelDeployment
from tradewind.api.model import API_VERSION
from tradewind.api.resources import KINDS, plural
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Resource:
    """One namespaced resource of the Kubernetes API."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def full_name(self) -> str:
        """As CRDs are named: `modelroutes.tradewind.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """Path of the group's version, which lists its resources."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Path of the collection, or of one object; an empty namespace is all namespaces."""
        parts = ["namespaces", namespace] if namespace else []
        parts += [self.plural, *filter(None, (name, subresource))]
        return self.root + "/" + "/".join(quote(part, safe="") for part in parts)


def _custom(model: type[Any]) -> Resource:
    return Resource(API_VERSION, model.__name__, plural(model.__name__))


SERVING_CLUSTER: Final = _custom(ServingCluster)
MODEL_DEPLOYMENT: Final = _custom(ModelDeployment)
MODEL_ROUTE: Final = _custom(ModelRoute)
TENANT: Final = _custom(Tenant)
RAY_SERVICE: Final = Resource("ray.io/v1", "RayService", "rayservices")
"""Of an earlier release: looked for, and left alone."""
RAY_CLUSTER: Final = Resource("ray.io/v1", "RayCluster", "rayclusters")
SERVICE: Final = Resource("v1", "Service", "services")
POD: Final = Resource("v1", "Pod", "pods")
SECRET: Final = Resource("v1", "Secret", "secrets")
CONFIG_MAP: Final = Resource("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT: Final = Resource("v1", "ServiceAccount", "serviceaccounts")
VOLUME_CLAIM: Final = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
DISRUPTION_BUDGET: Final = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
STORAGE_CLASS: Final = Resource("storage.k8s.io/v1", "StorageClass", "storageclasses")
"""It has no namespace."""
DEFINITION: Final = Resource(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"
)
"""Of our own kinds; it has no namespace either."""
LEASE: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENT: Final = Resource("events.k8s.io/v1", "Event", "events")

CUSTOM: Final = tuple(map(_custom, KINDS.values()))
"""Tradewind's own kinds, as `api.resources` has them: the one table of them."""
CUSTOM_KINDS: Final = {resource.kind: resource for resource in CUSTOM}
WATCHED: Final = (*CUSTOM, RAY_CLUSTER)
OWNED: Final = (
    RAY_CLUSTER,
    SERVICE,
    SERVICE_ACCOUNT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    VOLUME_CLAIM,
)
"""What belongs to a ServingCluster and is found again by its labels. Secrets are looked up by name:
the operator may not list them."""

_ALL: Final = {
    (resource.api_version, resource.kind): resource
    for resource in (*WATCHED, *OWNED, RAY_SERVICE, POD, SECRET, CONFIG_MAP, STORAGE_CLASS, LEASE, EVENT)
}


def resource_of(manifest: Mapping[str, Any]) -> Resource:
    """Where a manifest belongs.

    Raises:
        KeyError: the operator does not handle the kind.
    """
    return _ALL[manifest["apiVersion"], manifest["kind"]]
