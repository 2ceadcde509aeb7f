"""Everything that the manifests of one ServingCluster are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tradewind.api.cluster import ServingClusterSpec
from tradewind.compiler.compile import CLUSTER_GATEWAYS, Compiled
from tradewind_operator.desired.backend import Backend, backend_of

Manifest = dict[str, Any]
"""A Kubernetes object or a part of one, as plain data."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images where a ServingCluster names no others."""

    head: str
    gateway: str
    engine_cpu: str
    engine_cuda: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How the endpoint's Service is seen from outside. It is no part of a pod: a change is made in place."""

    type: str = "ClusterIP"
    """ClusterIP, LoadBalancer or NodePort."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    load_balancer_class: str = ""
    """Empty: the cloud's default."""
    source_ranges: tuple[str, ...] = ()
    """CIDR blocks that a load balancer lets in; none are all."""
    traffic_policy: str = "Cluster"
    """Local or Cluster: whether callers' addresses are kept. Of no meaning for ClusterIP."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's settings say for every ServingCluster. A change of any but the endpoint needs new
    Ray clusters."""

    images: Images
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, before those of the ServingCluster."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """OTEL_* variables; those that a ServingCluster stands for come first."""
    endpoint: Endpoint = Endpoint()


@dataclass(frozen=True, slots=True)
class ClusterWorld:
    """One ServingCluster, compiled."""

    name: str
    namespace: str
    uid: str
    """Of the ServingCluster, the owner of all that is made."""
    spec: ServingClusterSpec
    compiled: Compiled
    defaults: Defaults
    ray_cluster: str | None = None
    """The RayCluster that pods are for: its claim bears its name. None until it has one."""
    storage_class_exists: bool = False
    """Whether a StorageClass is the Kubernetes cluster's default."""
    running_backend: Backend | None = None
    """Where the Ray cluster there is keeps its state; None until there is one."""
    redis_in_use: tuple[str, ...] = ()
    """Addresses of the Redis of every RayCluster there is, those that are being deleted included: KubeRay
    clears it by a pod of the head's role before such a RayCluster is gone."""

    @property
    def chosen_backend(self) -> Backend:
        """Where Ray's state is to be kept."""
        return backend_of(
            self.spec.gcs_fault_tolerance,
            storage_class_exists=self.storage_class_exists,
            running=self.running_backend,
        )

    @property
    def backend(self) -> Backend:
        """Where Ray's state is kept: not on a volume while there is no name for it."""
        found = self.chosen_backend
        return Backend.NONE if found is Backend.ROCKSDB and self.ray_cluster is None else found

    @property
    def gateways(self) -> int:
        """Gateway pods."""
        return self.spec.gateway.replicas or CLUSTER_GATEWAYS

    @property
    def drain_s(self) -> float:
        """Longest time that a model gives its requests to end, in seconds."""
        return max((settings.drain_timeout_s for settings in self.compiled.engines.values()), default=30.0)
