"""Everything that the manifests of one ServingCluster are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tradewind.api.cluster import ServingClusterSpec
from tradewind.compiler.compile import CLUSTER_GATEWAYS, Compiled

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
    active_ray_cluster: str | None = None
    """The RayCluster that serves; None until that is decided."""

    @property
    def gateways(self) -> int:
        """Gateway pods."""
        return self.spec.gateway.replicas or CLUSTER_GATEWAYS

    @property
    def drain_s(self) -> float:
        """Longest time that a model gives its requests to end, in seconds."""
        return max((settings.drain_timeout_s for settings in self.compiled.engines.values()), default=30.0)
